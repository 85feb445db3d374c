"Take the live part of widgets out of saved notebooks: without their kernel it shows an error, where the still pictures would do"

import json
import sys
from pathlib import Path

LIVE = "application/vnd.jupyter.widget-view+json"


def bundles(nb):
    return [o["data"] for c in nb["cells"] for o in c.get("outputs", []) if LIVE in o.get("data", {})]


def live(path):
    "Does a notebook hold live widgets, or the megabytes of their state?"
    nb = json.loads(path.read_text(encoding="utf-8"))
    return bool(bundles(nb)) or "widgets" in nb["metadata"]


def make_still(path):
    "Rewrite a notebook without them"
    nb = json.loads(path.read_text(encoding="utf-8"))
    for data in bundles(nb):
        del data[LIVE]
    nb["metadata"].pop("widgets", None)
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    nbs = Path(__file__).resolve().parent.parent / "nbs"
    for path in sorted(p for p in nbs.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts and live(p)):
        make_still(path)
        print(f"{path.relative_to(nbs)}: its widgets are still now", file=sys.stderr)
