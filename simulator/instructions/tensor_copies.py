"""Bulk tensor copies between global and shared memory (PTX ISA 8.7, sections 9.7.9.25.5 and 9.7.9.25.7).

One thread starts the copy of a box, or of a column of pixels by an im2col map. A load's bytes are counted by an
mbarrier when they have arrived; a store has read its box when its thread has waited for the group that it was committed
with.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidepool.simulator.chunk import Chunk, Context
from tidepool.simulator.counters import SECTOR
from tidepool.simulator.faults import Fault, UnknownCode
from tidepool.simulator.instructions.barriers import Mbarrier, Mbarriers, lanes_with
from tidepool.simulator.instructions.registry import (
    PARAMETERS,
    Run,
    address_reader,
    constant_of,
    raw_reader,
    reader,
)
from tidepool.simulator.numbers import UNSIGNED, Array
from tidepool.simulator.ptx import Address, Instruction, Operand, Vector
from tidepool.simulator.tensor_map import TensorMap

BOX_ALIGNMENT = 128
Place = tuple[tuple[int, ...], tuple[int, ...]]
"""Where a box is: its coordinates, and the offsets of an im2col copy."""


@dataclass(eq=False)
class BoxLoad:
    """A box on its way to shared memory."""

    barrier: Mbarrier
    arrive: Callable[[], None]


@dataclass(eq=False)
class BoxStores:
    """What a thread has started to store: the open group, and those committed, oldest first."""

    open: list[Callable[[], None]] = field(default_factory=list)
    groups: list[list[Callable[[], None]]] = field(default_factory=list)


class TensorCopies:
    """The boxes of a chunk that are under way."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.loads: list[BoxLoad] = []
        self.stores: dict[int, BoxStores] = {}

    def deliver(self, barriers: list[Mbarrier] | None) -> bool:
        """Let one box arrive, at one of these mbarriers; None: whichever is drawn. Whether there was one."""
        wanted = [load for load in self.loads if barriers is None or load.barrier in barriers]
        if not wanted:
            return False
        load = wanted[int(self.chunk.random.integers(len(wanted)))] if barriers is None else wanted[0]
        self.loads.remove(load)
        load.arrive()
        return True

    def left_over(self) -> bool:
        """Whether a box never arrived, or was never waited for."""
        return bool(self.loads) or any(one.open or one.groups for one in self.stores.values())


def bulk(one: Instruction) -> Run:
    """Decode a cp.async.bulk instruction."""
    if "commit_group" in one.opcode:
        return _commit
    if "wait_group" in one.opcode:
        return _wait(constant_of(one.operands[0]))
    if "tensor" not in one.opcode:
        raise UnknownCode("bulk copies without a tensor map")
    return _load(one) if "mbarrier_complete_tx_bytes" in one.opcode else _store(one)


def _map_of(chunk: Chunk, address: int) -> TensorMap:
    tensor_map = chunk.launch.maps.get(address - PARAMETERS)
    if tensor_map is None:
        raise Fault("copy", "tensor map at an address where no parameter has one")
    return tensor_map


def _box(operand: Any) -> tuple[Callable[[Context], Array], list[Callable[[Context], Array]]]:
    if not isinstance(operand, Address) or operand.offset:
        raise UnknownCode(f"box {operand}")
    return raw_reader(operand.base, 64), [reader(one, "s32") for one in operand.coordinates]


def _load(one: Instruction) -> Run:
    destination, box, barrier_operand, *rest = one.operands
    read_place, read_barrier = address_reader(destination), address_reader(barrier_operand)
    read_map, coordinates = _box(box)
    moved = [reader(item, "u16") for item in _offsets(rest)] if "im2col" in one.opcode else []

    def run(context: Context, mask: Array | None) -> None:
        chunk = context.chunk
        maps = context.spread(read_map(context))
        corners = [context.spread(read(context)) for read in coordinates]
        offsets = [context.spread(read(context)) for read in moved]
        barriers = read_barrier(context)
        for lane, cta, warp, place in lanes_with(context, mask, read_place(context)):
            tensor_map = _map_of(chunk, int(maps[lane]))
            barrier = chunk.part(Mbarriers).get(int(barriers[lane]), cta, warp)
            box_place = _at(corners, lane), _at(offsets, lane)
            _count(chunk, one.line, tensor_map, box_place, "read")
            begin_load(chunk, tensor_map, box_place, place, cta, warp, lane + context.low, barrier)

    return run


def _offsets(operands: list[Operand]) -> tuple[Operand, ...]:
    if not operands or not isinstance(operands[0], Vector):
        raise UnknownCode("im2col copy without offsets")
    return operands[0].items


def _at(values: list[Array], lane: int) -> tuple[int, ...]:
    return tuple(int(one[lane]) for one in values)


