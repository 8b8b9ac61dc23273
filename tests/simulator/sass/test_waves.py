"""Rounds of programs over the multiprocessors, the last one not full, and the memory's own time."""

import pytest

from tests.simulator.sass.written import code
from tidepool.simulator.sass import SM_90, Launch, Waves, model

PROGRAM = code("FADD R0, R0, R1 ; stall=4\n" * 10 + "EXIT")
CYCLES = 41


def waves(programs: int, resident: int = 1, memory_bytes: int | None = None) -> Waves:
    launch = Launch(threads=32, resident=resident, programs=programs, memory_bytes=memory_bytes)
    found = model(PROGRAM, launch, SM_90).waves
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("programs", "full", "tail", "cycles"),
    [(1, 0, 1, CYCLES), (132, 1, 0, CYCLES), (133, 1, 1, 2 * CYCLES), (264, 2, 0, 2 * CYCLES)],
)
def test_a_round_that_is_not_full_takes_as_long(programs: int, full: int, tail: int, cycles: int) -> None:
    found = waves(programs)
    assert (found.full, found.tail, found.cycles) == (full, tail, cycles)
    assert found.seconds == pytest.approx(cycles / 1.755e9)


def test_a_last_round_has_no_more_programs_beside_each_other_than_it_needs() -> None:
    text = "LDS.128 R0, [R4]\n" * 100 + "EXIT"
    launch = Launch(threads=128, resident=4, programs=5 * 132)
    found = model(code(text), launch, SM_90)
    alone = model(code(text), Launch(threads=128), SM_90)
    assert found.waves is not None
    assert (found.waves.full, found.waves.tail) == (1, 132)
    assert found.waves.cycles == pytest.approx(found.cycles + alone.cycles)
    assert found.cycles == pytest.approx(4 * alone.cycles)


def test_few_programs_do_not_share_a_multiprocessor() -> None:
    assert model(PROGRAM, Launch(threads=32, resident=8, programs=132), SM_90).resident == 1


def test_memory_binds_where_it_takes_longer() -> None:
    found = waves(132, memory_bytes=10**9)
    assert found.binds == "memory"
    assert found.seconds == pytest.approx(1e9 / 3350e9)
    assert waves(132, memory_bytes=1).binds != "memory"


def test_without_the_number_of_programs_there_are_no_waves() -> None:
    assert model(PROGRAM, Launch(threads=32), SM_90).waves is None


def test_the_tensor_cores_share_of_a_launch_counts_idle_multiprocessors() -> None:
    text = "HGMMA.64x256x16.F32.BF16 R24, gdesc[UR8], R24, gsb0\nWARPGROUP.DEPBAR.LE gsb0, 0x0\nEXIT"
    found = model(code(text), Launch(threads=128, programs=66), SM_90)
    assert found.waves is not None
    assert found.waves.tensor_share == pytest.approx(found.tensor_share / 2)
