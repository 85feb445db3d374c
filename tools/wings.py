"""The wings of the house: which module may import which, and the picture of it

A notebook's number says its wing, by tens; the notebooks in nbs/baselines/ belong to the networks.
`python tools/wings.py` draws nbs/assets/house.svg from the real imports.
"""

from html import escape
from pathlib import Path
from typing import NamedTuple
import ast
import re
import textwrap

ROOT = Path(__file__).resolve().parent.parent
PICTURE = "nbs/assets/house.svg"


class Wing(NamedTuple):
    "A group of notebooks, and what it may import besides itself"

    name: str
    first: int  # number of its first notebook
    below: tuple  # names of the wings that it may import
    what: str  # in one sentence


WINGS = [
    Wing("base", 0, (), "What everything stands on: files, errors, commands, profiles, stamps, seeds."),
    Wing("method", 10, ("base",), "The paper: snippets, PWM, RAIM, ISF, the losses, the model."),
    Wing("networks", 20, ("base", "method"), "One registry for HCIL and the nineteen baselines of Tables 1 to 3."),
    Wing("video", 30, ("base", "method"), "From a file to a batch: exact frames, faces, crops, clips."),
    Wing("data sets", 40, ("base", "method", "video"), "Four official layouts behind one loader, and their crops."),
    Wing("twins", 50, ("base", "method", "video", "data sets"), "Drawn people and their forgeries, written in the four layouts."),
    Wing(
        "learning",
        60,
        ("base", "method", "networks", "video", "data sets", "twins"),
        "Runs that resume, scores of clips, the training loop.",
    ),
    Wing(
        "evaluating",
        70,
        ("base", "method", "networks", "video", "data sets", "twins", "learning"),
        "Predictions, intervals, activation maps; scoring a video.",
    ),
    Wing(
        "study",
        80,
        ("base", "method", "networks", "video", "data sets", "twins", "learning", "evaluating"),
        "The paper's tables as data, and how they are made again.",
    ),
    Wing(
        "teaching",
        90,
        ("base", "method", "networks", "video", "data sets", "twins", "learning", "evaluating", "study"),
        "Equations, widgets, lessons.",
    ),
    Wing(
        "bench",
        95,
        ("base", "method", "networks", "video", "data sets", "twins", "learning", "evaluating", "study", "teaching"),
        "What everything costs, measured as ratios.",
    ),
]

# ---------------------------------------------------------------- reading the package


def module_files(
    root: Path,  # a project
) -> dict:  # 'pwm' or 'baselines.tam' -> its file
    "The exported modules"
    files = [p for p in sorted((root / "hcil").rglob("*.py")) if p.stem[0] != "_"]
    return {".".join(p.relative_to(root / "hcil").with_suffix("").parts): p for p in files}


def wing_of(
    path: Path,  # of a module
) -> Wing:  # None if no notebook with a number exports it
    "The wing of a module, by its notebook"
    found = re.search(r"File to edit: (\S+)\.ipynb", path.read_text(encoding="utf-8"))
    if not found:
        return None
    *_, folder, stem = ("", *found[1].split("/"))
    if folder == "baselines":
        return WINGS[2]
    number = re.match(r"\d\d", stem)
    return number and [w for w in WINGS if w.first <= int(number[0])][-1]


def imported(
    module: str,  # its name, e.g. 'baselines.tam'
    tree,  # its syntax tree
    known,  # names of all modules
) -> set:  # names of modules
    "What a module imports of its own project, at its top or inside a function"
    found, parts = set(), ["hcil", *module.split(".")]
    for n in ast.walk(tree):
        if isinstance(n, ast.Import):
            found |= {a.name for a in n.names}
        if isinstance(n, ast.ImportFrom):
            base = ".".join([*(parts[: -n.level] if n.level else []), *filter(None, [n.module])])
            found |= {base, *(f"{base}.{a.name}" for a in n.names)}
    return {name.removeprefix("hcil.") for name in found if name.startswith("hcil.")} & set(known)


def arrows(
    root: Path,  # a project
) -> dict:  # module -> set of the modules that it imports
    "All imports of the package; a module that cannot be parsed has none"
    files = module_files(root)

    def of(module, path):
        try:
            return imported(module, ast.parse(path.read_text(encoding="utf-8")), files)
        except SyntaxError:
            return set()

    return {module: of(module, path) for module, path in files.items()}


def circles(
    graph: dict,  # module -> modules
) -> list:  # of lists of modules that import each other, directly or not
    "Import circles: modules that can reach themselves"

    def reach(start):
        seen, waiting = set(), [start]
        while waiting:
            for m in graph[waiting.pop()] - seen:
                seen.add(m)
                waiting.append(m)
        return seen

    reached = {m: reach(m) for m in graph}
    groups = {frozenset(o for o in reached[m] if m in reached[o]) for m in graph if m in reached[m]}
    return sorted(map(sorted, groups))


