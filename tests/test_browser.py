"""The widgets in a real browser: JupyterLab on this machine, a Chromium, keys and mouse

Skipped where there is no Chromium (on Debian: `apt-get install chromium`). Nothing leaves the machine: the page may
ask this server only. HCIL_SCREENSHOTS=FOLDER keeps pictures of what the browser showed.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

playwright = pytest.importorskip("playwright.sync_api")
Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium")

WIDGETS = ("snippets", "motion", "weight", "pairs", "detection")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

SETTINGS = {
    "notebook-extension/tracker.jupyterlab-settings": '{"windowingMode": "none"}',  # else a cell out of sight is not in the page
    "apputils-extension/notification.jupyterlab-settings": '{"fetchNews": "false", "checkForUpdates": false}',
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ready(url, process, seconds=60):
    "Wait for the server"
    for _ in range(2 * seconds):
        if process.poll() is not None:
            pytest.fail(process.stdout.read(), pytrace=False)
        try:
            return urlopen(url, timeout=2).read()
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"{url} does not answer")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "JupyterLab with a notebook that calls each widget once; the address of the notebook"
    folder, port = tmp_path_factory.mktemp("lab"), free_port()
    cells = ["import torch\ntorch.set_num_threads(1)\nfrom hcil.widgets import *"] + [f"explore_{w}()" for w in WIDGETS]
    nb = new_notebook(
        cells=[new_code_cell(c) for c in cells], metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    )
    nbformat.write(nb, folder / "widgets.ipynb")
    env = os.environ | {k: str(folder / k) for k in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    for name, text in SETTINGS.items():
        path = folder / "JUPYTER_CONFIG_DIR/lab/user-settings/@jupyterlab" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    p = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jupyter",
            "lab",
            "--no-browser",
            "--ip=127.0.0.1",
            f"--port={port}",
            "--allow-root",
            "--IdentityProvider.token=t",
            "--ServerApp.port_retries=0",
            f"--notebook-dir={folder}",
        ],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    ready(f"http://127.0.0.1:{port}/api?token=t", p)
    yield f"http://127.0.0.1:{port}/lab/tree/widgets.ipynb?token=t&reset"
    p.terminate()
    p.wait(30)


def shown(page, k):
    "The k-th widget, once its picture is there"
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(k + 1)
    cell.locator("img.widget-image").wait_for(timeout=180_000)
    cell.scroll_into_view_if_needed()
    return cell


def run_all(page):
    "Run all cells; JupyterLab forgets the wish if the kernel is slower to start than it says"
    for _ in range(20):
        if page.locator(".jp-Dialog").count():
            page.keyboard.press("Escape")
        page.click('li.lm-MenuBar-item:has-text("Run")')
        page.click('li.lm-Menu-item:has-text("Run All Cells")')
        for _ in range(10):
            page.wait_for_timeout(300)
            if re.search(r"[*\d]", page.locator(".jp-CodeCell .jp-InputPrompt").first.inner_text()):
                return
    pytest.fail("JupyterLab runs no cell")


@pytest.fixture(scope="module")
def page(lab):
    "The notebook, opened and run from top to bottom; what the console said is in `page.said`"
    with playwright.sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport=dict(width=1280, height=900))
        page.said, page.asked = [], []
        page.on("console", lambda m: page.said.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: page.said.append(str(e)))
        page.on("request", lambda r: page.asked.append(r.url))
        page.goto(lab)
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.wait_for_selector("text=/ipykernel.*Idle/", timeout=120_000)  # the status bar: the kernel has answered
        run_all(page)
        shown(page, len(WIDGETS) - 1)  # until then the kernel has no ear for sliders
        yield page
        browser.close()


def answer(cell):
    return cell.locator("img.widget-image").get_attribute("src"), cell.locator("[role=status]").inner_text()


def changes(page, cell, act):
    "Do the picture and its words change when `act` is done?"
    before = answer(cell)
    act()
    for _ in range(100):
        page.wait_for_timeout(100)
        if answer(cell) != before:
            return True
    return False


@pytest.mark.parametrize("k", range(len(WIDGETS)), ids=WIDGETS)
def test_widget(page, k):
    "A slider moves by key and by mouse, and the picture follows"
    cell = shown(page, k)
    assert not cell.locator("[role=alert]").count() and cell.locator("[role=status]").inner_text()
    handle = cell.locator(".noUi-handle").first
    handle.focus()
    assert changes(page, cell, lambda: page.keyboard.press("ArrowRight")), "the arrow key moves nothing"
    last = cell.locator(".widget-slider").last  # the last slider, by mouse
    last.scroll_into_view_if_needed()
    box = last.locator(".noUi-target").bounding_box()
    at = lambda share: lambda: page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    assert changes(page, cell, at(0.9)) or changes(page, cell, at(0.1)), "a click on the slider moves nothing"
    toggle = cell.locator(".widget-toggle-buttons button")
    if toggle.count():
        assert changes(page, cell, toggle.nth(0 if "mod-active" in (toggle.nth(1).get_attribute("class") or "") else 1).click)
    if folder := os.environ.get("HCIL_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        cell.screenshot(path=Path(folder) / f"widget_{WIDGETS[k]}.png")


def test_button_and_play(page):
    "Resample draws anew; play moves a slider"
    cell = shown(page, 0)
    cell.locator('.widget-toggle-buttons button:has-text("random")').click()
    assert changes(page, cell, cell.locator('button:has-text("Resample")').click)
    cell = shown(page, 1)
    assert changes(page, cell, cell.locator(".widget-play button").first.click)


def test_no_complaint(page):
    "No error in the console, and nobody outside was asked"
    assert not page.said, page.said
    assert not [u for u in page.asked if not u.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:"))]


RULES = dict(runOnly=["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], preload=False)  # it would fetch style sheets


def complaints(page, within=None):
    "What axe-core finds against WCAG 2.1 A and AA: rule, element, why"
    found = Axe().run(page, within, RULES).response["violations"]
    return [(v["id"], n["html"][:200], n["failureSummary"]) for v in found for n in v["nodes"]]


@pytest.mark.parametrize("k", range(len(WIDGETS)), ids=WIDGETS)
def test_axe(page, k):
    "axe-core has nothing against a widget"
    cell = shown(page, k)
    cell.locator(".jp-OutputArea").first.evaluate("x => x.setAttribute('data-axe', '1')")
    found = complaints(page, "[data-axe]")
    cell.locator("[data-axe]").evaluate("x => x.removeAttribute('data-axe')")
    assert not found, found


def test_axe_complains(page):
    "It would find a button without a name"
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<div id=bad><button></button></div>')")
    found = complaints(page, "#bad")
    page.evaluate("document.getElementById('bad').remove()")
    assert [rule for rule, *_ in found] == ["button-name"]


CONTROLS = {"slider", "button", "radio", "checkbox", "spinbutton", "textbox", "combobox", "switch"}


def tree(page, cell):
    "What a screen reader is told of the output of a cell: (role, name, ...) of each node"
    cdp = page.context.new_cdp_session(page)
    cell.evaluate("x => x.setAttribute('data-asked', '1')")
    found = cdp.send("Runtime.evaluate", dict(expression="document.querySelector('[data-asked] .jp-OutputArea')"))
    nodes = cdp.send("Accessibility.queryAXTree", dict(objectId=found["result"]["objectId"]))["nodes"]
    cell.evaluate("x => x.removeAttribute('data-asked')")
    return [(n.get("role", {}).get("value"), n.get("name", {}).get("value", "").strip()) for n in nodes if not n.get("ignored")]


@pytest.mark.parametrize("k", range(len(WIDGETS)), ids=WIDGETS)
def test_names(page, k):
    "Every control has a name, and a group of buttons, too"
    said = tree(page, shown(page, k))
    controls = [(role, name) for role, name in said if role in CONTROLS]
    assert controls and not [role for role, name in controls if not name], said
    assert not [role for role, name in said if role in ("group", "radiogroup") and not name], said


def contrast(a, b):
    "Of two colours as a browser writes them, after WCAG: from 1 to 21"

    def light(colour):
        c = [int(v) / 255 for v in re.findall(r"\d+", colour)[:3]]
        c = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in c]
        return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2] + 0.05

    a, b = sorted((light(a), light(b)))
    return b / a


def test_pressed(page):
    "Which button is pressed can be seen, and heard"
    buttons = shown(page, 0).locator(".widget-toggle-buttons").first.locator("button")
    buttons.nth(0).click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    assert [b.get_attribute("aria-pressed") for b in buttons.all()[:2]] == ["true", "false"]
    on, off = (b.evaluate("x => { const s = getComputedStyle(x); return [s.backgroundColor, s.color] }") for b in buttons.all()[:2])
    assert contrast(on[0], off[0]) >= 3 and contrast(*on) >= 4.5 and contrast(*off) >= 4.5, (on, off)
