"""The checks of the house: is everything in its place?

Each check takes the root of the project and returns its complaints, an empty list if all is well.
`python tools/house.py` runs all of them.
"""

from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote
import ast
import builtins
import json
import os
import re
import shutil
import subprocess
import symtable
import sys
import tempfile

import nbformat
from nbdev.process import NBProcessor

import readme
import still
import wings

ROOT = Path(__file__).resolve().parent.parent

# ---------------------------------------------------------------- reading notebooks


def notebooks(
    root: Path,  # the project
) -> list:  # their paths, those that begin with `_` or `.` left out, as nbdev does
    "Every notebook below nbs/"
    nbs = root / "nbs"
    return sorted(p for p in nbs.rglob("*.ipynb") if not any(o[0] in "_." for o in p.relative_to(nbs).parts))


def name(root, path):
    return path.relative_to(root).as_posix()


def defect(
    path: Path,  # a file
) -> str:  # what is wrong with it, empty if nothing is
    "Can the file, if it is called a notebook, be read as one?"
    if path.suffix != ".ipynb":
        return ""
    try:
        nbformat.validate(nbformat.read(path, as_version=4))
    except Exception as e:
        return f"{type(e).__name__}: {e}".splitlines()[0][:120]
    return ""


def readable(
    root: Path,  # the project
) -> list:  # (name, notebook) pairs; each cell has its nbdev directives in `directives_`
    "The notebooks that can be read; `check_json` names the others"
    return [(name(root, p), NBProcessor(p, rm_directives=False).nb) for p in notebooks(root) if not defect(p)]


def pages(
    root: Path,  # the project
) -> list:  # paths
    "Every Markdown page that people wrote"
    return sorted(
        p for pattern in ("*.md", "guides/*.md", "data_cards/*.md", "model_cards/*.md", "nbs/**/*.md") for p in root.glob(pattern)
    )


