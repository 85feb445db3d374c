"""Every paper notebook checks its own parameters before it works, and does nothing else in the cells that are said to do that

Cells with the tag `check` do not count when an artefact is asked whether it is older than its code (03_sources), so nothing else may stand there.
"""

import ast
import json
import os

import papermill
import pytest

import house
from hcil.cells import TABLES, table_cells

PAPERS = sorted((house.ROOT / "nbs/paper").glob("*.ipynb"))
SLOW = "slow" in os.environ.get("HCIL_FLAGS", "").split()


def tagged(nb, tag):
    "The texts of the code cells with a tag"
    cells = json.loads(nb.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code" and tag in c["metadata"].get("tags", [])]


@pytest.mark.parametrize("nb", PAPERS, ids=lambda p: p.stem)
def test_asks(nb):
    "An import and a call that names the parameters as they are, right behind them"
    (parameters,) = tagged(nb, "parameters")
    names = [t.id for o in ast.parse(parameters).body for t in o.targets]
    table = f", '{nb.stem}'" if nb.stem in TABLES else ""
    assert tagged(nb, "check") == [
        "from hcil.parameters import checked",
        f"globals().update(checked('{' '.join(names)}', globals(){table}))",
    ]
    cells = json.loads(nb.read_text(encoding="utf-8"))["cells"]
    where = [next(i for i, c in enumerate(cells) if tag in c["metadata"].get("tags", [])) for tag in ("parameters", "check")]
    assert where[1] == where[0] + 1


@pytest.mark.parametrize(
    "given, says",
    [
        (
            dict(profil="mini"),
            "UserError: there is no parameter 'profil', perhaps 'profile' is meant: this notebook has profile, seeds, data",
        ),
        (dict(columns=["DF", "DG"]), "UserError: table4 has no DG: choose from DF, F2F, FS, NT"),
    ],
)
def test_refuses(given, says, tmp_path, monkeypatch):
    "One sentence, before anything is made, from any folder"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IN_TEST", raising=False)
    with pytest.raises(papermill.PapermillExecutionError) as e:
        papermill.execute_notebook(
            str(house.ROOT / "nbs/paper/table4.ipynb"), "out.ipynb", given, kernel_name="python3", progress_bar=False
        )
    assert str(e.value).strip().splitlines()[-1].startswith(says) and "Traceback" not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["out.ipynb"]


def one_row_of_each():
    "A row beside the first that somebody may ask for; of the study of readings one of each part"
    for nb in PAPERS:
        if nb.stem in TABLES and "rows" in "".join(tagged(nb, "parameters")):
            rows = list(dict.fromkeys(c.row for c in table_cells(nb.stem)))
            parts = [row for row in ("A-08 the frame again", "τ 5 β 2", "draw 01") if row in rows]
            for row in parts or rows[-1:]:
                yield nb, row


@pytest.mark.skipif(not SLOW, reason="trains: FLAGS=slow")
@pytest.mark.parametrize("nb, row", list(one_row_of_each()), ids=lambda p: getattr(p, "stem", p))
def test_one_row(nb, row, tmp_path, monkeypatch):
    "No part of a notebook needs a row that was not asked for"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IN_TEST", "1")
    papermill.execute_notebook(str(nb), "out.ipynb", dict(rows=row), kernel_name="python3", progress_bar=False, cwd=str(nb.parent))
