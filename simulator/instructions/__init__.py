"""What each instruction does. `decode` turns a parsed instruction into a function of the context that runs it."""

from tidepool.simulator.instructions import (
    arithmetic,
    atomics,
    barriers,
    bits,
    conversions,
    copies,
    matrices,
    memory,
    moves,
    tensor_copies,
    warp,
    warpgroup,
)
from tidepool.simulator.instructions.registry import Run, decode, known_names

__all__ = [
    "Run",
    "arithmetic",
    "atomics",
    "barriers",
    "bits",
    "conversions",
    "copies",
    "decode",
    "known_names",
    "matrices",
    "memory",
    "moves",
    "tensor_copies",
    "warp",
    "warpgroup",
]
