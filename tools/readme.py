"Write README.md from nbs/index.ipynb, with nbdev's processors and nbconvert"

from pathlib import Path
import argparse
import posixpath
import re
import sys

import nbformat
from execnb.nbio import nb2str
from nbconvert import MarkdownExporter
from nbdev.process import NBProcessor
from nbdev.processors import clean_magics, filter_stream_, hide_, hide_line, rm_export, rm_header_dash, strip_ansi

ROOT = Path(__file__).resolve().parent.parent
PROCS = [strip_ansi, hide_line, filter_stream_, rm_header_dash, rm_export, clean_magics, hide_]
NOTE = "<!-- Written by tools/readme.py from nbs/index.ipynb: edit the notebook, then `make export`. -->\n\n"

CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
LINK = re.compile(r"""(\]\(\s*<?|\b(?:src|href)=["'])([^)\s>"']+)""")
EXTERNAL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")


def slug(
    heading: str,  # text of a heading
) -> str:  # its anchor in a Markdown page
    "The anchor that GitHub gives to `heading`"
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def at_root(
    link: str,  # target of a link, as written in nbs/index.ipynb
) -> str:  # the same target, seen from the root
    "Where `link` leads when it stands in README.md"
    if EXTERNAL.match(link):
        return link
    path, hash_, anchor = link.partition("#")
    if not path:
        return "#" + slug(anchor.replace("-", " "))
    return posixpath.normpath("nbs/" + path) + hash_ + anchor


def outside_code(
    f,  # `str -> str`
    md: str,  # Markdown text
) -> str:
    "Apply `f` to the parts of `md` that are not code"
    return "".join(o if i % 2 else f(o) for i, o in enumerate(CODE.split(md)))


def tidy(
    md: str,  # prose, without code
) -> str:
    "Move the links to the root and leave one blank line between paragraphs"
    md = LINK.sub(lambda m: m[1] + at_root(m[2]), md)
    return re.sub(r"\n{3,}", "\n\n", md)


def has_picture(cell):
    return any(k.startswith("image/") for o in cell.get("outputs", []) for k in o.get("data", {}))


def echoed(cell):
    "A cell with `#| echo: false` is read by what it gives: Markdown"
    silent = cell.cell_type == "code" and re.search(r"^#\|\s*echo:\s*false", cell.source, flags=re.MULTILINE)
    if not silent:
        return cell
    given = [o["data"]["text/markdown"] for o in cell.outputs if "text/markdown" in o.get("data", {})]
    return nbformat.v4.new_markdown_cell("\n\n".join(map("".join, given)), id=cell.id)


def processed(
    path: Path,  # a notebook
):  # the same in nbformat's form
    "The notebook without what a reader of the README does not need"
    nb = NBProcessor(path, PROCS, process=True).nb
    nb.cells = [echoed(c) for c in nb.cells]
    for c in nb.cells:
        if c.cell_type == "code":
            c.source = re.sub(r"^#\|.*\n?", "", c.source, flags=re.MULTILINE)
        if has_picture(c):
            raise ValueError(f"{path.name}: an output holds a picture; save it under figures/ and link to it")
    nb.metadata.language_info = dict(name="python")
    return nbformat.reads(nb2str(nb), as_version=4)


def render(
    root: Path = ROOT,  # the project
) -> str:  # text of README.md
    "README.md as nbs/index.ipynb says it"
    md, _ = MarkdownExporter().from_notebook_node(processed(Path(root) / "nbs" / "index.ipynb"))
    return NOTE + outside_code(tidy, md).strip() + "\n"


def main():
    "Write README.md, or with `--check` only compare"
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--check", action="store_true", help="write nothing; exit with 1 if README.md is out of date")
    out = ROOT / "README.md"
    if not p.parse_args().check:
        out.write_text(render(), encoding="utf-8")
    elif not out.exists() or out.read_text(encoding="utf-8") != render():
        sys.exit("README.md: not what nbs/index.ipynb says; run `make export`")


if __name__ == "__main__":
    main()
