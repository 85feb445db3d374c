"Sphinx's settings for the site; `make docs` copies this beside the pages that tools/website.py gathers"

from configparser import ConfigParser
from pathlib import Path

ini = ConfigParser(delimiters=["="])
ini.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]

project, author, release = cfg["title"], cfg["author"], cfg["version"]
project_copyright = cfg["copyright"]
extensions = ["myst_nb", "sphinx.ext.mathjax"]
exclude_patterns = ["_static"]

nb_execution_mode = "off"  # the notebooks carry their outputs
nb_mime_priority_overrides = [("html", "text/html", 0)]  # widgets: the still form, there is no kernel here
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "html_image"]
myst_heading_anchors = 4

# One file draws all equations, as SVG: no fonts, no network. tools/website.py copies it from sphinx-mathjax-offline
mathjax_path = "tex-svg.js"
mathjax3_config = dict(svg=dict(fontCache="local"), options=dict(enableMenu=False))

html_theme = "furo"
html_title = "hcil"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_theme_options = dict(navigation_with_keys=True)
