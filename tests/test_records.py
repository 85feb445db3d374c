"""Tables from records: every table is laid out once from a store of runs and once from their records alone

The runs are made up (what they predict is drawn by lot), so that all cells of all tables can be there in a moment. Then the store, the
crops and the weights are deleted. What is laid out from the records must be the same, cell by cell and file by file. What would only take
time is left out: the crops are black, nothing is forced to the disk, and a file of predictions is parsed once, however often it is read.
"""

import contextlib
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

import house
from hcil import plan, results, sources
from hcil.cells import TABLES, data_sets, table_cells
from hcil.core import UserError, write_json
from hcil.crops import quick_crops
from hcil.metrics import metrics
from hcil.plan import Setting, plan_units, runs_of
from hcil.predictions import read_predictions, write_predictions
from hcil.prepare import read_prepared
from hcil.records import Ledger, keep_manifest, why_not, write_record
from hcil.reproduce import FROM_WEIGHTS, Job
from hcil.runs import run_key
from hcil.sources import code_of
from hcil.stamps import git, stamp

matplotlib.use("agg")
sources.code_hash, sources.imports_of = map(functools.cache, (sources.code_hash, sources.imports_of))  # each setting reads all code
results.read_predictions = lambda path: table_in(Path(path).name, Path(path).read_bytes()).copy()
NOTEBOOKS = sorted(p.stem for p in (house.ROOT / "nbs/paper").glob("*.ipynb") if p.stem in TABLES and p.stem not in FROM_WEIGHTS)
SEEDS = dict(table4=2, twins=2)  # others have one; the runs of these are the same
PROFILE = "mini"


@functools.cache
def table_in(name, data):
    "What `read_predictions` finds in a file of this name that holds these bytes"
    with tempfile.TemporaryDirectory() as tmp:
        (Path(tmp) / name).write_bytes(data)
        return read_predictions(Path(tmp) / name)


def black(seed, i, size, S, methods):
    "As many clips as `pair_clips` draws, without a picture"
    return {m: torch.zeros(2, 2, S, S, 3, dtype=torch.uint8) for m in ("real", *methods)}, {}


def predicted(spec, stores):
    "Predictions drawn by lot, the same for the same specification"
    rng, d = np.random.default_rng(int(run_key(spec), 16)), spec["data"]
    rows = read_prepared(stores)
    rows = rows[(rows.split == "test") & rows.method.isin(["real", d["method"]] if d["method"] else rows.method)]
    rows = rows[rows.compression == d["compression"]] if d["compression"] else rows
    df = rows[["video", "label", "method"]].rename(columns=dict(video="video_id")).reset_index(drop=True)
    scores = {f"{kind}{k}": rng.random(len(df)) for kind in "pw" for k in range(1, 9)}
    truth = {f"t{k}": (rng.random(len(df)) < 0.5) * df.label for k in range(1, 9)}
    kind = [["local", "global", "both"][k % 3] * label for k, label in enumerate(df.label)]
    return df.assign(prob=rng.random(len(df)), U=8, kind=kind, local=rng.uniform(0.4, 1, len(df)) * df.label, **scores, **truth)


def by_lot(unit, stores):
    "The work of a run: weights of no use, a log, predictions"

    def of(run):
        run.about["weights"] = "random initialisation" if "TAM" in json.dumps(run.spec) else "hcil/weights"
        run.path("weights.safetensors").write_bytes(bytes(1000))
        seen = ["cos_rr", "cos_rf", "weight", "share_ce", "share_local", "share_global"]
        pd.DataFrame([dict.fromkeys(seen, 0.5) | dict(epoch=k, cos_rf=0.95) for k in (1, 2)]).to_csv(run.path("log.csv"), index=False)
        df = predicted(unit.spec, stores)
        write_predictions(df, run.path("predictions.csv"), FIXED | dict(profile=PROFILE))
        write_json(run.path("results.json"), metrics(df))

    return of


FIXED = stamp("none", "drawn by lot", 0)  # asking git for each of a thousand runs would take long


