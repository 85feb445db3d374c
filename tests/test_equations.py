"Every equation of the paper has its code, its oracle and a test that uses both"

from pathlib import Path
from hcil.equations import equation_map, missing

NBS = Path(__file__).resolve().parent.parent / "nbs"


def test_no_equation_lacks_code_oracle_or_test():
    says = missing(equation_map(NBS))
    assert not says, "\n".join(says)
