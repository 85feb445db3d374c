"The data cards say what the loaders expect, and each has all its parts"

from pathlib import Path
import re

import pytest

from hcil.datasets import COUNTS, NAMES, PAPER_N, TITLES
from hcil.profiles import profile_of
from hcil.twins import JOBS, LEVELS

CARDS = Path(__file__).resolve().parent.parent / "data_cards"
CARD = dict(zip(NAMES, ("faceforensics.md", "celeb-df-v2.md", "dfdc-preview.md", "wilddeepfake.md"), strict=True))
PARTS = [
    "What it is",
    "Counts",
    "Layout",
    "Splits and labels",
    "Access",
    "Licence and terms",
    "Known traps",
    "What the paper used",
    "How our loader reads it",
    "Ethics",
]


def text(card):
    return (CARDS / card).read_text(encoding="utf-8")


def section(card, heading):
    "The text below a heading, up to the next of the same level"
    return re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text(card), re.M | re.S)[1]


def table(card):
    "The table under `Counts`, as a dict"
    rows = re.findall(r"^\|([^|]+)\|([^|]+)\|$", section(card, "Counts"), re.M)
    assert [c.strip() for c in rows[0]] == ["what", "count"] and set(rows[1][1]) <= set("-:")
    assert len({k for k, _ in rows}) == len(rows), "a row stands there twice"
    return {k.strip(): int(v) for k, v in rows[2:]}


@pytest.mark.parametrize("name", NAMES)
def test_counts(name):
    assert table(CARD[name]) == COUNTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_parts(name):
    assert re.findall("^## (.*)$", text(CARD[name]), re.M) == PARTS
    assert text(CARD[name]).startswith(f"# {TITLES[name]}\n")


@pytest.mark.parametrize("name", NAMES)
def test_paper(name):
    assert re.search(rf"\b{PAPER_N[name]}\b", section(CARD[name], "What the paper used"))


@pytest.mark.parametrize("name", NAMES)
def test_loader(name):
    assert f"manifest('{name}', root)" in section(CARD[name], "How our loader reads it")


def test_no_other_cards():
    assert {p.name for p in CARDS.iterdir()} == {*CARD.values(), "twins.md"}


def twin_counts(profile):
    "What the twins' card must say of a profile, from the jobs that make them"
    counts = {name: jobs(0, profile_of(profile).twins)[2] for name, jobs in JOBS.items()}
    wild = {label: sum(v for k, v in counts["wild"].items() if k.startswith(label)) for label in ("real", "fake")}
    fakes = {v for k, v in counts["ff++"].items() if k.startswith("manipulated")}
    assert len(fakes) == 1, "the card has one number for all manipulations"
    return [
        counts["ff++"]["original_sequences/youtube"],
        *fakes,
        *(counts["celeb-df"][k] for k in ("Celeb-real", "YouTube-real", "Celeb-synthesis")),
        counts["dfdc-p"]["real"],
        counts["dfdc-p"]["fake"],
        wild["real"],
        wild["fake"],
    ]


def test_twins():
    rows = re.findall(r"^\|[^|]+\| (\d+) \| (\d+) \|$", section("twins.md", "Counts"), re.M)
    assert [list(map(int, column)) for column in zip(*rows, strict=True)] == [twin_counts("smoke"), twin_counts("mini")]
    assert f"crf {LEVELS['c40']}" in text("twins.md")
