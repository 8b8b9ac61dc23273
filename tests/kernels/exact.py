"""Comparison with PyTorch to the bit, on sparse small integers, where every dtype's sums are exact and ties abound."""

from typing import Any

import torch
from torch import Tensor

from tests.kernels.shapes import Case
from tidepool.kernels import conv_relu_pool, kernel_mode
from tidepool.kernels.oracle.reference import conv_act_pool_reference

DEVICE = "cuda" if torch.cuda.is_available() and kernel_mode("triton") == "compiled" else "cpu"
"""Where the kernels under test run. PyTorch's side of every comparison is computed on the CPU."""
INTERPRETED = kernel_mode("triton", DEVICE) == "interpreted"
"""Whether they run in Triton's interpreter there."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def placed(tensor: Tensor, device: str) -> Tensor:
    """A copy on the device, the same view of as much memory: `to` and `clone` make stepped and expanded views dense."""
    elements = tensor.untyped_storage().nbytes() // tensor.element_size()
    memory = tensor.detach().as_strided((elements,), (1,), 0).to(device, copy=True)
    return memory.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def integers(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, most: int = 2) -> Tensor:
    """Integers in [-most, most], about half of them 0."""
    values = torch.randint(-most, most + 1, size, generator=generator)
    keep = torch.randint(0, 2, size, generator=generator)
    return (values * keep).to(dtype)


def integer_inputs(case: Case, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, weight and bias of a layer as small integers."""
    generator = torch.Generator().manual_seed(seed)
    x, weight = integers(case.x, dtype, generator), integers(case.weight, dtype, generator, most=1)
    if case.channels_last:
        x = x.to(memory_format=torch.channels_last)
    return x, weight, integers(case.weight[:1], dtype, generator) if case.bias else None


def assert_as_pytorch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    grad: Tensor | None = None,
    device: str = DEVICE,
    strides: bool = True,
    **options: Any,
) -> None:
    """Values and all gradients of backend="triton" equal PyTorch's to the bit (NaN to NaN), in dtype and strides too.

    `grad` is y's incoming gradient, small integers by default. Tensors are CPU tensors. Raises AssertionError.
    """
    expected, grad = outcome(conv_act_pool_reference, x, weight, bias, grad, "cpu", options)
    found, _ = outcome(conv_relu_pool, x, weight, bias, grad, device, {**options, "backend": "triton"})
    for name, tensor in expected.items():
        assert_equal(found[name], tensor, name, strides)


def assert_equal(found: Tensor | None, expected: Tensor | None, name: str, strides: bool = True) -> None:
    """Equal to the bit (NaN to NaN, -0 to 0), in dtype, and where asked in strides.

    Of a weight's gradient those along dimensions of one element are left out: which of the formats that fit PyTorch
    gives it depends on the CPU (oneDNN writes fp16 gradients itself where there are instructions for them).
    """
    if found is None or expected is None:
        assert found is expected, f"{name}: {found} where PyTorch gives {expected}"
        return
    if strides and name == "dweight":
        assert _steps(found) == _steps(expected), f"dweight: strides {found.stride()}, expected {expected.stride()}"
        strides = False
    torch.testing.assert_close(
        found.cpu(),
        expected.cpu(),
        rtol=0,
        atol=0,
        equal_nan=True,
        check_stride=strides,
        msg=lambda text: f"{name}: {text}",
    )


def _steps(tensor: Tensor) -> list[int]:
    return [step for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1]


def outcome(
    function: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    grad: Tensor | None,
    device: str,
    options: dict[str, Any],
) -> tuple[dict[str, Tensor | None], Tensor]:
    """y and the gradients of `function` there, by name, and the incoming gradient that was used."""
    leaves = [None if t is None else placed(t, device).requires_grad_() for t in (x, weight, bias)]
    y = function(*leaves, **options)
    if grad is None:
        grad = integers(tuple(y.shape), y.dtype, torch.Generator().manual_seed(y.numel()))
    y.backward(placed(grad, device))
    gradients = [None if t is None else t.grad for t in leaves]
    return {"y": y.detach(), **dict(zip(("dx", "dweight", "dbias"), gradients, strict=True))}, grad
