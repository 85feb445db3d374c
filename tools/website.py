"""The site: gather notebooks, pages, figures and the API, build them with Sphinx, check every link

`python tools/website.py OUT` writes the pages to OUT/html; nothing is asked from a network. Warnings are errors.
"""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
import argparse
import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys

import nbformat

import house
import readme
from hcil.lessons import students_page

ROOT = house.ROOT
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")
FILES = ("LICENSE", "settings.ini", "CITATION.cff", "constraints.txt", ".gitconfig")

# ---------------------------------------------------------------- gathering


def anchor(link):
    "A link with the anchor that Sphinx gives to a heading; Jupyter's keeps capitals"
    path, hash_, heading = link.partition("#")
    return path + hash_ + readme.slug(unquote(heading).replace("-", " "))


def relinked(md):
    "The Markdown with anchors as Sphinx has them"
    return readme.outside_code(lambda s: readme.LINK.sub(lambda m: m[1] + (m[2] if readme.EXTERNAL.match(m[2]) else anchor(m[2])), s), md)


def demoted(md, first):
    "One title a page: later headings of the first level go down to the second"
    return md if first else re.sub(r"^# ", "## ", md, flags=re.M)


def directives(source):
    return re.findall(r"^#\|\s*(\w+)", source, flags=re.M)


def shown(cell):
    return cell.cell_type != "code" or "hide" not in directives(cell.source)


def output_links(text):
    "Links in what a cell printed: Sphinx leaves them alone, so they must name the finished page"
    html = lambda m: m[1] + (m[2] if readme.EXTERNAL.match(m[2]) else re.sub(r"\.ipynb(?=#|$)", ".html", anchor(m[2])))
    return readme.LINK.sub(html, text)


def relink_outputs(cell):
    "The same for all outputs of a cell"
    for o in cell.get("outputs", []):
        for kind in ("text/markdown", "text/html"):
            if kind in o.get("data", {}):
                o["data"][kind] = output_links(o["data"][kind])


def page(nb):
    "A notebook as it is read: no hidden cells, no directives"
    nb = nbformat.from_dict(nb)
    nb.cells = [c for c in nb.cells if shown(c)]
    for i, c in enumerate(nb.cells):
        if c.cell_type == "markdown":
            c.source = demoted(relinked(c.source), i == 0)
        else:
            if re.search(r"^#\|\s*echo:\s*false", c.source, flags=re.M):
                c.metadata["tags"] = ["remove-input"]
            c.source = re.sub(r"^#\|.*\n?", "", c.source, flags=re.M)
            relink_outputs(c)
    nb.cells = [c for c in nb.cells if c.source.strip()]
    return nb


def copy(path, src, text=None):
    "One file to its place among the sources"
    goal = src / path.relative_to(ROOT)
    goal.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, goal) if text is None else goal.write_text(text, encoding="utf-8")


def table_page(path):
    "A table of figures/ as a page of its own"
    return f"---\norphan: true\n---\n# {path.stem}\n\n" + path.read_text(encoding="utf-8")


def gather(src):
    "Everything that Sphinx reads"
    for p in house.notebooks(ROOT):
        nb = nbformat.read(p, as_version=4)
        if p.match("nbs/class/lesson*.ipynb"):
            nb = students_page(nb)  # without the answers
        copy(p, src, nbformat.writes(page(nb)))
    for p in [
        *ROOT.glob("guides/*.md"),
        *ROOT.glob("data_cards/*.md"),
        *ROOT.glob("model_cards/*.md"),
        ROOT / "cluster/README.md",
        ROOT / "records/README.md",
        *(ROOT / o for o in PAGES),
    ]:
        copy(p, src, relinked(p.read_text(encoding="utf-8")))
    copy(ROOT / "nbs/assets/README.md", src, "---\norphan: true\n---\n" + (ROOT / "nbs/assets/README.md").read_text(encoding="utf-8"))
    for p in filter(Path.is_file, (ROOT / "figures").iterdir()):  # not those of smoke, or of one's own copies
        copy(p, src, table_page(p) if p.suffix == ".md" else None)
    for p in [*(ROOT / o for o in FILES), *ROOT.glob("nbs/assets/*.jpg"), *ROOT.glob("nbs/assets/*.svg")]:
        copy(p, src)
    for p in ("conf.py", "index.md"):
        shutil.copy(ROOT / "docs" / p, src / p)
    (src / "_static").mkdir(exist_ok=True)
    shutil.copy(ROOT / "docs/site.css", src / "_static/site.css")
    (src / "gallery.md").write_text(gallery(), encoding="utf-8")
    api(src / "api")
    mathjax(src / "_static")


