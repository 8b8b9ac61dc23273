"""What is not known is named, and what is assumed has a source."""

import pytest

from tests.simulator.sass.written import code
from tidepool.simulator.sass import MACHINES, SM_90, Launch, UnknownOpcode, UnknownTarget, machine_named, model
from tidepool.simulator.sass.assumed import TABLE


@pytest.mark.parametrize("opcode", ["FROBNICATE.X", "HMMA.999.F32", "HGMMA.F32"])
def test_an_unknown_opcode_is_named_with_its_address(opcode: str) -> None:
    with pytest.raises(UnknownOpcode, match=rf"^unknown opcode {opcode} at 0x10$"):
        model(code(f"NOP\n{opcode} R0, R1, R2\nEXIT"), Launch(threads=32), SM_90)


def test_code_whose_warps_part_is_refused_and_says_why() -> None:
    with pytest.raises(UnknownOpcode, match=r"USETMAXREG.* paths of their own"):
        model(code("USETMAXREG.DEALLOC.CTAPOOL 0x18\nEXIT"), Launch(threads=384), SM_90)


def test_an_instruction_that_is_never_executed_costs_its_issue_only() -> None:
    found = model(code("@!PT LDS RZ, [RZ]\n" * 5 + "EXIT"), Launch(threads=32), SM_90)
    assert found.cycles == 6
    assert found.busy["shared memory"] == 0


def test_every_number_has_a_source_and_is_positive() -> None:
    assert all(source and sm_80 > 0 and sm_90 > 0 for _, sm_80, sm_90, source in TABLE)
    assert len({name for name, *_ in TABLE}) == len(TABLE)


def test_targets_without_a_model_are_refused_with_those_that_have_one() -> None:
    assert [machine_named(machine.target) for machine in MACHINES] == list(MACHINES)
    with pytest.raises(UnknownTarget, match="no cycle model of 'sm_100': expected one of sm_80, sm_90"):
        machine_named("sm_100")


def test_numbers_are_changed_by_names_of_the_table_only() -> None:
    assert SM_90.with_numbers({"bytes: l2": 78})["bytes: l2"] == 78
    with pytest.raises(KeyError, match="unknown number 'bytes: l3'"):
        SM_90.with_numbers({"bytes: l3": 1})