def code_cells(nb):
    return [c for c in nb.cells if c.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


# ---------------------------------------------------------------- cleaning and exporting afresh

NBDEV = """
from nbdev.clean import nbdev_clean
from nbdev.doclinks import nbdev_export
nbdev_clean(fname='nbs')
nbdev_export(path=None)
"""


def clean_and_export(
    root: Path,  # a project, which is changed
) -> str:  # the error message, empty if there was none
    "Run nbdev_clean and nbdev_export in `root`"
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}  # nbdev_export does nothing while IN_TEST is set
    p = subprocess.run([sys.executable, "-c", NBDEV], cwd=root, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return (p.stderr.strip() or "no message").splitlines()[-1] if p.returncode else ""


@contextmanager
def fresh(
    root: Path,  # the project, which is left alone
):  # yields the copy and the error message of the export
    "A temporary copy of the notebooks, cleaned, and exported to an hcil/ that was not there before"
    with tempfile.TemporaryDirectory() as tmp:
        copy = Path(tmp).resolve()
        for p in [root / "settings.ini", root / "pyproject.toml", *notebooks(root)]:
            (copy / p.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(p, copy / p.relative_to(root))
        yield copy, clean_and_export(copy)


# ---------------------------------------------------------------- the checks


def check_json(root):
    "Every notebook can be read"
    if not notebooks(root):
        return ["nbs/: there are no notebooks here; restore them"]
    found = [(name(root, p), defect(p)) for p in notebooks(root)]
    return [f"{f}: not a valid notebook ({d}); restore it or repair its JSON" for f, d in found if d]


def check_clean(root):
    "Every notebook is as nbdev_clean leaves it"
    with fresh(root) as (copy, _):
        dirty = [p for p in notebooks(root) if p.read_bytes() != (copy / p.relative_to(root)).read_bytes()]
    return [f"{name(root, p)}: not clean; run `make export`" for p in dirty]


def check_modules(root):
    "hcil/ is exactly what the notebooks export"
    with fresh(root) as (copy, error):
        if error:
            return [f"nbs/: nbdev_export fails ({error}); repair the notebook that it names"]
        then, now = [{name(r, p): p.read_bytes() for p in r.glob("hcil/**/*.py")} for r in (copy, root)]
        toml = (copy / "pyproject.toml").read_bytes() == (root / "pyproject.toml").read_bytes()
    return (
        [f"{f}: no notebook exports it; delete it or restore its notebook" for f in sorted(now.keys() - then)]
        + [f"{f}: missing; run `make export`" for f in sorted(then.keys() - now)]
        + [
            f"{f}: not what the notebooks export; make the change in its notebook, then `make export`"
            for f in sorted(now.keys() & then)
            if now[f] != then[f]
        ]
        + ([] if toml else ["pyproject.toml: not as nbdev_export leaves it; run `make export`"])
    )


def check_readme(root):
    "README.md is what nbs/index.ipynb says"
    if not (root / "nbs/index.ipynb").exists():
        return ["nbs/index.ipynb: missing; README.md is made from it, so restore it"]
    if defect(root / "nbs/index.ipynb"):
        return []
    try:
        text = readme.render(root)
    except ValueError as e:
        return [f"nbs/{e}"]
    same = (root / "README.md").exists() and (root / "README.md").read_text(encoding="utf-8") == text
    return [] if same else ["README.md: not what nbs/index.ipynb says; run `make export`"]


def default_exps(nb):
    return [c.directives_["default_exp"][0] for c in code_cells(nb) if c.directives_.get("default_exp")]


def check_default_exp(root):
    "Each exporting notebook names its module, and no two notebooks name the same"
    owner, res = {}, []
    for f, nb in readable(root):
        exps = default_exps(nb)
        bare = any(c.directives_.get(d) == [] for c in code_cells(nb) for d in ("export", "exports", "exporti"))
        if bare and not exps:
            res.append(f"{f}: exports to no module; add a cell `#| default_exp name`")
        for e in exps:
            if e in owner:
                res.append(f"{f}: `#| default_exp {e}` is taken by {owner[e]}; choose another name")
            owner.setdefault(e, f)
    return res


def parameters(nb):
    return [c for c in nb.cells if "parameters" in tags(c)]


def inspected(path):
    "The parameters that papermill sees in the notebook at `path`"
    from papermill import inspect_notebook

    try:
        return inspect_notebook(str(path))
    except Exception:
        return {}


def check_parameters(root):
    "Each notebook in nbs/paper/ has one `parameters` cell, which survives cleaning and which papermill sees"
    res = []
    with fresh(root) as (copy, _):
        cleaned = dict(readable(copy))
    for f, nb in readable(root):
        if not f.startswith("nbs/paper/"):
            continue
        n = len(parameters(nb))
        if n != 1:
            res.append(f"{f}: {n} cells are tagged `parameters`; tag exactly one")
        elif not parameters(cleaned[f]):
            res.append(f"{f}: cleaning removes the tag `parameters`; keep `allowed_cell_metadata_keys = tags` in settings.ini")
        elif not inspected(root / f):
            res.append(f"{f}: papermill finds no parameters; write one `name = value` a line in that cell")
    return res


SHOWN = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL)  # code and formulas: nothing in them is a link


def links(
    md: str,  # Markdown text
) -> list:  # targets as written, those to other sites left out
    "The links and pictures of `md` that lead to a place in this project"
    return [t for _, t in readme.LINK.findall(SHOWN.sub("", md)) if not readme.EXTERNAL.match(t)]


def prose(path):
    "The Markdown text of a notebook or of a page"
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return "\n\n".join("".join(c.source) for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")


def anchors(
    path: Path,  # a notebook or a Markdown page
) -> set:  # what may follow the `#` of a link to it
    "The anchors of its headings, as Jupyter makes them in a notebook and GitHub in a page"
    md = prose(path)
    heads = re.findall(r"^#{1,6}\s+(.*?)\s*$", re.sub(r"```.*?```", "", md, flags=re.DOTALL), flags=re.MULTILINE)
    heads = [re.sub(r"[`*]", "", h) for h in heads]
    made = {h.replace(" ", "-") for h in heads} if path.suffix == ".ipynb" else {readme.slug(h) for h in heads}
    return made | set(re.findall(r'<a\s+(?:id|name)="([^"]+)"', md))


def broken(
    root: Path,  # the project
    page: Path,  # the notebook or page that holds the link
    link: str,  # its target
) -> str:  # what is wrong, empty if nothing is
    "Does `link` lead somewhere?"
    path, _, anchor = map(unquote, link.partition("#"))
    goal = (page.parent / path).resolve() if path else page
    if not goal.is_relative_to(root) or not goal.exists():
        return "leads nowhere"
    if anchor and goal.suffix in (".ipynb", ".md") and not defect(goal) and anchor not in anchors(goal):
        return f"names no heading of {name(root, goal)}"
    return ""


def check_links(root):
    "Links and pictures in notebooks and pages lead to files and headings that exist"
    root = root.resolve()
    texts = [p for p in notebooks(root) if not defect(p)] + pages(root)
    found = [(p, l, broken(root, p, l)) for p in texts for l in links(prose(p))]
    return [f"{name(root, p)}: the link `{l}` {why}; correct it" for p, l, why in found if why]


def parsed(
    cell,  # a code cell
):  # its syntax tree, None for magics and unfinished code
    "What Python sees in `cell`"
    if cell.source.lstrip().startswith("%%"):
        return None
    try:
        return ast.parse(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.MULTILINE))
    except SyntaxError:
        return None


def mixes(cell):
    "Does `cell` both import and compute? nbdev runs a cell with an import whenever it makes the documentation"
    d, tree = cell.directives_, parsed(cell)
    if not tree or d.keys() & {"export", "exports", "exporti"} or d.get("eval:") == ["false"]:
        return False
    kinds = {type(n) for n in ast.walk(tree)}
    return bool(kinds & {ast.Import, ast.ImportFrom}) and bool(kinds & {ast.Expr, ast.Assign})


def check_imports(root):
    "Imports have cells of their own"
    found = [(f, c) for f, nb in readable(root) for c in code_cells(nb) if mixes(c)]
    return [f"{f}: cell {c.idx_} (id {c.id}) mixes imports with other code; give the imports a cell of their own" for f, c in found]


def check_kernelspec(root):
    "Every notebook says which kernel runs it: papermill needs to know"
    found = [(f, nb.metadata.get("kernelspec", {})) for f, nb in readable(root)]
    return [
        f"{f}: no kernel is named; open it in Jupyter, choose the kernel python3 and save"
        for f, k in found
        if not (k.get("name") and k.get("language"))
    ]


def unguarded(cell):
    "Would `cell` fail where there is no GPU, run by hand? JupyterLab does not know nbdev's flags"
    lines = [line for line in cell.source.splitlines() if not line.startswith("#|")]
    return "gpu" in cell.directives_ and lines[:1] != ["if torch.cuda.is_available():"]


def check_gpu(root):
    "Run All in JupyterLab works without a GPU"
    found = [(f, c) for f, nb in readable(root) for c in code_cells(nb) if unguarded(c)]
    return [f"{f}: cell {c.idx_} (id {c.id}) needs a GPU; begin it with `if torch.cuda.is_available():`" for f, c in found]


MACHINE = re.compile(r"(?<![\w.~}*])/(?:home|root|tmp|work|Users)/[\w.-]+|\b[A-Z]:\\+Users\\+\w+")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def strings(
    o,  # what JSON can hold
):  # yields each string in it, without the colours of a terminal
    "Every piece of text in `o`"
    if isinstance(o, str):
        yield COLOUR.sub("", o)
    for x in o.values() if isinstance(o, dict) else o if isinstance(o, list) else ():
        yield from strings(x)


def all_text(
    path: Path,  # a notebook or a text file
) -> str:  # with what a notebook's outputs say
    "Everything that is written in the file"
    text = path.read_text(encoding="utf-8", errors="replace")
    return "\n".join(strings(json.loads(text))) if path.suffix == ".ipynb" and not defect(path) else text


def check_paths(root):
    "No notebook, page or artefact carries a path of one machine"
    texts = [*notebooks(root), *pages(root)]
    texts += [p for p in root.glob("figures/**/*") if p.suffix in (".md", ".csv", ".svg")]
    found = [(p, MACHINE.search(all_text(p))) for p in texts]
    return [f"{name(root, p)}: holds the path `{m[0]}` of one machine; write it relative to the project" for p, m in found if m]


def check_still(root):
    "No notebook was saved with live widgets, which are dead without their kernel"
    dirty = [p for p in notebooks(root) if not defect(p) and still.live(p)]
    return [f"{name(root, p)}: holds live widgets, which show nothing without a kernel; run `make export`" for p in dirty]


def wing_complaint(
    wing: wings.Wing,  # of a module, or None
    other: wings.Wing,  # of what it imports, or None
) -> str:  # empty if all is well
    "May a module of one wing import one of another?"
    if wing is None or other is None or other == wing or other.name in wing.below:
        return ""
    return f"a module of the wing {wing.name} may import only {wing.name}{''.join(f', {n}' for n in wing.below)}"


def check_wings(root):
    "Imports lead down the house, never up: those inside functions too"
    home = {m: wings.wing_of(p) for m, p in wings.module_files(root).items()}
    found = [(m, o, wing_complaint(home[m], home[o])) for m, below in wings.arrows(root).items() for o in sorted(below)]
    return [f"hcil/{m.replace('.', '/')}.py: imports `{o}` of the wing {home[o].name}; {why}" for m, o, why in found if why]


def check_circles(root):
    "No module imports itself by way of others"
    return [
        f"hcil/{c[0].replace('.', '/')}.py: is in a circle of imports ({' -> '.join(c)}); move what they share to a module below"
        for c in wings.circles(wings.arrows(root))
    ]


METHOD_NEEDS = {"torch", "torchvision", "safetensors", "fastcore", "hcil", "triton"}  # triton comes with PyTorch; 17_fused does without


def check_method(root):
    "The method needs PyTorch and nothing else, so that it can be read and copied alone"
    found = [
        (p, o)
        for p in wings.module_files(root).values()
        if (w := wings.wing_of(p)) and w.name == "method"
        for o in sorted({n.split(".")[0] for n in imported(parsed_file(p))} - sys.stdlib_module_names - METHOD_NEEDS)
    ]
    return [f"{name(root, p)}: imports `{o}`; a notebook of the method may need only {', '.join(sorted(METHOD_NEEDS))}" for p, o in found]


def parsed_file(path):
    "The syntax tree of a module, an empty one if it cannot be parsed (`check_modules` speaks of that)"
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError:
        return ast.Module([], [])


def imported(
    tree,  # syntax tree of a module
):  # yields dotted names
    "Everything that the module imports, of this project or not"
    for n in ast.walk(tree):
        if isinstance(n, ast.Import):
            yield from (a.name for a in n.names)
        if isinstance(n, ast.ImportFrom):
            yield "hcil" if n.level else n.module


def inner_imports(path):
    "Lines inside functions that import without saying that it is slow"
    lines = path.read_text(encoding="utf-8").splitlines()
    inside = {
        i.lineno
        for f in ast.walk(parsed_file(path))
        if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for i in ast.walk(f)
        if isinstance(i, (ast.Import, ast.ImportFrom))
    }
    return sorted(n for n in inside if "slow" not in lines[n - 1])


def check_inner_imports(root):
    "Imports stand at the top of a module; one that is slow and optional may stand in a function, and says so"
    found = [(p, n) for p in wings.module_files(root).values() for n in inner_imports(p)]
    return [
        f"{name(root, p)}: line {n} imports inside a function; move it to the top, or say in a comment that it is slow" for p, n in found
    ]


ROOM = 420  # lines


def check_rooms(root):
    "No module is longer than one can read at a stretch"
    sizes = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in wings.module_files(root).values()}
    return [f"{name(root, p)}: {n} lines; split its notebook ({ROOM} at most)" for p, n in sizes.items() if n > ROOM]


