"""Every notebook as JupyterLab's *Run All* runs it: each cell from top to bottom, in a kernel of its own

JupyterLab does not know nbdev's flags, so the slow cells run too, and those for a GPU, which must look for one themselves. Nothing
tells a notebook that it is tested: those of nbs/paper/ make their twins and train, in smoke. For `make test FLAGS=slow`.
"""

import os

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import house
from conftest import code
from test_notebooks import EVERY, environment

if "slow" not in os.environ.get("HCIL_FLAGS", "").split():
    pytest.skip("runs everything: FLAGS=slow", allow_module_level=True)
pytestmark = pytest.mark.timeout(7200)


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    "Of a kernel: this checkout, and folders for what is made"
    folder = tmp_path_factory.mktemp("run_all")
    made = dict(HCIL_HOME=folder / "data", HCIL_RUNS=folder / "runs", HCIL_OUT=folder / "out")
    return environment() | {k: str(v) for k, v in made.items()} | dict(PYTHONPATH=str(house.ROOT))


def run_all(path, env, cells=None):
    "Run the notebook in memory; the file stays as it is"
    nb = nbformat.read(path, as_version=4)
    nb.cells = cells or nb.cells
    NotebookClient(nb, timeout=7200, resources=dict(metadata=dict(path=path.parent))).execute(env=env)
    return nb


@pytest.mark.parametrize("nb", EVERY)
def test_run_all(nb, env):
    run_all(house.ROOT / nb, env)


def test_can_fail(project, env):
    "A cell's flag saves it from nothing, and the kernel has the `hcil` of this checkout"
    project.write("nbs/13_isf.ipynb", code("#| slow\nimport hcil; print(hcil.__file__)"), code('#| gpu\nraise ValueError("it ran")'))
    path = project / "nbs/13_isf.ipynb"
    with pytest.raises(CellExecutionError, match="it ran"):
        run_all(path, env)
    nb = run_all(path, env, nbformat.read(path, as_version=4).cells[:1])
    assert str(house.ROOT) in nb.cells[0].outputs[0].text
