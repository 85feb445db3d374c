"Everything is in its place, and each check would notice if it were not"

from pathlib import Path
import subprocess
import sys

import nbformat
import pytest

import house
import readme
from conftest import code, md

# ---------------------------------------------------------------- the real tree


@pytest.mark.parametrize("check", house.CHECKS)
def test_house(check):
    complaints = house.CHECKS[check](house.ROOT)
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


def test_ruff():
    "What is not exported is checked and formatted by ruff"
    for command in (["check"], ["format", "--check"]):
        p = subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet"], cwd=house.ROOT, capture_output=True, text=True)
        if p.returncode:
            pytest.fail(f"{p.stdout}{p.stderr}\nruff {command[0]} complains: run `.venv/bin/ruff {command[0]}`", pytrace=False)


TOLERATED = []  # lines of `pip check` that cannot be helped, each with its reason


def test_pip_check():
    "The installed packages agree with each other"
    p = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    complaints = [o for o in p.stdout.splitlines() if o not in TOLERATED]
    if p.returncode and complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


def test_installed_from_here(tmp_path):
    "`import hcil` gives this checkout, wherever one stands"
    cmd = [sys.executable, "-P", "-c", "import hcil; print(hcil.__file__)"]
    p = subprocess.run(cmd, cwd=tmp_path, capture_output=True, text=True)
    if p.returncode:
        pytest.fail(f"hcil is not installed: run `make test`, or `pip install -e '.[dev]'`\n{p.stderr}", pytrace=False)
    if Path(p.stdout.strip()).resolve().parent != house.ROOT / "hcil":
        pytest.fail(f"{p.stdout.strip()} is installed, not this checkout: run `make clean-venv`, then try again", pytrace=False)


# ---------------------------------------------------------------- each check, broken on purpose


def broken_json(p):
    (p / "nbs/11_pwm.ipynb").write_text('{"cells": [')


def not_a_notebook(p):
    (p / "nbs/11_pwm.ipynb").write_text('{"cells": [{}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}')


def executed(p):
    p.edit("nbs/12_raim.ipynb", '"source": [\n    "assert two() == 2"', '"execution_count": 7,\n   "source": [\n    "assert two() == 2"')


def hand_edited(p):
    p.edit("hcil/pwm.py", "math.cos(0)", "math.cos(0.)")


def index_edited(p):
    p.edit("hcil/_modidx.py", "hcil.pwm.one", "hcil.pwm.uno")


def version_edited(p):
    p.edit("hcil/__init__.py", '__version__ = "', '__version__ = "9')


def module_lost(p):
    (p / "hcil/raim.py").unlink()


def notebook_gone(p):
    (p / "nbs/12_raim.ipynb").unlink()


def notebook_ahead(p):
    p.edit("nbs/11_pwm.ipynb", "return math.cos(0)", "return math.exp(0)")


def code_unfinished(p):
    p.edit("nbs/11_pwm.ipynb", "return math.cos(0)", "return math.cos(0")


def readme_edited(p):
    p.edit("README.md", "A project to break", "A project")


def index_ahead(p):
    p.edit("nbs/index.ipynb", "A project to break", "A project")


def index_gone(p):
    (p / "nbs/index.ipynb").unlink()


def picture_in_index(p):
    p.edit(
        "nbs/index.ipynb",
        '"cells": [',
        """"cells": [{"cell_type": "code", "id": "a1", "execution_count": null, "metadata": {}, "source": ["1"],
        "outputs": [{"output_type": "display_data", "metadata": {}, "data": {"image/png": "AAAA"}}]},""",
    )


def same_module(p):
    p.edit("nbs/12_raim.ipynb", "default_exp raim", "default_exp pwm")


def no_module(p):
    p.edit("nbs/12_raim.ipynb", "#| default_exp raim", "pass")


def no_parameters(p):
    p.edit("nbs/paper/table1.ipynb", '"parameters"', '"other"')


def two_parameters(p):
    p.write("nbs/paper/table1.ipynb", code("a = 1", "parameters"), code("b = 2", "parameters"))


def empty_parameters(p):
    p.write("nbs/paper/table1.ipynb", code("# nothing", "parameters"))


def tags_not_kept(p):
    p.edit("settings.ini", "allowed_cell_metadata_keys = tags", "allowed_cell_metadata_keys =")


def link_broken(p):
    p.edit("nbs/paper/table1.ipynb", "../11_pwm.ipynb", "11_pwm.ipynb")


def heading_renamed(p):
    p.edit("nbs/11_pwm.ipynb", "## What moves", "## What stays")


