"""The one place kernels are launched from, and the types and strides every launcher hands over."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from threadpoolctl import ThreadpoolController
from torch import Tensor

from kernels.runtime import INTERPRETED

Launch = Callable[..., None]
Layout = tuple[torch.Size, tuple[int, ...]]

if INTERPRETED:
    # The interpreter does every int32 sum and product a second time in int64 to report overflow, at half of a small
    # kernel's time; `offset_type` has ruled overflow out.
    from triton.runtime.interpreter import interpreter_builder

    interpreter_builder.options = dataclasses.replace(interpreter_builder.options, sanitize_overflow=False)


def _launch_on_device(kernel: Any, grid: tuple[int, ...], *args: Any, **kwargs: Any) -> None:
    tensor: Tensor = args[0]
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        with torch.cuda.device(tensor.device):
            kernel[grid](*args, **kwargs)
    else:
        kernel[grid](*args, **kwargs)


def _launch_interpreted(kernel: Any, grid: tuple[int, ...], *args: Any, **kwargs: Any) -> None:
    """NumPy's products are small here: a second BLAS thread costs more than it brings (2.7 times the time of LeNet-5's
    training step on two busy cores)."""
    with _blas().limit(limits=1, user_api="blas"):
        kernel[grid](*args, **kwargs)


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


_DEFAULT_LAUNCHER: Launch = _launch_interpreted if INTERPRETED else _launch_on_device
_launcher = _DEFAULT_LAUNCHER


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **kwargs: Any) -> None:
    """Run `kernel` over `grid` with the arguments of its signature; the first one is a tensor on the device to use."""
    _launcher(kernel, grid, *args, **kwargs)


def launch_prepared(kernel: Any, prepared: "Prepared", *tensors: Any) -> None:
    """Run `kernel` on `tensors`, the pointers (a tensor first) and tensor descriptors that its signature begins with,
    and what `prepared` holds of the rest.

    On a GPU the compiled kernel is kept with `prepared` and called directly from the second launch on: Triton looks a
    kernel up by every argument at every launch. What it would have looked at is fixed by `prepared`, but for the
    tensors' dtypes and whether their addresses are multiples of 16.
    """
    if _launcher is not _launch_on_device:
        _launcher(kernel, prepared.grid, *tensors, *prepared.scalars, **prepared.keywords)
        return
    device = tensors[0].get_device()
    if device != torch.cuda.current_device():
        with torch.cuda.device(device):
            launch_compiled(kernel, prepared, device, tensors)
    else:
        launch_compiled(kernel, prepared, device, tensors)


def launch_compiled(kernel: Any, prepared: "Prepared", device: int, tensors: tuple[Any, ...]) -> None:
    """`launch_prepared` on the current device, a GPU."""
    # What is no tensor is a tensor descriptor, whose address is always such a multiple.
    key = (device, *[(t.dtype, t.data_ptr() % 16 == 0) for t in tensors if isinstance(t, Tensor)])
    compiled = prepared.compiled.get(key)
    if compiled is None:
        compiled = kernel[prepared.grid](*tensors, *prepared.scalars, **prepared.keywords)
        if compiled is not None:  # a hook of Triton's may have taken the launch over
            prepared.compiled[key] = compiled
    else:
        compiled[prepared.three_grid](*tensors, *prepared.scalars, *prepared.constants(kernel, len(tensors)))


def launch_nothing(*tensors: Tensor | None) -> None:
    """The launch of a layer without results."""


def replace_launcher(launcher: Launch | None) -> None:
    """Send every launch to `launcher(kernel, grid, *args, **kwargs)` instead, or back to the device with None.

    The compile check compiles what would have been launched; host-cost measurements launch nothing.
    """
    global _launcher
    _launcher = launcher or _DEFAULT_LAUNCHER


def accumulator(dtype: torch.dtype) -> tl.dtype:
    """What sums are kept in: float64 for float64 tensors, else float32."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def dot_precision(dtype: torch.dtype) -> str:
    """`"tf32"` where PyTorch would let a float32 convolution use it, else `"ieee"`."""
    if dtype != torch.float32 or INTERPRETED:
        return "ieee"
    allowed = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    return "tf32" if allowed == "tf32" else "ieee"


