# hcil: `make test` checks everything, `make reproduce` regenerates tables and figures.
# Both make .venv from nothing if it is not there; with PINNED=1, of the versions in constraints.txt.

PYTHON  ?= python3
PROFILE ?= smoke
FLAGS   ?=
JOBS    ?= 2
PINNED  ?=

BIN       := .venv/bin
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help install test reproduce export docs notebook clean-venv

help:  ## list the targets
	@echo "usage: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1: \2/p' Makefile

install: $(INSTALLED)  ## set up .venv, as every other target does when it is not there

test: $(INSTALLED)  ## run every check and every notebook (FLAGS="slow gpu": also the cells so flagged; JOBS=8: eight at a time)
	HCIL_FLAGS="$(FLAGS)" $(BIN)/python -m pytest -n $(JOBS)

reproduce: $(INSTALLED)  ## make the tables and figures, in smoke into figures/smoke/ (PROFILE=mini: into figures/)
	$(BIN)/hcil_reproduce --profile $(PROFILE)

export: $(INSTALLED)  ## after editing a notebook: clean the notebooks, write hcil/ and README.md, check the result
	$(BIN)/nbdev_clean
	$(BIN)/python tools/still.py
	$(BIN)/nbdev_export
	$(BIN)/python tools/wings.py
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/house.py

docs: $(INSTALLED)  ## build the site into _site/html, and check every link
	$(BIN)/python tools/website.py _site

notebook: $(INSTALLED)  ## open the notebooks in JupyterLab, at the index
	$(BIN)/jupyter lab nbs/index.ipynb

clean-venv:  ## remove .venv; the next target that needs it makes it anew
	rm -rf .venv

# The stamp is written last, so that an interrupted install is not taken for a finished one.
$(INSTALLED): settings.ini setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hcil needs Python 3.11 or newer and $(PYTHON) is %d.%d: name another one with make PYTHON=python3.12" % sys.version_info[:2])'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check $(if $(PINNED),-c constraints.txt) -e '.[dev]'
	@git rev-parse --git-dir >/dev/null 2>&1 && git config --local include.path ../.gitconfig || true
	@touch $@
