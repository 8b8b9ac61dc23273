"""How much of a layer one program takes: the tiles each kernel ships with, and the rule that picks one."""

from dataclasses import dataclass

import torch

from kernels.geometry import Geometry
from kernels.runtime import INTERPRETED


@dataclass(frozen=True)
class ForwardTile:
    """BLOCK_K filters x BLOCK_P pooled outputs, JOINT window elements at once, BLOCK_C of the reduction a step."""

    block_k: int
    block_p: int
    block_c: int
    joint: int  # 1, 2 or 4, dividing the window
    flat: bool  # taps and channels as one reduction index
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True)
class DgradTile:
    """BLOCK_P input pixels x BLOCK_C input channels, BLOCK_K of the reduction over filters (and taps) a step."""

    block_p: int
    block_c: int
    block_k: int
    flat: bool
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True)
class WgradTile:
    """BLOCK_K filters x BLOCK_N (tap, channel) columns, BLOCK_P pixels a step, pixels shared out among `splits`."""

    block_k: int
    block_n: int
    block_p: int
    splits: int
    warps: int = 4
    stages: int = 3


_INTERPRETER_ELEMENTS = 2**18
"""Elements of the largest operand tile in the interpreter: NumPy's cost per call is fixed, so tiles are big there."""


def _power_of_two(value: int, least: int, most: int) -> int:
    """The next power of two, held between two others."""
    return min(max(1 << (max(value, 1) - 1).bit_length(), least), most)


def _joint(geometry: Geometry) -> int:
    return next(j for j in (4, 2, 1) if geometry.window % j == 0) if geometry.window <= 4 else 1


def forward_tile(geometry: Geometry, num_outputs: int, dtype: torch.dtype) -> ForwardTile:
    """The tile forward runs with: num_outputs = N * pooled pixels."""
    joint = _joint(geometry)
    reduction = geometry.taps * geometry.channels
    if INTERPRETED:
        block_c = _power_of_two(reduction, 1, 512)
        block_p = _power_of_two(num_outputs, 1, max(_INTERPRETER_ELEMENTS // (block_c * joint), 1))
        return ForwardTile(_power_of_two(geometry.filters, 8, 64), block_p, block_c, joint, flat=True)
    flat = geometry.channels % 16 != 0
    block_k = _power_of_two(geometry.filters, 16, 64)
    block_c = _power_of_two(reduction if flat else geometry.channels, 16, 32 if dtype.itemsize >= 4 else 64)
    return ForwardTile(block_k, 128 // joint, block_c, joint, flat)


def dgrad_tile(geometry: Geometry, num_pixels: int, dtype: torch.dtype) -> DgradTile:
    """The tile the input gradient runs with: num_pixels = N * input pixels of one stride phase."""
    reduction = geometry.taps * geometry.filters
    if INTERPRETED:
        block_k = _power_of_two(reduction, 1, 512)
        block_p = _power_of_two(num_pixels, 1, max(_INTERPRETER_ELEMENTS // block_k, 1))
        return DgradTile(block_p, _power_of_two(geometry.channels, 1, 64), block_k, flat=True)
    flat = geometry.filters % 16 != 0
    block_k = _power_of_two(reduction if flat else geometry.filters, 16, 32)
    return DgradTile(64, _power_of_two(geometry.channels, 16, 64), block_k, flat)


def wgrad_tile(geometry: Geometry, num_pixels: int, dtype: torch.dtype, programs_wanted: int) -> WgradTile:
    """The tile the weight gradient runs with: num_pixels = N * convolution output pixels.

    `programs_wanted` programs at least should be in flight; the split over pixels supplies what the weight's own
    tiles do not. It depends on the device and the shapes only, so the sum's order, and its bits, repeat.
    """
    columns = geometry.taps * geometry.channels
    if INTERPRETED:
        block_n = _power_of_two(columns, 1, 512)
        block_p = _power_of_two(num_pixels, 1, max(_INTERPRETER_ELEMENTS // block_n, 1))
        blocks = -(-num_pixels // block_p)
        return WgradTile(_power_of_two(geometry.filters, 1, 64), block_n, block_p, splits=min(blocks, 2))
    block_k, block_n, block_p = _power_of_two(geometry.filters, 16, 64), _power_of_two(columns, 16, 64), 32
    tiles = -(-geometry.filters // block_k) * -(-columns // block_n) * geometry.groups
    splits = min(max(-(-programs_wanted // tiles), 1), max(num_pixels // (8 * block_p), 1))
    return WgradTile(block_k, block_n, block_p, splits)
