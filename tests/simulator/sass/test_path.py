"""Which way a warp goes where machine code does not say, and how often."""

import pytest

from tests.simulator.sass.written import code
from tidepool.simulator.sass import ASSUMED_TRIPS, SM_90, Instruction, Launch, model
from tidepool.simulator.sass.path import walk

LOOP = """
MOV R0, RZ
IADD3 R1, R1, 0x1, RZ ; stall=4
ISETP.GE.AND P0, PT, R1, R2, PT
@P0 BRA 0x10 ; stall=5
EXIT
"""
NEST = """
MOV R0, RZ
MOV R1, RZ
IADD3 R2, R2, R3, RZ
@P0 BRA 0x20
@P1 BRA 0x10
EXIT
"""
PRODUCT = "HMMA.16816.F32.BF16 R0, R4, R8, R0\n"


def executions(instructions: list[Instruction], **given: object) -> list[float]:
    """How often each instruction is executed."""
    times = [0.0] * len(instructions)
    for visit in walk(instructions, **given):  # type: ignore[arg-type]
        times[visit.number] += visit.weight
    return times


@pytest.mark.parametrize("trips", [1, 2, 4, 5, 100])
def test_a_loop_runs_as_often_as_told(trips: int) -> None:
    assert executions(code(LOOP), trips=trips) == [1, trips, trips, trips, 1]
    # MOV holds the pipe for 2 cycles; a trip takes 4 + 1 + 5.
    assert model(code(LOOP), Launch(threads=32, trips=trips), SM_90).cycles == pytest.approx(10 * trips + 3)


def test_a_loop_of_which_nothing_is_known_runs_as_often_as_assumed() -> None:
    assert executions(code(LOOP)) == executions(code(LOOP), trips=ASSUMED_TRIPS)


def test_loops_are_told_apart_by_their_first_address() -> None:
    inner_and_outer = {0x10: 7, 0x20: 50}
    assert executions(code(NEST), trips=inner_and_outer) == [1, 7, 350, 350, 7, 1]
    assert executions(code(NEST), trips={0x20: 3}) == [1, ASSUMED_TRIPS, *2 * [3 * ASSUMED_TRIPS], ASSUMED_TRIPS, 1]


def test_few_trips_are_walked_however_many_there_are() -> None:
    assert len(walk(code(LOOP), trips=10**6)) == 1 + 4 * 3 + 1
    assert len(walk(code(NEST), trips=10**6)) == 1 + 3 * (2 + 4 * 2) + 1


def test_a_short_detour_is_taken_every_time() -> None:
    text = "MOV R0, RZ\n@P0 BRA 0x30\nMOV R1, RZ\n@P1 BRA 0x0\nEXIT"
    assert executions(code(text), trips=10) == [10, 10, 10, 10, 1]


def test_what_follows_a_sum_of_products_runs_on_the_last_trip() -> None:
    long = 40
    text = f"{PRODUCT}@P0 BRA {16 * (2 + long):#x}\n" + "FADD R0, R0, R1\n" * long + "@P1 BRA 0x0\nEXIT"
    assert executions(code(text), trips=10) == [10, 10, *[1] * long, 10, 1]
    without_products = text.replace(PRODUCT, "NOP\n")
    assert executions(code(without_products), trips=10) == [10, 10, *[10] * long, 10, 1]


def test_of_two_ways_the_one_with_products_is_taken() -> None:
    text = "@P0 BRA 0x40\nMOV R0, RZ\nMOV R1, RZ\nBRA 0x60\n" + PRODUCT + "NOP\nEXIT"
    assert executions(code(text)) == [1, 0, 0, 0, 1, 1, 1]
    swapped = "@P0 BRA 0x30\n" + PRODUCT + "BRA 0x60\nMOV R0, RZ\nMOV R0, RZ\nMOV R0, RZ\nEXIT"
    assert executions(code(swapped)) == [1, 1, 1, 0, 0, 0, 1]


def test_of_two_ways_without_products_the_longer_is_taken() -> None:
    text = "@P0 BRA 0x20\nEXIT\nMOV R0, RZ\nMOV R0, RZ\nEXIT"
    assert executions(code(text)) == [1, 0, 1, 1, 1]


def test_code_put_out_of_the_way_is_left_out() -> None:
    retry = "MOV R0, RZ\n@!P0 BRA 0x30\nEXIT\nNOP\n@!P0 BRA 0x30\nBRA 0x20"
    assert executions(code(retry), counts={0x00: 1, 0x10: 1, 0x20: 1}) == [1, 1, 1, 0, 0, 0]


def test_a_loop_that_is_left_in_its_middle_ends() -> None:
    text = "MOV R0, RZ\nIADD3 R1, R1, 0x1, RZ\n@P0 BRA 0x50\nNOP\nBRA 0x10\nEXIT"
    assert executions(code(text), trips=10) == [1, 10, 10, 9, 9, 1]


def test_a_call_comes_back() -> None:
    text = "CALL.REL.NOINC 0x30\nMOV R0, RZ\nEXIT\nMOV R1, RZ\nRET.REL.NODEC R2 0x0"
    assert executions(code(text)) == [1, 1, 1, 1, 1]


def test_counts_decide_branches_and_weights() -> None:
    text = "MOV R0, RZ\n@P0 BRA 0x30\nMOV R1, RZ\n@P1 BRA 0x0\nEXIT"
    counts = {0x00: 20, 0x10: 20, 0x20: 3, 0x30: 20, 0x40: 1}
    assert executions(code(text), counts=counts) == [20, 20, 3, 20, 1]
    del counts[0x20]
    assert executions(code(text), counts=counts) == [20, 20, 0, 20, 1]