# ---------------------------------------------------------------- the picture

WIDTH, LEFT, GRID, STEP, LINE, CHAR = 1000, 244, 728, 23, 17, 6.5  # pixels; CHAR of a letter at 11 px


def rows_of(root):
    "Each wing with its modules in the order of their notebooks, from the top of the house down"
    files = module_files(root)
    order = lambda m: re.search(r"File to edit: (\S+)\.ipynb", files[m].read_text(encoding="utf-8"))[1].split("/")[-1]
    wings = {m: wing_of(p) for m, p in files.items()}
    return [(w, sorted((m for m in files if wings[m] == w), key=order)) for w in reversed(WINGS)]


def import_counts(root):
    "(wing, wing) -> how many arrows lead from the first to the second"
    graph, wings = arrows(root), {m: wing_of(p) for m, p in module_files(root).items()}
    counts = {}
    for m, o in ((a, b) for a in graph for b in graph[a] if wings[a] and wings[b]):
        counts[wings[m].name, wings[o].name] = counts.get((wings[m].name, wings[o].name), 0) + 1
    return counts


def text(x, y, s, **style):
    "A line of SVG text"
    return f'<text x="{x}" y="{y}"' + "".join(f' {k.replace("_", "-")}="{v}"' for k, v in style.items()) + f">{escape(s)}</text>"


def numbers(wing):
    "The numbers of a wing's notebooks"
    later = [w.first for w in WINGS if w.first > wing.first]
    return f"{wing.first:02d}–{(later[0] if later else 100) - 1:02d}"


def floor(wing, modules, y, counts):
    "One wing as lines of SVG, and its height"
    names = textwrap.wrap(" · ".join(m.removeprefix("baselines.") for m in modules), int((GRID - LEFT - 12) / CHAR))
    what = textwrap.wrap(wing.what, 38)
    height = max(LINE * len(names) + 16, 15 * len(what) + 34)
    out = [
        f'<rect x="6" y="{y}" width="{GRID - 18}" height="{height - 4}" rx="6" fill="#f3f5f8" stroke="#9aa5b1"/>',
        text(18, y + 20, wing.name, font_size=14, font_weight="bold", fill="#1f2933"),
        text(LEFT - 52, y + 20, numbers(wing), font_size=11, fill="#52606d"),
    ]
    out += [text(18, y + 37 + 15 * k, s, font_size=11, fill="#52606d") for k, s in enumerate(what)]
    out += [text(LEFT, y + 20 + LINE * k, s, font_size=11, fill="#1f2933") for k, s in enumerate(names)]
    return out + dots(wing, y + height / 2 - 2, counts), height


def dots(wing, y, counts):
    "A dot for each wing that this one imports, larger for more imports; an empty circle for itself"
    out = []
    for k, other in enumerate(WINGS):
        n, x = counts.get((wing.name, other.name), 0), GRID + 12 + STEP * k
        if other == wing:
            out.append(f'<circle cx="{x}" cy="{y}" r="9" fill="none" stroke="#9aa5b1" stroke-dasharray="2 2"/>')
        elif n:
            out += [
                f'<circle cx="{x}" cy="{y}" r="{min(10, 5 + n / 3):.1f}" fill="#2b6cb0"/>',
                text(x, y + 3.5, str(n), font_size=9, fill="white", text_anchor="middle"),
            ]
        else:
            out.append(f'<circle cx="{x}" cy="{y}" r="1.2" fill="#cbd2d9"/>')
    return out


def picture(
    root: Path = ROOT,  # a project
) -> str:  # SVG
    "The house: a wing may import those below it, so all dots lie to the left of the empty circle"
    out, counts, y = [], import_counts(root), 92
    for k, w in enumerate(WINGS):
        x = GRID + 16 + STEP * k
        out.append(text(x, 84, w.name, font_size=11, fill="#1f2933", transform=f"rotate(-60 {x} 84)"))
    out.append(text(LEFT, 84, "modules, in the order of their notebooks", font_size=11, fill="#52606d"))
    out.append(text(GRID, 14, "imports of …", font_size=11, fill="#52606d"))
    for wing, modules in rows_of(root):
        lines, height = floor(wing, modules, y, counts)
        out += lines
        y += height
    y += 4
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" font-family="DejaVu Sans, Verdana, sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="white"/>', *out, "</svg>"]) + "\n"


if __name__ == "__main__":
    (ROOT / PICTURE).write_text(picture(), encoding="utf-8")
