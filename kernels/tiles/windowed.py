"""Tiles of the windowed gradients (BACKWARD.md): which layers they fit, what ships, and the rule that picks one."""

from dataclasses import dataclass, replace
from math import prod

from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.runtime.targets import TARGETS, Target, having
from tidepool.kernels.runtime.versions import triton_is_at_least

MOST_PHASES = 16
"""Phases of the input beyond which a program's pixels, one in so many, are too few and far apart."""
MOST_ELEMENTS = 16
"""Window elements beyond which the codes' comparison would be the work."""
_FEWEST_OUTPUTS = 512
"""Pooled outputs of a split of the weight gradient: of fewer its sums are not worth their way through memory."""
_CHOICE_CHANNELS = 64
"""An assumption, not a measurement: the tuner times all candidates. See "Compiled" in BACKWARD.md."""


@dataclass(frozen=True)
class WindowedDgradTile:
    """BLOCK_P input pixels of one phase x BLOCK_C input channels, BLOCK_K filters (a divisor of all) a step."""

    block_p: int
    block_c: int
    block_k: int
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True)
class WindowedWgradTile:
    """BLOCK_C channels x BLOCK_K filters at TAPS neighbouring taps of a filter row, BLOCK_P pooled outputs a step,
    shared out among `splits`."""

    block_c: int
    block_k: int
    block_p: int
    taps: int
    splits: int
    warps: int = 4
    stages: int = 3


_NVIDIA = having("mma.sync", "wgmma", "tcgen05")
_HOPPER = having("wgmma")
_FROM_SHARED = having("wgmma", "tcgen05")
"""Where both operands of a product are read from shared memory. Elsewhere copies of x that serve several products are
not pipelined (seen on sm_80), and the general wgrad kernel's are."""
# For 16-bit operands, each with the targets it is compiled for; in the order of preference where several waste as
# little. A wgrad tile's `splits` is 1 here. PLAIN tiles leave no registers for more than a window of two columns that
# no other overlaps, in channels_last tensors: where channels are far apart every element has an address of its own.
PLAIN_DGRAD: tuple[tuple[WindowedDgradTile, tuple[Target, ...]], ...] = (
    (WindowedDgradTile(128, 256, 64, warps=8), _HOPPER),
    (WindowedDgradTile(128, 128, 64, warps=8), _HOPPER),
    (WindowedDgradTile(128, 128, 32, warps=8, stages=4), _HOPPER),
    (WindowedDgradTile(128, 64, 32, warps=8), _HOPPER),
    (WindowedDgradTile(128, 64, 64, warps=8), _HOPPER),
    (WindowedDgradTile(64, 128, 64), _HOPPER),
    (WindowedDgradTile(64, 64, 64), _HOPPER),
)
ANY_DGRAD: tuple[tuple[WindowedDgradTile, tuple[Target, ...]], ...] = (
    (WindowedDgradTile(128, 64, 32, warps=8), _NVIDIA),
    (WindowedDgradTile(64, 64, 32), TARGETS),
    (WindowedDgradTile(64, 32, 32), TARGETS),
    (WindowedDgradTile(64, 16, 32), TARGETS),
)
PLAIN_WGRAD: tuple[tuple[WindowedWgradTile, tuple[Target, ...]], ...] = (
    (WindowedWgradTile(128, 128, 32, taps=1, splits=1, warps=8, stages=3), _HOPPER),
    (WindowedWgradTile(128, 64, 64, taps=3, splits=1, warps=8, stages=2), _HOPPER),
    (WindowedWgradTile(64, 64, 32, taps=3, splits=1, stages=4), _HOPPER),
    (WindowedWgradTile(64, 64, 64, taps=3, splits=1, stages=2), _HOPPER),
    (WindowedWgradTile(64, 32, 64, taps=3, splits=1, stages=2), _HOPPER),
)
ANY_WGRAD: tuple[tuple[WindowedWgradTile, tuple[Target, ...]], ...] = (
    (WindowedWgradTile(64, 64, 32, taps=1, splits=1), _FROM_SHARED),
    (WindowedWgradTile(64, 32, 32, taps=1, splits=1), _FROM_SHARED),
)


