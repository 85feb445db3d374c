"`nbdev_test` with its own arguments, then a look at which `hcil` the notebook imported"

from pathlib import Path
import sys

from nbdev.config import get_config
from nbdev.test import nbdev_test

nbdev_test()
here, hcil = get_config().config_path.resolve() / "hcil", sys.modules.get("hcil")
if hcil and Path(hcil.__file__).resolve().parent != here:
    sys.exit(f"The notebook imported {hcil.__file__}, not the hcil of this checkout: run `make clean-venv`, then try again.")
