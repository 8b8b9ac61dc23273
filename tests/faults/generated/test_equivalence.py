"""An argument speaks of the mutants whose place it describes, and of no others."""

from pathlib import Path

import pytest

from tests.faults.generated.equivalence import Argument, ArgumentError, argument_for, read_arguments
from tests.faults.generated.mutants import all_mutants, mutants_of
from tests.faults.harness import ROOT

SOURCE = """\
@kernel
def one(a, mask_k):
    b = keep_in_range(a, mask_k)
    tl.store(b, a, mask=mask_k)


@kernel
def two(a, mask_k):
    return keep_in_range(mask_k, a)
"""


@pytest.mark.parametrize(
    ("described", "lines"),
    [
        ({}, [3, 4, 9]),
        ({"within": "keep_in_range(*_)"}, [3, 9]),
        ({"within": "keep_in_range(*_)", "argument": 1}, [3]),
        ({"within": "keep_in_range(*_)", "argument": 2}, []),
        ({"function": "k.py::t*"}, [9]),
        ({"function": "other.py::*"}, []),
        ({"old": "mask_k", "new": "(mask_k == mask_k)"}, [3, 4, 9]),
        ({"new": "mask_k"}, []),
        ({"within": ["tl.store(*_)", "return _"], "old": ["a", "mask_k"]}, [4, 9]),
        ({"function": ["k.py::one", "k.py::two"], "new": ["b", "a"]}, []),
    ],
    ids=str,
)
def test_speaks_of_the_places_it_describes(described: dict[str, str], lines: list[int]) -> None:
    argument = Argument(name="n", rule="mask_dropped", why="", **described)  # type: ignore[arg-type]
    assert [m.line for m in mutants_of(SOURCE, "k.py") if argument.holds(m, SOURCE)] == lines


@pytest.mark.full
def test_every_argument_has_a_reason_and_a_mutant() -> None:
    arguments = read_arguments()
    mutants = all_mutants(ROOT)
    sources = {mutant.file: (ROOT / mutant.file).read_text("utf-8") for mutant in mutants}
    for argument in arguments:
        assert len(argument.why.split()) > 10, argument.name
        assert any(argument.holds(mutant, sources[mutant.file]) for mutant in mutants), (argument.name, argument.rule)


def test_the_first_that_speaks_is_named() -> None:
    mutant = mutants_of(SOURCE, "k.py")[0]
    arguments = [Argument(name=name, rule=rule, why="") for name, rule in (("a", "sum_sign"), ("b", mutant.rule))]
    assert argument_for(mutant, SOURCE, arguments) == "b"
    assert argument_for(mutant, SOURCE, arguments[:1]) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[a]\nrules = ["no_rule"]\nwhy = "x"', r"a: rules = \['no_rule'\], expected a list of comparison_neighbour"),
        ('[a]\nwhy = "x"', "a: rules = None"),
        ('[a]\nrules = ["sum_sign"]', "a: .*why"),
        ('[a]\nrules = ["sum_sign"]\nwhy = "x"\nwithin = "a b"', "a: invalid syntax"),
    ],
    ids=["rule", "no rules", "no reason", "pattern"],
)
def test_a_bad_argument_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(ArgumentError, match=message):
        read_arguments(tmp_path / "e.toml")
