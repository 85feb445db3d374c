"""Copies of one's own: prepare, train, evaluate and reproduce on two that differ in one video

The copies are small twins without the file that marks them as such, so the code takes them for the real data set.
"""

import contextlib
import importlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pandas as pd
import pytest

import house

SMALL = ["--profile", "smoke", "--row", "Baseline", "--method", "Deepfakes", "--compression", "c40", "--epochs", "1", "--batch", "4"]


MODULES = dict(hcil_prepare="prepare_command", hcil_train="train_command", hcil_evaluate="evaluate_command")


def command(name, *args, **env):
    "Exit status and all that a command prints, in this process, with all of its work: that saves the start of others"
    from hcil.workers import Worker

    class Here(Worker):
        def call(self, fn, *args, timeout):
            return resolve_name(fn)(*args)

    main, out, status = getattr(importlib.import_module(f"hcil.{MODULES[name]}"), name), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        for key, value in env.items():
            patch.setenv(key, str(value))
        patch.setattr("hcil.prepare.Worker", Here)
        patch.setattr(sys, "argv", [name, *map(str, args)])
        try:
            main()
        except SystemExit as e:
            status = 1 if isinstance(e.code, str) else e.code or 0
            print(e.code if isinstance(e.code, str) else "", file=out)
    return status, out.getvalue()


def reproduce(folder, *args, **env):
    "The same for hcil_reproduce, which has a process of its own: it starts others"
    code = "import sys; from hcil.reproduce_command import hcil_reproduce; sys.argv[0] = 'hcil_reproduce'; hcil_reproduce()"
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"} | dict(PYTHONPATH=str(house.ROOT), OMP_NUM_THREADS="1") | env
    p = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return p.returncode, p.stdout


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    "Two folders with Deepfakes of FaceForensics++ each; in the second, one fake of the test is another"
    from hcil.profiles import Size
    from hcil.twins import make_twin

    folder = tmp_path_factory.mktemp("own")
    make_twin("ff++", folder / "one", size=Size(112, 128, 12, (2, 1, 2), (6, 3), (4, 2), (2, 1)))
    (folder / "one/FaceForensics++/TWIN.json").unlink()
    shutil.copytree(folder / "one", folder / "two")
    fakes = folder / "two/FaceForensics++/manipulated_sequences"
    test = pd.read_json(folder / "one/FaceForensics++/dataset/splits/test.json", dtype=str).iloc[0].tolist()
    name = f"c40/videos/{'_'.join(test)}.mp4"
    shutil.copy(fakes / "FaceSwap" / name, fakes / "Deepfakes" / name)
    for other in ("Face2Face", "FaceSwap", "NeuralTextures"):  # one method is enough for what is asked below
        for copy in ("one", "two"):
            shutil.rmtree(folder / copy / "FaceForensics++/manipulated_sequences" / other)
    return folder


def train(stores, runs):
    "The key of a run, its status before, and what was printed"
    status, out = command("hcil_train", "--stores", stores, *SMALL, HCIL_RUNS=runs)
    assert status == 0, out
    key, before = re.search(r"run ([0-9a-f]{12}): (\w+)", out).groups()
    return key, before, out


def prepare(data, out):
    args = ["ff++", "--data", data, "--out", out, "--size", "64", "--every", "4", "--compression", "c40", "--workers", "1"]
    status, text = command("hcil_prepare", *args)
    assert status == 0, text
    return text


def test_two_copies(copies, tmp_path):
    "Other videos are another run with other scores; the same ones, moved, are the same run, and nothing is made again"
    for name in ("one", "two"):
        prepare(copies / name / "FaceForensics++", tmp_path / name)
    (one, before, _), (two, *_) = (train(tmp_path / name, tmp_path / "runs") for name in ("one", "two"))
    assert one != two and before == "absent"
    scores = [pd.read_csv(tmp_path / "runs" / key / "predictions.csv", skiprows=1).set_index("video_id").prob for key in (one, two)]
    differ = scores[0].index[scores[0] != scores[1]]
    assert len(differ) == 1 and differ[0].startswith("Deepfakes/c40/")  # the same weights: the training videos are the same

    shutil.move(copies / "one", copies / "moved")
    text = prepare(copies / "moved" / "FaceForensics++", tmp_path / "one")
    assert "0 made, 0 made again" in text
    key, before, out = train(tmp_path / "one", tmp_path / "runs")
    assert (key, before) == (one, "finished") and "twin" not in out
    shutil.move(copies / "moved", copies / "one")

    video = next((copies / "two/FaceForensics++/manipulated_sequences/Deepfakes/c40/videos").glob("*.mp4"))
    kept = video.rename(tmp_path / video.name)
    prepare(copies / "two/FaceForensics++", tmp_path / "two")
    assert train(tmp_path / "two", tmp_path / "runs")[0] not in (one, two)  # one less
    kept.rename(video)


