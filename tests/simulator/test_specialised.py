"""A warp-specialised Gluon kernel is right under every schedule, and every fault in its synchronisation is noticed."""

import pytest
import torch
from torch import Tensor

from tests.simulator.specialised_matmul import BLOCK, FAULTS, specialised_matmul
from tidepool import simulator

SCHEDULES = ("eager", "late", "seeded:0", "seeded:1")


def inputs(nan: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Integers whose sums are exact in bf16; five steps over three buffers, six tiles, so that every phase comes."""
    generator = torch.Generator().manual_seed(0)
    rows, columns, k = 2 * BLOCK, 3 * BLOCK, 5 * BLOCK
    a = torch.randint(-1, 2, (rows, k), generator=generator).bfloat16()
    b = torch.randint(-1, 2, (columns, k), generator=generator).bfloat16()
    if nan:
        a[3, 7], b[100, 311] = torch.nan, torch.inf
    return a, b, torch.randint(-3, 4, (columns,), generator=generator).bfloat16()


def right(found: Tensor, a: Tensor, b: Tensor, bias: Tensor) -> bool:
    expected = (a.double() @ b.double().T + bias.double()).bfloat16()
    return torch.allclose(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("programs", [1, 2])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_right_under_every_schedule(schedule: str, programs: int) -> None:
    given = inputs()
    with simulator.device("sm_90", schedule):
        assert right(specialised_matmul(*given, programs=programs), *given)


def test_nan_and_infinity_reach_their_row_and_column() -> None:
    given = inputs(nan=True)
    with simulator.device("sm_90", "late"):
        found = specialised_matmul(*given, programs=2)
    assert right(found, *given)
    assert int((~found.isfinite()).sum()) == 128 + 192 - 1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(fault: str) -> None:
    given = inputs()
    for schedule in SCHEDULES:
        with simulator.device("sm_90", schedule):
            try:
                found = specialised_matmul(*given, programs=1, fault=fault)
            except simulator.Fault:
                return
            if not right(found, *given):
                return
    pytest.fail(f"what {FAULTS[fault]} was right under {', '.join(SCHEDULES)}")
