"""Sphinx reads docments: the comment behind a parameter is its description

An extension of autodoc for the site, see docs/conf.py. In docstrings and comments, what stands in backticks is code, and a link if it is a public name of ours.
"""

from collections import Counter
from pathlib import Path
import ast
import functools
import inspect
import re

from fastcore.docments import docments

PACKAGE = Path(__file__).resolve().parent.parent / "hcil"


def public(tree):
    "The names in a module's __all__"
    return next((ast.literal_eval(o.value) for o in tree.body if isinstance(o, ast.Assign) and o.targets[0].id == "__all__"), [])


def module_name(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


@functools.cache
def known():
    "Public functions and classes that only one module has: name -> dotted name"
    found = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        there = {o.name for o in tree.body if isinstance(o, (ast.FunctionDef, ast.ClassDef))}
        found += [(name, f"{module_name(path)}.{name}") for name in public(tree) if name in there]
    count = Counter(name for name, _ in found)
    return {name: place for name, place in found if count[name] == 1}


def code(text):
    "A piece of code in reStructuredText, linked if it is a public name"
    name = text.removesuffix("()")
    return f":py:obj:`{text} <{known()[name]}>`" if name in known() else f"``{text}``" if text.strip() == text and text else text


def rst(text):
    "Plain text with code in backticks as reStructuredText"
    pieces = re.split(r"`([^`\n]+)`", text)
    safe = [re.sub(r"([*`|_\\])", r"\\\1", p) for p in pieces[::2]]
    joined = [code(p) for p in pieces[1::2]]
    return "".join(s + (f"\\ {joined[i]}\\ " if i < len(joined) else "") for i, s in enumerate(safe)).strip()


def fields(cls):
    "The comments behind the fields of a class"
    try:
        lines = inspect.getsource(cls).splitlines()
    except (OSError, TypeError):
        return {}
    return {m[1]: m[2] for line in lines if (m := re.match(r"\s+(\w+)\s*:[^#]*#\s*(.+)", line))}


def comments(obj):
    "Parameter -> comment, '' where there is none; `return` too"
    if isinstance(obj, type) and hasattr(obj, "_fields"):
        return {name: fields(obj).get(name, "") for name in obj._fields}
    try:
        found = docments(obj, full=True)
    except Exception:  # what has no source, or is no function
        return {}
    return {name: d["docment"] or "" for name, d in found.items() if name not in ("self", "args", "kwargs")}


def described(app, what, name, obj, options, lines):
    "What autodoc does with a docstring: its text made safe, then a field for each parameter"
    text = [rst(line) for line in lines]
    if isinstance(obj, type) and text and text[0].startswith(f"{obj.__name__}("):
        text = []  # dataclasses and named tuples: Python's own list of the fields
    if what in ("function", "method", "class", "exception"):
        found = comments(obj)
        said = found.pop("return", "")
        text += ["", *(f":param {k}: {rst(v)}".rstrip() for k, v in found.items() if v)]
        text += [f":returns: {rst(said)}"] * bool(said)
    lines[:] = [*text, ""]


def left_out(app, what, name, obj, skip, options):
    "The fields of a named tuple are described with its parameters"
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def without_source(app, env):
    "viewcode lists modules whose source it could not read (`builtins`), and links them to pages that it does not write"
    for name in [name for name, entry in getattr(env, "_viewcode_modules", {}).items() if not entry]:
        del env._viewcode_modules[name]


def setup(app):
    app.connect("autodoc-skip-member", left_out)
    app.connect("autodoc-process-docstring", described)
    app.connect("env-check-consistency", without_source)
    return dict(version="1", parallel_read_safe=True)