class Study:
    "A checkout with the paper notebooks, a store of made-up runs, and where the crops are"

    def __init__(self, folder):
        self.root, self.home = Path(folder) / "checkout", Path(folder) / "home"
        (self.root / "nbs/paper").mkdir(parents=True)
        for f in ("settings.ini", *(f"nbs/paper/{name}.ipynb" for name in [*NOTEBOOKS, "fig4"])):
            shutil.copy(house.ROOT / f, self.root / f)
        self.home.mkdir()
        (self.home / "TWIN.json").write_text(json.dumps(dict(counts={})))
        names = data_sets(c for name in NOTEBOOKS for c in TABLES[name](PROFILE))
        self.crops = {name: quick_crops(self.home / name, n=4, seed=name) for name in names}

    def setting(self, table, **options):
        known = dict(seeds=SEEDS.get(table, 1), home=self.home, runs=self.home / "runs", crops=self.crops.get)
        return Setting(PROFILE, device="cpu", progress=False, **(known | options))

    def make(self, table):
        "The runs of a table"
        setting = self.setting(table)
        units = plan_units({table: TABLES[table](PROFILE)}, setting, self.crops)
        for u in units:
            setting.run_store().run(u.spec, by_lot(u, self.crops[u.data]))
        return units

    def record(self, units, store):
        for u in units:
            write_record(store.open(u.spec), self.root / "records" / PROFILE)

    @property
    def records(self):
        return self.root / "records"


def lay_out(notebook, setting, out):
    "Run the code of a paper notebook here; its tables, by name"
    out.mkdir(parents=True)
    cells = [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]
    space = dict(__name__="__main__")
    before = plan.paper_setting, os.environ.get("HCIL_OUT")
    plan.paper_setting, os.environ["HCIL_OUT"] = lambda *args, **options: setting, str(out)
    try:
        for c in cells:
            exec(compile(code_of(json.dumps(dict(cells=[c]))), notebook.name, "exec"), space)
            if "parameters" in c["metadata"].get("tags", []):
                space["profile"] = PROFILE
    finally:
        plan.paper_setting = before[0]
        os.environ.pop("HCIL_OUT") if before[1] is None else os.environ.update(HCIL_OUT=before[1])
        matplotlib.pyplot.close("all")
    return {p.name: pd.read_csv(p, skiprows=1) for p in sorted(out.glob("*.csv"))}, sorted(p.name for p in out.iterdir())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    "All tables from the store; then their records, and nothing else is left"
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hcil.crops.pair_clips", black)
        patch.setattr("os.fsync", lambda f: None)
        patch.setattr("hcil.runs.stamp", lambda profile, source, seed, spec, device: FIXED | dict(profile=profile, data=source))
        s = Study(folder)
        s.units, s.before, s.made = {}, {}, {}
        for table in NOTEBOOKS:
            s.units[table] = s.make(table)
        for table in NOTEBOOKS:
            setting = s.setting(table)
            s.before[table] = lay_out(s.root / f"nbs/paper/{table}.ipynb", setting, folder / "before" / table)
            s.record(s.units[table], setting.run_store())
        for name, crops in s.crops.items():
            keep_manifest(crops, s.records / PROFILE, name)
    shutil.rmtree(s.home)
    return s


def from_records(study, table, out, **options):
    "A table laid out of records, and what was said"
    setting = study.setting(table, **(dict(seeds=0, crops=None, records=study.records) | options))
    return lay_out(study.root / f"nbs/paper/{table}.ipynb", setting, out)


def same_tables(a, b):
    assert a.keys() == b.keys()
    for name in a:
        pd.testing.assert_frame_equal(a[name], b[name], check_exact=True)


@pytest.mark.parametrize("table", NOTEBOOKS)
def test_same(study, table, tmp_path, capsys):
    "Every table, cell by cell, and every file: tables are equal, and no other files are written"
    asked = dict(seeds=1) if table in ("kinds", "table1") else {}  # some columns are recorded with two, for Table 4
    tables, files = from_records(study, table, tmp_path / "out", **asked)
    same_tables(tables, study.before[table][0])
    assert files == study.before[table][1] and not any(re.search(r"_part[._]", f) for f in files)
    n = len(TABLES[table](PROFILE))
    assert f"{table}: {n} of {n} cells are recorded, with {SEEDS.get(table, 1)} seed" in capsys.readouterr().out
    assert not study.home.exists()


def test_size(study):
    "A record takes some kilobytes, so that a thousand fit into a repository"
    sizes = [p.stat().st_size for p in (study.records / PROFILE).glob("*.json.bz2")]
    assert len(sizes) > 250 and max(sizes) < 30_000


@contextlib.contextmanager
def without(study, *keys, put=None):
    "Some records away for a while, or something else in their place"
    files = [study.records / PROFILE / f"{key}.json.bz2" for key in keys]
    kept = [f.read_bytes() for f in files]
    for f in files:
        f.unlink() if put is None else f.write_bytes(put)
    try:
        yield
    finally:
        for f, data in zip(files, kept, strict=True):
            f.write_bytes(data)


def key_of(study, table, row, column, seed=0):
    [key] = [u.key for u in study.units[table] if (table, row, column) in u.wanted and u.spec["seed"] == seed]
    return key


