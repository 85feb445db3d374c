"""Every notebook runs from top to bottom, each in a process of its own

`nbdev_test` runs many notebooks in one process, has no time-out and is content when it finds none; here it gets one notebook at a time.
HCIL_FLAGS: flags of the cells to run as well (`slow gpu`). HCIL_TIMEOUT: seconds that a notebook may take.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile

import pytest

import house
from conftest import code

FLAGS = os.environ.get("HCIL_FLAGS", "")
TIMEOUT = float(os.environ.get("HCIL_TIMEOUT", 600))
NBTEST = house.ROOT / "tools/nbtest.py"


def environment():
    "Ours, see conftest.py, but a process that we start is not inside `nbdev_test` yet"
    return {k: v for k, v in os.environ.items() if k != "IN_TEST"}


def tail(
    text: str,  # what a process printed
    n: int = 60,  # lines
) -> str:
    "The last lines of `text`, without colours"
    return "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()[-n:])


def run(
    cmd: list,  # a command
    cwd,  # where to run it
    timeout: float,  # seconds
):  # exit status, `None` after a time-out, and what was printed
    "Run `cmd`, and end it with all its children when it takes too long"
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        p = subprocess.Popen(
            cmd, cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = p.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()
        out.seek(0)
        return status, out.read()


def failure(
    nb: str,  # of a notebook, from the root
    root=house.ROOT,  # its project
    flags: str = FLAGS,  # run cells with these flags too
    timeout: float = TIMEOUT,  # seconds
) -> str:  # what went wrong, empty if nothing did
    "Run the notebook with `nbdev_test`"
    cmd = [sys.executable, "-P", NBTEST, "--path", nb, "--n_workers", "0", "--flags", flags]
    status, text = run(cmd, root, timeout)
    if status is None:
        return f"{nb}: not finished after {timeout:g} s (HCIL_TIMEOUT allows more)\n{tail(text)}"
    if status:
        return f"{nb}: failed; repeat with `nbdev_test --path {nb}`\n{tail(text)}"
    return "" if "Success." in text else f"{nb}: nbdev_test did not run it (is there a file .notest?)\n{tail(text)}"


EVERY = [house.name(house.ROOT, p) for p in house.notebooks(house.ROOT)]
LESSONS = [nb for nb in EVERY if nb.startswith("nbs/class/lesson")]  # see test_lessons
NOTEBOOKS = [nb for nb in EVERY if nb not in LESSONS]


def test_there_are_notebooks():
    assert NOTEBOOKS, "nbs/: no notebooks to run"


@pytest.mark.parametrize("nb", NOTEBOOKS)
def test_notebook(nb):
    why, _, output = failure(nb).partition("\n")
    print(output)
    if why:
        pytest.fail(why, pytrace=False)


# ---------------------------------------------------------------- the above can fail


def fails(project, *cells, **kw):
    "Run `cells` as a notebook of the small project"
    project.write("nbs/13_isf.ipynb", *cells)
    return failure("nbs/13_isf.ipynb", project.root, **kw)


def test_passes(project):
    assert fails(project, code("from hcil.raim import two"), code("assert two() == 2"), flags="") == ""


def test_wrong(project):
    assert "AssertionError: lost" in fails(project, code('assert 1 == 2, "lost"'), flags="")


@pytest.mark.parametrize("flag", ["slow", "gpu"])
def test_flag(flag, project):
    "A flagged cell runs when its flag is given, and only then"
    cell = code(f'#| {flag}\nraise ValueError("this cell ran")')
    assert fails(project, cell, flags="") == ""
    assert "ValueError: this cell ran" in fails(project, cell, flags="slow gpu")


def test_too_slow(project):
    "A notebook that hangs is ended, its child processes too"
    cells = code("import subprocess, time"), code('subprocess.Popen(["sleep", "60"])'), code("time.sleep(60)")
    assert "nbs/13_isf.ipynb: not finished after 5 s" in fails(project, *cells, flags="", timeout=5)


def test_not_run(project):
    (project / "nbs/.notest").touch()
    assert "did not run it" in fails(project, code("1"), flags="")


def test_other_checkout(project):
    "A notebook that gets its `hcil` from elsewhere fails"
    (project / "other/hcil").mkdir(parents=True)
    (project / "other/hcil/__init__.py").touch()
    cells = code("import sys"), code('sys.path.insert(0, "../other")'), code("import hcil")
    assert "not the hcil of this checkout" in fails(project, *cells, flags="")