def mathjax(folder):
    "The file of MathJax that draws equations as SVG"
    package = importlib.util.find_spec("sphinx-mathjax-offline")  # a name that no import statement can say
    shutil.copy(Path(package.origin).parent / "static/mathjax/tex-svg.js", folder)


# ---------------------------------------------------------------- figures with their commands

PART = dict(table4="--set columns=DF", kinds="--set columns=DF", twins="--set columns=DF", fig4="--set columns=DF")  # what there is so far
MADE_BY = dict(batch="data")  # artefacts that are not called like their notebook


def command(stem, st):
    "The command that makes an artefact again, from its name and stamp"
    from hcil.profiles import profile_of

    first, profile = stem.split("_")[0], st["profile"]
    if stem.startswith("bench_rehearsal"):
        return ".venv/bin/python tools/rehearse.py"
    if first == "bench":
        return f"hcil_bench --what {(stem.split('_')[1:-1] or ['model'])[0]} --out figures/{stem}"
    nb = MADE_BY.get(first, first)
    fewer = (
        '"seeds = 0\\n"' in (ROOT / f"nbs/paper/{nb}.ipynb").read_text(encoding="utf-8") and len(st["seeds"]) != profile_of(profile).seeds
    )
    seeds = f"--seeds {len(st['seeds'])}" if fewer else ""
    return " ".join(
        filter(
            None,
            [
                f"hcil_reproduce {nb}",
                "" if profile == "none" else f"--profile {profile}",
                seeds,
                PART[first] if stem.endswith("_part") else "",
            ],
        )
    )


def title_of(nb_path):
    "The title of a notebook"
    cells = json.loads(nb_path.read_text(encoding="utf-8"))["cells"]
    return next(l[2:].strip() for c in cells for l in "".join(c["source"]).splitlines() if l.startswith("# "))


ORDER = (
    "fig1",
    "fig2",
    "fig3",
    "table1",
    "table2",
    "table3",
    "table4",
    "fig4",
    "fig5",
    "table5",
    "table6",
    "kinds",
    "twins",
    "claims",
    "readings",
    "detect",
    "data",
    "difficulty",
    "learning",
    "cost",
    "bench",
)


def notebook_of(stem):
    "The notebook that makes an artefact"
    first = MADE_BY.get(o := stem.split("_")[0], o)
    return "nbs/95_bench.ipynb" if first == "bench" else f"nbs/paper/{first}.ipynb"


def gallery():
    "Every picture and table of figures/, with the command that makes it and where it comes from"
    from hcil.stamps import caption, read_stamp

    files = sorted(p for p in (ROOT / "figures").iterdir() if p.suffix in (".png", ".csv"))
    rank = lambda p: (ORDER.index(MADE_BY.get(o := p.stem.split("_")[0], o)), p.suffix != ".png", p.stem)
    lines, now = (
        [
            "# Figures and tables, with their commands\n",
            "Everything in `figures/`, in the paper's order. Below each stands the command that makes it"
            " again in a checkout, and the stamp that it carries: profile, data, seeds, commit, machine.\n",
        ],
        None,
    )
    for p in sorted(files, key=rank):
        nb = notebook_of(p.stem)
        if nb != now:
            lines.append(f"## {title_of(ROOT / nb)}\n\nThe notebook: [{Path(nb).name}]({nb}).\n")
            now = nb
        st = read_stamp(p)
        what = f"![{p.stem}](figures/{p.name})" if p.suffix == ".png" else f"[{p.stem}](figures/{p.stem}.md) ([csv](figures/{p.name}))"
        lines.append(f"{what}\n\n```\n{command(p.stem, st)}\n```\n\n*{caption(st)}*\n")
    return "\n".join(lines)


# ---------------------------------------------------------------- API


def header(node, lines):
    "A definition as one reads it: names, shapes and meanings, and the first string; not the body"
    last = node.body[0] if isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant) else None
    end = last.end_lineno if last else node.body[0].lineno - 1
    start = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return "\n".join(lines[start - 1 : max(end, node.lineno)])


def class_text(node, lines):
    "A class: all of a NamedTuple, whose lines are its documentation; else its head and that of __init__"
    if any(getattr(b, "id", "") == "NamedTuple" for b in node.bases):
        return "\n".join(lines[node.lineno - 1 : node.end_lineno])
    inits = [o for o in node.body if isinstance(o, ast.FunctionDef) and o.name == "__init__"]
    return "\n\n".join([header(node, lines), *(header(o, lines) for o in inits)])