def test_part(study, tmp_path, capsys):
    "What is missing is said, and the rest is a part, in files of its own"
    lost = [key_of(study, "table4", "All", "DF", seed) for seed in (0, 1)] + [
        key_of(study, "table4", "Baseline", "NT", seed) for seed in (0, 1)
    ]
    with without(study, *lost):
        tables, files = from_records(study, "table4", tmp_path / "out")
    rows = len({c.row for c in TABLES["table4"](PROFILE)})
    told = f"table4: {3 * rows - 1} of {4 * rows} cells are recorded, with 2 seeds; not recorded are DF: All; NT: all rows"
    assert told in capsys.readouterr().out
    assert all("_part" in f for f in files)
    part, whole = tables["table4_mini_part_cells.csv"], study.before["table4"][0]["table4_mini_cells.csv"]
    whole = whole[(whole.column != "NT") & ~((whole.row == "All") & (whole.column == "DF"))].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, whole, check_exact=True)


def test_seeds_by_column(study, tmp_path, capsys):
    "Unless a number is asked for, each column has as many seeds as were recorded"
    from_records(study, "kinds", tmp_path / "out")
    assert "45 of 45 cells are recorded, with 2 seeds (DF, F2F, FS, NT), 1 seed (DFDC)" in capsys.readouterr().out


def test_seeds(study, tmp_path):
    "A number of seeds may be asked for"
    tables, _ = from_records(study, "table4", tmp_path / "out", seeds=1)
    assert set(tables["table4_mini_cells.csv"].seeds) == {1}


@pytest.mark.parametrize("harm", ["cut", "foreign", "edited", "empty"])
def test_refused(study, harm):
    "A record that is damaged, another run's, or edited: one sentence"
    key, other = (key_of(study, "table4", row, "DF") for row in ("All", "Baseline"))
    data = {k: (study.records / PROFILE / f"{k}.json.bz2").read_bytes() for k in (key, other)}
    put = dict(cut=data[key][:-20], foreign=data[other], edited=edited(data[key]), empty=b"")[harm]
    words = dict(cut="is damaged", foreign="is about another run", edited="was changed since it was written", empty="is damaged")[harm]
    setting = study.setting("table4", seeds=0, crops=None, records=study.records)
    with without(study, key, put=put), pytest.raises(UserError, match=f"{key}.json.bz2: {words}") as e:
        runs_of(table_cells("table4", PROFILE), setting, "table4")
    assert len(str(e.value).splitlines()) == 1


def edited(data):
    "A record with one digit of a prediction changed"
    import bz2

    record = json.loads(bz2.decompress(data))
    text = record["files"]["predictions.csv"]
    record["files"]["predictions.csv"] = re.sub(r"0\.(\d)", lambda m: f"0.{(int(m[1]) + 1) % 10}", text, count=1)
    return bz2.compress(json.dumps(record).encode())


def test_edited_videos(study):
    "A list of videos that somebody edited is refused, too"
    import bz2

    file = study.records / PROFILE / "ff++.csv.bz2"
    kept = file.read_bytes()
    file.write_bytes(bz2.compress(bz2.decompress(kept).replace(b",1,Deepfakes", b",0,Deepfakes", 1)))
    try:
        with pytest.raises(UserError, match="was changed since"):
            runs_of(table_cells("table4", PROFILE), study.setting("table4", seeds=0, crops=None, records=study.records), "table4")
    finally:
        file.write_bytes(kept)


def command(study, *args):
    "Exit status of `hcil_reproduce`, and what it printed"
    code = "from hcil.reproduce_command import hcil_reproduce; hcil_reproduce()"
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    env |= dict(PYTHONPATH=str(house.ROOT), OMP_NUM_THREADS="1", HCIL_HOME=str(study.home), HCIL_RUNS=str(study.home / "runs"))
    p = subprocess.run([sys.executable, "-P", "-c", code, *args], cwd=study.root, env=env, capture_output=True, text=True)
    return p.returncode, p.stdout + p.stderr


def test_command(study):
    "The whole way: the command, kernels, figures/, and the outputs in the notebook; nothing is made beside"
    nb = study.root / "nbs/paper/table4.ipynb"
    before = nb.read_text()
    status, out = command(study, "table4", "--from-records", "--keep-outputs")
    assert status == 0 and "36 of 36 cells are recorded, with 2 seeds" in out, out
    tables = {p.name: pd.read_csv(p, skiprows=1) for p in (study.root / "figures").glob("*.csv")}
    same_tables(tables, study.before["table4"][0])
    assert not study.home.exists()
    kept, source = json.loads(nb.read_text()), lambda cells: [c["source"] for c in cells]
    assert source(kept["cells"]) == source(json.loads(before)["cells"]) and "recorded, with 2 seeds" in nb.read_text()
    shutil.rmtree(study.root / "figures")
    nb.write_text(before)