def most_registers(elements: int, warps: int) -> dict[str, int]:
    """Launch keyword that holds a tile of `elements` sums to 128 registers a thread, where eight warps keep 64 of them
    in sums: two programs fit a multiprocessor then, and the compiler, left alone, takes 134 (seen on sm_90). Triton
    3.9.0's compiler is left alone: held, dgrad 128 x 128 x 64 spills 24 bytes on sm_90 and wgrad 128 x 128 x 64 8."""
    held = warps == 8 and elements == 64 * 32 * warps and not triton_is_at_least(3, 9)
    return {"maxnreg": 128} if held else {}


def is_plain(geometry: Geometry) -> bool:
    """Whether a pixel lies in one window at most, of two columns at most, in a picture."""
    return geometry.windows_per_pixel == 1 and geometry.window_w <= 2 and geometry.rank == 2


def window_phases(geometry: Geometry) -> int:
    """Input pixels that differ in which tap meets which element of which window: the product of all strides."""
    return prod(_periods(geometry))


def _periods(geometry: Geometry) -> tuple[int, int, int]:
    """Input pixels from one of a phase to the next, in each dimension."""
    return (
        geometry.stride_d * geometry.pool_stride_d,
        geometry.stride_h * geometry.pool_stride_h,
        geometry.stride_w * geometry.pool_stride_w,
    )


