"""Tiles of `conv.few_channels`: which layers it takes, the tiles it ships, and the rule."""

from dataclasses import dataclass

from tidepool.kernels.layer.geometry import Geometry
from tidepool.kernels.runtime.targets import having

FEW_CHANNELS_TARGETS = having("mma.sync", "wgmma", "tcgen05")
MOST_PRODUCTS = 32
"""Longest sum over taps and channels: 27 for a 3x3 filter over RGB, 25 for a 5x5 filter over one channel. Longer ones
would keep several blocks of loads in registers at a time (255 a thread at 150 products)."""


@dataclass(frozen=True)
class FewChannelsTile:
    """BLOCK_K filters x a box of BLOCK_H x BLOCK_W pixels, one or two of them a lane."""

    block_k: int
    block_h: int
    block_w: int
    warps: int = 4


# 32 columns: in mma.sync's accumulator a warp owns 8 columns of every 8 * warps, and the two rows of a window lie in
# one thread only if a row of the box is a multiple of that (see `tiles.hopper`).
FEW_CHANNELS = (
    FewChannelsTile(16, 4, 32),
    FewChannelsTile(32, 4, 32),
    FewChannelsTile(64, 4, 32),
)


def fits_few_channels(geometry: Geometry, operands: str) -> bool:
    """Whether the kernel computes this layer: 16-bit, two dimensions, no groups, taps x channels up to MOST_PRODUCTS,
    no pool or 2x2 with stride 2. Channels in steps of 16 bytes are read better by other kernels."""
    g = geometry
    if operands != "half" or g.rank != 2 or g.groups != 1 or g.channels % 8 == 0 or g.taps * g.channels > MOST_PRODUCTS:
        return False
    return g.pool == "none" or g.pools_boxes


def few_channels_candidates(geometry: Geometry) -> list[FewChannelsTile]:
    """The shipped tiles that are not twice as large as the layer, the rule's first: fewest filters to spare."""
    fitting = [tile for tile in FEW_CHANNELS if tile.block_k < 2 * max(geometry.filters, 16)]
    return sorted(fitting, key=lambda tile: (-(-geometry.filters // tile.block_k), tile.block_k, tile.block_h))
