"""The site: gather notebooks, pages, figures and the API, build them with Sphinx, check every link

`python tools/website.py OUT` writes the pages to OUT/html; nothing is asked from a network. Warnings are errors.
"""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat

import docments
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


def plain(md, most=240):
    "The last paragraph of a Markdown cell as words"
    text = re.split(r"\n\s*\n", md.strip())[-1]
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"[`*_$#>|\\{}]", "", text)
    return " ".join(text.split())[:most].strip()


def with_words(cell, said):
    "A code cell whose pictures are described by the paragraph above it"
    if any(k.startswith("image/") for o in cell.get("outputs", []) for k in o.get("data", {})):
        cell.metadata["mystnb"] = dict(image=dict(alt=f"Picture: {said}"))


def page(nb):
    "A notebook as it is read: no hidden cells, no directives, words for pictures"
    nb, said = nbformat.from_dict(nb), ""
    nb.cells = [c for c in nb.cells if shown(c)]
    for i, c in enumerate(nb.cells):
        if c.cell_type == "markdown":
            said = plain(c.source) or said
            c.source = demoted(relinked(c.source), i == 0)
        else:
            with_words(c, said)
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
    shutil.copy(ROOT / "docs/conf.py", src / "conf.py")
    front = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    (src / "index.md").write_text(front.replace("<!-- table -->", front_table()), encoding="utf-8")
    (src / "_static").mkdir(exist_ok=True)
    for name in ("site.css", "site.js", "favicon.svg"):
        shutil.copy(ROOT / "docs" / name, src / "_static" / name)
    gallery(src)
    api(src / "api")
    mathjax(src / "_static")


def mathjax(folder):
    "The file of MathJax that draws equations as SVG"
    package = importlib.util.find_spec("sphinx-mathjax-offline")  # a name that no import statement can say
    shutil.copy(Path(package.origin).parent / "static/mathjax/tex-svg.js", folder)


# ---------------------------------------------------------------- figures with their commands

PART = dict(  # the part that was made
    fig4="--set columns=DF",
    fig5="--set columns=DF",
)
FROM_RECORDS = ("table1", "table2", "table3", "table4", "table5", "table6", "kinds", "twins", "readings")  # laid out from them, in mini
MADE_BY = dict(batch="data")  # artefacts that are not called like their notebook


def command(stem, st):
    "The command that makes an artefact again, from its name and stamp"
    from hcil.profiles import profile_of

    first, profile = stem.split("_")[0], st["profile"]
    if stem.startswith("bench_rehearsal"):
        return ".venv/bin/python tools/rehearse.py"
    if first == "bench":
        more = " --compile" * ("recipe" in stem) + " --width .5" * ("half" in stem)
        return f"hcil_bench --what {(stem.split('_')[1:-1] or ['model'])[0]}{more} --out figures/{stem}"
    nb = MADE_BY.get(first, first)
    if profile == "mini" and first in FROM_RECORDS:
        return f"hcil_reproduce {nb} --profile {profile} --from-records"
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
                PART[first] if "_part" in stem else "",
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
    "recorded",
    "bench",
)


def notebook_of(stem):
    "The notebook that makes an artefact"
    first = MADE_BY.get(o := stem.split("_")[0], o)
    return "nbs/95_bench.ipynb" if first == "bench" else f"nbs/paper/{first}.ipynb"


