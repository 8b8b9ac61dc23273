"""An argument speaks of the faults in compiled code whose place it describes, and of no others."""

import re
from pathlib import Path

import pytest

from tests.kernels.compiled.equivalence import Argument, ArgumentError, argument_for, read_arguments
from tests.kernels.compiled.ptx_faults import RULES

PTX = """\
\tsetp.lt.s32 \t%p1, %r1, 4;
\tmov.pred \t%p2, -1;
\t@%p1 ld.global.b32 { %r2 }, [ %rd1 + 0 ];
\tbar.sync \t0;
\t@%p2 ld.global.b32 { %r3 }, [ %rd1 + 0 ];
"""
LOADS = list(re.finditer(r"@%p\d+ (ld\.global)", PTX))


@pytest.mark.parametrize(
    ("described", "spoken_of"),
    [
        ({}, [0, 1]),
        ({"subjects": ("a *",)}, [0, 1]),
        ({"subjects": ("b *", "c *")}, []),
        ({"place": 1}, [1]),
        ({"before": r"(?!.*bar\.sync)"}, [0]),
        ({"after": r".*bar\.sync"}, [0]),
        ({"masked": False}, [1]),
        ({"rules": ("barrier_lost",)}, []),
    ],
    ids=str,
)
def test_speaks_of_the_places_it_describes(described: dict[str, object], spoken_of: list[int]) -> None:
    argument = Argument(**{"name": "n", "rules": ("load_without_its_mask",), "why": "", **described})  # type: ignore[arg-type]
    found = [argument_for("load_without_its_mask", "a kernel", n, PTX, LOADS[n], [argument]) for n in (0, 1)]
    assert found == ["n" if n in spoken_of else "" for n in (0, 1)]


def test_a_guard_that_is_set_twice_is_no_constant() -> None:
    argument = Argument(name="n", rules=("load_without_its_mask",), why="", masked=False)
    ptx = PTX + "\tand.pred \t%p2, %p1, %p2;\n"
    assert not argument.holds("load_without_its_mask", "a kernel", 1, ptx, LOADS[1])


@pytest.mark.parametrize(("size", "holds"), [("8", True), ("4", False)])
def test_a_copy_of_all_its_bytes_is_not_masked(size: str, holds: bool) -> None:
    ptx = f"{{\n\tmov.b32 \t%r2, {size};\n\tcp.async.ca.shared.global [ %r1 + 0 ], [ %rd1 + 0 ], 0x8, %r2;\n"
    rule = next(rule for rule in RULES if rule.name == "copy_reads_what_its_mask_forbids")
    argument = Argument(name="n", rules=(rule.name,), why="", masked=False)
    assert argument.holds(rule.name, "a kernel", 0, ptx, rule.places(ptx)[0]) == holds


def test_every_argument_has_a_reason() -> None:
    for argument in read_arguments():
        assert len(argument.why.split()) > 6, argument.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[a]\nrules = ["no_rule"]\nwhy = "x"', r"a: rules = \['no_rule'\], expected a list of accumulator_forgotten"),
        ('[a]\nwhy = "x"', "a: rules = None"),
        ('[a]\nrules = ["barrier_lost"]', "a: .*why"),
        ('[a]\nrules = ["barrier_lost"]\nwhy = "x"\nafter = "("', r"a: missing \)"),
    ],
    ids=["rule", "no rules", "no reason", "pattern"],
)
def test_a_bad_argument_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(ArgumentError, match=message):
        read_arguments(tmp_path / "e.toml")
