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


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_file_has_a_card(path):
    card = text("demo.md" if path.stem == "demo" else "backbones.md")
    about = header(path)
    assert f"hcil/weights/{path.name}" in card
    assert f"{path.stat().st_size:,} bytes" in card
    assert about["stamp"]["date"][:10] in card
    assert f"{about['stamp']['wall_s']:.0f} seconds" in card


def test_results_of_the_demonstration():
    r, card = header(ROOT / "hcil/weights/demo.safetensors")["results"], text("demo.md")
    assert f"On {r['n']} test videos of that twin ({r['n_real']} real, {r['n_fake']} fake)" in card
    for name in ("accuracy", "auc"):
        assert f"{r[name]:.3f} [{r[name + '_lo']:.3f}, {r[name + '_hi']:.3f}]" in card
    assert f"recall of real videos {r['recall_real']:.3f}, of fakes {r['recall_fake']:.3f}" in card


def test_what_the_backbones_know():
    r2 = [header(p)["r2"] for p in FILES if p.stem != "demo"]
    for name in ("yaw", "mouth"):
        assert " and ".join(f"{r[name]:.3f}" for r in r2) in text("backbones.md")