def picture_lost(p):
    p.write("nbs/13_isf.ipynb", md('<img src="fig.png">'))


def link_outside(p):
    p.write("nbs/13_isf.ipynb", md("[out](../../)"))


def readme_link_broken(p):
    p.edit("README.md", "](LICENSE)", "](../LICENSE)")


def imports_mixed(p):
    p.write("nbs/13_isf.ipynb", code("import math\nx = math.pi"))


def imports_mixed_gpu(p):
    p.write("nbs/13_isf.ipynb", code("#| gpu\nimport math\nprint(math.pi)"))


def gpu_unguarded(p):
    p.write("nbs/13_isf.ipynb", code("#| gpu\nprint(torch.zeros(1).cuda())"))


def no_kernel(p):
    p.write("nbs/13_isf.ipynb", md("# Nothing"), other=1)


def no_language(p):
    p.write("nbs/13_isf.ipynb", md("# Nothing"), kernelspec=dict(name="python3", display_name="python3"))


def path_in_code(p):
    p.write("nbs/13_isf.ipynb", code("open('/home/me/x.csv')"))


def path_in_output(p):
    p.edit(
        "nbs/12_raim.ipynb",
        '"outputs": [],\n   "source": [\n    "assert two() == 2"',
        '''"outputs": [{"output_type": "stream", "name": "stderr",
        "text": ["\\u001b[0;32m/tmp/ipykernel_7/1.py:1: UserWarning"]}],\n   "source": [\n    "assert two() == 2"''',
    )


def path_in_readme(p):
    p.edit("README.md", "# small", "# small, in file:///Users/me/small")


def path_in_figure(p):
    (p / "figures").mkdir()
    (p / "figures/t.csv").write_text("out\n/root/x")


def widget_live(p):
    p.edit(
        "nbs/12_raim.ipynb",
        '"outputs": [],\n   "source": [\n    "assert two() == 2"',
        '''"outputs": [{"output_type": "display_data", "metadata": {},
        "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "w"}}],\n   "source": [\n    "assert two() == 2"''',
    )


def widget_state(p):
    p.edit("nbs/12_raim.ipynb", '"metadata": {\n  "kernelspec"', '"metadata": {\n  "widgets": {},\n  "kernelspec"')


def pwm_imports_video(p):
    p.edit("hcil/pwm.py", "import math", "from .video import frames")


def raim_imports_inside(p):
    p.edit("hcil/raim.py", "def two(): return", "def two():\n    from hcil import video\n    return")


def raim_imports_by_name(p):
    p.edit("hcil/raim.py", "from .pwm import one", "from .pwm import one\nimport hcil.video")


def pwm_imports_raim(p):
    p.edit("hcil/pwm.py", "import math", "import math\nfrom .raim import two")


def raim_imports_numpy(p):
    p.edit("hcil/raim.py", "from .pwm import one", "from .pwm import one\nimport numpy.linalg")


def pwm_imports_late(p):
    p.edit("hcil/pwm.py", "def one(): return", "def one():\n    import math\n    return")


def video_too_long(p):
    p.edit("hcil/video.py", "def frames()", "\n" * house.ROOM + "def frames()")


def picture_old(p):
    p.edit("hcil/video.py", "from .raim import two", "two = int")


def picture_gone(p):
    (p / "nbs/assets/house.svg").unlink()


def import_not_exported(p):
    p.edit("hcil/pwm.py", "import math", "")


def name_misspelt(p):
    (p / "hcil/isf.py").write_text("class ISF:\n    def forward(self, x): return [y for y in x if meen(y)]\n")