def test_swapped_stores(copies, tmp_path):
    "What an evaluation reads is what was prepared"
    prepare(copies / "one/FaceForensics++", tmp_path / "one")
    key, *_ = train(tmp_path / "one", tmp_path / "runs")
    a, b = sorted((tmp_path / "one/Deepfakes/c40").glob("*.zip"))[:2]
    good = a.read_bytes(), b.read_bytes()
    args = ["--weights", tmp_path / "runs" / key / "weights.safetensors", "--stores", tmp_path / "one", "--split", "all"]

    def evaluate():
        return command("hcil_evaluate", *args, "--out", tmp_path / "predictions.csv")

    a.write_bytes(good[1]), b.write_bytes(good[0])
    status, out = evaluate()
    assert status == 1 and "holds the crops of" in out and "Traceback" not in out, out
    a.write_bytes(good[0]), b.write_bytes(good[1])
    manifest = tmp_path / "one/manifest.csv"
    text = manifest.read_text()
    for edited in (text.replace(",1,Deepfakes", ",0,Deepfakes", 1), "\n".join(text.splitlines()[:-1]) + "\n"):
        manifest.write_text(edited)
        status, out = evaluate()
        assert status == 1 and "was changed since hcil_prepare wrote it" in out and "Traceback" not in out, out
    manifest.write_text(text)
    status, out = evaluate()
    assert status == 0, out


def test_reproduce(copies, tmp_path):
    "A table of each copy: other keys, other folders of artefacts, and the mark of the videos in each stamp"
    from hcil.stamps import read_stamp

    (tmp_path / "nbs/paper").mkdir(parents=True)
    for f in ("settings.ini", "nbs/paper/table4.ipynb"):
        shutil.copy(house.ROOT / f, tmp_path / f)
    home = dict(HCIL_HOME="home", HCIL_RUNS="runs")  # relative: notebooks work in another folder
    (tmp_path / "copies").symlink_to(copies)
    made = []
    for name in ("one", "two"):
        args = ["table4", "--data", f"copies/{name}", "--jobs", "1", "--set", "columns=DF", "rows=Baseline"]
        status, out = reproduce(tmp_path, *args, **home)
        assert status == 0 and "1 to make" in out, out
        made.append(Path(re.search(r"figures/(own-\w+)/", out)[1]))
    assert made[0] != made[1] and len(list((tmp_path / "runs").glob("[0-9a-f]*"))) == 2
    marks = {read_stamp(tmp_path / "figures" / m / "table4_smoke_part.png")["data"] for m in made}
    assert len(marks) == 2 and all(re.fullmatch(r"ff\+\+ \([0-9a-f]{16}\)", m) for m in marks)
    assert not list((tmp_path / "figures").glob("*.*"))  # nothing where the twins' artefacts lie

    shutil.rmtree(tmp_path / "figures" / made[0])
    part = tmp_path / "part/FaceForensics++"
    shutil.copytree(copies / "one/FaceForensics++", part)
    for f in list(part.rglob("c40")):
        shutil.rmtree(f)
    args, before = ["table4", "--data", "part", "--set", "columns=DF"], set((tmp_path / "home").rglob("*"))
    status, out = reproduce(tmp_path, *args, **home)
    assert status == 1 and "lacks real or fake videos that are needed: FaceForensics++ Deepfakes c40 train" in out, out
    assert before == set((tmp_path / "home").rglob("*"))  # refused before any face was looked for
