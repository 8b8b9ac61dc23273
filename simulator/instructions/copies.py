"""cp.async: copies from global to shared memory, a thread each (PTX ISA 8.7, section 9.7.9.25.3).

A copy is done when its thread has waited for the group it was committed with, and not before: until then nothing may
touch what it writes. When the bytes really move is the schedule's choice.
"""

from dataclasses import dataclass

import numpy as np

from tidepool.simulator.chunk import Chunk, Context
from tidepool.simulator.faults import Fault
from tidepool.simulator.instructions.registry import Run, address_reader, constant_of, instruction, raw_reader
from tidepool.simulator.numbers import Array
from tidepool.simulator.ptx import Immediate, Instruction
from tidepool.simulator.registers import LANES


@dataclass(eq=False)
class Copy:
    """Copies of one instruction: for each lane, where from, where to, and the group it belongs to."""

    lanes: Array
    groups: Array
    sources: Array
    places: Array
    filled: Array
    size: int
    pieces: Array
    moved: Array


class Copies:
    """The copies under way of a chunk, and which group each lane has open."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.open = np.zeros(chunk.lanes, np.int32)
        self.under_way: list[Copy] = []

    def begin(self, lanes: Array, sources: Array, places: Array, filled: Array, size: int) -> None:
        """`sources` are global addresses, `places` offsets in shared memory; where not `filled`, zeros are written."""
        chunk = self.chunk
        ctas, warps = chunk.cta_of[lanes], chunk.warp_of[lanes]
        pieces = chunk.shared.note_copy_begun(places, size, ctas, warps, proxy=False).reshape(len(lanes), -1)
        moved = np.zeros(len(lanes), np.bool_)
        one = Copy(lanes, self.open[lanes], sources, places, filled, size, pieces, moved)
        self.under_way.append(one)
        if not chunk.schedule.late:
            self._move(one, np.ones(len(lanes), np.bool_))

    def commit(self, lanes: Array) -> None:
        """Close the open group of these lanes."""
        self.open[lanes] += 1

    def wait(self, lanes: Array, left: int) -> None:
        """All but the `left` latest groups of these lanes are done; -1: the open one too."""
        waiting = np.zeros(self.chunk.lanes, np.bool_)
        waiting[lanes] = True
        still = []
        for one in self.under_way:
            done = waiting[one.lanes] & (one.groups < self.open[one.lanes] - left)
            if done.any():
                self._move(one, done)
                ctas, warps = self.chunk.cta_of[one.lanes[done]], self.chunk.warp_of[one.lanes[done]]
                at = np.repeat(self.chunk.order.now(ctas, warps), one.pieces.shape[1])
                writers = np.repeat(warps, one.pieces.shape[1])
                self.chunk.shared.note_copy_ended(one.pieces[done].reshape(-1), writers, at)
            if not done.all():
                still.append(_without(one, done) if done.any() else one)
        self.under_way = still

    def move_some(self) -> bool:
        """Let some bytes that may move at any time move now; whether there were any."""
        for one in self.under_way:
            if not one.moved.all():
                self._move(one, self.chunk.random.random(len(one.lanes)) < 0.5)
                return True
        return False

    def _move(self, one: Copy, which: Array) -> None:
        which = which & ~one.moved
        one.moved |= which
        values = np.zeros((int(which.sum()), one.size // 4), np.uint32)
        reads = one.filled[which]
        if reads.any():
            numbers = self.chunk.number_of[one.lanes[which][reads]]
            values[reads] = self.chunk.memory.load(one.sources[which][reads], 4, one.size // 4, numbers)
        self.chunk.shared.store(one.places[which], 4, values)

    def left_over(self) -> bool:
        """Whether a copy was never waited for."""
        return bool(self.under_way)


def _without(one: Copy, done: Array) -> Copy:
    kept = ~done
    parts = (one.lanes, one.groups, one.sources, one.places, one.filled)
    lanes, groups, sources, places, filled = (part[kept] for part in parts)
    return Copy(lanes, groups, sources, places, filled, one.size, one.pieces[kept], one.moved[kept])


def _begin(one: Instruction) -> Run:
    destination, source, size_operand, *rest = one.operands
    read_place, read_source, size = address_reader(destination), address_reader(source), constant_of(size_operand)
    read_count = raw_reader(rest[0] if rest else Immediate(size), 32)

    def run(context: Context, mask: Array | None) -> None:
        chunk = context.chunk
        lanes = context.chosen(mask)
        addresses, sources = read_place(context)[lanes], read_source(context)[lanes]
        counts = context.spread(read_count(context))[lanes]
        filled = counts == size
        if (~filled & (counts != 0)).any():
            raise Fault("copy", f"cp.async of a part of its {size} bytes, which is not simulated")
        ctas, _ = context.ctas_and_warps(lanes)
        places = chunk.shared.place(addresses, size, ctas)
        own = lanes + context.low
        if filled.any():
            chunk.counters.global_access(one.line, "load", sources[filled], size, own[filled] // LANES)
            chunk.counters.add(one.line, "async copy bytes", size * int(filled.sum()))
        if not chunk.schedule.values:
            chunk.memory.touch(sources[filled], size, "read")
            return
        chunk.part(Copies).begin(own, sources, places, filled, size)

    return run


@instruction(
    "cp",
    modifiers="async ca cg shared shared_cta shared_cluster global L2_128B L2_256B L2_64B L2_cache_hint commit_group "
    "wait_group wait_all bulk tensor tile im2col 1d 2d 3d 4d 5d mbarrier_complete_tx_bytes bulk_group read",
)
def _copy(one: Instruction) -> Run:
    if "bulk" in one.opcode:
        from tidepool.simulator.instructions.tensor_copies import bulk

        return bulk(one)
    if "commit_group" in one.opcode:
        return lambda context, mask: context.chunk.part(Copies).commit(context.chosen(mask) + context.low)
    if "wait_group" in one.opcode or "wait_all" in one.opcode:
        left = constant_of(one.operands[0]) if one.operands else -1
        return lambda context, mask: context.chunk.part(Copies).wait(context.chosen(mask) + context.low, left)
    return _begin(one)
