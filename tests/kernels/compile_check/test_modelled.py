"""Rows get modelled cycles where there is a model, in their order, and no kernel is lost where there is none."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tidepool.kernels.compile_check import modelled
from tidepool.kernels.compile_check.modelled import Compiled, with_cycles
from tidepool.kernels.compile_check.rows import Row, heading
from tidepool.kernels.runtime.targets import GFX942, SM_90, SM_100
from tidepool.simulator import sass

EXIT = [sass.Instruction(0, "EXIT")]
UNKNOWN = [sass.Instruction(0, "FROBNICATE"), sass.Instruction(16, "EXIT")]
CODE = {b"exit": EXIT, b"unknown": UNKNOWN}


def row(case: str) -> Row:
    figures = dict.fromkeys(("registers", "spills", "shared_bytes", "tensor", "shuffles", "occupancy_percent"), 0)
    return Row(target="sm_90", case=case, dtype="bf16", kernel="kernel", tile="tile", problem="", **figures)


def compiled(case: str, code: bytes) -> Compiled:
    return Compiled(row(case), code, sass.Launch(threads=32))


@pytest.fixture(autouse=True)
def disassembled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Code by what stands for it, and how many kernels were disassembled at a time."""
    together: list[int] = []

    def disassemble(cubins: Sequence[bytes], target: str, nvdisasm: Path) -> list[list[sass.Instruction]]:
        together.append(len(cubins))
        return [CODE[cubin] for cubin in cubins]

    monkeypatch.setattr(modelled.sass, "disassemble", disassemble)
    return together


def test_rows_keep_their_order_and_those_that_did_not_compile_stay_as_they_are() -> None:
    given = [compiled("first", b"exit"), Compiled(row("broken")), compiled("last", b"exit")]
    first, broken, last = with_cycles(SM_90, given)
    assert first == replace(row("first"), cycles=1, loops="16", binds="issue slots")
    assert broken == row("broken")
    assert last == replace(row("last"), cycles=1, loops="16", binds="issue slots")


def test_an_unknown_opcode_is_named_in_its_row_and_is_no_problem() -> None:
    (found,) = with_cycles(SM_90, [compiled("new", b"unknown")])
    assert found == replace(row("new"), binds="unknown opcode FROBNICATE at 0x0")


@pytest.mark.parametrize("target", [SM_100, GFX942])
def test_rows_of_targets_without_a_model_stay_as_they_are(target: object, disassembled: list[int]) -> None:
    given = [compiled("one", b"exit"), Compiled(row("other"))]
    assert list(with_cycles(target, given)) == [row("one"), row("other")]  # type: ignore[arg-type]
    assert disassembled == []


def test_kernels_are_disassembled_many_at_a_time_and_none_is_left_over(disassembled: list[int]) -> None:
    given = [compiled(str(number), b"exit") for number in range(150)]
    found = list(with_cycles(SM_90, given))
    assert [one.case for one in found] == [str(number) for number in range(150)]
    assert all(one.cycles == 1 for one in found)
    assert sum(disassembled) == 150
    assert len(disassembled) == 3


def test_a_launch_that_is_known_has_its_time_and_its_own_loops() -> None:
    launch = sass.Launch(threads=32, programs=132, memory_bytes=3_350_000, products=2048)
    (found,) = with_cycles(SM_90, [Compiled(row("layer"), b"exit", launch)])
    assert found == replace(row("layer"), cycles=1, us=1.0, loops="layer", binds="memory")


def test_cycles_and_what_binds_end_the_line() -> None:
    line = replace(row("case"), problem="spills", cycles=1234, us=5.5, loops="layer", binds="wait: copies").line()
    assert line.split()[-6:] == ["spills", "1234", "5.5", "layer", "wait:", "copies"]
    assert heading().endswith("modelled, uncalibrated)")
    assert row("case").line().split()[-1] == "0"
