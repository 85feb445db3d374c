"""The site builds without a warning or a network, every link leads somewhere, and it is read at a phone's and a desk's width

The browser's part is skipped where there is no Chromium.
"""

import re

import pytest

import website as site
from hcil.stamps import read_stamp
from test_browser import CHROMIUM, complaints, QUIET


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "The site, once; where its pages are"
    out = tmp_path_factory.mktemp("site")
    found = site.build(out)
    if found:
        pytest.fail("\n".join(found), pytrace=False)
    return out / "html"


def test_built(built):
    "Notebooks, tables, figures and the API are there, and nothing hidden"
    for p in (
        "index.html",
        "gallery.html",
        "nbs/14_losses.html",
        "nbs/class/lesson5.html",
        "api/hcil.losses.html",
    ):
        assert (built / p).exists(), p
    assert list((built / "figures").glob("table4_mini*.html")) and not list((built / "figures").glob("*_smoke*"))
    text = (built / "nbs/14_losses.html").read_text()
    assert "default_exp" not in text and "#| export" not in text and 'role="group"' in (built / "nbs/94_widgets.html").read_text()
    lessons = [(built / f"nbs/class/lesson{k}.html").read_text() for k in range(1, 6)]
    assert all("your code" in text.lower() and "BEGIN SOLUTION" not in text for text in lessons)  # no answers
    pictures = list((site.ROOT / "figures").glob("*.png"))
    behind = "".join(p.read_text() for p in (built / "gallery").glob("*.html"))
    assert pictures and all(p.name in behind for p in pictures)
    gallery = built / "gallery.html"
    cards = {built / src for src in re.findall(r'<img\b[^>]*\bsrc="([^"]+)"', gallery.read_text())}
    assert len(cards) > 5 and sum(p.stat().st_size for p in (gallery, *cards)) < 1_500_000  # cards are small
    text = (built / "api/hcil.losses.html").read_text()
    assert "temperature τ" in text and 'href="../_modules/hcil/losses.html#' in text and 'id="hcil.losses.weighted_nce"' in text


def test_words(built):
    "Every picture of the front page, the gallery and Table 4 has words, and not its file's name"
    for name in ("index.html", "gallery.html", *(f"gallery/{p.name}" for p in (built / "gallery").glob("*.html")), "nbs/paper/table4.html"):
        alts = re.findall(r'<img\b[^>]*\balt="([^"]*)"', (built / name).read_text())
        assert all(" " in alt and len(alt) > 20 for alt in alts), (name, alts)
        assert name != "index.html" or alts


def test_docments():
    "A comment is a description, a public name a link, and nothing of it is taken for markup"
    import docments
    from hcil.cells import Cell, table_cells

    assert docments.comments(Cell)["row"] == "as the table prints it"
    assert docments.comments(table_cells)["return"] == ""
    assert docments.rst("of `table_cells`, *x_") == "of \\ :py:obj:`table_cells <hcil.cells.table_cells>`\\ , \\*x\\_"


def test_dead_links(tmp_path):
    "The check of links can fail"
    (tmp_path / "a.html").write_text(
        '<a href="b.html#x">b</a><a href="c.html">c</a><a href="https://x.org/">x</a><img src="https://x.org/p.png">'
    )
    (tmp_path / "b.html").write_text('<h1 id="y">b</h1>')
    assert site.dead_links(tmp_path) == ["a.html: b.html#x names no heading", "a.html: c.html leads nowhere"]
    assert site.asks_outside(tmp_path) == ["a.html: asks https://x.org/p.png"]


def test_pages():
    "Headings are found by Sphinx's anchors; one title a page; hidden cells go"
    assert site.relinked("[a](b.ipynb#The-gate,-Eq.-7) `[a](b#C)`") == "[a](b.ipynb#the-gate-eq-7) `[a](b#C)`"
    assert site.output_links('<a href="14_losses.ipynb#NCE,-Eq.-8">x</a>') == '<a href="14_losses.html#nce-eq-8">x</a>'
    assert site.demoted("# Part 1", first=False) == "## Part 1" and site.demoted("# Title", first=True) == "# Title"


def test_commands():
    "Every artefact has the command that makes it"
    one = lambda profile: dict(profile=profile, seeds=[0])
    assert site.command("table4_mini", one("mini")) == site.command("table4_mini_part", one("mini"))
    assert site.command("table4_mini", one("mini")) == "hcil_reproduce table4 --profile mini --from-records"
    assert site.command("fig4_mini_part", one("mini")) == "hcil_reproduce fig4 --profile mini --seeds 1 --set columns=DF"
    assert site.command("table4_smoke", one("smoke")) == "hcil_reproduce table4 --profile smoke"
    assert site.command("bench_methods_cpu", one("none")) == "hcil_bench --what methods --out figures/bench_methods_cpu"
    assert site.command("bench_rehearsal_lines", one("none")) == ".venv/bin/python tools/rehearse.py"
    assert site.command("batch_smoke", one("smoke")) == "hcil_reproduce data --profile smoke"
    for p in (site.ROOT / "figures").glob("*.png"):
        assert site.command(p.stem, read_stamp(p)).startswith(("hcil_reproduce ", "hcil_bench "))


READ = (
    "index.html",
    "gallery.html",
    "nbs/14_losses.html",
    "nbs/94_widgets.html",
    "nbs/class/lesson3.html",
    "nbs/paper/table1.html",
    "api/hcil.losses.html",
)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium")
def test_read(built):
    "No page is wider than its window, equations are drawn, the console is quiet, axe-core complains of nothing"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        for width in (390, 1280):
            page, said = browser.new_page(viewport=dict(width=width, height=900)), []
            page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda e: said.append(str(e)))
            page.on("requestfailed", lambda r: said.append(r.url))
            for p in READ:
                page.goto((built / p).as_uri())
                if page.locator(".math").count():
                    page.wait_for_selector(".math mjx-container svg", timeout=30_000)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{p} is wider than {width} pixels"
                assert not said, (p, said)
                assert not (found := complaints(page)), (p, found)
        browser.close()
