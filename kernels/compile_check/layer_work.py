"""What one program of a launch multiplies, how many programs there are and what they move: from the launch's arguments.

The cycle model is told this, so that its cycles are of the layer that is compiled. A weight gradient's pixels are
shared out as on the whole GPU: without one the launchers make a single split.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from tidepool.kernels.layer.geometry import Geometry
from tidepool.kernels.runtime.targets import Target

_PROGRAMS_EACH = 4
"""Programs wanted for each multiprocessor, as `runtime.launch.programs_in_flight` has it."""
_LEAST_TRIPS = 8
"""Of a split, as the tiles' rules have it."""


@dataclass(frozen=True, kw_only=True)
class LayerWork:
    """`programs` of a launch that multiply, or the tiles that fewer programs walk over; multiply-adds on tensor cores
    of one (None: not known) and trips of the loop `around` the one with products; `memory_bytes`: of the launch's
    tensors, each once."""

    programs: int
    products: int | None
    around: int
    memory_bytes: int


def layer_work(name: str, grid: tuple[int, ...], arguments: dict[str, Any], target: Target) -> LayerWork:
    """Of a launch of the kernel `name`, with its arguments by name."""
    count = _COUNTS.get(name)
    programs, products, around = prod(grid), None, 1
    if count is not None:
        programs, products, around = count(grid, arguments, target)
    return LayerWork(programs=programs, products=products, around=around, memory_bytes=_tensor_bytes(arguments))


def _tensor_bytes(arguments: dict[str, Any]) -> int:
    """Of tensors, those of descriptors included; two arguments that are one tensor count once."""
    found = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in _tensors(arguments)}
    return sum(found.values())


def _tensors(arguments: dict[str, Any]) -> Iterator[Tensor]:
    for value in arguments.values():
        tensor = value.base if hasattr(value, "block_shape") else value
        if isinstance(tensor, Tensor):
            yield tensor


def _up(amount: int, step: int) -> int:
    """The least multiple of `step` that is no less."""
    return -(-amount // step) * step


def _forward(grid: tuple[int, ...], a: dict[str, Any], target: Target) -> tuple[int, int, int]:
    g: Geometry = a["G"]
    depth = _up(g.taps * g.channels, a["BLOCK_C"]) if a["FLAT"] else g.taps * _up(g.channels, a["BLOCK_C"])
    return prod(grid), a["BLOCK_K"] * a["BLOCK_P"] * g.window * depth, g.window // a["JOINT"]


def _hopper(grid: tuple[int, ...], a: dict[str, Any], target: Target) -> tuple[int, int, int]:
    g: Geometry = a["G"]
    pixels = a["BLOCK_N"] * a["BLOCK_H"] * a["BLOCK_W"]
    return a["num_tiles"], a["BLOCK_K"] * pixels * g.taps * _up(g.channels, a["BLOCK_C"]), 1


def _few_channels(grid: tuple[int, ...], a: dict[str, Any], target: Target) -> tuple[int, int, int]:
    return a["num_boxes"] * grid[1], a["BLOCK_K"] * a["BLOCK_H"] * a["BLOCK_W"] * a["BLOCK_C"], 1


def _dgrad(grid: tuple[int, ...], a: dict[str, Any], target: Target) -> tuple[int, int, int]:
    g: Geometry = a["G"]
    taps = g.phase_taps_d * g.phase_taps_h * g.phase_taps_w
    flat = a.get("FLAT", False)
    depth = _up(taps * g.filters, a["BLOCK_K"]) if flat else taps * _up(g.filters, a["BLOCK_K"])
    return prod(grid), a["BLOCK_P"] * a["BLOCK_C"] * depth, 1


def _wgrad(grid: tuple[int, ...], a: dict[str, Any], target: Target) -> tuple[int, int, int]:
    wanted = _PROGRAMS_EACH * target.multiprocessors
    splits, trips = _shared_out(grid[1], a["num_pixels"], a["BLOCK_P"], -(-wanted // (grid[0] * grid[2])))
    return grid[0] * splits * grid[2], a["BLOCK_K"] * a["BLOCK_N"] * a["BLOCK_P"] * trips, 1


def _windowed_wgrad(grid: tuple[int, ...], a: dict[str, Any], target: Target) -> tuple[int, int, int]:
    g: Geometry = a["G"]
    bias = -(-g.filters // a["BLOCK_K"]) if a["NEEDS_BIAS"] else 0  # programs that multiply nothing
    wanted = _PROGRAMS_EACH // 2 * target.multiprocessors
    splits, trips = _shared_out(
        grid[1], a["num_outputs"], a["BLOCK_P"], -(-wanted // max((grid[0] - bias) * grid[2], 1))
    )
    products = a["BLOCK_C"] * a["BLOCK_K"] * a["TAPS"] * a["BLOCK_P"] * g.window * trips
    return (grid[0] - bias) * splits * grid[2], products, 1


def _shared_out(given: int, pixels: int, step: int, wanted: int) -> tuple[int, int]:
    """Splits and the trips of one: as the launch has, or where that is a single one as are wanted on the whole GPU."""
    blocks = -(-pixels // step)
    splits = given if given > 1 else max(min(wanted, blocks // _LEAST_TRIPS), 1)
    return splits, -(-blocks // splits)


_COUNTS = {
    "conv_act_pool_forward_kernel": _forward,
    "conv_act_pool_hopper_kernel": _hopper,
    "conv_act_pool_few_channels_kernel": _few_channels,
    "conv_act_pool_dgrad_kernel": _dgrad,
    "conv_act_pool_windowed_dgrad_kernel": _dgrad,
    "conv_act_pool_wgrad_kernel": _wgrad,
    "conv_act_pool_windowed_wgrad_kernel": _windowed_wgrad,
}
