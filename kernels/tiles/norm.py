"""How much of a tensor one program of the norm's kernels takes. They read and write memory and multiply little."""

import functools
from dataclasses import dataclass

from tidepool.kernels.runtime.targets import INTERPRETER, Target


@dataclass(frozen=True)
class NormTile:
    """BLOCK_K channels x BLOCK_P pixels at a time; pixels shared out among `splits` programs (sums only)."""

    block_k: int
    block_p: int
    splits: int = 1
    warps: int = 4


CHANNELS_INNERMOST = ((64, 32), (32, 32), (16, 64))
"""Channels x pixels where channels lie side by side: a cache line of 16-bit channels a pixel, less in few channels."""
PIXELS_INNERMOST = ((4, 256),)
"""The same where pixels do."""
MERGE_CHANNELS, MERGE_PARTS = 32, 32
"""Channels of a program that merges statistics, and parts it reads at a time."""
_INTERPRETER_ELEMENTS = 2**16


def power_of_two(value: int, least: int, most: int) -> int:
    """The next power of two, held between two others."""
    return min(max(1 << (max(value, 1) - 1).bit_length(), least), most)


@functools.lru_cache(maxsize=4096)
def norm_tile(
    channels: int, pixels: int, channels_innermost: bool, target: Target, programs_wanted: int = 0
) -> NormTile:
    """The tile for a tensor of channels x pixels; `programs_wanted` > 0 asks for splits, in a sum over pixels.

    The splits depend on shapes and device only, so that a sum's order, and its bits, repeat.
    """
    if target is INTERPRETER:
        block_k = power_of_two(channels, 1, 64)
        block_p = power_of_two(pixels, 1, _INTERPRETER_ELEMENTS // block_k)
        return NormTile(block_k, block_p, min(-(-pixels // block_p), 2) if programs_wanted else 1)
    block_k, block_p = PIXELS_INNERMOST[0]
    if channels_innermost:
        block_k, block_p = next((t for t in CHANNELS_INNERMOST if channels >= t[0]), CHANNELS_INNERMOST[-1])
    tiles = -(-channels // block_k)
    splits = min(-(-programs_wanted // tiles), max(pixels // (4 * block_p), 1)) if programs_wanted else 1
    return NormTile(block_k, block_p, splits)
