"""The way over the GPU, rehearsed without one: no tensor on the wrong device, no new wait, no more launches or bytes than before

What is known of each program stands in `gpu_rehearsal.json` beside this file. After a change that is meant to be, or that makes
something better, write it anew with `.venv/bin/python tests/test_gpu_rehearsal.py`, and look at the difference.
"""

import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from hcil import faces
from hcil.baselines.core import ROWS, SMALL, BaselineConfig, clips_for
from hcil.cam import grad_cam
from hcil.cells import table_cells
from hcil.crops import quick_crops
from hcil.detect import Detector
from hcil.forgeries import FORGERIES, forge, render_recording, sample_forgery, sample_performance
from hcil.fused import fuse
from hcil.model import HCIL, HCILConfig
from hcil.performances import motion
from hcil.heads import atlas, person
from hcil.plan import TINY, Setting, make_unit, plan_units
from hcil.rendering import backdrop, render, to_bytes, tone
from hcil.scoring import predict, real_embeddings
from hcil.train import TrainConfig, Trainer
from rehearsal import Rehearsal

sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))
import rehearse

FIGURES = Path(__file__).with_name("gpu_rehearsal.json")
TINY_NET = dict(backbone="resnet18", width=0.25, pretrained=None)
LABELS = torch.tensor([0, 1, 0, 1])

# ---------------------------------------------------------------- the programs


class OneBatch:
    "A loader of one pinned batch, ten times an epoch"

    def __init__(self, size=32):
        clips = clips_for(BaselineConfig("TAM", **SMALL), len(LABELS), size=size)  # uint8 [4,4,4,3,size,size]
        batch = dict(clip=clips, label=LABELS, index=torch.zeros(4, 4, 4, dtype=torch.long))
        self.batch = {k: v.pin_memory() for k, v in batch.items()} | dict(video=["a"] * 4)

    def __len__(self):
        return 10


def network(row):
    torch.manual_seed(0)
    if row.startswith("HCIL"):
        net = HCIL(HCILConfig(**TINY_NET))
        return fuse(net) if row == "HCIL, fused" else net
    return BaselineConfig(row, **SMALL).build()


def trainer_of(row, step=1, parts=1, folder=None):
    "A trainer that stands before some step of the first epoch"
    cfg = TrainConfig(batch=4, size=32, epochs=1, micro_batches=parts)
    trainer = Trainer(network(row), OneBatch(), cfg, folder=folder, device="cuda")
    trainer.step = step
    trainer.net.train()
    assert trainer.dtype == torch.bfloat16
    return trainer


def training_step(card, row, step=1, parts=1):
    "One step; step 0 of an epoch also measures the shares of the terms"
    trainer = trainer_of(row, step, parts)
    card.clear()
    assert math.isfinite(trainer.one_step(trainer.loader.batch)["loss"])


class TestClips(list):
    "Two videos for a test, without a store"

    train, U, size, __test__ = False, 2, 32, False

    def __init__(self):
        import pandas as pd

        clips = clips_for(BaselineConfig("TAM", **SMALL), 2, U=2, size=32)
        super().__init__(dict(clip=x, label=k) for k, x in enumerate(clips))
        self.labels, self.manifest = [0, 1], pd.DataFrame(dict(video=["a", "b"], label=[0, 1]))


def scores(card, passes="one"):
    "What `hcil_evaluate` does with a batch"
    model, clips = network("HCIL").cuda(), TestClips()
    card.clear()
    known = real_embeddings(model, clips, device="cuda", bf16=True)
    found = predict(model, clips, device="cuda", reference=known, passes=passes, bf16=True)
    assert np.isfinite(found[["prob", "p1", "w1"]].to_numpy()).all()


def maps(card):
    model, clips = network("HCIL").cuda(), clips_for(BaselineConfig("TAM", **SMALL), 1, size=32).cuda()
    card.clear()
    with torch.autocast("cuda", torch.bfloat16):
        cam = grad_cam(model, clips, "layer3")
    assert cam.is_cuda and cam.shape == (1, 4, 4, 32, 32) and cam.isfinite().all()


def heads(device, n=2, size=64):  # uint8 [N,H,W,3]
    p = person("anna", device)
    return to_bytes(tone(render(p, atlas(p), motion("a", n, device=device), backdrop(0, size, size, device)).picture))


def drawing(card):
    on_gpu = heads("cuda").cpu().numpy()
    assert abs(on_gpu.astype(int) - heads("cpu").numpy()).max() <= 1


def forging(card):
    "A recording and its forgery, as the twins have them"
    recording = render_recording("anna", "a", 4, 25.0, 64, 64, "cuda")
    source = sample_performance("berta", "b", 4, 25.0, "cuda")
    name = next(iter(FORGERIES))
    picture, mask = forge(recording, source, FORGERIES[name], sample_forgery(FORGERIES[name], "key", 4))
    assert picture.is_cuda and mask.is_cuda and 0 < mask.mean() < 1


