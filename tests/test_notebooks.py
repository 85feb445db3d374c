"""Every notebook runs from top to bottom, each in a process of its own

`nbdev_test` runs many notebooks in one process, has no time-out and is content when it finds none; here it gets one notebook at a time.
On Linux these processes are forks of one that has imported PyTorch and the like (tools/nbserver.py), elsewhere new ones.
HCIL_FLAGS: flags of the cells to run as well (`slow gpu`). HCIL_TIMEOUT: seconds that a notebook may take.
"""

import functools
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile

import pytest

import house
from conftest import code

FLAGS = os.environ.get("HCIL_FLAGS", "")
TIMEOUT = float(os.environ.get("HCIL_TIMEOUT", 600))
NBTEST, NBSERVER = house.ROOT / "tools/nbtest.py", house.ROOT / "tools/nbserver.py"
FORKS = sys.platform == "linux" and "gpu" not in FLAGS  # elsewhere a fork that has PyTorch may crash; CUDA must not be touched before one


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


@functools.cache
def server():
    "The process of which all others are forks; it ends with this one"
    return subprocess.Popen(
        [sys.executable, "-P", NBSERVER],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_fork(
    program,  # a file of Python
    args: list,  # its arguments
    cwd,  # where to run it
    timeout: float,  # seconds
):  # exit status, `None` after a time-out, and what was printed
    "What `run([sys.executable, '-P', program, *args], cwd, timeout)` does, without the time for imports"
    if not FORKS:
        return run([sys.executable, "-P", program, *args], cwd, timeout)
    with tempfile.NamedTemporaryFile("r", errors="replace") as out:
        order = dict(program=str(program), args=list(args), cwd=str(cwd), env=environment(), out=out.name)
        print(json.dumps(order), file=server().stdin, flush=True)
        pid, ended = int(server().stdout.readline()), False
        try:
            ended = bool(select.select([server().stdout], [], [], timeout)[0])
        finally:
            if not ended:
                os.killpg(pid, signal.SIGKILL)
            status = int(server().stdout.readline())
        return status if ended else None, out.read()


def failure(
    nb: str,  # of a notebook, from the root
    root=house.ROOT,  # its project
    flags: str = FLAGS,  # run cells with these flags too
    timeout: float = TIMEOUT,  # seconds
) -> str:  # what went wrong, empty if nothing did
    "Run the notebook with `nbdev_test`"
    status, text = run_fork(NBTEST, ["--path", nb, "--n_workers", "0", "--flags", flags], root, timeout)
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


@pytest.mark.skipif(not FORKS, reason="new processes, not forks")
def test_nothing_left(project):
    "What a notebook does to the process, to the libraries and to what it imported itself, the next one does not see"
    harm = """import numpy, os, random, sys, torch, hcil.pwm
torch.set_default_dtype(torch.float64); torch.set_num_threads(3); torch.manual_seed(1); numpy.pi = 3; sys.path.insert(0, 'x')
os.environ['HARM'] = '1'; os.chdir('/'); sys.modules['harm'] = sys; random.seed(1); numpy.random.seed(1); hcil.pwm.one = None"""
    look = """import numpy, os, random, sys
assert 'hcil' not in sys.modules and 'harm' not in sys.modules and 'x' not in sys.path and 'HARM' not in os.environ and os.getcwd() != '/'
import torch, hcil.pwm
assert torch.get_default_dtype() == torch.float32 and torch.get_num_threads() != 3 and numpy.pi > 3 and hcil.pwm.one() == 1
print('drawn', random.random(), numpy.random.random(), file=sys.__stderr__)"""
    assert fails(project, code(harm), flags="") == ""
    drawn = []
    for _ in range(2):
        project.write("nbs/13_isf.ipynb", code(look))
        status, text = run_fork(NBTEST, ["--path", "nbs/13_isf.ipynb", "--n_workers", "0"], project.root, TIMEOUT)
        assert status == 0, text
        drawn += re.findall(r"drawn (\S+) (\S+)", text)
    assert len(drawn) == 2 and len({n for pair in drawn for n in pair}) == 4


def test_status(tmp_path):
    "What a program prints and how it ends comes back: its own status, or the signal"
    (tmp_path / "a.py").write_text("import os, sys\nprint(os.getcwd(), sys.argv[1:], flush=True)\nexec(sys.argv[1])")
    for program, expected in {"sys.exit(7)": 7, "os.kill(os.getpid(), 9)": -9, "1/0": 1, "pass": 0}.items():
        status, text = run_fork(tmp_path / "a.py", [program], tmp_path, TIMEOUT)
        assert status == expected and text.startswith(f"{tmp_path} ['{program}']\n") and ("ZeroDivisionError" in text) == (status == 1)
