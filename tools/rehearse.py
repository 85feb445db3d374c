"""Count what a training step would cost on a GPU at the paper's size, without one: `.venv/bin/python tools/rehearse.py`

Writes two tables with their stamp: figures/bench_rehearsal, launches, bytes, FLOPs and waits of one step of the plain ResNet-50 and
of HCIL by part of the program, and figures/bench_rehearsal_lines, the lines of HCIL that move most bytes. Nothing is computed but shapes (see tests/rehearsal.py), so it takes a minute and no memory.
"""

import sys
import time
from pathlib import Path

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from rehearsal import OnCard, Rehearsal  # noqa: E402

from hcil.bench import PlainResNet  # noqa: E402
from hcil.fused import fuse  # noqa: E402
from hcil.model import HCIL, HCILConfig, HCILOutput  # noqa: E402
from hcil.losses import LossTerms  # noqa: E402
from hcil.stamps import save_table, stamp  # noqa: E402
from hcil.train import TrainConfig, Trainer  # noqa: E402

SHAPE = dict(batch=12, U=4, T=4, size=224)  # of §4.2
PARTS = {  # file -> part of the program
    "hcil/raim.py": "RAIM",
    "hcil/fused.py": "RAIM",
    "hcil/pwm.py": "RAIM",
    "hcil/isf.py": "ISF",
    "hcil/losses.py": "losses",
    "hcil/train.py": "optimiser and monitors",
}


OWN_BACKWARD = (".backward", "_backward", "gradients_of_look_up", "softmax_gradient")  # functions of ours that go back


class Plain(PlainResNet):
    "torchvision's ResNet, trained as HCIL's baseline row is: the mean of the frames' logits, and cross-entropy"

    cfg = HCILConfig.preset("paper", "Baseline")

    @property
    def encoder(self):
        return self.net

    def forward(self, clips):
        x = super().forward(clips / 255).unflatten(0, clips.shape[:3])  # [B·U·T,2] -> [B,U,T,2]
        return HCILOutput(x.mean((1, 2)), None, None, x.mean(2))

    def loss(self, out, labels, reals=None):
        ce, none = torch.nn.functional.cross_entropy(out.logits.float(), labels), out.logits.sum() * 0
        return LossTerms(ce, ce, none, none, 0, 0)


def networks(backbone="resnet50"):
    hcil = [HCIL(HCILConfig(backbone=backbone, pretrained=None)) for _ in range(2)]
    return {f"plain {backbone}": Plain(backbone), "HCIL": hcil[0], "HCIL, fused": fuse(hcil[1])}


class OneBatch:
    "A loader of one batch, ten times an epoch"

    def __init__(self, batch, U, T, size):
        clip = OnCard(torch.empty(batch, U, T, 3, size, size, dtype=torch.uint8, device="meta"))
        labels = torch.arange(batch) % 2
        index = torch.zeros(batch, U, T, dtype=torch.long)
        self.batch = dict(clip=clip, label=labels.pin_memory(), index=index, video=["a"] * batch)

    def __len__(self):
        return 10


def part_of(where):
    return PARTS.get(where.partition(":")[0], "encoder and heads")


def step_of(net, shape):  # launches, waits
    "Rehearse one step that is neither the first of an epoch nor the first of a training"
    with Rehearsal(shapes_only=True) as card:
        loader = OneBatch(**shape)
        cfg = TrainConfig(batch=shape["batch"], U=shape["U"], size=shape["size"], epochs=1)
        trainer = Trainer(net, loader, cfg, device="cuda")
        for trainer.step in (1, 2):
            trainer.net.train()
            card.clear()
            trainer.one_step(loader.batch)
    return card.launches, card.waits


def by_part(name, launches, waits):
    "One row for each part of the program and each pass, and one for all"
    rows = [dict(part=part_of(o.where), launches=1, GB=o.bytes / 1e9, TFLOP=o.flops / 1e12, waits=0, **way(o.where)) for o in launches]
    rows += [dict(part=part_of(w.where), launches=0, GB=0.0, TFLOP=0.0, waits=1, **way(w.where)) for w in waits]
    table = pd.DataFrame(rows).groupby(["part", "way"], as_index=False).sum()
    table.loc[len(table)] = dict(part="all", way="") | table[["launches", "GB", "TFLOP", "waits"]].sum().to_dict()
    table.insert(0, "model", name)
    return table


def way(where):
    return dict(way="backward" if where.endswith(("(backward)", *OWN_BACKWARD)) else "forward")


def by_line(launches, most=20):
    "The lines that move most bytes"
    rows = pd.DataFrame([dict(line=o.where, launches=1, GB=o.bytes / 1e9) for o in launches])
    return rows.groupby("line", as_index=False).sum().sort_values("GB", ascending=False).head(most)


def tables(shape=SHAPE, backbone="resnet50"):
    "Both networks by part, where `of_plain` compares bytes with all those of the plain one; and HCIL by line"
    steps = {name: step_of(net, shape) for name, net in networks(backbone).items()}
    both = pd.concat([by_part(name, *step) for name, step in steps.items()], ignore_index=True)
    plain = both[(both.part == "all") & both.model.str.startswith("plain")].GB.item()
    return both.assign(of_plain=both.GB / plain).astype(dict(launches=int, waits=int)), by_line(steps["HCIL, fused"][0])


def main():
    started = time.perf_counter()
    about = "random frames, {batch} × {U} × {T} at {size} px, bf16, a step of training rehearsed".format(**SHAPE)
    for name, found in zip(("bench_rehearsal", "bench_rehearsal_lines"), tables(), strict=True):
        print(found.to_string(index=False, float_format="{:.3g}".format))
        st = stamp("none", about, 0, SHAPE | dict(backbone="resnet50", dtype="bf16"), "cpu", started)
        for f in save_table(found, ROOT / "figures" / name, st):
            print(f"wrote {f}")


if __name__ == "__main__":
    main()
