"""Kernels sum through `summed`, after which every lane that holds a sum holds the same bits."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from tidepool import simulator
from tidepool.kernels.device.arithmetic import summed
from tidepool.kernels.runtime.interpreting import kernel
from tidepool.kernels.runtime.launch import launch

KERNELS = Path(__file__).parents[3] / "kernels"
REDUCING = ("sum", "reduce", "cumsum", "cumprod", "associative_scan", "xor_sum")


def reductions(source: str) -> Iterator[str]:
    """`function: code` of every reduction by adding in the kernels of a file and what they call."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef) and any(
            isinstance(d, ast.Name) and d.id in ("kernel", "device_function") for d in function.decorator_list
        ):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REDUCING:
                    yield f"{function.name}: {ast.unparse(node)}"


def test_no_kernel_sums_but_through_summed() -> None:
    files = [path for path in sorted(KERNELS.rglob("*.py")) if "triton.language" in path.read_text(encoding="utf-8")]
    assert len(files) > 20
    found = [f"{path.name}: {found}" for path in files for found in reductions(path.read_text(encoding="utf-8"))]
    assert found == [
        "arithmetic.py: summed: tl.sum(value, axis=AXIS)",
        "arithmetic.py: summed: tl.sum(0.0 - value, axis=AXIS)",
    ]


@pytest.mark.parametrize("code", ["tl.sum(x, axis=0)", "x.sum(0)", "tl.reduce(x, 0, add)", "tl.cumsum(x, 0)"])
def test_a_reduction_is_found(code: str) -> None:
    assert list(reductions(f"@kernel\ndef f(x):\n    y = {code}\n")) == [f"f: {code}"]


@kernel
def sum_products_kernel(a_ptr, b_ptr, total_ptr, stride, HELD: tl.constexpr, SIZE: tl.constexpr, SQUARES: tl.constexpr):
    # A stride known at run time: one column a lane, whose product is the first thing that it sends.
    row, column = tl.arange(0, SIZE), tl.arange(0, SIZE)
    at = row[:, None] * (SIZE * 3) + column[None, :] * stride
    a = tl.load(a_ptr + at)
    product = a * a if SQUARES else a * tl.load(b_ptr + at)
    total = summed(product, 1) if HELD else tl.sum(product, axis=1)
    tl.store(total_ptr + row, total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
@pytest.mark.parametrize("squares", [False, True], ids=["products", "squares"])
def test_sums_of_products_are_the_same_in_every_lane(squares: bool, name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 16, 48, generator=generator, dtype=dtype)
    b = a if squares else b
    total = torch.empty(16, dtype=dtype)
    with simulator.device(name):
        launch(sum_products_kernel, (1,), a, b, total, 3, HELD=True, SIZE=16, SQUARES=squares)
        torch.testing.assert_close(total, (a * b)[:, ::3].sum(1))
        if squares or triton.__version__.startswith("3.6."):  # which contracts none of them
            return
        with pytest.raises(simulator.Fault, match="two lanes write different values to the same shared memory"):
            launch(sum_products_kernel, (1,), a, b, total, 3, HELD=False, SIZE=16, SQUARES=False)


def test_a_sum_of_integers_and_one_of_zeros() -> None:
    a = torch.ones(8, 24, dtype=torch.int32)
    total = torch.empty(8, dtype=torch.int32)
    launch(sum_products_kernel, (1,), a, a, total, 3, HELD=True, SIZE=8, SQUARES=False)
    assert total.tolist() == [8] * 8
    zeros, total = torch.full((8, 24), -0.0), torch.empty(8)
    launch(sum_products_kernel, (1,), zeros, -zeros, total, 3, HELD=True, SIZE=8, SQUARES=False)
    assert not total.signbit().any()
