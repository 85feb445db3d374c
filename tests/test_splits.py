"""Training reads train, validation val, a test its test split: videos of any other split raise as soon as they are read

Crop stores of noise, real training and testing, and a canary in the place where all pictures come from (`CropStore.read`). The second half:
what each loader says of the videos of a tree written by hand, as literal rows; and that each field of a recipe gets where it acts.
"""

import dataclasses
import io
import itertools
import json
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hcil import experiments
from hcil.datasets import manifest
from hcil.evaluate import evaluate
from hcil.evaluate_command import hcil_evaluate
from hcil.experiments import CODE, configs, data_mark, make_spec, work
from hcil.layouts import COLUMNS
from hcil.model import HCILConfig
from hcil.plan import test_work as work_of_a_test
from hcil.predictions import read_predictions
from hcil.prepare import claim, read_prepared, write_prepared
from hcil.runs import RunStore
from hcil.stores import CropStore, store_path, write_store
from hcil.train import TrainConfig, Trainer
from hcil.train_command import hcil_train

SPLITS = dict(train=3, val=2, test=2)  # real videos of each, and as many fakes
FRAMES, SIDE = 32, 48
QUICK = dict(epochs=2, batch=4)

# ---------------------------------------------------------------------------------------------- stores and the canary


class Leak(Exception):
    "A video was read that must not be"


