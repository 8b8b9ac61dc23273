"""How much of a layer one program takes: the tiles each kernel ships with, and the rule that picks one.

On a GPU a tile is one of the SHIPPED lists below, every one of which `compile_check` compiles for the targets it is
declared for. In the interpreter, where a call costs the same whatever its size, tiles are as large as is worth while.
"""

import functools
from dataclasses import dataclass

from tidepool.kernels.layer.geometry import Geometry
from tidepool.kernels.runtime.targets import INTERPRETER, SM_120, TARGETS, Target, having
from tidepool.kernels.tiles.windowed import (
    WindowedDgradTile,
    WindowedWgradTile,
    windowed_dgrad_tiles,
    windowed_wgrad_tiles,
)


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


@dataclass(frozen=True)
class DepthwiseTile:
    """BLOCK_K channels x BLOCK_P pixels; `splits` shares of the pixels (weight gradient only)."""

    block_k: int
    block_p: int
    splits: int = 1
    warps: int = 4


@dataclass(frozen=True)
class Shipped:
    """One shipped tile: rows x columns of the output, the reduction's step, and where it may run.

    `operands` says which products it is meant for: "half" (16-bit) and "tf32" run on tensor cores, "ieee" (float32 and
    float64) on the plain units, where larger tiles would run out of registers. A `heavy` layer keeps more than the
    product in registers: a running result over the window, gradients of several windows, a third dimension's
    coordinates; it gets the heavy tiles.
    """

    rows: int
    columns: int
    step: int
    operands: tuple[str, ...]
    heavy: bool = False
    warps: int = 4
    stages: int = 3
    targets: tuple[Target, ...] = TARGETS


HALF, TF32, TENSOR = ("half",), ("tf32",), ("half", "tf32")
FEW_REGISTERS = having("mma.sync", "wmma")
LARGE_REGISTER_REUSE = having("wgmma", "tcgen05", "mfma")
"""Targets whose matrix instructions read operands from shared memory or have accumulators to spare; and the others."""
HOPPER, BLACKWELL = having("wgmma"), having("tcgen05")
NOT_HOPPER = tuple(target for target in TARGETS if target not in HOPPER)
NOT_BLACKWELL = tuple(target for target in TARGETS if target not in BLACKWELL)
NOT_SM_120 = tuple(target for target in TARGETS if target is not SM_120)
SMALL_SHARED = tuple(target for target in having("mma.sync") if target.shared_block < 128 * 1024)
NOT_SMALL_SHARED = tuple(target for target in TARGETS if target not in SMALL_SHARED)
"""Consumer cards, for which the compiler hands out registers otherwise than for sm_80; and the others."""

