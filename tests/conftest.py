"How the tests share the processors, and a small project to break: the real settings around five tiny notebooks"

import os
from pathlib import Path
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import house
import readme
import wings

# Before anybody imports PyTorch. A thread that waits for another one must sleep: if it turned in a circle, as it does otherwise, the
# other one might be waiting for its core. And the cores are shared among the processes of pytest-xdist
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

# Files whose tests share something that takes long to make: one process runs them all, and makes it once
TOGETHER = ("test_records", "test_own_data", "test_reproduce", "test_browser", "test_site", "test_run_all")

KERNEL = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "With pytest-xdist: the tests of some files stay together, and all others are given out one by one"
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return file if Path(file).stem in TOGETHER else nodeid

    return Together(config, log)


def md(text):
    return new_markdown_cell(text)


def code(text, *tags):
    return new_code_cell(text, metadata=dict(tags=list(tags)) if tags else {})


class Project:
    "A project in a temporary folder"

    def __init__(self, root):
        self.root = Path(root)

    def __truediv__(self, path):
        return self.root / path

    def write(
        self,
        path: str,  # of a notebook, from the root
        *cells,  # made by `md` and `code`
        **metadata,
    ):  # of the notebook; by default it names its kernel
        "Write a notebook, not yet cleaned"
        (self / path).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=list(cells), metadata=metadata or KERNEL), self / path)

    def edit(
        self,
        path: str,  # of a file, from the root
        old: str,  # text in it
        new: str,
    ):  # what to put there
        "Replace `old` by `new`, once"
        text = (self / path).read_text()
        assert text.count(old) == 1, f"{path} holds {old!r} {text.count(old)} times"
        (self / path).write_text(text.replace(old, new))

    def export(self):
        "What `make export` does"
        error = house.clean_and_export(self.root)
        assert not error, error
        (self / wings.PICTURE).parent.mkdir(parents=True, exist_ok=True)
        (self / wings.PICTURE).write_text(wings.picture(self.root))
        (self / "README.md").write_text(readme.render(self.root))


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    "The small project, made once"
    p = Project(tmp_path_factory.mktemp("built"))
    for f in ("settings.ini", "pyproject.toml", "LICENSE"):
        shutil.copy(house.ROOT / f, p / f)
    p.write(
        "nbs/index.ipynb",
        md("# small\n\n> A project to break"),
        md("See [motion](11_pwm.ipynb#What-moves), [below](#Its-end)."),
        md("## Its end\n\n![The house](assets/house.svg)"),
        md("[Licence](../LICENSE)"),
    )
    p.write(
        "nbs/11_pwm.ipynb",
        md("# Motion\n\n> What moves"),
        code("#| default_exp pwm"),
        code("#| export\nimport math"),
        md("## What moves\n\n`[not](a_link)`, nor is $[0,1](x)$."),
        code("#| export\ndef one(): return math.cos(0)"),
        code("assert one() == 1"),
    )
    p.write(
        "nbs/12_raim.ipynb",
        md("# Regions\n\n> Where it moves"),
        code("#| default_exp raim"),
        code("#| export\nfrom hcil.pwm import one"),
        code("#| export\ndef two(): return 2*one()"),
        code("assert two() == 2"),
    )
    p.write(
        "nbs/33_video.ipynb",
        md("# Video\n\n> Frames"),
        code("#| default_exp video"),
        code("#| export\nfrom hcil.raim import two"),
        code("#| export\ndef frames(): return two()"),
        code("assert frames() == 2"),
    )
    p.write("nbs/paper/table1.ipynb", md("# Table 1\n\nUses [motion](../11_pwm.ipynb)."), code("seed = 0", "parameters"), code("seed"))
    p.export()
    return p


@pytest.fixture
def project(built, tmp_path):
    "A copy of the small project, free to be broken"
    shutil.copytree(built.root, tmp_path / "project")
    return Project((tmp_path / "project").resolve())
