"""What is remembered is what Triton's interpreter works out anew: types, tensors' attributes, results and refusals."""

from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl

from tests.kernels.exact import INTERPRETED
from tidepool.kernels.runtime import interpreting
from tidepool.kernels.runtime.interpreting import kernel, launch_interpreted

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="about the interpreter")
SCALARS = (tl.int1, tl.uint8, tl.int32, tl.int64, tl.float16, tl.bfloat16, tl.float32, tl.float64)
POINTERS = tuple(tl.pointer_type(tl.float32, space, const) for space in (1, 3) for const in (False, True))
SHAPES: tuple[Any, ...] = ([4], [4, 8], [tl.constexpr(4), 8], tl.tuple([4, 8]), tl.tuple([tl.constexpr(2)] * 3))


def attributes(thing: Any) -> dict[str, str]:
    return {name: repr(value) for name, value in vars(thing).items() if not name.startswith("_tidepool")}


@pytest.mark.parametrize("scalar", [*SCALARS, *POINTERS], ids=str)
def test_types_and_tensors_have_the_attributes_that_triton_gives_them(scalar: Any) -> None:
    made = [
        (tl.block_type(scalar, shape), tl.tensor("handle", tl.block_type(scalar, shape)), tl.tensor("handle", scalar))
        for shape in SHAPES
    ]
    with interpreting._patched():
        for _ in range(2):
            for shape, originals in zip(SHAPES, made, strict=True):
                block = tl.block_type(scalar, shape)
                for found, original in zip(
                    (block, tl.tensor("handle", block), tl.tensor("handle", scalar)), originals, strict=True
                ):
                    assert attributes(found) == attributes(original)
                assert block == originals[0]
                assert block.element_ty.is_ptr() == scalar.is_ptr()
                assert getattr(block.element_ty, "address_space", 0) == getattr(scalar, "address_space", 0)


def test_numpy_types_are_tritons() -> None:
    from triton.runtime import interpreter

    types = [*SCALARS, *POINTERS, *(tl.block_type(scalar, [4]) for scalar in (*SCALARS, *POINTERS))]
    expected = [interpreter._get_np_dtype(type_) for type_ in types]
    with interpreting._patched():
        assert [interpreter._get_np_dtype(type_) for type_ in types * 2] == expected * 2


@kernel
def mixed_kernel(x, y, N: tl.constexpr, M: tl.constexpr):
    rows, columns = tl.arange(0, N), tl.arange(0, M)
    spread = rows[:, None] * M + columns[None, :]
    values = tl.load(x + spread)
    small = values.to(tl.float16) * 2
    total = tl.sum(values + small, axis=1)
    same = tl.where(spread == spread, values, 0.0) + values
    tl.store(y + spread, same * total[:, None] - 1)


@pytest.mark.parametrize(("rows", "columns"), [(4, 8), (8, 4), (1, 8), (4, 1), (1, 1)])
def test_blocks_of_every_shape_are_broadcast_as_ever(rows: int, columns: int) -> None:
    x = torch.arange(rows * columns, dtype=torch.float32).view(rows, columns)
    y = torch.empty_like(x)
    for _ in range(2):
        launch_interpreted(mixed_kernel, (1,), x, y, rows, columns)
        expected = (x + x) * (x + 2 * x).sum(1, keepdim=True) - 1
        np.testing.assert_array_equal(y.numpy(), expected.numpy())


@kernel
def unfit_kernel(x):
    tl.store(x + tl.arange(0, 4), tl.arange(0, 4) + tl.arange(0, 8))


def test_shapes_that_do_not_fit_are_refused() -> None:
    for _ in range(2):
        with pytest.raises(Exception, match="incompatible dimensions"):
            launch_interpreted(unfit_kernel, (1,), torch.zeros(8))


@kernel
def empty_kernel(x):
    tl.store(x, tl.zeros([3], tl.float32))


def test_a_block_whose_size_is_no_power_of_two_is_refused() -> None:
    for _ in range(2):
        with pytest.raises(Exception, match="power of"):
            launch_interpreted(empty_kernel, (1,), torch.zeros(4))