BREAK = dict(  # check -> (what breaks it, the file that the complaint must name)
    json=[(broken_json, "nbs/11_pwm.ipynb"), (not_a_notebook, "nbs/11_pwm.ipynb")],
    clean=[(executed, "nbs/12_raim.ipynb")],
    modules=[
        (hand_edited, "hcil/pwm.py"),
        (index_edited, "hcil/_modidx.py"),
        (version_edited, "hcil/__init__.py"),
        (module_lost, "hcil/raim.py"),
        (notebook_gone, "hcil/raim.py"),
        (notebook_ahead, "hcil/pwm.py"),
        (code_unfinished, "nbs/"),
    ],
    readme=[
        (readme_edited, "README.md"),
        (index_ahead, "README.md"),
        (index_gone, "nbs/index.ipynb"),
        (picture_in_index, "nbs/index.ipynb"),
    ],
    default_exp=[(same_module, "nbs/12_raim.ipynb"), (no_module, "nbs/12_raim.ipynb")],
    parameters=[(o, "nbs/paper/table1.ipynb") for o in (no_parameters, two_parameters, empty_parameters, tags_not_kept)],
    links=[
        (link_broken, "nbs/paper/table1.ipynb"),
        (heading_renamed, "nbs/index.ipynb"),
        (picture_lost, "nbs/13_isf.ipynb"),
        (link_outside, "nbs/13_isf.ipynb"),
        (readme_link_broken, "README.md"),
    ],
    imports=[(imports_mixed, "nbs/13_isf.ipynb"), (imports_mixed_gpu, "nbs/13_isf.ipynb")],
    gpu=[(gpu_unguarded, "nbs/13_isf.ipynb")],
    kernelspec=[(no_kernel, "nbs/13_isf.ipynb"), (no_language, "nbs/13_isf.ipynb")],
    paths=[
        (path_in_code, "nbs/13_isf.ipynb"),
        (path_in_output, "nbs/12_raim.ipynb"),
        (path_in_readme, "README.md"),
        (path_in_figure, "figures/t.csv"),
    ],
    still=[(widget_live, "nbs/12_raim.ipynb"), (widget_state, "nbs/12_raim.ipynb")],
    wings=[(pwm_imports_video, "hcil/pwm.py"), (raim_imports_inside, "hcil/raim.py"), (raim_imports_by_name, "hcil/raim.py")],
    circles=[(pwm_imports_raim, "hcil/pwm.py")],
    method=[(raim_imports_numpy, "hcil/raim.py")],
    inner_imports=[(pwm_imports_late, "hcil/pwm.py")],
    rooms=[(video_too_long, "hcil/video.py")],
    picture=[(picture_old, "nbs/assets/house.svg"), (picture_gone, "nbs/assets/house.svg")],
    names=[(import_not_exported, "hcil/pwm.py"), (name_misspelt, "hcil/isf.py")],
)


def test_every_check_is_broken_once():
    assert BREAK.keys() == house.CHECKS.keys()


@pytest.mark.parametrize("check", house.CHECKS)
def test_small_project_is_sound(check, project):
    assert house.CHECKS[check](project.root) == []


@pytest.mark.parametrize("check,harm,culprit", [pytest.param(c, f, o, id=f"{c}-{f.__name__}") for c, l in BREAK.items() for f, o in l])
def test_check_notices(check, harm, culprit, project):
    harm(project)
    complaints = house.CHECKS[check](project.root)
    assert any(c.startswith(culprit) for c in complaints), complaints


def test_nothing_to_check(tmp_path):
    assert house.check_json(tmp_path) == ["nbs/: there are no notebooks here; restore them"]


# ---------------------------------------------------------------- README.md


def test_readme(project):
    "Links move to the root, hidden cells and directives go, code stays as it is"
    project.write(
        "nbs/index.ipynb",
        md('# x\n\n[a](00_a.ipynb#B-c) ![f](../figures/f.png) <img src="assets/i.png"> [w](https://w.org/x) [s](#The-Heading)'),
        md("`[a](b.ipynb)`\n\n```\n[a](b.ipynb)\n\n\n\n#| kept\n```"),
        code("#| hide\nsecret"),
        code("#| eval: false\nshown"),
    )
    text = readme.render(project.root)
    for link in ("](nbs/00_a.ipynb#B-c)", "](figures/f.png)", 'src="nbs/assets/i.png"', "](https://w.org/x)", "](#the-heading)"):
        assert link in text
    assert "`[a](b.ipynb)`\n\n```\n[a](b.ipynb)\n\n\n\n#| kept\n```" in text
    assert "secret" not in text and "eval:" not in text and "```python\nshown\n```" in text
    assert readme.render(project.root) == text


def test_readme_silent(project):
    "Of a cell with `echo: false` only the Markdown that it gave is read"
    cell = code("#| echo: false\nf()")
    cell.outputs = [nbformat.v4.new_output("execute_result", {"text/markdown": "| a |", "text/plain": "x"})]
    project.write("nbs/index.ipynb", md("# x"), cell)
    text = readme.render(project.root)
    assert "| a |" in text and "f()" not in text and "```" not in text


def test_readme_check():
    "`--check` writes nothing and exits with 1 if README.md is out of date"
    before = (house.ROOT / "README.md").read_bytes()
    p = subprocess.run([sys.executable, house.ROOT / "tools/readme.py", "--check"])
    assert p.returncode == bool(house.check_readme(house.ROOT))
    assert (house.ROOT / "README.md").read_bytes() == before
