"What says whose everything is, how to cite it, and where else it may run"

import json
import re
import shlex
from configparser import ConfigParser

import pytest
import yaml

import house

NOTICE = (house.ROOT / "NOTICE").read_text(encoding="utf-8")
HOSTING = (house.ROOT / "hosting/README.md").read_text(encoding="utf-8")
OWN = ("README.md", "house.svg", "detect.jpg", "drawn.jpg", "idea.jpg")  # in nbs/assets, made here


def test_notice():
    "What is named is there, every file that others made is named, and it travels with the package"
    for path in re.findall(r"^(?:nbs|hcil)/\S+\.\w+$", NOTICE, re.M):
        assert list(house.ROOT.glob(path)), f"NOTICE names {path}, and there is none"
    for file in sorted((house.ROOT / "nbs/assets").iterdir()):
        assert file.name in OWN or f"nbs/assets/{file.name}" in NOTICE, (
            f"{file.name}: name it in NOTICE, or in OWN here if it was made for this project"
        )
    packed = (house.ROOT / "MANIFEST.in").read_text(encoding="utf-8")
    assert all(name in packed.split() for name in ("LICENSE", "NOTICE", "CITATION.cff"))


def test_citation():
    "It can be read, has a date, and its addresses are real ones"
    text = (house.ROOT / "CITATION.cff").read_text(encoding="utf-8")
    cff = yaml.safe_load(text)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", str(cff["date-released"])) and "example." not in text
    assert {"cff-version", "message", "title", "authors", "license"} <= cff.keys()
    paper = cff["preferred-citation"]
    assert paper["doi"] == "10.1007/978-3-031-19775-8_35" and paper["url"].startswith("https://www.ecva.net/")
    assert paper["end"] - paper["start"] == 17 and len(paper["authors"]) == 5


def settings():
    ini = ConfigParser(delimiters=["="])
    ini.read(house.ROOT / "settings.ini", encoding="utf-8")
    return ini["DEFAULT"]


def test_no_invented_address():
    "An address that leads nowhere is worse than none"
    assert not [k for k, v in settings().items() if "example." in v]


@pytest.mark.parametrize("file", [".binder/requirements.txt", ".readthedocs.yaml", "hosting/colab.ipynb"])
def test_hosting(file):
    "Each file is there, is named in the table, says that it was not tried, and asks for extras that exist"
    text = (house.ROOT / file).read_text(encoding="utf-8")
    assert file.rpartition("hosting/")[2] in HOSTING.replace("../", "") and "was not tried" in text and "has been tried" in HOSTING
    extras = set(re.findall(r"(?:\.|hcil)\[(\w+)\]", text))
    assert extras and all(f"{extra}_requirements" in settings() for extra in extras)
    if file.endswith("yaml"):
        assert yaml.safe_load(text)["version"] == 2
    if file.endswith("ipynb"):
        assert [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"] and "example." not in text


def test_widgets_say_what_they_need():
    "`pip install .` leaves ipywidgets out: the extra brings it, and who lacks it is told so"
    assert "ipywidgets" in shlex.split(settings()["widgets_requirements"])
    from subprocess import run
    from sys import executable

    code = "import sys; sys.modules['ipywidgets'] = None; import hcil.explorer"
    p = run([executable, "-c", code], cwd=house.ROOT, capture_output=True, text=True)
    assert p.returncode and "pip install 'hcil[widgets]'" in p.stderr.splitlines()[-1], p.stderr
