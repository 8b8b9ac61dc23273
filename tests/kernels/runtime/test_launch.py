"""Launches: prepared ones reach the device with the kernel's arguments in order, looked up once per kind of address."""

import inspect
from typing import Any

import pytest
import torch
import triton.language as tl

from tidepool.kernels.runtime import launch as launching
from tidepool.kernels.runtime.launch import Prepared, launch_compiled, launch_prepared, offset_type, replace_launcher


class Compiled:
    """Stands for a compiled kernel: notes what it is launched with."""

    def __init__(self) -> None:
        self.launches: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments: self.launches.append((grid, *arguments))


class Jitted:
    """Stands for a kernel as `triton.jit` leaves it: compiles at every call, and says so."""

    signature = inspect.signature(lambda a_ptr, b_ptr, size, G, BLOCK, norm=None: None)

    def __init__(self) -> None:
        self.compiled: list[Compiled] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def run(*arguments: Any, **keywords: Any) -> Compiled:
            keywords.pop("norm", None)
            assert keywords == {"G": "g", "BLOCK": 4, "num_warps": 2}
            self.compiled.append(Compiled())
            return self.compiled[-1]

        return run


PREPARED = {"grid": (3, 2), "scalars": (7,), "keywords": {"BLOCK": 4, "G": "g", "num_warps": 2}}


def test_a_compiled_kernel_is_kept_and_given_its_whole_signature() -> None:
    kernel, prepared = Jitted(), Prepared(**PREPARED)
    tensors = (torch.empty(8), torch.empty(8))
    for _ in range(3):
        launch_compiled(kernel, prepared, 0, tensors)
    assert len(kernel.compiled) == 1
    grid, *arguments = kernel.compiled[0].launches[1]
    assert grid == (3, 2, 1)
    assert all(given is tensor for given, tensor in zip(arguments, tensors, strict=False))
    assert arguments[2:] == [7, "g", 4, None]
    assert len(kernel.compiled[0].launches) == 2


def test_operands_take_the_place_of_norm_and_are_told_apart() -> None:
    kernel, prepared = Jitted(), Prepared(**PREPARED)
    tensors, rows = (torch.empty(8), torch.empty(8)), torch.empty(9)
    given: list[tuple[Any, ...]] = [(rows, None), (rows[4:], None), (None, rows), (rows[1:], None), (rows, 3)]
    for operands in (*given, *given):
        launch_compiled(kernel, prepared, 0, tensors, operands)
    assert len(kernel.compiled) == len(given) - 1  # the second lies at a multiple of 16 as the first does
    assert kernel.compiled[0].launches[0][-1] is given[1]
    assert kernel.compiled[0].launches[1][-1] is given[0]


def test_a_pointer_that_is_missing_is_told_apart() -> None:
    kernel, prepared = Jitted(), Prepared(**PREPARED)
    a, b = torch.empty(8), torch.empty(8)
    for tensors in ((a, b, None), (a, None, b), (a, b, None)):
        launch_compiled(kernel, prepared, 0, tensors)
    assert len(kernel.compiled) == 2


@pytest.mark.parametrize("change", ["address", "dtype", "device"])
def test_what_a_kernel_is_specialised_on_is_told_apart(change: str) -> None:
    kernel, prepared = Jitted(), Prepared(**PREPARED)
    a, b = torch.empty(8), torch.empty(9)
    launch_compiled(kernel, prepared, 0, (a, b))
    other = {"address": b[1:], "dtype": b.to(torch.float16)}.get(change, b)
    launch_compiled(kernel, prepared, 1 if change == "device" else 0, (a, other))
    assert len(kernel.compiled) == 2


def test_a_replaced_launcher_sees_prepared_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_launcher", launching._launcher)
    seen: list[tuple[Any, ...]] = []
    replace_launcher(lambda kernel, grid, *arguments, **keywords: seen.append((kernel, grid, arguments, keywords)))
    tensor = torch.empty(2)
    launch_prepared("kernel", Prepared(**PREPARED), tensor)
    assert seen == [("kernel", (3, 2), (tensor, 7), PREPARED["keywords"])]


def test_float32_products_follow_pytorchs_switches() -> None:
    """The new switch of convolutions, and the older one that PyTorch keeps beside it."""
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    cudnn = torch.backends.cudnn
    for precision in ("tf32", "ieee"):
        cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
        assert launching.operand_kind(torch.float32, gpu) == precision
        assert launching.operand_kind(torch.float32, cpu) == "ieee"  # interpreted
    for allowed, kind in ((False, "ieee"), (True, "tf32")):  # True, PyTorch's default, is left behind
        cudnn.allow_tf32 = allowed
        assert launching.operand_kind(torch.float32, gpu) == kind
    assert launching.operand_kind(torch.float64, gpu) == "ieee"
    assert {launching.operand_kind(dtype, gpu) for dtype in (torch.float16, torch.bfloat16)} == {"half"}


def test_offsets_are_64_bits_wide_from_2_to_the_31_elements_on() -> None:
    small, large = (torch.Size([2, 3]), (3, 1)), (torch.Size([2, 3]), (2**31, 1))
    assert offset_type(small, None) == tl.int32
    assert offset_type(small, None, large) == tl.int64
    assert offset_type((torch.Size([2**31 - 2**23]), (1,))) == tl.int32  # and room for a tile that hangs over the end
    assert offset_type((torch.Size([2**31 - 2**21]), (1,))) == tl.int64