def precision_of(kind: str) -> str:
    """Triton's `input_precision` for products of this operand kind."""
    return "tf32" if kind == "tf32" else "ieee"


def operand_kind(dtype: torch.dtype) -> str:
    """What the tiles call products of this dtype: `"half"`, `"tf32"`, or `"ieee"` (no tensor cores)."""
    return "half" if dtype.itemsize == 2 else dot_precision(dtype)


def current_target() -> str:
    """The GPU kernels are compiled for, as `cuda:90` or `hip:gfx942`; `interpreter` where there is none."""
    if INTERPRETED:
        return "interpreter"
    target = triton.runtime.driver.active.get_current_target()
    return f"{target.backend}:{target.arch}"


def channels_innermost(weight: Tensor) -> Tensor:
    """`weight` (K, C/groups, *kernel) with its channels one element apart, copied if need be: weights are small, and a
    strided load of them would be the one that cannot be pipelined. The interpreter takes any strides as they are.
    """
    if INTERPRETED or weight.stride(1) == 1 or weight.shape[1] == 1:
        return weight
    return weight.movedim(1, -1).contiguous().movedim(-1, 1)


def channels_are_neighbours(*tensors: Tensor | None) -> bool:
    """Whether the channels of every tensor given are at most one element apart, as in channels_last ones."""
    return all([t is None or t.stride(1) <= 1 or t.shape[1] == 1 for t in tensors])


def offset_type(*layouts: Layout | None, pixels: int = 0) -> tl.dtype:
    """int32 while every element offset of every tensor, and a number of pixels that are counted through, fit with a
    tile's overhang; int64 from 2^31 on."""
    spans = [_span(*layout) for layout in layouts if layout is not None]
    return tl.int64 if max([pixels, *spans]) >= 2**31 - 2**22 else tl.int32


def _span(size: torch.Size, strides: tuple[int, ...]) -> int:
    return 1 + sum((n - 1) * abs(stride) for n, stride in zip(size, strides, strict=True) if n)


def layout_of(tensor: Tensor) -> Layout:
    """Size and strides: all that a launch needs to know of a tensor besides its dtype and device."""
    return tensor.shape, tensor.stride()


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything of a launch but its tensors: worked out once per layer and layouts, then looked up."""

    grid: tuple[int, ...]
    scalars: tuple[int, ...]
    keywords: dict[str, Any]
    compiled: dict[Any, Any] = dataclasses.field(default_factory=dict, compare=False)

    @functools.cached_property
    def three_grid(self) -> tuple[int, ...]:
        """The grid in three dimensions, as a compiled kernel wants it."""
        return (*self.grid, 1, 1)[:3]

    def constants(self, kernel: Any, num_tensors: int) -> tuple[Any, ...]:
        """The kernel's other arguments in the order of its signature, where they follow tensors and scalars."""
        known = self.compiled.get("constants")
        if known is None:
            rest = list(kernel.signature.parameters.values())[num_tensors + len(self.scalars) :]
            known = self.compiled["constants"] = tuple([self.keywords.get(p.name, p.default) for p in rest])
        return known


@functools.cache
def programs_in_flight(device: torch.device) -> int:
    """How many programs of a kernel keep the device busy: four per multiprocessor; 1 where there is no GPU."""
    if device.type != "cuda":
        return 1
    return 4 * torch.cuda.get_device_properties(device).multi_processor_count


def five_strides(layout: Layout) -> tuple[int, int, int, int, int]:
    """Element strides of the first two dimensions, then of depth, height and width, 0 for those it lacks."""
    first, second, *spatial = layout[1]
    depth, height, width = (0,) * (3 - len(spatial)) + tuple(spatial)
    return first, second, depth, height, width