def public(tree):
    "The names in a module's __all__"
    return next((ast.literal_eval(o.value) for o in tree.body if isinstance(o, ast.Assign) and o.targets[0].id == "__all__"), [])


def patched(node):
    return isinstance(node, ast.FunctionDef) and any(getattr(d, "id", "") == "patch" for d in node.decorator_list)


def api_page(path):
    "A module: every public function and class"
    text = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    names, out = set(public(tree)), []
    for o in tree.body:
        if isinstance(o, ast.ClassDef) and o.name in names:
            title, code = o.name, class_text(o, lines)
        elif patched(o):
            title, code = f"{ast.unparse(o.args.args[0].annotation)}.{o.name}", header(o, lines)
        elif isinstance(o, ast.FunctionDef) and o.name in names:
            title, code = o.name, header(o, lines)
        else:
            continue
        out.append(f"## `{title}`\n\n```python\n{code}\n```\n")
    nb = re.search(r"File to edit: (\S+?)\.$", text, flags=re.M)[1]
    nb = "../" + nb[nb.index("nbs/") :]
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    doc = (ast.get_docstring(tree) or "").strip()
    return module, f"# {module}\n\n> {doc}\n\nWritten, shown and tested in [{Path(nb).name}]({nb}).\n\n" + "\n".join(out)


def api(folder):
    "A page for every module, and a list of them"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [p for p in sorted((ROOT / "hcil").rglob("*.py")) if "File to edit" in p.read_text(encoding="utf-8") and p.stem[0] != "_"]
    made = dict(api_page(p) for p in paths)
    for module, text in made.items():
        (folder / f"{module}.md").write_text(text, encoding="utf-8")
    toc = "\n".join(made)
    (folder / "index.md").write_text(
        f"# API\n\nEvery public function and class, as it is written: names, shapes, units, and where in the paper it comes from.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{toc}\n```\n",
        encoding="utf-8",
    )


# ---------------------------------------------------------------- building and checking


class Links(HTMLParser):
    "The targets and the anchors of a page"

    def __init__(self):
        super().__init__()
        self.goals, self.ids = [], set()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[k] for k in ("id", "name") if attrs.get(k)}
        self.goals += [attrs[k] for k in ("href", "src") if attrs.get(k)]


def read_links(path):
    links = Links()
    links.feed(path.read_text(encoding="utf-8"))
    return links


def dead_links(html):
    "Links between the pages that lead nowhere, and those that would ask a network for a part of a page"
    pages, found = {p: read_links(p) for p in html.rglob("*.html")}, []
    for p, links in pages.items():
        for goal in links.goals:
            if readme.EXTERNAL.match(goal):
                continue
            path, _, name = map(unquote, goal.partition("#"))
            there = (p.parent / path.partition("?")[0]).resolve() if path else p
            if not there.exists():
                found.append(f"{p.relative_to(html)}: {goal} leads nowhere")
            elif name and there in pages and name not in pages[there].ids:
                found.append(f"{p.relative_to(html)}: {goal} names no heading")
    return found


def asks_outside(html):
    "Scripts, styles and pictures from elsewhere"
    pattern = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="((?:https?:)?//[^"]+)"')
    return [f"{p.relative_to(html)}: asks {m}" for p in html.rglob("*.html") for m in pattern.findall(p.read_text(encoding="utf-8"))]


def build(out):
    "Gather, build, check; complaints"
    src, html = out / "src", out / "html"
    for folder in (src, html):
        shutil.rmtree(folder, ignore_errors=True)
    src.mkdir(parents=True)
    gather(src)
    p = subprocess.run(
        [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-d", out / "doctrees", src, html],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if p.returncode:
        return p.stdout.replace(f"{src}/", "").splitlines() or ["Sphinx failed without a word"]
    return dead_links(html.resolve()) + asks_outside(html)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out", nargs="?", default="_site", help="folder for the pages, by default _site")
    out = Path(p.parse_args().out)
    found = build(out)
    if found:
        sys.exit("\n".join([*found, f"{len(found)} complaints; the site is not in order"]))
    print(
        f"{sum(1 for _ in (out / 'html').rglob('*.html'))} pages, every link between them leads somewhere: open {out / 'html' / 'index.html'}"
    )


if __name__ == "__main__":
    main()