def _count(chunk: Chunk, line: str, tensor_map: TensorMap, box_place: Place, verb: str) -> None:
    """A box's bytes in shared memory; of those in the tensor the bytes and sectors, and that they are read or written
    ("write")."""
    chunk.counters.add(line, "tensor copies", 1)
    chunk.counters.add(line, "tensor copy bytes", tensor_map.box_bytes)
    if chunk.counters.detailed:
        key = (tensor_map, box_place, verb)
        if key not in chunk.memory.boxes:
            sources, inside = tensor_map.elements(*box_place)
            chunk.memory.touch(sources[inside], tensor_map.element, verb)
            sectors = len(np.unique(sources[inside] // SECTOR))
            chunk.memory.boxes[key] = int(inside.sum()) * tensor_map.element, sectors
        size, sectors = chunk.memory.boxes[key]
        chunk.counters.add(line, "tensor copy global bytes", size)
        chunk.counters.add(line, "tensor copy sectors", sectors)


def begin_load(
    chunk: Chunk, tensor_map: TensorMap, box_place: Place, place: int, cta: int, warp: int, lane: int,
    barrier: Mbarrier,
) -> None:  # fmt: skip
    """Start the copy of a box to shared address `place`; elements outside the tensor are zeros."""
    if place % BOX_ALIGNMENT:
        raise Fault("alignment", f"box put at a shared address that is no multiple of {BOX_ALIGNMENT}")
    size = tensor_map.element
    if not chunk.schedule.values:
        barrier.copies[cta] += 1
        barrier.copied(cta, tensor_map.box_bytes, int(barrier.copies[cta]))
        return
    sources, inside = tensor_map.elements(*box_place)
    one_cta = np.full(1, cta)
    places = chunk.shared.place(tensor_map.places(place), size, one_cta)
    many = np.full(len(places), cta), np.full(len(places), warp)
    pieces = chunk.shared.note_copy_begun(places, size, *many, proxy=True)
    barrier.copies[cta] += 1
    number = int(barrier.copies[cta])

    def arrive() -> None:
        values = np.zeros((len(places), 1), UNSIGNED[8 * size])
        if tensor_map.fill_nan:
            values[:] = np.iinfo(values.dtype).max
        if inside.any():
            programs = np.full(int(inside.sum()), chunk.number_of[lane])
            values[inside] = chunk.memory.load(sources[inside], size, 1, programs)
        chunk.shared.store(places, size, values)
        chunk.shared.note_copy_ended(pieces, barrier.agent, number)
        barrier.copied(cta, tensor_map.box_bytes, number)

    if chunk.schedule.late:
        chunk.part(TensorCopies).loads.append(BoxLoad(barrier, arrive))
    else:
        arrive()


def _store(one: Instruction) -> Run:
    box, source = one.operands[:2]
    read_place = address_reader(source)
    read_map, coordinates = _box(box)

    def run(context: Context, mask: Array | None) -> None:
        chunk = context.chunk
        maps = context.spread(read_map(context))
        corners = [context.spread(read(context)) for read in coordinates]
        for lane, cta, warp, place in lanes_with(context, mask, read_place(context)):
            tensor_map = _map_of(chunk, int(maps[lane]))
            box_place = _at(corners, lane), ()
            _count(chunk, one.line, tensor_map, box_place, "write")
            _begin_store(chunk, tensor_map, box_place, place, cta, warp, lane + context.low)

    return run


def _begin_store(
    chunk: Chunk, tensor_map: TensorMap, box_place: Place, place: int, cta: int, warp: int, lane: int
) -> None:
    if place % BOX_ALIGNMENT:
        raise Fault("alignment", f"box taken from a shared address that is no multiple of {BOX_ALIGNMENT}")
    size = tensor_map.element
    targets, inside = tensor_map.elements(*box_place)
    places = chunk.shared.place(tensor_map.places(place), size, np.full(1, cta))
    ctas, warps = np.full(len(places), cta), np.full(len(places), warp)
    pieces = chunk.shared.note_async_read_begun(places, size, ctas, warps)
    moved = [False]

    def move() -> None:
        if not moved[0] and inside.any():
            values = chunk.shared.load(places[inside], size, 1)
            chunk.memory.store(targets[inside], size, values, np.full(len(values), chunk.number_of[lane]))
        moved[0] = True

    def end() -> None:
        move()
        chunk.shared.note_async_read_ended(pieces, ctas, warps)

    if not chunk.schedule.late:
        move()
    chunk.part(TensorCopies).stores.setdefault(lane, BoxStores()).open.append(end)


def _commit(context: Context, mask: Array | None) -> None:
    stores = context.chunk.part(TensorCopies).stores
    for lane in (context.chosen(mask) + context.low).tolist():
        if lane in stores:
            stores[lane].groups.append(stores[lane].open)
            stores[lane].open = []


def _wait(left: int) -> Run:
    def run(context: Context, mask: Array | None) -> None:
        stores = context.chunk.part(TensorCopies).stores
        for lane in (context.chosen(mask) + context.low).tolist():
            while lane in stores and len(stores[lane].groups) > left:
                for end in stores[lane].groups.pop(0):
                    end()

    return run