PROGRAMS = {f"training step, {row}": lambda card, row=row: training_step(card, row) for row in ("HCIL", "HCIL, fused", *ROWS)} | {
    "training step, HCIL, first of an epoch": lambda card: training_step(card, "HCIL", 0),
    "training step, HCIL, in two parts": lambda card: training_step(card, "HCIL", parts=2),
    "evaluation": scores,
    "evaluation, two passes": lambda card: scores(card, "halves"),
    "Grad-CAM": maps,
    "drawing heads": drawing,
    "drawing a forgery": forging,
}

# ---------------------------------------------------------------- what is known of them


def measured(name):  # dict: launches, bytes, flops, waits by function
    "Rehearse one program"
    with Rehearsal() as card:
        PROGRAMS[name](card)
    waits = Counter(f"{w.why}, {without_line(w.where)}" for w in card.waits if w.where.startswith("hcil/"))
    return card.totals() | dict(waits=dict(sorted(waits.items())))


def without_line(where):  # 'hcil/train.py:171 watch' -> 'hcil/train.py watch'
    file, _, rest = where.partition(":")
    return f"{file} {rest.partition(' ')[2]}"


def renew():
    found = dict(torch=torch.__version__.partition("+")[0], programs={name: measured(name) for name in PROGRAMS})
    FIGURES.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


@pytest.fixture(scope="module")
def known():
    return json.loads(FIGURES.read_text())


@pytest.mark.parametrize("name", PROGRAMS)
def test_rehearsed(known, name):
    "Another version of PyTorch may cut its operations differently, by a twentieth"
    was, now = known["programs"][name], measured(name)
    new = {k: n for k, n in now["waits"].items() if n > was["waits"].get(k, 0)}
    assert not new, f"{name} waits for the GPU where it did not before: {new}"
    slack = 1.01 if known["torch"] == torch.__version__.partition("+")[0] else 1.05
    for what in ("launches", "bytes", "flops"):
        assert now[what] <= slack * was[what], f"{name}: {now[what]:,} {what}, and {was[what]:,} before"


def test_no_figure_is_of_a_program_that_is_gone(known):
    assert list(known["programs"]) == list(PROGRAMS)


@pytest.mark.parametrize("row", ["HCIL", "HCIL, fused", *ROWS])
def test_one_wait_a_step(known, row):
    "The list of numbers that are watched, and nothing else"
    assert known["programs"][f"training step, {row}"]["waits"] == {"tolist, hcil/train.py watch": 1}


def test_bytes_at_full_size():
    "At the paper's size the fused form moves at most 1.15 times what the plain ResNet-50 does, and the plain form 1.4 times"
    parts, _ = rehearse.tables()
    of_plain = parts[parts.part == "all"].set_index("model").of_plain
    assert of_plain["HCIL, fused"] <= 1.15 and of_plain["HCIL"] <= 1.4
    assert (parts[parts.part == "all"].waits == 1).all()


# ---------------------------------------------------------------- whole ways, without figures


def test_resumed_training_waits_no_more(tmp_path):
    with Rehearsal() as card:
        first = trainer_of("ResNet-50", folder=tmp_path)
        batch = first.loader.batch
        first.one_step(batch)
        first.save()
        card.clear()
        first.one_step(batch)
        before = len(card.waits)
        again = trainer_of("ResNet-50", folder=tmp_path)
        assert again.resume()
        card.clear()
        again.one_step(batch)
    assert len(card.waits) == before


@pytest.fixture
def fresh_detector():
    "The networks that find faces are kept by device: none of the rehearsal may stay"
    faces._mtcnn.cache_clear()
    yield
    faces._mtcnn.cache_clear()


def test_faces(fresh_detector):
    "Faces found on the GPU are those of the CPU"
    frames = heads("cpu", 2, 128).numpy()
    with Rehearsal():
        found = faces.detect(frames, "cuda")
    for a, b in zip(found, faces.detect(frames), strict=True):
        assert len(a.boxes) == len(b.boxes) == 1
        np.testing.assert_allclose(a.boxes, b.boxes, atol=0.1)


def test_detector():
    clip = clips_for(BaselineConfig("TAM", **SMALL), 1, size=32)[0]
    expected = Detector(network("HCIL"), size=32).score(clip)
    with Rehearsal():
        found = Detector(network("HCIL"), size=32, device="cuda").score(clip)
    np.testing.assert_allclose([found[0], *found[1]], [expected[0], *expected[1]], atol=1e-3)


def test_table4(tmp_path):
    "The first cells of Table 4: trained, validated, stored and scored on the GPU"
    cells, crops = table_cells("table4", rows="Baseline,All", columns="DF"), {"ff++": quick_crops(tmp_path / "crops")}
    with Rehearsal() as card:
        setting = Setting(device="cuda", home=tmp_path, runs=tmp_path / "runs", train=TINY, progress=False)
        runs = [make_unit(unit, setting, crops) for unit in plan_units(dict(table4=cells), setting, crops)]
    assert [r.status for r in runs] == ["finished"] * len(runs)
    assert all(0 <= r.results()["auc"] <= 1 for r in runs)
    assert not [w for w in card.waits if w.why == "upload" and "one_step" in w.where]  # clips come from pinned memory


if __name__ == "__main__":
    renew()