PICTURES = {  # what each picture of figures/ shows, for who cannot see it: the beginning of its name -> words
    "claims": "Left, how far each printed accuracy lies from a count of 280 videos; right, differences between rows in videos, grey where one run cannot show them",
    "difficulty": "For each manipulation a bar with its interval: accuracy of networks that see single frames, differences, snippet means or shuffled snippets, and of HCIL",
    "detect": "Frames of eight snippets of a forged drawn face, a bar for the score of each, where they lie in the film, and a map of where the model looked",
    "fig2": "The network from a video to a score: snippets, RAIM and ISF in each block, two projection heads, with the shapes between them",
    "fig3": "Four frames of a face, below them how strongly PWM answers at each pixel with blank and with copied frames outside, and a bar chart of both",
    "fig4_numbers": "Share of the activation map inside the forged region, for both readings of the loss, beside the area of the region and a blob in the middle",
    "fig4": "Fake frames of drawn people, the outline of what was forged, and where two networks look, one row each",
    "fig5_numbers": "How much more of the activation map lies inside the forged region with RAIM than without, and with either contrast than without",
    "fig5": "Fake frames of drawn people, the outline of what was forged, and where four networks look: without RAIM, with it, and with either contrast",
    "kinds_mini_strength": "Share of fakes found against the strength of their jumps, one line for each row of Table 4",
    "kinds": "Share of fakes found at ten per cent false alarms, for local, global and both kinds, one row for each network",
    "learning": "Accuracy of every method with its interval, and accuracy against cost with the front of the best",
    "readings_mini_grid": "Three maps over temperature and exponent of the local loss, with the weight's gradient and without: cosine of real and fake snippets, mean weight, AUC",
    "readings_mini_curve": "AUC of networks with all questions answered at random, and below which of them were answered otherwise than by default",
    "readings": "Difference in AUC to the default for each other answer to a question that the paper leaves open, with its interval, and the width of what another seed changes",
    "recorded": "For each table a bar of its cells: recorded with three seeds, with fewer, and not recorded",
    "table1_mini_methods": "Gain over the frame baseline of each compared method and of HCIL, ours on drawn people beside the paper's on FaceForensics++",
    "table1": "Gain over the frame baseline of HCIL with either loss in each column of the table, ours on drawn people beside the paper's on FaceForensics++",
    "table2_mini_methods": "Gain over the frame baseline of each compared method and of HCIL on the twin of Celeb-DF, ours on drawn people",
    "table2": "Gain over the frame baseline of HCIL with either loss on each of three other data sets, ours on drawn people",
    "table5": "Gain in AUC over the frame baseline of each row on three data sets, ours on drawn people beside the paper's",
    "table3": "Gain in AUC over the frame baseline of each compared method and of HCIL on three data sets, ours on drawn people beside the paper's",
    "table6": "Gain over the network without the local contrast of plain NCE and of the weighted one, ours on drawn people beside the paper's",
    "table4": "Gain over the frame baseline of each row of Table 4, ours on drawn people beside the paper's on FaceForensics++",
    "twins": "For each claim of the paper the gain that was measured, with its interval: confirmed, not resolved or the opposite",
}
WIDE = 420  # pixels of a small picture


def words(stem):
    "What a picture shows"
    return next((said for start, said in PICTURES.items() if stem.replace("_part", "").startswith(start)), f"Picture {stem}")


def small(path, folder):
    "A small copy of a picture"
    from PIL import Image  # slow, and only needed here

    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(path) as im:
        im = im.convert("RGB")
        im.resize((WIDE, round(im.height * WIDE / im.width)), Image.LANCZOS).save(folder / f"{path.stem}.jpg", quality=85)


def entry(p):
    "One picture or table, with its command and stamp"
    from hcil.stamps import caption, read_stamp

    st = read_stamp(p)
    what = (
        f"![{words(p.stem)}](../figures/{p.name})"
        if p.suffix == ".png"
        else f"[{p.stem}](../figures/{p.stem}.md) ([csv](../figures/{p.name}))"
    )
    return f"{what}\n\n```\n{command(p.stem, st)}\n```\n\n*{caption(st)}*\n"


def card(nb, files):
    "A card that leads to the page of a notebook's artefacts"
    first = next((p for p in files if p.suffix == ".png"), None)
    n, m = sum(p.suffix == ".png" for p in files), sum(p.suffix == ".csv" for p in files)
    count = " and ".join(f"{k} {what}{'s' * (k > 1)}" for k, what in ((n, "picture"), (m, "table")) if k)
    picture = f":img-top: gallery/{first.stem}.jpg\n:img-alt: {words(first.stem)}\n" if first else ""
    return f":::{{grid-item-card}} {title_of(ROOT / nb)}\n:link: gallery/{Path(nb).stem}\n:link-type: doc\n{picture}\n{count}\n:::\n"