def write_crops(home, name, method, seed):
    "A prepared data set: `SPLITS` videos of each label, of noise"
    rows, n = [], itertools.count()
    claim(home / name, name, home / "videos")
    for split, count in SPLITS.items():
        for label, kind in enumerate(("real", method)):
            for _ in range(count):
                k = next(n)
                more = dict(video=f"{kind}/{k:03d}", label=label, method=kind, dataset=name, split=split, frames=FRAMES, share=1.0)
                more |= dict(compression="c23" if name == "ff++" else "", max_faces=1, longest_gap=0, switched=0)
                rows.append(dict.fromkeys([*COLUMNS, "note", "made", "problem"], "") | more)
                noise = np.random.default_rng([seed, k]).integers(256, size=(FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
                write_store(store_path(home / name, more["video"]), noise, dict(video=more["video"], options=dict(scale=1.3)))
    write_prepared(pd.DataFrame(rows), home / name, name, home / "videos", dict(size=SIDE))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Crops of two data sets"
    here = tmp_path_factory.mktemp("splits")
    write_crops(here, "ff++", "Deepfakes", 0)
    write_crops(here, "celeb-df", "Celeb-synthesis", 1)
    return here


def videos(stores, split, label=(0, 1)):
    "The videos of one split"
    df = read_prepared(stores)
    return {(Path(stores).name, v) for v in df.video[(df.split == split) & df.label.isin(label)]}


class Canary:
    "In place of `CropStore.read`: notes what is read, and raises at what is not allowed"

    def __init__(self, monkeypatch):
        self.allowed, self.read, self.whole = set(), set(), CropStore.read
        monkeypatch.setattr(CropStore, "read", lambda store, indices: self.look(store, indices))

    def look(self, store, indices):
        video = store.meta["video"]
        which = Path(str(store.path).removesuffix(f"/{video}.zip")).name, video
        if which not in self.allowed:
            raise Leak(f"{which} was read, and only {sorted(self.allowed)} may be")
        self.read.add(which)
        return self.whole(store, indices)

    def allow(self, *some):
        "From now on these videos may be read"
        self.allowed, self.read = set().union(*some), set()


@pytest.fixture
def canary(monkeypatch):
    return Canary(monkeypatch)


def watched_work(monkeypatch, canary, home, keep):
    "`work` of 83_experiments; each half may read its own videos alone, and must read all of them"
    stores, train, score = home / "ff++", experiments.train_run, experiments.score_run
    own = videos(stores, "train") | (videos(stores, "val") if keep == "best" else set())

    def train_run(*args, **options):
        canary.allow(own)
        train(*args, **options)
        assert canary.read == own

    def score_run(*args, **options):
        compared = videos(stores, "train", [0])  # the weights need real videos to compare with: never of the test
        canary.allow(videos(stores, "test"), compared)
        score(*args, **options)
        assert canary.read == videos(stores, "test") | compared

    monkeypatch.setattr(experiments, "train_run", train_run)
    monkeypatch.setattr(experiments, "score_run", score_run)
    return work(stores)


@pytest.fixture(scope="module")
def trained(home):
    "A finished run"
    spec = make_spec("smoke", home / "ff++", "All", "Deepfakes", "c23", train=QUICK)
    return RunStore(home / "runs", **CODE).run(spec, work(home / "ff++"), tell=print)


# ---------------------------------------------------------------------------------------------- no leak


@pytest.mark.parametrize("keep", ["last", "best"])
def test_run(keep, home, tmp_path, monkeypatch, canary):
    "A run: train (and val where it chooses the epoch), then test"
    spec = make_spec("smoke", home / "ff++", "All", "Deepfakes", "c23", train=QUICK | dict(keep=keep))
    run = RunStore(tmp_path, **CODE).run(spec, watched_work(monkeypatch, canary, home, keep), tell=print)
    assert run.status == "finished"
    assert {("ff++", v) for v in read_predictions(run.path("predictions.csv")).video_id} == videos(home / "ff++", "test")


@pytest.mark.parametrize("wrong", [None, "test", ["train", "test"]])
def test_canary_sings(wrong, home, tmp_path, monkeypatch, canary):
    "An experiment that trains on another split, or on all, is caught"
    whole = experiments.clips_of
    swapped = lambda spec, stores, split, *args, **options: whole(spec, stores, wrong, *args, **options)
    monkeypatch.setattr(experiments, "clips_of", swapped)
    spec = make_spec("smoke", home / "ff++", "All", "Deepfakes", "c23", train=QUICK)
    with pytest.raises(Leak):
        RunStore(tmp_path, **CODE).run(spec, watched_work(monkeypatch, canary, home, "last"), tell=print)


def test_validation_on_test_sings(home, tmp_path, monkeypatch, canary):
    "An experiment that chooses its epoch on the test split is caught"
    whole = experiments.clips_of
    swapped = lambda spec, stores, split, *args, **options: whole(spec, stores, "test" if split == "val" else split, *args, **options)
    monkeypatch.setattr(experiments, "clips_of", swapped)
    spec = make_spec("smoke", home / "ff++", "All", "Deepfakes", "c23", train=QUICK | dict(keep="best"))
    with pytest.raises(Leak):
        RunStore(tmp_path, **CODE).run(spec, watched_work(monkeypatch, canary, home, "best"), tell=print)


@pytest.mark.parametrize("split", ["test", "val", "train"])
def test_evaluation(split, home, trained, canary):
    "One split is scored, and real videos of one other are compared with"
    stores = home / "ff++"
    canary.allow(videos(stores, split))
    found = evaluate(trained.path("weights.safetensors"), stores, split, reference=0)
    assert canary.read == videos(stores, split) == {("ff++", v) for v in found.predictions.video_id}
    other = "val" if split == "train" else "train"
    canary.allow(videos(stores, split), videos(stores, other, [0]))
    evaluate(trained.path("weights.safetensors"), stores, split)
    assert canary.read == canary.allowed


def test_test_of_a_table(home, trained, tmp_path, canary):
    "Tables 2, 3 and 5 score other data: their test split, compared with their own real videos, and nothing that was trained on"
    stores = home / "celeb-df"
    canary.allow(videos(stores, "test"), videos(stores, "train", [0]))
    spec = dict(kind="test", run=trained.key, seed=0, data=data_mark(stores))
    run = RunStore(tmp_path, **CODE).run(spec, work_of_a_test(trained, stores), tell=print)
    assert canary.read == canary.allowed
    assert {("celeb-df", v) for v in read_predictions(run.path("predictions.csv")).video_id} == videos(stores, "test")


def test_commands(home, tmp_path, monkeypatch, canary, capsys):
    "hcil_train and hcil_evaluate"
    stores, made = home / "ff++", experiments.train_run
    canary.allow(videos(stores, "train"), videos(stores, "test"))
    monkeypatch.setattr(experiments, "train_run", lambda *args, **options: (made(*args, **options), canary.allow(canary.read)))
    monkeypatch.setattr(experiments, "score_run", lambda run, *args, **options: run.path("predictions.csv").touch())
    monkeypatch.setattr("hcil.train_command.describe_run", lambda run: [])
    hcil_train(stores=str(stores), method="Deepfakes", compression="c23", epochs=1, batch=4, runs=str(tmp_path / "runs"), device="cpu")
    assert canary.allowed == videos(stores, "train"), "what was read is what may be read from then on"
    (weights,) = (tmp_path / "runs").glob("*/weights.safetensors")
    canary.allow(videos(stores, "test"))
    hcil_evaluate(weights=str(weights), stores=str(stores), out=str(tmp_path / "p.csv"), reference=0, device="cpu")
    assert canary.read == videos(stores, "test")
    capsys.readouterr()


# ---------------------------------------------------------------------------------------------- labels


def touch(root, *paths):
    for p in paths:
        (root / p).parent.mkdir(parents=True, exist_ok=True)
        (root / p).write_bytes(b"video")


def ff(root):
    "FaceForensics++: three pairs"
    (root / "splits").mkdir(parents=True)
    for split, pair in dict(train=["000", "003"], val=["111", "112"], test=["071", "054"]).items():
        (root / f"splits/{split}.json").write_text(json.dumps([pair]))
        for a, b in (pair, pair[::-1]):
            touch(root, f"original_sequences/youtube/c23/videos/{a}.mp4", f"manipulated_sequences/NeuralTextures/c23/videos/{a}_{b}.mp4")


def celeb(root):
    "Celeb-DF v2: in the list 1 is real, and in ours 1 is fake"
    touch(root, "Celeb-real/id0_0000.mp4", "Celeb-real/id1_0000.mp4", "YouTube-real/00170.mp4", "YouTube-real/00000.mp4")
    touch(root, "Celeb-synthesis/id0_id1_0000.mp4", "Celeb-synthesis/id1_id0_0000.mp4")
    lines = "1 Celeb-real/id1_0000.mp4", "1 YouTube-real/00170.mp4", "0 Celeb-synthesis/id1_id0_0000.mp4"
    (root / "List_of_testing_videos.txt").write_text("\n".join(lines))


def dfdc(root):
    "DFDC-Preview"
    entries = {
        "original_videos/10/10_A_001.mp4": dict(label="real", set="train", augmentations=[], target_id=10),
        "method_A/10/10_A/12_10_A_001.mp4": dict(label="fake", set="train", augmentations=[], target_id=10, swapped_id=12),
        "original_videos/20/20_B_004.mp4": dict(label="real", set="test", augmentations=[], target_id=20),
        "method_B/20/20_B/22_20_B_004.mp4": dict(label="fake", set="test", augmentations=[], target_id=20, swapped_id=22),
    }
    touch(root, *entries)
    (root / "dataset.json").write_text(json.dumps(entries))


def wild(root):
    "WildDeepfake"
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "PNG")
    for side, shard, sequence in (("real_train", 1, 3), ("fake_train", 2, 7), ("real_test", 4, 9), ("fake_test", 5, 8)):
        (root / side).mkdir(parents=True)
        with tarfile.open(root / side / f"{shard}.tar.gz", "w") as tar:
            for k in (0, 1, 5):
                member = tarfile.TarInfo(f"./{shard}/{side.split('_')[0]}/{sequence}/{k}.png")
                member.size = len(file.getvalue())
                tar.addfile(member, io.BytesIO(file.getvalue()))


# what, label (1 is fake), method, split, target, source, original
EXPECTED = {
    "ff++": """
        real/c23/000                  0  real            train  000   -    -
        real/c23/003                  0  real            train  003   -    -
        real/c23/111                  0  real            val    111   -    -
        real/c23/112                  0  real            val    112   -    -
        real/c23/071                  0  real            test   071   -    -
        real/c23/054                  0  real            test   054   -    -
        NeuralTextures/c23/000_003    1  NeuralTextures  train  000   003  real/c23/000
        NeuralTextures/c23/003_000    1  NeuralTextures  train  003   000  real/c23/003
        NeuralTextures/c23/111_112    1  NeuralTextures  val    111   112  real/c23/111
        NeuralTextures/c23/112_111    1  NeuralTextures  val    112   111  real/c23/112
        NeuralTextures/c23/071_054    1  NeuralTextures  test   071   054  real/c23/071
        NeuralTextures/c23/054_071    1  NeuralTextures  test   054   071  real/c23/054""",
    "celeb-df": """
        Celeb-real/id0_0000           0  real             train  id0  -    -
        Celeb-real/id1_0000           0  real             test   id1  -    -
        YouTube-real/00000            0  real             train  -    -    -
        YouTube-real/00170            0  real             test   -    -    -
        Celeb-synthesis/id0_id1_0000  1  Celeb-synthesis  train  id0  id1  Celeb-real/id0_0000
        Celeb-synthesis/id1_id0_0000  1  Celeb-synthesis  test   id1  id0  Celeb-real/id1_0000""",
    "dfdc-p": """
        original_videos/10/10_A_001   0  real      train  10  -   -
        method_A/10/10_A/12_10_A_001  1  method_A  train  10  12  original_videos/10/10_A_001
        original_videos/20/20_B_004   0  real      test   20  -   -
        method_B/20/20_B/22_20_B_004  1  method_B  test   20  22  original_videos/20/20_B_004""",
    "wild": """
        real_train/1/3  0  real  train  -  -  -
        fake_train/2/7  1  fake  train  -  -  -
        real_test/4/9   0  real  test   -  -  -
        fake_test/5/8   1  fake  test   -  -  -""",
}
TREES = {"ff++": ff, "celeb-df": celeb, "dfdc-p": dfdc, "wild": wild}


@pytest.mark.parametrize("name", TREES)
def test_labels(name, tmp_path):
    "What is real, what is fake, of whom, and in which split, as read off the official files by a person"
    TREES[name](tmp_path)
    df = manifest(name, tmp_path, **({} if name == "ff++" else dict(val_share=0.0)))
    columns = ["video", "label", "method", "split", "target", "source", "original"]
    rows = [[str(x) or "-" for x in r] for r in df[columns].itertuples(index=False)]
    assert sorted(rows) == sorted(line.split() for line in EXPECTED[name].strip().splitlines())


# ---------------------------------------------------------------------------------------------- fields

RECIPES = dict(
    epochs=3, batch=6, U=3, size=40, lr=3e-4, decay="step", every=7, weight_decay=3e-3, composition="natural", keep="best", micro_batches=2
)
NETWORKS = dict(
    backbone="resnet34", width=0.5, pretrained=None, T=3, raim=False, isf=False, place="last", alpha=0.25, regions=4, kernel=5,
    grid=(4, 2), hidden=1.0, generator="bn_softmax", init="default", residual=True, pwm="scalar", boundary="replicate", mask="snippet",
    select="input", noise="never", gumbel_tau=0.5, size=48, fast=False, squeeze=4, tokens="frame", norm="all", scale="squeezed",
    qkv="separate", snippet_pool="time", video_pool="max", classify="snippet", dim=64, head_hidden=32, head_bn=True, lambda1=0.2,
    lambda2=0.05, tau=0.5, tau_global=0.25, beta=1.0, detach_weight=True, anchors="sum", detach_anchor=True, negatives="video",
)  # fmt: skip


class Seen(Exception):
    "A trainer was made"


def given_to_trainer(spec, home, tmp_path, monkeypatch):
    "The arguments of the `Trainer` that a run makes, and the loader's first batch"
    seen = {}

    class Caught(Trainer):
        def __init__(self, net, loader, cfg, seed, *args, **options):
            seen.update(net=net, loader=loader, cfg=cfg, seed=seed)
            raise Seen

    monkeypatch.setattr(experiments, "Trainer", Caught)
    with pytest.raises(Seen):
        experiments.train_run(SimpleNamespace(spec=spec, folder=tmp_path, about={}), home / "ff++")
    return seen


def test_tables_of_fields():
    "Each field has another value here than by default"
    for kind, values in ((TrainConfig, RECIPES), (HCILConfig, NETWORKS)):
        assert set(values) == {f.name for f in dataclasses.fields(kind)}
        for field, value in values.items():
            if field not in ("decay", "keep"):  # of two choices, here is the one that smoke does not take
                assert value != getattr(kind(), field), field


@pytest.mark.parametrize("field", RECIPES)
def test_recipe(field, home, tmp_path, monkeypatch):
    "A field of the recipe: from the specification to the trainer and its loader"
    spec = make_spec("smoke", home / "ff++", "All", "Deepfakes", "c23", seed=5, train=QUICK | {field: RECIPES[field]})
    plain = make_spec("smoke", home / "ff++", "All", "Deepfakes", "c23", seed=5, train=QUICK)
    assert spec["train"][field] == RECIPES[field] != plain["train"][field]
    got = given_to_trainer(spec, home, tmp_path, monkeypatch)
    assert (getattr(got["cfg"], field), got["seed"]) == (RECIPES[field], 5) and got["cfg"] == configs(spec)[1]
    cfg, clips, batches = got["cfg"], got["loader"].dataset, got["loader"].batch_sampler
    assert (batches.batch, batches.how, batches.seed) == (cfg.batch, cfg.composition, 5)
    assert (clips.U, clips.T, clips.size, clips.seed, clips.train) == (cfg.U, 4, cfg.size, 5, True)
    assert tuple(next(iter(got["loader"]))["clip"].shape) == (cfg.batch, cfg.U, 4, 3, cfg.size, cfg.size)


@pytest.mark.parametrize("field", NETWORKS)
def test_network(field, home, tmp_path, monkeypatch):
    "A field of the network: from the specification to the network that is trained"
    value, more = NETWORKS[field], dict(grid=(2, 2)) if field == "regions" else {}  # four regions have a grid of four
    spec = make_spec("smoke", home / "ff++", "All", "Deepfakes", "c23", model={"pretrained": None, field: value} | more, train=QUICK)
    got = given_to_trainer(spec, home, tmp_path, monkeypatch)
    assert getattr(got["net"].cfg, field) == value and got["net"].cfg == configs(spec)[0]
    if field == "T":
        assert value == got["loader"].dataset.T


def test_seed(home, tmp_path, monkeypatch):
    "Another seed, other weights at the beginning; the same seed, the same"
    spec = lambda seed: make_spec("smoke", home / "ff++", "All", "Deepfakes", "c23", seed=seed, model=dict(pretrained=None), train=QUICK)
    nets = [given_to_trainer(spec(seed), home, tmp_path, monkeypatch)["net"].state_dict() for seed in (0, 0, 1)]
    same = [all(torch.equal(nets[0][k], n[k]) for k in n) for n in nets]
    assert same == [True, True, False]


def test_moved_stores_are_compared(home, trained, tmp_path):
    "A store of another split in the place of a test video's is no test video"
    shutil.copytree(home / "ff++", tmp_path / "ff++")
    (_, a), (_, b) = min(videos(home / "ff++", "test")), min(videos(home / "ff++", "train"))
    shutil.copy(store_path(home / "ff++", b), store_path(tmp_path / "ff++", a))
    with pytest.raises(ValueError, match=f"holds the crops of {b}, not of {a}"):
        evaluate(trained.path("weights.safetensors"), tmp_path / "ff++")
