"""Shared memory of a chunk's programs, with what is known of every piece of it: who wrote it last, who has read it.

An access has to come after every access that conflicts with it, as the warp knows by barriers (order.py). Pieces are as
large as the narrowest access of the kernel. Memory starts as garbage, and reading what was never written is a fault.
"""

import re

import numpy as np

from tidepool.simulator.faults import Fault
from tidepool.simulator.numbers import UNSIGNED, Array
from tidepool.simulator.order import Order
from tidepool.simulator.ptx import Program

POISON = 0xFF
"""What unwritten memory holds: NaN in every floating-point type, -1 in every integer."""
_UNDER_WAY = np.iinfo(np.int32).max


def granule_of(program: Program) -> int:
    """Bytes of the narrowest access to shared memory."""
    least = 16
    for instruction in program.instructions:
        opcode = instruction.opcode
        if instruction.name in ("ld", "st", "atom", "red") and any(part.startswith("shared") for part in opcode[1:]):
            width = re.fullmatch(r"[bsuf](\d+)", instruction.type)
            least = min(least, int(width[1]) // 8 if width else 1)
        elif opcode[:2] == ("cp", "async") and "bulk" not in opcode:
            least = min(least, 4)
        elif opcode[:2] == ("cp", "async"):
            least = min(least, 2)
    return least


class SharedMemory:
    """`size` bytes for each program of a chunk, one behind the other."""

    def __init__(self, size: int, order: Order, granule: int, checked: bool = True) -> None:
        self.size = -(-max(size, 16) // 16) * 16
        self.order, self.granule, self.checked = order, granule, checked
        total = self.size * order.ctas
        self.bytes = np.full(total, POISON, np.uint8)
        self.of_width = {width: self.bytes.view(UNSIGNED[8 * width]) for width in (1, 2, 4, 8)}
        pieces = total // granule if checked else 0
        self.writer = np.full(pieces, -1, np.int16)
        self.written_at = np.zeros(pieces, np.int32)
        self.by_threads = np.zeros(pieces, np.bool_)
        self.read_at = np.zeros((order.warps, pieces), np.int32)
        self.readers_under_way = np.zeros(pieces, np.int16)
        self.atomic_at: Array | None = None

    def place(self, addresses: Array, size: int, ctas: Array) -> Array:
        """Byte offsets in the chunk's memory. Raises Fault for addresses outside, or not multiples of their size."""
        if len(addresses) and (int(addresses.max()) + size > self.size or int(addresses.min()) < 0):
            wrong = int(addresses.max()) if int(addresses.min()) >= 0 else int(addresses.min())
            raise Fault("bounds", f"shared memory address {wrong}, {size} bytes, of {self.size}")
        if (addresses & (size - 1)).any():
            raise Fault("alignment", f"shared memory address that is no multiple of {size}")
        return addresses + ctas * self.size

    def load(self, offsets: Array, width: int, count: int) -> Array:
        """[lanes, count] unsigned integers of `width` bytes."""
        return self.of_width[width][(offsets // width)[:, None] + np.arange(count)]

    def store(self, offsets: Array, width: int, values: Array) -> None:
        """Write [lanes, count] unsigned integers of `width` bytes."""
        self.of_width[width][(offsets // width)[:, None] + np.arange(values.shape[1])] = values

    def _pieces(self, offsets: Array, size: int, *others: Array) -> tuple[Array, ...]:
        count = max(size // self.granule, 1)
        first = offsets // self.granule
        if count == 1:
            return (first, *others)
        pieces = (first[:, None] + np.arange(count)).reshape(-1)
        return (pieces, *[np.repeat(other, count) for other in others])

    def note_read(self, offsets: Array, size: int, ctas: Array, warps: Array, proxy: bool = False) -> None:
        """Warps read: what they read is there, and they know of its writing."""
        if self.checked:
            pieces, ctas, warps = self._pieces(offsets, size, ctas, warps)
            self._check_read(pieces, ctas, warps, proxy)
            self.read_at[warps, pieces] = self.order.now(ctas, warps)

    def writes_again(self, offsets: Array, size: int, width: int, values: Array) -> bool:
        """Whether what is to be written is there already, from writing that is over: writing it again changes nothing,
        whoever does it when (several warps note the same state)."""
        if not self.checked:
            return False
        (pieces,) = self._pieces(offsets, size)
        there = (self.writer[pieces] >= 0).all() and (self.written_at[pieces] != _UNDER_WAY).all()
        if self.atomic_at is not None and self.atomic_at[:, pieces].any():
            return False
        return bool(there and (self.load(offsets, width, values.shape[1]) == values).all())

    def check_read(self, offsets: Array, size: int, ctas: Array, warps: Array, proxy: bool) -> None:
        """Raises Fault where these warps do not know that what they read is written."""
        if self.checked:
            pieces, ctas, warps = self._pieces(offsets, size, ctas, warps)
            self._check_read(pieces, ctas, warps, proxy)

    def note_written(self, offsets: Array, size: int, ctas: Array, warps: Array) -> None:
        """Warps write: they know of every earlier access. Two that write the same place at once are told apart by their
        values alone: the same ones are harmless, and layouts that are replicated over warps do so."""
        if self.checked:
            pieces, ctas, warps = self._pieces(offsets, size, ctas, warps)
            self.check_write(pieces, ctas, warps, proxy=False)
            self.writer[pieces] = warps
            self.written_at[pieces] = self.order.now(ctas, warps)
            self.by_threads[pieces] = True

    def note_atomic(self, offsets: Array, size: int, ctas: Array, warps: Array) -> None:
        """Warps change memory by atomics: they know of every earlier access but other atomics."""
        if self.checked:
            pieces, ctas, warps = self._pieces(offsets, size, ctas, warps)
            if self.atomic_at is None:
                self.atomic_at = np.zeros((self.order.warps, len(self.writer)), np.int32)
            self._after_writes(pieces, ctas, warps, "read", proxy=False)
            self._after_reads(pieces, ctas, warps)
            self.atomic_at[warps, pieces] = self.order.now(ctas, warps)

    def note_copy_begun(self, offsets: Array, size: int, ctas: Array, warps: Array, proxy: bool) -> Array:
        """Warps start copies that write at some time from now on; returns the pieces, for the end of the copies."""
        if not self.checked:
            return offsets
        pieces, ctas, warps = self._pieces(offsets, size, ctas, warps)
        self.check_write(pieces, ctas, warps, proxy)
        self.writer[pieces] = warps
        self.written_at[pieces] = _UNDER_WAY
        self.by_threads[pieces] = not proxy  # cp.async writes as its thread would
        return pieces

    def note_copy_ended(self, pieces: Array, agents: Array | int, at: Array | int) -> None:
        """The copies are there, as written by `agents` at their steps `at`."""
        if self.checked:
            self.writer[pieces] = agents
            self.written_at[pieces] = at

    def note_async_read_begun(self, offsets: Array, size: int, ctas: Array, warps: Array) -> Array:
        """Warps start something that reads at some time from now on, through the asynchronous proxy; returns the
        pieces, for its end."""
        if not self.checked:
            return offsets
        pieces, ctas, warps = self._pieces(offsets, size, ctas, warps)
        self._check_read(pieces, ctas, warps, proxy=True)
        np.add.at(self.readers_under_way, pieces, 1)
        return pieces

    def note_async_read_ended(self, pieces: Array, ctas: Array, warps: Array) -> None:
        """It has read; `ctas` and `warps` are of the offsets that it was begun with."""
        if self.checked:
            many = len(pieces) // len(ctas)
            ctas, warps = np.repeat(ctas, many), np.repeat(warps, many)
            np.add.at(self.readers_under_way, pieces, -1)
            self.read_at[warps, pieces] = self.order.now(ctas, warps)

    def check_write(self, pieces: Array, ctas: Array, warps: Array, proxy: bool) -> None:
        """Raises Fault where an earlier access is not known to be over."""
        self._after_writes(pieces, ctas, warps, "written", proxy)
        self._after_atomics(pieces, ctas, warps, "written", proxy)
        self._after_reads(pieces, ctas, warps)

    def _check_read(self, pieces: Array, ctas: Array, warps: Array, proxy: bool) -> None:
        self._after_writes(pieces, ctas, warps, "read", proxy)
        self._after_atomics(pieces, ctas, warps, "read", proxy)

    def _after_reads(self, pieces: Array, ctas: Array, warps: Array) -> None:
        if self.readers_under_way[pieces].any():
            raise Fault("race", "shared memory written while a product or copy under way may still read it")
        known = self.order.knows[ctas, warps, : self.order.warps].T
        late = self.read_at[:, pieces] > known
        late[warps, np.arange(len(pieces))] = False
        if late.any():
            reader = int(np.nonzero(late.any(1))[0][0])
            raise Fault("race", f"shared memory written while warp {reader} may still read it")

    def _after_atomics(self, pieces: Array, ctas: Array, warps: Array, verb: str, proxy: bool) -> None:
        if self.atomic_at is None:
            return
        at = self.atomic_at[:, pieces]
        late = at > self.order.knows[ctas, warps, : self.order.warps].T
        late[warps, np.arange(len(pieces))] = False
        if late.any():
            who = int(np.nonzero(late.any(1))[0][0])
            raise Fault("race", f"shared memory {verb} with no order after an atomic by warp {who}")
        if proxy and (at > self.order.fenced[ctas, warps, : self.order.warps].T).any():
            raise Fault("race", f"shared memory {verb} by the asynchronous proxy with no fence after an atomic")

    def _after_writes(self, pieces: Array, ctas: Array, warps: Array, verb: str, proxy: bool) -> None:
        writer, at = self.writer[pieces], self.written_at[pieces]
        unwritten = writer < 0
        if verb == "read" and unwritten.any():
            where = int(pieces[unwritten][0]) * self.granule % self.size
            raise Fault("unwritten", f"shared memory read that nothing wrote, at address {where}")
        under_way = at == _UNDER_WAY
        if under_way.any():
            raise Fault("race", f"shared memory {verb} that a copy under way is writing")
        unknown = (at > self.order.knows[ctas, warps, writer]) & (writer != warps) & ~unwritten
        if unknown.any():
            who = int(writer[unknown][0])
            name = f"warp {who}" if who < self.order.warps else "a tensor copy"
            raise Fault("race", f"shared memory {verb} with no order after its writing by {name}")
        if proxy:
            unfenced = self.by_threads[pieces] & (at > self.order.fenced[ctas, warps, writer]) & ~unwritten
            if unfenced.any():
                raise Fault("race", f"shared memory {verb} by the asynchronous proxy with no fence after its writing")
