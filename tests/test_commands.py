"Every command: help without its imports, an example that can be read, mistakes in one sentence, one name for one thing"

import shlex
import sys
from importlib import import_module

import pytest

from hcil.start import COMMANDS, outline

EVERY = pytest.mark.parametrize("name", COMMANDS)


def parser(name):
    return outline(name, COMMANDS[name]).parser()


@EVERY
def test_outline(name):
    "What is read without the imports is what the command says of itself"
    whole = getattr(import_module(COMMANDS[name]), name)
    assert parser(name).format_help() == whole.parser().format_help()


@EVERY
def test_help(name, capsys):
    "Every option has words, what may be chosen is listed, the example can be read, and the version is told"
    p = parser(name)
    example = p.epilog.partition("example: ")[2]
    first, *args = shlex.split(example)
    assert first == name and p.parse_args(args)
    for action in p._actions:
        assert action.help and "_" not in "".join(action.option_strings), action
    for line in p.format_help().splitlines():
        assert "(default: )" not in line and len(line) <= 140
    with pytest.raises(SystemExit) as e:
        p.parse_args(["--version"])
    assert e.value.code == 0 and capsys.readouterr().out.startswith("hcil ")


@EVERY
def test_mistake(name, capsys):
    "An option that does not exist: one sentence, and exit status 2"
    with pytest.raises(SystemExit) as e:
        parser(name).parse_args(["--no-such-thing"])
    assert e.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{name}: ") and said.count("\n") == 1 and said.endswith(f": see {name} --help\n")


def test_one_name():
    "No two options differ only in a capital letter or in an s, but for those that mean other things"
    found = {o.lstrip("-") for name in COMMANDS for a in parser(name)._actions for o in a.option_strings} - {"h"}
    folded = {}
    for o in found:
        folded.setdefault(o.lower().rstrip("s"), set()).add(o)
    assert {k for k, v in folded.items() if len(v) > 1} == {"seed", "picture"}  # one seed, how many; a folder, how many of each person


@EVERY
def test_device(name):
    "Who has --device says the same of it; the twins are the exception: the same bytes everywhere only on the processor"
    found = [a for a in parser(name)._actions if a.dest == "device"]
    if name != "hcil_twins":
        assert [a.choices for a in found] in ([], [("auto", "cpu", "cuda")])


@pytest.mark.parametrize("name, option", [("hcil_prepare", "--data"), ("hcil_train", "--stores"), ("hcil_evaluate", "--weights")])
def test_required(name, option, capsys):
    "What must be given is marked so, and missed at once"
    with pytest.raises(SystemExit) as e:
        parser(name).parse_args(["ff++"] if name == "hcil_prepare" else [])
    assert e.value.code == 2 and f"required: {option}" in capsys.readouterr().err
    assert f"[{option} " not in parser(name).format_usage()


def test_nothing_large_is_imported():
    "All of the above without PyTorch: in a process of its own"
    from subprocess import run

    code = "import sys; from hcil.start import *; [outline(*c).parser().format_help() for c in COMMANDS.items()]; print('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
