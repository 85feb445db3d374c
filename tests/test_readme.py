"""The commands that the README and the guides show: each can be read, and those of the first minutes run as they stand"""

import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from hcil.start import COMMANDS, outline
import house

PAGES = [house.ROOT / "README.md", *sorted((house.ROOT / "guides").glob("*.md")), house.ROOT / "records/README.md"]


def commands(path):
    "Lines of a page's code blocks that call hcil, without their comments"
    blocks = re.findall(r"^```\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.startswith("hcil")]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(house.ROOT)))
def test_read(path):
    "Every command line of a page is one that the command understands"
    for line in commands(path):
        name, *args = shlex.split(line, comments=True)
        outline(name, COMMANDS[name]).parser().parse_args(args)  # a mistake ends the test


def test_there_are_some():
    "The pages do show commands, and a mistake in one is noticed"
    assert {c.split()[0] for c in commands(PAGES[0])} >= {"hcil_twins", "hcil_prepare", "hcil_train", "hcil_detect"}
    with pytest.raises(SystemExit):
        outline("hcil_twins", COMMANDS["hcil_twins"]).parser().parse_args(["--olny", "ff++"])


@pytest.mark.skipif("slow" not in os.environ.get("HCIL_FLAGS", ""), reason="makes twins and trains: FLAGS=slow")
def test_first_minutes(tmp_path):
    "The README's commands one after the other, in an empty folder: a picture of each video, and a run"
    env = {k: v for k, v in os.environ.items() if k not in ("IN_TEST", "HCIL_HOME")} | dict(HCIL_RUNS=str(tmp_path / "runs"))
    env["PATH"] = str(Path(sys.executable).parent) + os.pathsep + env["PATH"]
    for line in commands(PAGES[0]):
        assert shutil.which(line.split()[0], path=env["PATH"])
        subprocess.run(shlex.split(line, comments=True), cwd=tmp_path, env=env, check=True, stdin=subprocess.DEVNULL)
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 16
    assert len(list((tmp_path / "runs").glob("*/weights.safetensors"))) == 1
