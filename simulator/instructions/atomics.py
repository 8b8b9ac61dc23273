"""Atomics on global and shared memory: atom, and red, which returns nothing (PTX ISA 8.7, sections 9.7.13.5, 9.7.13.6).

Lanes go one after the other, in an order that is the schedule's choice (by number unless seeded): sums of floats may
depend on it, on a GPU too. Each operation rounds as its type does; .f32 sums in global memory flush subnormals.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np

from tidepool.simulator.chunk import Chunk, Context
from tidepool.simulator.faults import Fault, UnknownCode
from tidepool.simulator.instructions.registry import Run, address_reader, instruction, raw_reader, writer
from tidepool.simulator.numbers import UNSIGNED, Array, bits_of, decoder, encoder, flush
from tidepool.simulator.program_order import Ordering
from tidepool.simulator.ptx import Instruction
from tidepool.simulator.registers import LANES

Update = Callable[..., Array]
"""Values before, and the operands' -> values after; all as the type's bits."""

_INTEGERS = ("u32", "s32", "u64", "s64")
_FLOATS = ("f32", "f64")
_HALVES = ("f16", "bf16", "f16x2", "bf16x2")
_TYPES = {
    "add": ("u32", "s32", "u64", *_FLOATS, *_HALVES),
    "min": _INTEGERS,
    "max": _INTEGERS,
    "and": ("b32", "b64"),
    "or": ("b32", "b64"),
    "xor": ("b32", "b64"),
    "exch": ("b32", "b64"),
    "cas": ("b16", "b32", "b64"),
    "inc": ("u32",),
    "dec": ("u32",),
}
_RED = ("add", "min", "max", "and", "or", "xor", "inc", "dec")


def _swapped(before: Array, compared: Array, value: Array) -> Array:
    return np.where(before == compared, value, before)


_ON_BITS: dict[str, Update] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "exch": lambda before, value: value,
    "cas": _swapped,
    "inc": lambda before, limit: np.where(before >= limit, 0, before + np.uint32(1)),
    "dec": lambda before, limit: np.where((before == 0) | (before > limit), limit, before - np.uint32(1)),
}
_PATIENCE = {"cas": 1000, "exch": 1000}
_MORE_PATIENCE = 100_000
"""How often in a row an atomic may change nothing: those that locks are made of, and others."""


class Attempts:
    """How often in a row atomics found everything as it was, and left it so."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.in_vain = 0

    def note(self, operation: str, changed: bool) -> None:
        """Raises Fault where nothing has changed for so long that nothing will."""
        self.in_vain = 0 if changed else self.in_vain + 1
        if self.in_vain > _PATIENCE.get(operation, _MORE_PATIENCE):
            why = "lanes in step cannot wait for one another by atomics, nor programs that run at a time"
            raise Fault("deadlock", f"atomics tried {self.in_vain} times, and nothing changes: {why}")


def _update_of(operation: str, type_name: str, everywhere: bool) -> Update:
    if operation in _ON_BITS:
        return _ON_BITS[operation]
    values, bits = decoder(type_name), encoder(type_name)
    if operation in ("min", "max"):
        chosen = np.minimum if operation == "min" else np.maximum
        return lambda before, value: bits(chosen(values(before), values(value)))
    if type_name == "f32" and everywhere:
        return lambda before, value: bits(flush(flush(values(before)) + flush(values(value))))
    return lambda before, value: bits(values(before) + values(value))