# Rows are filters, columns window elements of pooled outputs (forward) or (tap, channel) pairs (wgrad). In mma.sync's
# accumulator a warp owns 8 columns of every 8 * warps: with 16 rows, four warps and 64 columns the four elements of a
# window, 16 columns apart, would meet through shared memory; with two warps they meet in a thread.
FORWARD = (
    Shipped(16, 64, 32, HALF, warps=2),
    Shipped(16, 64, 32, TF32, warps=2, targets=NOT_SMALL_SHARED),
    Shipped(16, 64, 32, TF32, targets=SMALL_SHARED),  # with two warps 16 stores of spills at 16 channels
    Shipped(16, 128, 32, HALF),
    Shipped(16, 128, 32, TF32, targets=LARGE_REGISTER_REUSE),
    Shipped(64, 64, 32, TENSOR),
    Shipped(64, 128, 32, TENSOR, targets=LARGE_REGISTER_REUSE),
    Shipped(16, 64, 16, ("ieee",)),
    Shipped(32, 64, 16, ("ieee",)),
    Shipped(16, 64, 32, TENSOR, heavy=True),
    Shipped(32, 64, 16, TENSOR, heavy=True, targets=FEW_REGISTERS),
    Shipped(32, 64, 16, TF32, heavy=True, targets=BLACKWELL),
    Shipped(64, 64, 16, HALF, heavy=True, targets=LARGE_REGISTER_REUSE),
    Shipped(64, 64, 16, TF32, heavy=True, targets=having("wgmma", "mfma")),
    Shipped(16, 32, 16, ("ieee",), heavy=True),
)
# More for layers whose channels come in sixteens, so that a step is contiguous and costs no index arithmetic. SiLU and
# GELU keep the winner's pre-activation besides, for which 128 x 128 has no registers left on sm_80.
FORWARD_IN_STEPS = (
    Shipped(16, 256, 32, HALF),
    Shipped(32, 128, 32, HALF),
    Shipped(64, 128, 32, HALF, targets=FEW_REGISTERS),
    Shipped(64, 256, 32, HALF, warps=8),
    Shipped(128, 128, 32, HALF, warps=8),
    Shipped(128, 128, 64, HALF, warps=8),
    Shipped(64, 128, 32, TF32, warps=8, targets=having("mma.sync", "wgmma")),
    Shipped(128, 128, 32, TF32, warps=8, targets=having("mma.sync", "wgmma")),
)
# Rows are input pixels, columns input channels.
DGRAD = (
    Shipped(64, 16, 32, HALF),
    Shipped(64, 64, 32, HALF),
    Shipped(128, 64, 32, HALF, warps=8, targets=HOPPER),
    Shipped(64, 16, 16, TF32),
    Shipped(64, 64, 16, TF32),
    Shipped(32, 16, 16, ("ieee",)),
    Shipped(64, 32, 16, ("ieee",), targets=NOT_BLACKWELL),
    Shipped(32, 32, 16, ("ieee",), targets=BLACKWELL),  # 64 rows become TF32 there, asked for or not (Triton 3.7.1)
    Shipped(64, 16, 16, HALF, heavy=True),
    Shipped(64, 32, 16, HALF, heavy=True),
    Shipped(64, 64, 16, HALF, heavy=True, targets=LARGE_REGISTER_REUSE),
    Shipped(64, 64, 32, HALF, heavy=True, targets=HOPPER),
    Shipped(16, 16, 16, TF32, heavy=True),
    Shipped(32, 32, 16, ("ieee",), heavy=True, targets=NOT_HOPPER),
    Shipped(32, 32, 16, ("ieee",), heavy=True, warps=8, targets=HOPPER),  # with four, 8 bytes of spills in NCHW
)
WGRAD = (
    Shipped(16, 32, 32, TENSOR),
    Shipped(64, 32, 32, HALF),
    Shipped(64, 64, 32, HALF, targets=NOT_SM_120),  # 8 bytes of spills there
    Shipped(64, 128, 64, HALF, warps=8, targets=HOPPER),
    Shipped(64, 32, 16, TF32, targets=NOT_BLACKWELL),  # 8 to 16 bytes of spills there, as of the heavy ones
    Shipped(16, 16, 16, ("ieee",)),
    Shipped(32, 32, 16, ("ieee",)),
    Shipped(16, 32, 16, TENSOR, heavy=True),
    Shipped(64, 32, 16, TENSOR, heavy=True, targets=NOT_BLACKWELL),
    Shipped(32, 32, 16, HALF, heavy=True, targets=BLACKWELL),
    Shipped(64, 64, 32, HALF, heavy=True, targets=HOPPER),
    Shipped(16, 16, 16, ("ieee",), heavy=True),
)

_INTERPRETER_ELEMENTS = 2**18
"""Elements of the largest operand tile in the interpreter, where 2^17 and less were measured slower."""


def _power_of_two(value: int, least: int, most: int) -> int:
    """The next power of two, held between two others."""
    return min(max(1 << (max(value, 1) - 1).bit_length(), least), most)


def joint_elements(geometry: Geometry) -> int:
    """Window elements computed together: all of a window of 1, 2 or 4, else one at a time."""
    return geometry.window if geometry.window in (1, 2, 4) else 1


