"""Trips of the loop with a program's products, from how many products the program makes."""

import pytest

from tests.simulator.sass.written import code
from tidepool.simulator.sass import SM_80, SM_90, Launch, model
from tidepool.simulator.sass.trips import multiply_adds, product_trips

MMA = "HMMA.16816.F32.BF16 R0, R4, R8, R0\n"
WGMMA = "HGMMA.64x256x16.F32.BF16 R24, gdesc[UR8], R24, gsb0\n"
LOOP = f"MOV R0, RZ\n{MMA}{MMA}@P0 BRA 0x10\n{MMA}EXIT"
"""Two products a trip and one behind the loop."""
NEST = f"MOV R0, RZ\nMOV R1, RZ\n{MMA}@P0 BRA 0x20\n{MMA}@P1 BRA 0x10\nEXIT"
"""One product a trip of the inner loop, and one a trip of the outer."""
PER_MMA = 16 * 8 * 16


@pytest.mark.parametrize(
    ("text", "warps", "wanted"),
    [
        (MMA, 1, PER_MMA),
        (MMA, 8, 8 * PER_MMA),
        ("HMMA.1688.F32.TF32 R0, R4, R8, R0\n", 2, 2 * 16 * 8 * 8),
        (WGMMA, 4, 64 * 256 * 16),
        (WGMMA, 8, 2 * 64 * 256 * 16),
        ("FADD R0, R0, R1\n", 4, 0),
        (f"@!PT {MMA}", 4, 0),
    ],
)
def test_multiply_adds_of_an_instruction(text: str, warps: int, wanted: int) -> None:
    assert multiply_adds(code(text)[0], warps) == wanted


@pytest.mark.parametrize("trips", [1, 5, 286])
def test_products_outside_the_loop_are_left_out(trips: int) -> None:
    products = 4 * PER_MMA * (2 * trips + 1)
    assert product_trips(code(LOOP), products, 1, 4) == {0x10: trips}


def test_the_loop_around_has_the_trips_it_is_given() -> None:
    products = PER_MMA * 9 * (7 + 1)
    assert product_trips(code(NEST), products, 9, 1) == {0x10: 9, 0x20: 7}


def test_code_without_products_or_loops_has_no_trips() -> None:
    assert product_trips(code("MOV R0, RZ\n@P0 BRA 0x0\nEXIT"), 4096, 1, 4) == {}
    assert product_trips(code(f"{MMA}EXIT"), 4096, 1, 4) == {}


def test_the_model_takes_them_and_keeps_the_trips_of_other_loops() -> None:
    text = f"MOV R0, RZ\n{MMA}@P0 BRA 0x10\nFADD R0, R0, R1\n@P1 BRA 0x30\nEXIT"
    for machine in (SM_80, SM_90):
        told = model(code(text), Launch(threads=32, products=40 * PER_MMA, trips=3), machine)
        assert told.instructions == 1 + 2 * 40 + 2 * 3 + 1
        by_hand = model(code(text), Launch(threads=32, trips={0x10: 40, 0x30: 3}), machine)
        assert told.cycles == by_hand.cycles