def phase_pixels(geometry: Geometry, shapes: Shapes) -> tuple[int, int]:
    """How many phases, and N * input pixels of the largest one."""
    counts = (-(-size // period) for size, period in zip(shapes.input, _periods(geometry), strict=True))
    return window_phases(geometry), shapes.batch * prod(counts)


def chooses(geometry: Geometry) -> bool:
    """Whether a pixel's gradient is its window's or nothing, never a multiple: what the windowed gradients pass on.

    So it is of an activation that clips, and of none. LeakyReLU's and hardsigmoid's slopes are no 0 and 1.
    """
    return geometry.activation.clips or geometry.activation.is_identity


def fits_dgrad(geometry: Geometry) -> bool:
    """Whether the windowed input gradient computes this layer."""
    return (
        not geometry.depthwise
        and geometry.filters % 16 == 0
        and geometry.pool in ("max", "none")
        and chooses(geometry)
        and geometry.window <= MOST_ELEMENTS
        and window_phases(geometry) <= MOST_PHASES
    )


def fits_wgrad(geometry: Geometry) -> bool:
    """Whether the windowed weight gradient computes this layer."""
    return (
        not geometry.depthwise
        and geometry.pool in ("max", "none")
        and chooses(geometry)
        and geometry.window <= MOST_ELEMENTS
    )


def windowed_dgrad_tiles(
    geometry: Geometry, num_pixels: int, target: Target, operands: str, channels_last: bool = True
) -> list[WindowedDgradTile]:
    """The shipped tiles that may run the layer's input gradient there, the rule's choice first; none: it does not fit.

    num_pixels and channels_last as for `tiles.dgrad_tile`. The rule: of the tiles that give every multiprocessor a
    program the one of least cost, a block of channels costing its channels and as much again as 64 for the choice of
    the gradient; of equals the first in the list. Where none gives enough, the smallest.
    """
    if operands != "half" or not fits_dgrad(geometry):
        return []
    step = geometry.filters & -geometry.filters  # the largest power of two that divides the filters
    pools = geometry.pool_stride_d * geometry.pool_stride_h * geometry.pool_stride_w

    def cost(tile: WindowedDgradTile) -> tuple[bool, int]:
        columns = -(-geometry.channels // tile.block_c)
        programs = -(-num_pixels // (pools * tile.block_p)) * columns * window_phases(geometry) * geometry.groups
        if programs < target.multiprocessors:
            return True, tile.block_p * tile.block_c
        return False, columns * (tile.block_c + _CHOICE_CHANNELS)

    shipped = (*PLAIN_DGRAD, *ANY_DGRAD) if channels_last and is_plain(geometry) else ANY_DGRAD
    tiles = (replace(t, block_k=min(t.block_k, step)) for t, targets in shipped if target in targets)
    fitting = (t for t in tiles if dgrad_shared_bytes(t, geometry) <= target.shared_block)
    return sorted(dict.fromkeys(fitting), key=cost)


def windowed_wgrad_tiles(
    geometry: Geometry, num_pixels: int, target: Target, operands: str, programs_wanted: int, channels_last: bool = True
) -> list[WindowedWgradTile]:
    """The shipped tiles that may run the layer's weight gradient there, the one that wastes least first; none: it
    does not fit, or each would waste half of what it computes. num_pixels, programs_wanted and channels_last as for
    `tiles.wgrad_tile`; two programs a multiprocessor are wanted where the smaller tiles want four.
    """
    gathered = not channels_last and geometry.rank > 1  # spills where channels are far apart (8 bytes, seen on sm_100)
    if operands != "half" or gathered or not fits_wgrad(geometry):
        return []
    outputs = num_pixels // (geometry.pool_stride_d * geometry.pool_stride_h * geometry.pool_stride_w)
    exact = geometry.channels * geometry.filters * geometry.kernel_w

    def programs(tile: WindowedWgradTile) -> int:
        columns = -(-geometry.channels // tile.block_c) * -(-geometry.kernel_w // tile.taps)
        return columns * -(-geometry.filters // tile.block_k)

    def covered(tile: WindowedWgradTile) -> int:
        return programs(tile) * tile.block_c * tile.block_k * tile.taps

    def shared_out(tile: WindowedWgradTile) -> WindowedWgradTile:
        count = programs(tile) * geometry.kernel_d * geometry.kernel_h * geometry.groups
        most = max(outputs // _FEWEST_OUTPUTS, 1)
        return replace(tile, splits=even_splits(count, max(programs_wanted // 2, 1), most))

    shipped = (*PLAIN_WGRAD, *ANY_WGRAD) if is_plain(geometry) else ANY_WGRAD
    tiles = (t for t, targets in shipped if target in targets and covered(t) < 2 * exact)
    fitting = (t for t in tiles if wgrad_shared_bytes(t, geometry) <= target.shared_block)
    return [shared_out(tile) for tile in sorted(fitting, key=covered)]


def even_splits(tiles: int, places: int, most: int) -> int:
    """Splits, at most `most`, of `tiles` programs each on a GPU with room for `places`: a last round of few programs
    takes as long as a full one. The smallest number whose rounds, for a split's share of the work, are within 5 % of
    the fewest that splits enough to fill the GPU once allow: each split writes and reads a copy of the gradient, which
    with many filters is more than the layer's images."""
    tried = range(1, max(min(-(-places // tiles), most), 1) + 1)
    rounds = {splits: -(-splits * tiles // places) / splits for splits in tried}
    enough = 1.05 * min(rounds.values())
    return next(splits for splits in tried if rounds[splits] <= enough)


def dgrad_shared_bytes(tile: WindowedDgradTile, geometry: Geometry) -> int:
    """Shared memory of a program at 16 bits, sm_90's: one buffer fewer of gradient and codes, which go on to
    registers, than of weights, which the product reads there. Elsewhere it is no more."""
    pooled = tile.block_p * tile.block_k * (3 if geometry.saves_code else 2) * geometry.windows_per_pixel
    return (tile.stages - 1) * pooled + tile.stages * tile.block_k * tile.block_c * 2


def wgrad_shared_bytes(tile: WindowedWgradTile, geometry: Geometry) -> int:
    """As `dgrad_shared_bytes`: one buffer fewer of gradient and codes than of the copies of x, and the choices."""
    step = geometry.pool_dilation_w * geometry.stride_w
    copies = {e * step + tap * geometry.dilation_w for e in range(geometry.window_w) for tap in range(tile.taps)}
    pooled = tile.block_p * tile.block_k * (3 if geometry.saves_code else 2)
    choices = geometry.window_w * tile.block_p * tile.block_k * 2
    return (tile.stages - 1) * pooled + tile.stages * len(copies) * tile.block_p * tile.block_c * 2 + choices
