"""Kernels of one's own on a simulated device, by way of Triton's launcher."""

import subprocess
import sys
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool import simulator
from tidepool.simulator import Fault

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
DEVICES = ("sm_80", "sm_90")
SCHEDULES = ("eager", "late", "seeded:1")


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=mask) + tl.load(y_ptr + at, mask=mask), mask=mask)


@triton.jit
def product_kernel(
    a_ptr, b_ptr, c_ptr, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for first in range(0, K, BLOCK_K):
        depth = first + tl.arange(0, BLOCK_K)
        a = tl.load(
            a_ptr + rows[:, None] * K + depth[None, :], mask=(rows < M)[:, None] & (depth < K)[None, :], other=0.0
        )
        b = tl.load(
            b_ptr + depth[:, None] * N + columns[None, :], mask=(depth < K)[:, None] & (columns < N)[None, :], other=0.0
        )
        total = tl.dot(a, b, total, input_precision="ieee")
    mask = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(c_ptr + rows[:, None] * N + columns[None, :], total.to(c_ptr.dtype.element_ty), mask=mask)


def add(count: int, told: int | None = None) -> tuple[Tensor, Tensor]:
    x, y, out = torch.arange(float(count)), torch.ones(count), torch.zeros(count)
    add_kernel[(triton.cdiv(count, 128),)](x, y, out, told or count, BLOCK=128)
    return out, x + y


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", DEVICES)
def test_a_kernel_of_ones_own(name: str, schedule: str) -> None:
    with simulator.device(name, schedule) as device:
        found, expected = add(300)
        report = device.reports[-1]
    assert torch.equal(found, expected)
    assert (report.kernel, report.programs) == ("add_kernel", 3)
    assert report.warp_instructions > 0


def test_a_mask_that_is_too_wide_is_told_with_its_line() -> None:
    with (
        simulator.device("sm_90"),
        pytest.raises(Fault, match=r"bounds: test_devices.py:\d+: global read out of bounds"),
    ):
        add(300, told=310)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize(("dtype", "depth"), [(torch.float16, 48), (torch.bfloat16, 80), (torch.float32, 24)], ids=str)
def test_products_are_exact_on_integers(name: str, schedule: str, dtype: torch.dtype, depth: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(-3, 4, (70, depth), generator=generator).to(dtype)
    b = torch.randint(-3, 4, (depth, 40), generator=generator).to(dtype)
    c = torch.empty(70, 40)
    with simulator.device(name, schedule):
        product_kernel[(2, 2)](a, b, c, 70, 40, depth, BLOCK_M=64, BLOCK_N=32, BLOCK_K=16, num_warps=4)
    assert torch.equal(c, a.float() @ b.float())


def test_one_process_runs_on_one_device_after_the_other() -> None:
    seen: list[Any] = []
    simulator.follow(lambda device: seen.append(device and device.name))
    with simulator.device("sm_90"):
        add(10)
        with simulator.device("sm_80", "late"):
            assert simulator.current().name == "sm_80"  # type: ignore[union-attr]
            add(10)
        found, expected = add(10)
    assert torch.equal(found, expected)
    assert simulator.current() is None
    assert seen == [None, "sm_90", "sm_80", "sm_90", None]


def test_a_device_that_there_is_not() -> None:
    with (
        pytest.raises(ValueError, match="simulated device 'sm_70': expected one of sm_80, sm_90"),
        simulator.device("sm_70"),
    ):
        pass


def test_importing_loads_neither_torch_nor_triton() -> None:
    program = "import sys, tidepool.simulator; print([m for m in ('torch', 'triton') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
