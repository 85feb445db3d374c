"""The lessons: solutions pass, stubs fail, plausible wrong answers are caught

`test_notebooks` leaves them out: verifying a lesson runs all of its cells, with the solutions, too.
"""

import sys

import pytest

import house
from test_notebooks import LESSONS, run, tail

VERIFY = """
import sys, matplotlib
matplotlib.use('agg')
from hcil.lessons import complaints, read_lesson, verify
nb = read_lesson(sys.argv[1])
tried = verify(nb)
print(tried.drop(columns='says').to_string())
assert len(tried) >= 3*5 and not (found := complaints(nb, tried)), found
print('Verified.')
"""


def test_there_are_lessons():
    assert len(LESSONS) == 5


@pytest.mark.parametrize("nb", LESSONS)
def test_lesson(nb):
    path = house.ROOT / nb
    status, output = run([sys.executable, "-W", "error::SyntaxWarning", "-c", VERIFY, path.name], path.parent, 300)
    print(output)
    if status or "Verified." not in output:
        pytest.fail(f"{nb}: {'not finished' if status is None else 'failed'}\n{tail(output)}", pytrace=False)
