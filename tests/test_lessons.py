"""The lessons: solutions pass in every form, stubs fail, plausible wrong answers are caught

`test_notebooks` leaves them out: verifying a lesson runs all of its cells, with the solutions, too. The table of exercises, right forms and
wrong answers stands in the lessons themselves, in raw cells below each check.
"""

import pytest

import house
from test_notebooks import LESSONS, TIMEOUT, run_fork, tail

BEGIN = """
import sys, warnings, matplotlib
warnings.simplefilter('error', SyntaxWarning)
matplotlib.use('agg')
"""

VERIFY = """
from hcil.lessons import complaints, read_lesson, verify
nb = read_lesson(sys.argv[1])
tried = verify(nb)
print(tried.to_string())
assert len(tried) >= 7*4 and not (found := complaints(nb, tried)), found
print('Verified.')
"""

FORM = """
from hcil.lessons import kind_of, read_lesson, right_answers, run_lesson, with_forms
nb = read_lesson(sys.argv[1])
assert sum(len(right_answers(c.source)) for c in nb.cells if kind_of(c)[0] == 'right') >= 2*4
run_lesson(with_forms(nb, int(sys.argv[2])))
print('Verified.')
"""


def test_there_are_lessons():
    assert len(LESSONS) == 5


@pytest.fixture
def runs(tmp_path):
    "Run a program on a lesson, in its folder, in a process of its own"

    def of(nb, program, *args):
        path, file = house.ROOT / nb, tmp_path / "program.py"
        file.write_text(BEGIN + program)
        status, output = run_fork(file, [path.name, *args], path.parent, TIMEOUT)
        print(output)
        if status or "Verified." not in output:
            pytest.fail(f"{nb}: {'not finished' if status is None else 'failed'}\n{tail(output)}", pytrace=False)

    return of


@pytest.mark.parametrize("nb", LESSONS)
def test_lesson(nb, runs):
    runs(nb, VERIFY)


@pytest.mark.parametrize("nb", LESSONS)
def test_other_form(nb, runs):
    "The cells that use an answer take it in another form, too: most are lists or NumPy here"
    runs(nb, FORM, "1")
