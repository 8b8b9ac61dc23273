"""The one place kernels are launched from, and the types and strides every launcher hands over."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from tidepool.kernels.runtime import mode
from tidepool.kernels.runtime.interpreting import Kernel, launch_interpreted
from tidepool.kernels.runtime.mode import is_interpreted, mode_of

Launch = Callable[..., None]
Layout = tuple[torch.Size, tuple[int, ...]]
"""Size and strides: all that a launch needs to know of a tensor besides its dtype and device."""

_launcher: Launch | None = None


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **kwargs: Any) -> None:
    """Run `kernel` over `grid` with the arguments of its signature; the first one is a tensor on the device to use."""
    (_launcher or launch_now)(kernel, grid, *args, **kwargs)


def launch_now(kernel: Kernel, grid: tuple[int, ...], *args: Any, **kwargs: Any) -> None:
    """`launch`, whatever stands in its place."""
    tensor: Tensor = args[0]
    if mode_of(tensor.device).interpreted:
        launch_interpreted(kernel, grid, *args, **kwargs)
    elif _is_elsewhere(tensor.get_device()):
        with torch.cuda.device(tensor.get_device()):
            kernel[grid](*args, **kwargs)
    else:
        kernel[grid](*args, **kwargs)


def _is_elsewhere(device: int) -> bool:
    """Whether a GPU by its number, negative for a simulated one, is not the current one."""
    return device >= 0 and device != torch.cuda.current_device()


def launch_prepared(kernel: Any, prepared: "Prepared", *tensors: Any, operands: tuple[Any, ...] | None = None) -> None:
    """Run `kernel` on `tensors`, the pointers (a tensor first) and tensor descriptors that its signature begins with,
    and what `prepared` holds of the rest; `operands` is the tuple that it takes by the name of `norm`, if it does.

    On a GPU the compiled kernel is kept with `prepared` and called directly from the second launch on: Triton looks a
    kernel up by every argument at every launch. What it would have looked at is fixed by `prepared`, but for the
    tensors' dtypes and whether their addresses are multiples of 16.
    """
    device = tensors[0].get_device()
    if _launcher is not None or device not in mode.compiled_on:
        keywords = prepared.keywords if operands is None else {**prepared.keywords, "norm": operands}
        (_launcher or launch_now)(kernel, prepared.grid, *tensors, *prepared.scalars, **keywords)
    elif _is_elsewhere(device):
        with torch.cuda.device(device):
            launch_compiled(kernel, prepared, device, tensors, operands)
    else:
        launch_compiled(kernel, prepared, device, tensors, operands)


def launch_compiled(
    kernel: Any,
    prepared: "Prepared",
    device: int,
    tensors: tuple[Any, ...],
    operands: tuple[Any, ...] | None = None,
) -> None:
    """`launch_prepared` on the current device, a GPU."""
    # What is neither tensor nor None is a tensor descriptor, whose address is always such a multiple, or a number.
    given = tensors if operands is None else (*tensors, *operands)
    key = (mode.forced, device, *[
        (t.dtype, t.data_ptr() % 16 == 0) if isinstance(t, Tensor) else t if t is None or t.__class__ is int else 0
        for t in given
    ])  # fmt: skip
    compiled = prepared.compiled.get(key)
    if compiled is None:
        keywords = prepared.keywords if operands is None else {**prepared.keywords, "norm": operands}
        compiled = kernel[prepared.grid](*tensors, *prepared.scalars, **keywords)
        if compiled is not None:  # a hook of Triton's may have taken the launch over
            prepared.compiled[key] = compiled
    else:
        constants = prepared.constants(kernel, len(tensors), operands)
        compiled[prepared.three_grid](*tensors, *prepared.scalars, *constants)


def launch_nothing(*tensors: Tensor | None) -> None:
    """The launch of a layer without results."""


def replace_launcher(launcher: Launch | None) -> None:
    """Send every launch to `launcher(kernel, grid, *args, **kwargs)` instead, or back to the device with None.

    The compile check compiles what would have been launched; host-cost measurements launch nothing.
    """
    global _launcher
    _launcher = launcher


def accumulator(dtype: torch.dtype) -> tl.dtype:
    """What sums are kept in: float64 for float64 tensors, else float32."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def dot_precision(dtype: torch.dtype, device: torch.device) -> str:
    """`"tf32"` where PyTorch would let a float32 convolution use it, else, and interpreted, `"ieee"`."""
    if dtype != torch.float32 or is_interpreted(device):
        return "ieee"
    allowed = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    has_tf32 = torch.version.hip is None or mode_of(device).target.tf32
    return "tf32" if allowed == "tf32" and has_tf32 else "ieee"


def precision_of(kind: str) -> str:
    """Triton's `input_precision` for products of this operand kind."""
    return "tf32" if kind == "tf32" else "ieee"


def operand_kind(dtype: torch.dtype, device: torch.device) -> str:
    """What the tiles call products of this dtype on `device`: `"half"`, `"tf32"`, or `"ieee"` (no tensor cores)."""
    return "half" if dtype.itemsize == 2 else dot_precision(dtype, device)


def channels_innermost(weight: Tensor) -> Tensor:
    """`weight` (K, C/groups, *kernel) with its channels one element apart, copied if need be: weights are small, and a
    strided load of them would be the one that cannot be pipelined. The interpreter takes any strides as they are.
    """
    if weight.stride(1) == 1 or weight.shape[1] == 1 or is_interpreted(weight.device):
        return weight
    return weight.movedim(1, -1).contiguous().movedim(-1, 1)


def channels_are_neighbours(*tensors: Tensor | None) -> bool:
    """Whether the channels of every tensor given are at most one element apart, as in channels_last ones."""
    return all([t is None or t.stride(1) <= 1 or t.shape[1] == 1 for t in tensors])


def offset_type(*layouts: tuple[torch.Size, tuple[int, ...]] | None, pixels: int = 0) -> tl.dtype:
    """int32 while every element offset of every tensor, told by size and strides, and a number of pixels that are
    counted through, fit with a tile's overhang; int64 from 2^31 on."""
    spans = [_span(*layout) for layout in layouts if layout is not None]
    return tl.int64 if max([pixels, *spans]) >= 2**31 - 2**22 else tl.int32


def _span(size: torch.Size, strides: tuple[int, ...]) -> int:
    return 1 + sum((n - 1) * abs(stride) for n, stride in zip(size, strides, strict=True) if n)


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

    def constants(self, kernel: Any, num_tensors: int, operands: tuple[Any, ...] | None = None) -> tuple[Any, ...]:
        """The kernel's other arguments in the order of its signature, where they follow tensors and scalars; `operands`
        in the place of `norm`."""
        known = self.compiled.get("constants")
        if known is None:
            rest = list(kernel.signature.parameters.values())[num_tensors + len(self.scalars) :]
            constants = tuple([self.keywords.get(p.name, p.default) for p in rest])
            place = next((index for index, p in enumerate(rest) if p.name == "norm"), len(rest))
            known = self.compiled["constants"] = constants, place
        constants, place = known
        return constants if operands is None else (*constants[:place], operands, *constants[place + 1 :])


def programs_in_flight(device: torch.device) -> int:
    """How many programs of a kernel keep the device busy: four per multiprocessor; 1 where there is no GPU."""
    if mode.forced is not None and mode.forced.simulated:
        return 4 * mode.forced.target.multiprocessors
    return _programs_of(device)


@functools.cache
def _programs_of(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return 4 * torch.cuda.get_device_properties(device).multi_processor_count
