"""`hcil_reproduce` from outside: killed in the middle, on a folder of one's own, and as a workflow of two jobs

These train, so they are for `make test FLAGS=slow`. The last one needs the extra `cluster`.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

import house

pytestmark = pytest.mark.skipif("slow" not in os.environ.get("HCIL_FLAGS", "").split(), reason="trains: FLAGS=slow")
SCRIPT = f"""#!{sys.executable}
import sys
from hcil.reproduce_command import hcil_reproduce
if __name__ == '__main__': sys.exit(hcil_reproduce())
"""  # what installing makes of the command; here of this checkout
FIG4 = ["fig4", "--set", "columns=DF,NT"]  # four trainings and a picture


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    "A folder of one's own in the official layout: a small twin, with more people than those of `make test`"
    from hcil.profiles import Size
    from hcil.twins import make_twin

    folder = tmp_path_factory.mktemp("own")
    make_twin("ff++", folder, workers=2, size=Size(112, 128, 16, (2, 1, 2), (6, 3), (4, 2), (2, 1)))
    return folder


class Checkout:
    "A checkout with one paper notebook, and what was made in it"

    def __init__(self, folder):
        self.folder = Path(folder)
        (self.folder / "nbs" / "paper").mkdir(parents=True)
        for f in ("settings.ini", "nbs/paper/fig4.ipynb"):
            shutil.copy(house.ROOT / f, self.folder / f)
        self.env = {k: v for k, v in os.environ.items() if k != "IN_TEST"} | dict(
            PYTHONPATH=str(house.ROOT),
            OMP_NUM_THREADS="1",
            HCIL_HOME=str(self.folder / "data"),
            HCIL_RUNS=str(self.folder / "runs"),
            PATH=f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        )
        self.command = self.folder / "bin" / "hcil_reproduce"
        self.command.parent.mkdir()
        self.command.write_text(SCRIPT)
        self.command.chmod(0o755)

    def start(self, *args, command=None):
        return subprocess.Popen(
            [*(command or [self.command]), *args],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, *args, **options):
        "Exit status, and what was printed"
        p = self.start(*args, **options)
        out, _ = p.communicate(timeout=900)
        return p.returncode, out

    def table(self):
        [path] = (self.folder / "figures").rglob("fig4_smoke*.csv")  # in a folder of one's own data
        return pd.read_csv(path, skiprows=1)


@pytest.fixture(scope="module")
def undisturbed(own, tmp_path_factory):
    "The table when nobody disturbs"
    c = Checkout(tmp_path_factory.mktemp("undisturbed"))
    status, out = c.finish(*FIG4, "--data", str(own), "--jobs", "1")
    assert status == 0 and "4 to make" in out, out
    return c


def test_killed(own, undisturbed, tmp_path):
    "Killed again and again, it comes to the same table"
    c, rng = Checkout(tmp_path), random.Random(0)
    for _ in range(4):
        p = c.start(*FIG4, "--data", str(own), "--jobs", "1")
        try:
            p.wait(rng.uniform(8, 25))
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
        p.communicate()
    status, out = c.finish(*FIG4, "--data", str(own), "--jobs", "1")
    assert status == 0, out
    pd.testing.assert_frame_equal(c.table(), undisturbed.table())


def test_again(own, undisturbed):
    "Started again it makes nothing, and says so"
    before = {p: p.stat().st_mtime_ns for p in undisturbed.folder.rglob("fig4*")}
    status, out = undisturbed.finish(*FIG4, "--data", str(own))
    assert status == 0 and "fig4: nothing has changed since it was made" in out, out
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_other_data(own, undisturbed, tmp_path):
    "Another folder, other numbers; a folder without the data, one sentence"
    status, out = undisturbed.finish(*FIG4, "--data", str(tmp_path))
    assert (
        status == 1
        and out.strip().splitlines()[-1]
        == f"hcil_reproduce: {tmp_path} lacks FaceForensics++ (each in its official layout, see data_cards/)"
    )
    status, out = undisturbed.finish(*FIG4, "--data", str(own), "--list")
    assert "4 distinct runs: 4 finished" in out
    other = tmp_path / "other"
    shutil.copytree(own, other)
    status, out = undisturbed.finish(*FIG4, "--data", str(other), "--list")
    assert "4 distinct runs" not in out and "not made yet" in out


@pytest.mark.skipif(find_spec("snakemake") is None, reason="pip install -e '.[cluster]'")
def test_workflow(own, undisturbed, tmp_path):
    "Two local jobs come to the same table"
    c = Checkout(tmp_path)
    flow = [sys.executable, "-m", "snakemake", "-s", str(house.ROOT / "cluster" / "Snakefile"), "--jobs", "2"]
    config = ["--config", "names=fig4", f"data={own}"]
    status, out = c.finish(*config, command=flow)
    assert status and "make them first" in out, out
    status, out = c.finish("fig4", "--data", str(own), "--prepare")
    assert status == 0, out
    status, out = c.finish(*config, command=flow)
    assert status == 0, out
    whole, part = c.table(), undisturbed.table()
    pd.testing.assert_frame_equal(whole[whole.method.isin(part.method)].reset_index(drop=True), part)