def _choose(
    shipped: tuple[Shipped, ...], target: Target, operands: str, heavy: bool, rows: int, columns: int
) -> Shipped:
    """The tile that covers rows x columns with the least padding; of equals the largest."""
    fitting = [s for s in shipped if operands in s.operands and s.heavy == heavy and target in s.targets]

    def padded(s: Shipped) -> tuple[int, int]:
        covered = -(-rows // s.rows) * s.rows * -(-columns // s.columns) * s.columns
        return covered, -s.rows * s.columns

    return min(fitting, key=padded)


def shipped_forward(geometry: Geometry) -> tuple[Shipped, ...]:
    """The forward tiles that a layer may have. In one dimension the largest would spill (with a norm's sums 64 x 256:
    32 bytes on sm_90)."""
    heavy = heavy_forward(geometry)
    shipped = tuple(s for s in FORWARD if s.heavy == heavy)
    if geometry.channels % 16 != 0 or geometry.smooth or heavy:
        return shipped
    most = 64 * 128 if geometry.rank == 1 else 128 * 128
    return (*shipped, *[s for s in FORWARD_IN_STEPS if s.rows * s.columns <= most])


def tile_cost(rows: int, columns: int, programs: int, multiprocessors: int) -> float:
    """What a rule takes a launch to cost: rounds of programs over the multiprocessors x products of one, the more dear
    the fewer products it makes per element fetched. An assumption, not a measurement: the tuner times candidates."""
    intensity = rows * columns / (rows + columns)
    return -(-programs // multiprocessors) * rows * columns * (1 + 20 / intensity)


def forward_tile_of(shipped: Shipped, geometry: Geometry) -> ForwardTile:
    """A shipped tile as forward runs it on a layer."""
    joint = joint_elements(geometry)
    flat = geometry.channels % 16 != 0
    step = shipped.step
    while not flat and geometry.channels % step != 0:
        step //= 2  # a step that divides the channels needs no mask along them, and 16 always does here
    return ForwardTile(shipped.rows, shipped.columns // joint, step, joint, flat, shipped.warps, shipped.stages)


def dgrad_tile_of(shipped: Shipped, geometry: Geometry) -> DgradTile:
    """A shipped tile as the input gradient runs it on a layer."""
    flat = geometry.filters % 16 != 0
    step = shipped.step
    while not flat and geometry.filters % step != 0:
        step //= 2  # as in forward
    return DgradTile(shipped.rows, shipped.columns, step, flat, shipped.warps, shipped.stages)


def wgrad_tile_of(shipped: Shipped, geometry: Geometry, num_pixels: int, programs_wanted: int) -> WgradTile:
    """A shipped tile as the weight gradient runs it on a layer, with enough splits for `programs_wanted` programs."""
    columns = geometry.taps * geometry.channels
    tiles = -(-geometry.filters // shipped.rows) * -(-columns // shipped.columns) * geometry.groups
    splits = min(max(-(-programs_wanted // tiles), 1), max(num_pixels // (8 * shipped.step), 1))
    return WgradTile(shipped.rows, shipped.columns, shipped.step, splits, shipped.warps, shipped.stages)


def heavy_forward(geometry: Geometry) -> bool:
    """Whether forward folds a window piece by piece, packs bits or has a third dimension."""
    return joint_elements(geometry) < geometry.window or geometry.rank == 3 or geometry.saves_bits


def heavy_gradient(geometry: Geometry) -> bool:
    """Whether rebuilding the convolution's gradient takes several windows, a derivative or a third dimension."""
    return geometry.windows_per_pixel > 1 or geometry.smooth or geometry.rank == 3


@functools.lru_cache(maxsize=4096)
def forward_tile(
    geometry: Geometry, num_outputs: int, target: Target, operands: str, channels_last: bool = True
) -> ForwardTile:
    """The tile forward runs with; num_outputs = N * pooled pixels. `channels_last`: x's channels are one element apart;
    where they are not, and in one dimension, larger tiles would spill on GPUs with few registers (16 and 24 bytes on
    sm_80)."""
    joint = joint_elements(geometry)
    if target is INTERPRETER:
        block_c = _power_of_two(geometry.taps * geometry.channels, 1, 512)
        block_p = _power_of_two(num_outputs, 1, max(_INTERPRETER_ELEMENTS // (block_c * joint), 1))
        return ForwardTile(_power_of_two(geometry.filters, 8, 64), block_p, block_c, joint, flat=True)
    fitting = [s for s in shipped_forward(geometry) if operands in s.operands and target in s.targets]
    if target in FEW_REGISTERS and (not channels_last or geometry.rank == 1):
        fitting = [s for s in fitting if s.rows * s.columns <= 64 * 64]

    def cost(s: Shipped) -> tuple[float, int]:
        programs = -(-geometry.filters // s.rows) * -(-num_outputs * joint // s.columns) * geometry.groups
        return tile_cost(s.rows, s.columns, programs, target.multiprocessors), -s.rows * s.columns

    return forward_tile_of(min(fitting, key=cost), geometry)


@functools.lru_cache(maxsize=4096)
def dgrad_tile(
    geometry: Geometry, num_pixels: int, target: Target, operands: str, channels_last: bool = True
) -> DgradTile | WindowedDgradTile:
    """The tile the input gradient runs with; num_pixels = N * input pixels of one stride phase.

    `channels_last`: the channels of gradient, codes and input are one element apart.
    """
    if target is INTERPRETER:
        block_k = _power_of_two(geometry.taps * geometry.filters, 1, 512)
        block_p = _power_of_two(num_pixels, 1, max(_INTERPRETER_ELEMENTS // block_k, 1))
        return DgradTile(block_p, _power_of_two(geometry.channels, 1, 64), block_k, flat=True)
    windowed = windowed_dgrad_tiles(geometry, num_pixels, target, operands, channels_last)
    if windowed:
        return windowed[0]
    rows, columns = num_pixels, geometry.channels
    return dgrad_tile_of(_choose(DGRAD, target, operands, heavy_gradient(geometry), rows, columns), geometry)


@functools.lru_cache(maxsize=4096)
def wgrad_tile(
    geometry: Geometry, num_pixels: int, target: Target, operands: str, programs_wanted: int, channels_last: bool = True
) -> WgradTile | WindowedWgradTile:
    """The tile the weight gradient runs with; num_pixels = N * convolution output pixels, channels_last as for dgrad.

    `programs_wanted` programs at least should be in flight; the split over pixels supplies what the weight's own
    tiles do not. It depends on the device and the shapes only, so the sum's order, and its bits, repeat.
    """
    columns = geometry.taps * geometry.channels
    if target is INTERPRETER:
        block_n = _power_of_two(columns, 1, 512)
        block_p = _power_of_two(num_pixels, 1, max(_INTERPRETER_ELEMENTS // block_n, 1))
        blocks = -(-num_pixels // block_p)
        return WgradTile(_power_of_two(geometry.filters, 1, 64), block_n, block_p, splits=min(blocks, 2))
    windowed = windowed_wgrad_tiles(geometry, num_pixels, target, operands, programs_wanted, channels_last)
    if windowed and geometry.windows_per_pixel == 1:
        return windowed[0]  # windows that overlap make more products this way
    chosen = _choose(WGRAD, target, operands, heavy_gradient(geometry), geometry.filters, columns)
    return wgrad_tile_of(chosen, geometry, num_pixels, programs_wanted)


# Depthwise kernels multiply on the plain units whatever the type; the same few sizes serve every target.
DEPTHWISE_CHANNELS = (16, 32)
DEPTHWISE_PIXELS = 32


@functools.lru_cache(maxsize=4096)
def depthwise_tile(
    geometry: Geometry, channels: int, num_pixels: int, target: Target, programs_wanted: int = 1
) -> DepthwiseTile:
    """The tile a depthwise kernel runs with over `channels` channels and num_pixels = N * pixels of what it writes.

    `programs_wanted` above 1 asks for the pixels to be shared out (weight gradient).
    """
    if target is INTERPRETER:
        block_k = _power_of_two(channels, 8, 64)
        block_p = _power_of_two(num_pixels, 1, _INTERPRETER_ELEMENTS // (4 * block_k))
        return DepthwiseTile(block_k, block_p, splits=min(-(-num_pixels // block_p), 2))
    block_k = DEPTHWISE_CHANNELS[0] if channels <= 16 or heavy_gradient(geometry) else DEPTHWISE_CHANNELS[1]
    splits = min(max(programs_wanted * block_k // channels, 1), max(num_pixels // (8 * DEPTHWISE_PIXELS), 1))
    return DepthwiseTile(block_k, DEPTHWISE_PIXELS, splits)