def recorded_for_good():
    "What this repository holds at `mini`: key -> what was recorded of the run"
    import bz2

    files = (house.ROOT / "records/mini").glob("*.json.bz2")
    return {f.name.split(".")[0]: json.loads(bz2.decompress(f.read_bytes()))["done"] for f in files}


def test_same_weights():
    "A test of a recorded training came after it, on the same processor: another training by the same recipe has other weights"
    runs = recorded_for_good()
    tests = {key: r for key, r in runs.items() if r["spec"].get("kind") == "test"}
    assert len(tests) > 20
    made = lambda r: (r["stamp"]["device"], r["stamp"]["date"])
    for key, r in tests.items():
        (device, trained), (tested_on, tested) = made(runs[r["spec"]["run"]]), made(r)
        assert device == tested_on and trained < tested, f"{key} tests {r['spec']['run']}, which was trained on {device}, {trained}"


@pytest.mark.skipif("slow" not in os.environ.get("HCIL_FLAGS", "").split(), reason="a kernel for each table: FLAGS=slow")
def test_all(study):
    "All tables by one command"
    status, out = command(study, "--from-records")
    assert status == 0, out
    tables = {p.name: pd.read_csv(p, skiprows=1) for p in (study.root / "figures").glob("*.csv")}
    same_tables(tables, {name: df for of in study.before.values() for name, df in of[0].items()})
    shutil.rmtree(study.root / "figures")


def test_needs_weights(study):
    "What is drawn from weights is refused in a sentence"
    status, out = command(study, "fig4", "--from-records")
    assert status == 1 and out.strip().splitlines()[-1].startswith("hcil_reproduce: fig4: drawn from weights"), out


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_recorded_by_job(tmp_path, monkeypatch):
    "`hcil_reproduce --record`: runs of committed code, once; the others are named with the reason"
    s = Study(tmp_path)
    shutil.copytree(house.ROOT / "hcil", s.root / "hcil", ignore=shutil.ignore_patterns("__pycache__", "weights"))
    in_git = lambda *args: git("-c", "user.name=a", "-c", "user.email=a@example.org", *args, cwd=s.root)
    in_git("init", "-q"), in_git("add", "-A"), in_git("commit", "-qm", "first")
    at = lambda commit: lambda profile, source, seed, spec, device: FIXED | dict(profile=profile, data=source, commit=commit, dirty=True)
    monkeypatch.setattr("hcil.runs.stamp", at(in_git("rev-parse", "HEAD")))
    job = Job(s.root, ["table4"], PROFILE, dict(columns="DF", rows="All,+RAI"), device="cpu", seeds=1)
    job.setting.crops, job.setting.runs, job.setting.progress = s.crops.get, s.home / "runs", False
    units = job.units()
    for u in units[:2]:
        job.setting.run_store().run(u.spec, by_lot(u, s.crops[u.data]))
    told = list(job.record())
    assert told[0] == "2 of 3 runs are recorded in records/mini/, 2 of them new or changed"
    assert len(told) == 2 and told[1].startswith("not recorded: 1, the first ") and told[1].endswith("is absent, not finished")
    before = {p: p.read_bytes() for p in s.records.rglob("*") if p.is_file()}
    assert len(before) == 3 and list(job.record())[0] == "2 of 3 runs are recorded in records/mini/, 0 of them new or changed"
    assert before == {p: p.read_bytes() for p in s.records.rglob("*") if p.is_file()}
    store, ledger = job.setting.run_store(), Ledger(s.root)
    monkeypatch.setattr("hcil.runs.stamp", at("f" * 40))
    lost = store.run(units[2].spec, by_lot(units[2], s.crops["ff++"]))
    assert "names no commit of this history" in why_not(lost, ledger)
    done = json.loads(lost.path("done.json").read_text())
    done["stamp"]["commit"], done["sources"]["hcil.losses"] = in_git("rev-parse", "HEAD"), "0" * 12
    write_json(lost.path("done.json"), done)
    assert "no commit holds its code" in why_not(lost, ledger)


def test_published():
    "What is in figures/ and records/ is in order: of code that has not changed since, or known to be older"
    from hcil.check import describe_check

    with contextlib.redirect_stdout(io.StringIO()) as out:
        bad = describe_check(house.ROOT)
    if bad:
        pytest.fail(out.getvalue(), pytrace=False)


def test_page():
    "The page of what has been run tells of all records"
    table = pd.read_csv(house.ROOT / "figures/recorded.csv", skiprows=1).set_index("table")["recorded runs"]
    there = len(list((house.ROOT / "records/mini").glob("*.json.bz2")))
    assert table["all, shared"] + table.get("in no table", 0) == there, (
        "records came since: make figures/recorded.* again (hcil_reproduce recorded)"
    )