@instruction(
    "atom", "red",
    modifiers="global shared shared_cta relaxed acquire release acq_rel cta gpu sys noftz L2_cache_hint "
    + " ".join(_TYPES),
)  # fmt: skip
def _atomic(one: Instruction) -> Run:
    kind = one.type
    operation = next((part for part in one.opcode if part in _TYPES), "")
    if kind not in _TYPES.get(operation, ()) or (one.name == "red" and operation not in _RED):
        raise UnknownCode("kind of atomic")
    if ("noftz" in one.opcode) != (kind in _HALVES):
        raise UnknownCode("atomic that needs .noftz, or has none")
    everywhere = "global" in one.opcode
    if not everywhere and not any(part.startswith("shared") for part in one.opcode):
        raise UnknownCode("generic addresses")
    destination, operands = (one.operands[0], one.operands[1:]) if one.name == "atom" else (None, one.operands)
    count, width = (2 if operation == "cas" else 1), bits_of(kind) // 8
    read_address = address_reader(operands[0])
    readers = [raw_reader(operand, 8 * width) for operand in operands[1 : 1 + count]]
    write = None if destination is None else writer(destination, f"b{8 * width}")
    update, ordering = _update_of(operation, kind, everywhere), _ordering_of(one)

    def run(context: Context, mask: Array | None) -> None:
        lanes = context.chosen(mask)
        addresses = read_address(context)[lanes]
        values = [context.spread(read(context))[lanes] for read in readers]
        before = np.zeros(len(lanes), UNSIGNED[8 * width])
        changed = False
        places = _global_cells(context, lanes, addresses, width, ordering, one.line) if everywhere else (
            _shared_cells(context, lanes, addresses, width, one.line))  # fmt: skip
        for which, cells, index in places:
            for turn in _turns(context.chunk, index):
                old = before[which[turn]] = cells[index[turn]]
                new = update(old, *[value[which[turn]] for value in values])
                cells[index[turn]] = new
                changed = changed or bool((new != old).any())
        context.chunk.part(Attempts).note(operation, changed)
        if write is not None:
            whole = np.zeros(context.size, before.dtype)
            whole[lanes] = before
            write(context, whole, mask)

    return run


def _ordering_of(one: Instruction) -> Ordering:
    """`.relaxed` and `.gpu` where nothing is said (section 9.7.13.5)."""
    ordered = next((part for part in one.opcode if re.fullmatch(r"relaxed|acquire|release|acq_rel", part)), "relaxed")
    return Ordering(
        releases=ordered in ("release", "acq_rel"),
        acquires=ordered in ("acquire", "acq_rel"),
        between_programs="cta" not in one.opcode,
    )


Cells = Iterator[tuple[Array, Array, Array]]
"""Which of the lanes, memory as integers of the width, and the lanes' places in it."""


def _global_cells(
    context: Context, lanes: Array, addresses: Array, width: int, ordering: Ordering, line: str
) -> Cells:  # fmt: skip
    chunk = context.chunk
    own = lanes + context.low
    chunk.counters.global_access(line, "atomic", addresses, width, own // LANES)
    return chunk.memory.cells(addresses, width, chunk.number_of[own], ordering)


def _shared_cells(context: Context, lanes: Array, addresses: Array, width: int, line: str) -> Cells:
    shared = context.chunk.shared
    ctas, warps = context.ctas_and_warps(lanes)
    offsets = shared.place(addresses, width, ctas)
    shared.note_atomic(offsets, width, ctas, warps)
    context.chunk.counters.shared_access(line, "atomic", addresses, width, lanes + context.low)
    yield np.arange(len(lanes)), shared.of_width[width], offsets // width


def _turns(chunk: Chunk, places: Array) -> list[Array]:
    """Lanes by turns, in each of which no two are at the same place."""
    count = len(places)
    order = chunk.random.permutation(count) if chunk.schedule.seeded else np.arange(count)
    order = order[np.argsort(places[order], kind="stable")]
    there = places[order]
    first = np.concatenate([[True], there[1:] != there[:-1]])
    turn = np.arange(count) - np.maximum.accumulate(np.where(first, np.arange(count), 0))
    if not turn.any():
        return [order]
    by_turn = np.argsort(turn, kind="stable")
    return np.split(order[by_turn], np.cumsum(np.bincount(turn))[:-1])