def check_picture(root):
    "The picture of the house is drawn from the imports as they are"
    path = root / wings.PICTURE
    if not path.exists() and not any("assets/house.svg" in prose(p) for p in notebooks(root) if not defect(p)):
        return []
    same = path.exists() and path.read_text(encoding="utf-8") == wings.picture(root)
    return [] if same else [f"{wings.PICTURE}: not the house as it is; run `make export`"]


def scopes(
    table,  # of symbols
):  # yields it and every scope inside it
    "A module, its functions and its classes, as Python's compiler sees them"
    yield table
    for child in table.get_children():
        yield from scopes(child)


def undefined(
    path: Path,  # a module
) -> list:  # names
    "What the module reads as a global name and neither defines nor imports: an import that stayed in a test cell, say"
    try:
        top = symtable.symtable(path.read_text(encoding="utf-8"), path.name, "exec")
    except SyntaxError:
        return []  # `check_modules` speaks of it
    known = {o.get_name() for o in top.get_symbols() if o.is_assigned() or o.is_imported()} | set(dir(builtins)) | {"__file__"}
    return sorted(
        {
            o.get_name()
            for t in scopes(top)
            for o in t.get_symbols()
            if o.is_referenced() and (t is top or o.is_global()) and o.get_name() not in known
        }
    )


def check_names(root):
    "Every module of hcil/ defines or imports the names that it uses"
    found = [(p, o) for p in sorted(root.glob("hcil/**/*.py")) for o in undefined(p)]
    return [f"{name(root, p)}: uses `{o}`, which it does not define; export the cell that imports or defines it" for p, o in found]


CHECKS = {
    f.__name__.removeprefix("check_"): f
    for f in [
        check_json,
        check_clean,
        check_modules,
        check_readme,
        check_default_exp,
        check_parameters,
        check_links,
        check_imports,
        check_kernelspec,
        check_gpu,
        check_paths,
        check_still,
        check_wings,
        check_circles,
        check_method,
        check_inner_imports,
        check_rooms,
        check_picture,
        check_names,
    ]
}


def main():
    "Run every check and print the complaints"
    complaints = [c for check in CHECKS.values() for c in check(ROOT)]
    print("\n".join(complaints) or f"{len(CHECKS)} checks, no complaints.")
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