def gallery(src):
    "Cards of everything in figures/, and a page behind each with pictures, commands and stamps"
    files = sorted(p for p in (ROOT / "figures").iterdir() if p.suffix in (".png", ".csv"))
    rank = lambda p: (ORDER.index(MADE_BY.get(o := p.stem.split("_")[0], o)), p.suffix != ".png", p.stem)
    groups = {}
    for p in sorted(files, key=rank):
        groups.setdefault(notebook_of(p.stem), []).append(p)
    for nb, those in groups.items():
        head = f"---\norphan: true\n---\n# {title_of(ROOT / nb)}\n\nThe notebook: [{Path(nb).name}](../{nb}). All [figures and tables](../gallery.md).\n"
        if first := next((p for p in those if p.suffix == ".png"), None):
            small(first, src / "gallery")
        (src / "gallery").mkdir(exist_ok=True)
        (src / "gallery" / f"{Path(nb).stem}.md").write_text("\n".join([head, *map(entry, those)]), encoding="utf-8")
    cards = "\n".join(card(nb, those) for nb, those in groups.items())
    (src / "gallery.md").write_text(
        "# Figures and tables, with their commands\n\nEverything in `figures/`, in the paper's order. Behind each card: the pictures in full, "
        "the tables, the command that makes each again in a checkout, and the stamp that it carries.\n\n"
        f"::::{{grid}} 1 2 2 3\n:gutter: 3\n\n{cards}\n::::\n",
        encoding="utf-8",
    )


# ---------------------------------------------------------------- the front page


def front_table():
    "Table 4 on Deepfakes: the paper's gain, ours, and what that says, under names"
    from hcil.stamps import read_table

    t = read_table(ROOT / "figures/table4_mini_cells.csv")
    t = t[t.column == t.column.iloc[0]]
    base = t.paper.iloc[0]
    gain = lambda r: "" if r.gain != r.gain else f"{100 * r.gain:+.1f} [{100 * r.gain_low:+.0f}, {100 * r.gain_high:+.0f}]"
    theirs = lambda r: "" if r.paper != r.paper or r.Index == t.index[0] else f"{100 * (r.paper - base):+.1f}"
    lines = [f"| {r.row} | {theirs(r)} | {gain(r)} | {r.verdict} |" for r in t.itertuples()]
    return "\n".join(
        ["| row of Table 4 | gain in the paper, FaceForensics++ | gain here, drawn people | verdict |", "|---|---|---|---|", *lines]
    )


# ---------------------------------------------------------------- API


def api_page(path):
    "A module: autodoc lists every public function and class, with what tools/docments.py reads"
    text = path.read_text(encoding="utf-8")
    nb = re.search(r"File to edit: (\S+?)\.$", text, flags=re.M)[1]
    nb = "../" + nb[nb.index("nbs/") :]
    module = docments.module_name(path)
    body = f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n"
    return module, f"# {module}\n\nWritten, shown and tested in [{Path(nb).name}]({nb}).\n\n{body}"


def api(folder):
    "A page for every module, and a list of them"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [p for p in sorted((ROOT / "hcil").rglob("*.py")) if "File to edit" in p.read_text(encoding="utf-8") and p.stem[0] != "_"]
    made = dict(api_page(p) for p in paths)
    for module, text in made.items():
        (folder / f"{module}.md").write_text(text, encoding="utf-8")
    toc = "\n".join(made)
    (folder / "index.md").write_text(
        "# API\n\nEvery public function and class: what it takes, shapes and units, what it gives, its source. "
        "Names that are links lead to their own entries; the {ref}`genindex` holds them all.\n\n"
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
        env=os.environ | dict(PYTHONPATH=os.pathsep.join([str(ROOT / "tools"), str(ROOT)])),
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
