"""Tiles of `conv.hopper`: which layers it takes, the tiles it ships for compute capability 9.0, and the rule.

A tile is a number of filters and a box of pixels: pictures x rows x columns. Boxes are 8 or 16 columns wide, so that
whole 2x2 windows lie in a thread (conv_act_pool_hopper.py); which of a tile's boxes a layer gets is decided by how
many pixels outside the picture it would compute.
"""

import functools
import math
from dataclasses import dataclass

from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.runtime.targets import SM_90
from tidepool.kernels.tiles.dense import tile_cost

HOPPER_TARGET = SM_90


@dataclass(frozen=True)
class HopperTile:
    """BLOCK_K filters x a box of BLOCK_N pictures x BLOCK_H x BLOCK_W convolution pixels, BLOCK_C channels a step.

    A persistent tile's programs stay on their multiprocessor and go from one tile to the next.
    """

    block_k: int
    block_n: int
    block_h: int
    block_w: int
    block_c: int
    persistent: bool
    warps: int = 4
    stages: int = 3

    @property
    def pixels(self) -> int:
        return self.block_n * self.block_h * self.block_w


Box = tuple[int, int, int]
"""Pictures, rows, columns."""


@dataclass(frozen=True)
class ShippedHopper:
    """A size that ships, with every one of its boxes; `stages` at 64 channels a step."""

    rows: int
    boxes: tuple[Box, ...]
    persistent: bool
    warps: int
    stages: int

    @property
    def pixels(self) -> int:
        return math.prod(self.boxes[0])


# A square of one picture, then shapes for pictures that are no multiple of it: 8 x 8 for 56 and 8, 2 x 16 for 28, 14
# and 30 rows.
PIXELS_256: tuple[Box, ...] = ((1, 16, 16), (4, 8, 8), (8, 2, 16))
PIXELS_128: tuple[Box, ...] = ((1, 8, 16), (2, 8, 8), (4, 2, 16))
PIXELS_64: tuple[Box, ...] = ((1, 8, 8), (2, 2, 16))
# In mma.sync's accumulator a warp owns 8 columns of every 8 * warps: the two rows of a window lie in one thread when a
# row of the box is a multiple of that. In narrower boxes the compiler takes the pool through shared memory.
WIDE_256: tuple[Box, ...] = ((1, 8, 32), (4, 2, 32))
WIDE_128: tuple[Box, ...] = ((1, 8, 16), (4, 2, 16))

# 256 columns ask the least of L2 and shared memory per product: 85 flops per byte fetched with 128 filters, 51 with 64,
# against 64 at 128 x 128. They leave room for one program on a multiprocessor, whose epilogue nothing else would
# hide: those are persistent, so that the next tile's first copies fly while this one's results are written. Smaller
# tiles fit twice or more and hide one another. Under 64 filters half of wgmma's rows would be idle: those run on
# mma.sync, m16n8k16, with the same copies.
HOPPER = (
    ShippedHopper(128, PIXELS_256, True, 8, 3),
    ShippedHopper(128, PIXELS_256, False, 8, 3),
    ShippedHopper(256, PIXELS_128, True, 8, 3),
    ShippedHopper(128, PIXELS_128, False, 4, 3),
    ShippedHopper(128, PIXELS_64, False, 4, 4),
    ShippedHopper(64, PIXELS_256, True, 4, 4),
    ShippedHopper(64, PIXELS_256, False, 4, 3),
    ShippedHopper(64, PIXELS_128, False, 4, 4),
    ShippedHopper(64, PIXELS_64, False, 4, 4),
    ShippedHopper(32, WIDE_256, False, 4, 3),
    ShippedHopper(32, WIDE_128, False, 2, 3),
    ShippedHopper(16, WIDE_256, False, 4, 3),
    ShippedHopper(16, WIDE_128, False, 2, 3),
)


def fits_hopper(geometry: Geometry, shapes: Shapes, operands: str) -> bool:
    """Whether the kernel computes this layer: 16-bit, two dimensions, no groups, no pool or 2x2 with stride 2,
    convolution stride 1, or 2 on even pictures, channels in steps of 16 bytes. What tensors have to satisfy besides
    is `readable_by_tma`."""
    g = geometry
    if operands != "half" or g.rank != 2 or g.groups != 1 or g.channels % 8 != 0:
        return False
    if g.pool != "none" and not g.pools_boxes:
        return False
    if (g.stride_h, g.stride_w) == (2, 2):
        # A step of channels must not reach from one column of a pair into the other.
        return g.channels % 16 == 0 and shapes.input[1] % 2 == shapes.input[2] % 2 == 0
    return (g.stride_h, g.stride_w) == (1, 1)


