"Package metadata lives in settings.ini, where nbdev reads it too"

from configparser import ConfigParser
from pathlib import Path
import shlex
from setuptools import setup, find_packages

here = Path(__file__).parent
ini = ConfigParser(delimiters=["="])
ini.read(here / "settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]
lib = cfg["lib_path"]
addresses = {k: cfg[v] for k, v in dict(url="git_url", author_email="author_email").items() if cfg[v]}  # those that there are
if cfg["doc_host"]:
    addresses["project_urls"] = {"Documentation": cfg["doc_host"] + cfg["doc_baseurl"]}

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    keywords=cfg["keywords"],
    author=cfg["author"],
    **addresses,
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Natural Language :: English",
        "Programming Language :: Python :: 3",
    ],
    packages=find_packages(include=[lib, f"{lib}.*"]),
    include_package_data=True,
    python_requires=f">={cfg['min_python']}",
    install_requires=shlex.split(cfg.get("requirements", "")),
    extras_require={extra: shlex.split(cfg.get(f"{extra}_requirements", "")) for extra in ("dev", "widgets", "cluster")},
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    zip_safe=False,
    entry_points={"console_scripts": shlex.split(cfg.get("console_scripts", "")), "nbdev": [f"{lib}={lib}._modidx:d"]},
)
