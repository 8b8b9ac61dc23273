"""The registers of all threads that are simulated at a time.

A register is an array with an element a lane, or with one element where all lanes have the same.
"""

from typing import Any

import numpy as np

from tidepool.simulator.numbers import Array, register_dtype
from tidepool.simulator.ptx import Program

LANES = 32
GARBAGE = 0x7FC0DEADBEEF7FC1
"""What a register holds that was never written: a NaN as a float, an address that exists nowhere."""


class Registers:
    """The registers of a chunk."""

    def __init__(self, program: Program, lanes: int) -> None:
        self._bits = program.widths
        self._values: list[Array | None] = [None] * len(program.widths)
        self._own = [False] * len(program.widths)
        self._lanes = lanes

    def read(self, number: int, low: int, high: int) -> Array:
        """The lanes low to high of a register, or its one value."""
        value = self._values[number]
        if value is None:
            return self._garbage(number, 1)
        if value.shape[0] == 1 or high - low == self._lanes:
            return value
        return value[low:high]

    def write(self, number: int, value: Array, low: int, high: int, mask: Array | None) -> None:
        """Set the lanes low to high where `mask` holds; `value` has as many elements, or one."""
        if mask is None and high - low == self._lanes:
            self._values[number] = value
            self._own[number] = False
            return
        old = self._values[number]
        if old is None:
            old = self._garbage(number, self._lanes)
        elif old.shape[0] == 1 and self._lanes > 1:
            old = np.full(self._lanes, old[0])
        elif not self._own[number]:
            old = old.copy()
        self._values[number] = old
        self._own[number] = True
        part = old[low:high]
        if mask is None:
            part[:] = value
        else:
            np.copyto(part, value, where=mask)

    def share(self, number: int) -> None:
        """Another register is about to have this one's array: neither writes into it any more."""
        self._own[number] = False

    def _garbage(self, number: int, count: int) -> Array:
        bits = self._bits[number]
        dtype: Any = register_dtype(bits)
        return np.full(count, bool(GARBAGE & 1) if bits == 1 else GARBAGE & ((1 << bits) - 1), dtype)