def channel_step(geometry: Geometry) -> int:
    """Channels a step takes: 64, 32 or 16. What a step costs is taken to be its products and those of 16 channels more,
    zeros that fill up the last step included. Stride 2 asks for a step that divides the channels."""
    steps = [step for step in (64, 32, 16) if geometry.stride_w == 1 or geometry.channels % step == 0]
    return min(steps, key=lambda step: -(-geometry.channels // step) * (step + 16))


def _boxes_needed(box: Box, shapes: Shapes) -> int:
    sizes = (shapes.batch, *shapes.conv[1:])
    return math.prod(-(-size // extent) for size, extent in zip(sizes, box, strict=True))


def hopper_tile_of(shipped: ShippedHopper, geometry: Geometry, shapes: Shapes) -> HopperTile:
    """A shipped size as the kernel runs it on a layer, in the box that covers the pixels with the fewest programs."""
    box = min(shipped.boxes, key=lambda box: _boxes_needed(box, shapes))
    return _with_box(shipped, box, channel_step(geometry))


def _with_box(shipped: ShippedHopper, box: Box, step: int) -> HopperTile:
    stages = min(shipped.stages * 64 // step, 6)  # narrower steps, as many bytes in flight
    return HopperTile(shipped.rows, *box, step, shipped.persistent, shipped.warps, stages)


def shipped_hopper_tiles(step: int = 64) -> list[HopperTile]:
    """Every size in every of its boxes."""
    return [_with_box(shipped, box, step) for shipped in HOPPER for box in shipped.boxes]


def hopper_candidates(geometry: Geometry, shapes: Shapes) -> list[HopperTile]:
    """One tile of every shipped size that is not twice as large as what it would cover. Up to 32 filters, beside the
    tiles that they fill, those that leave half of wgmma's rows or more idle but run on it."""
    filters, pixels = geometry.filters, max(shapes.conv_pixels, min(s.pixels for s in HOPPER))
    few = 16 if filters <= 16 else 32
    rows = [64, few] if filters <= 32 else [r for r in (64, 128, 256) if r == 64 or r < 2 * filters]
    fitting = [s for s in HOPPER if s.rows in rows and s.pixels < 2 * pixels]
    if geometry.smooth:  # exponentials and kept pre-activations: 128 accumulators a thread would spill (GELU, average)
        fitting = [s for s in fitting if s.rows * s.pixels <= 64 * 32 * s.warps]
    if geometry.saves_bits:  # packing them takes the registers that staying would (256 x 128 spills under Triton 3.6)
        fitting = [s for s in fitting if not s.persistent]
    return [hopper_tile_of(s, geometry, shapes) for s in fitting]


def programs_per_multiprocessor(tile: HopperTile) -> int:
    """How many programs of a tile a multiprocessor holds, by the shared memory of its copies in flight."""
    in_flight = tile.stages * (tile.block_k + tile.pixels) * tile.block_c * 2
    return max(min(HOPPER_TARGET.shared_block // (in_flight + 4096), HOPPER_TARGET.threads // (4 * 32 * tile.warps)), 1)


@functools.lru_cache(maxsize=4096)
def wastes_boxes(geometry: Geometry, shapes: Shapes) -> bool:
    """Whether over half of the pixels in the rule's boxes lie outside the pictures, as with 4 x 4 pixels: the portable
    kernel's tiles run on from one picture to the next."""
    tile = hopper_tile(geometry, shapes)
    boxes = _boxes_needed((tile.block_n, tile.block_h, tile.block_w), shapes)
    return 2 * shapes.conv_pixels < boxes * tile.pixels


@functools.lru_cache(maxsize=4096)
def hopper_tile(geometry: Geometry, shapes: Shapes) -> HopperTile:
    """The tile a layer runs with: the least `tile_cost`, a tenth more where nothing hides a program's epilogue."""

    def cost(tile: HopperTile) -> tuple[float, int]:
        box = (tile.block_n, tile.block_h, tile.block_w)
        programs = _boxes_needed(box, shapes) * -(-geometry.filters // tile.block_k)
        alone = 1.0 if tile.persistent or programs_per_multiprocessor(tile) > 1 else 0.9
        return tile_cost(
            tile.block_k, tile.pixels, programs, HOPPER_TARGET.multiprocessors
        ) / alone, -tile.block_k * tile.pixels

    return min(hopper_candidates(geometry, shapes), key=cost)
