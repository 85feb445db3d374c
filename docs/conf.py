"Sphinx's settings for the site; `make docs` copies this beside the pages that tools/website.py gathers"

from configparser import ConfigParser
from pathlib import Path

from sphinx import addnodes

ini = ConfigParser(delimiters=["="])
ini.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]

project, author, release = cfg["title"], cfg["author"], cfg["version"]
project_copyright = cfg["copyright"]
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_design", "docments"]  # the last: tools/
exclude_patterns = ["_static"]

nb_execution_mode = "off"  # the notebooks carry their outputs
nb_mime_priority_overrides = [("html", "text/html", 0)]  # widgets: the still form, there is no kernel here
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "html_image", "colon_fence"]
myst_heading_anchors = 4

# One file draws all equations, as SVG: no fonts, no network. tools/website.py copies it from sphinx-mathjax-offline
mathjax_path = "tex-svg.js"
mathjax3_config = dict(svg=dict(fontCache="local"), options=dict(enableMenu=False))

# The API: types and comments in a table of parameters, defaults as they are written
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # PyTorch writes its own in another markup
add_module_names = False

html_theme = "furo"
html_title = "hcil"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_favicon = "_static/favicon.svg"
html_copy_source = html_show_sourcelink = False
html_theme_options = dict(navigation_with_keys=True)


TITLES = {}  # page -> its title, as `short` makes it


def short(toc):
    "The headings of a page without all below the title; as it is where it lists other pages"
    if next(toc.findall(addnodes.toctree), None):
        return toc
    title = toc.copy()
    for entry in toc:
        title += entry.copy()
        title[-1] += entry[0].deepcopy()
    return title


def sidebar(app, pagename, templatename, context, doctree):
    "The list of pages shows titles only; Sphinx copies all headings of all pages first, which took a third of the time"
    every = context["toctree"]
    if not TITLES:
        TITLES.update((name, short(toc)) for name, toc in app.env.tocs.items())

    def toctree(**options):
        tocs, app.env.tocs = app.env.tocs, TITLES if options.get("titles_only") else app.env.tocs
        try:
            return every(**options).replace('role="heading">', 'role="heading" aria-level="2">')  # Sphinx's captions have none
        finally:
            app.env.tocs = tocs

    context["toctree"] = toctree


def setup(app):
    app.connect("html-page-context", sidebar, priority=400)  # before the theme asks for it
