"The model cards say of each file of weights what its header says"

from pathlib import Path
import json
import re

from safetensors import safe_open
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CARDS = ROOT / "model_cards"
FILES = sorted((ROOT / "hcil/weights").glob("*.safetensors"))


def text(card):
    return (CARDS / card).read_text(encoding="utf-8")


def header(path):
    "What a file of weights says of itself"
    with safe_open(path, "pt") as f:
        return {k: json.loads(v) for k, v in f.metadata().items()}


@pytest.mark.parametrize("card", sorted(p.name for p in CARDS.glob("*.md")))
def test_front_matter(card):
    front = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text(card), re.S)[1])
    assert front["license"] == "apache-2.0" and front["library_name"] == "hcil" and front["pipeline_tag"] and front["tags"]


def test_the_demonstration_has_a_card():
    path, card = ROOT / "hcil/weights/demo.safetensors", text("demo.md")
    s = header(path)["stamp"]
    assert f"hcil/weights/{path.name}" in card and f"{path.stat().st_size:,} bytes" in card
    assert s["date"][:10] in card and f"{s['wall_s']:.0f} seconds" in card


@pytest.mark.parametrize("path", [p for p in FILES if p.stem != "demo"], ids=lambda p: p.stem)
def test_every_backbone_has_a_line(path):
    "Its size, when and how it was made, what it knows"
    about = header(path)
    s, r2 = about["stamp"], about["r2"]
    line = next(x for x in text("backbones.md").splitlines() if x.startswith(f"| {path.stem} |"))
    made = f"{s['date'][:10]}, {s['device'].rpartition(', ')[2]}, {s['wall_s']:.0f} s"
    mean = sum(max(0, v) for v in r2.values()) / len(r2)
    cells = [about["spec"]["size"], f"{path.stat().st_size:,}", made, f"{r2['yaw']:.2f}", f"{r2['mouth']:.2f}", f"{mean:.2f}"]
    assert [c.strip() for c in line.strip("|").split("|")][2:] == list(map(str, cells))


def test_results_of_the_demonstration():
    r, card = header(ROOT / "hcil/weights/demo.safetensors")["results"], text("demo.md")
    assert f"On {r['n']} test videos of that twin ({r['n_real']} real, {r['n_fake']} fake)" in card
    for name in ("accuracy", "auc"):
        assert f"{r[name]:.3f} [{r[name + '_lo']:.3f}, {r[name + '_hi']:.3f}]" in card
    assert f"recall of real videos {r['recall_real']:.3f}, of fakes {r['recall_fake']:.3f}" in card
