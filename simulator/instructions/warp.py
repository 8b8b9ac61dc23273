"""What the lanes of a warp do together: shuffles, elections, votes, reductions (PTX ISA 8.7, 9.7.9.6 and 9.7.13)."""

import numpy as np

from tidepool.simulator.chunk import Context
from tidepool.simulator.faults import Fault, UnknownCode
from tidepool.simulator.instructions.memory import whole_warps
from tidepool.simulator.instructions.registry import Run, constant_of, instruction, raw_reader, writer
from tidepool.simulator.numbers import Array
from tidepool.simulator.ptx import Instruction, Pair, Sink
from tidepool.simulator.registers import LANES


@instruction("shfl", modifiers="sync bfly idx up down")
def _shuffle(one: Instruction) -> Run:
    destination, value, lane, clamp, members = one.operands
    target, valid = (destination.first, destination.second) if isinstance(destination, Pair) else (destination, Sink())
    read_value, read_lane, read_clamp = (raw_reader(operand, 32) for operand in (value, lane, clamp))
    write, write_valid = writer(target, "b32"), writer(valid, "pred")
    kind = one.opcode[2]
    if constant_of(members) & 0xFFFFFFFF != 0xFFFFFFFF:
        raise UnknownCode("part of a warp")

    def run(context: Context, mask: Array | None) -> None:
        if not context.warps_whole(mask):
            raise Fault("convergence", "part of a warp at a shuffle of all its lanes")
        own = np.arange(context.size) % LANES
        source, inside = _source(kind, own, context.spread(read_lane(context)), context.spread(read_clamp(context)))
        values = context.spread(read_value(context))
        write(context, values[np.arange(context.size) - own + np.where(inside, source, own)], mask)
        write_valid(context, inside, mask)

    return run


def _source(kind: str, own: Array, given: Array, clamp: Array) -> tuple[Array, Array]:
    """The lane each lane's value comes from, and whether it exists (the pseudo-code of section 9.7.9.6)."""
    given, bound, segment = given.astype(np.int64) & 31, clamp.astype(np.int64) & 31, clamp.astype(np.int64) >> 8 & 31
    highest = (own & segment) | (bound & ~segment)
    lowest = own & segment
    if kind == "up":
        return own - given, own - given >= highest
    source = {"down": own + given, "bfly": own ^ given, "idx": lowest | (given & ~segment)}[kind]
    return source, source <= highest


@instruction("elect", modifiers="sync")
def _elect(one: Instruction) -> Run:
    """One lane of each warp; which one is not specified, and here the schedule draws it."""
    (destination, _members) = one.operands
    if not isinstance(destination, Pair):
        raise UnknownCode("elect without a predicate")
    write_lane, write_chosen = writer(destination.first, "b32"), writer(destination.second, "pred")

    def run(context: Context, mask: Array | None) -> None:
        whole_warps(context, mask)
        chunk = context.chunk
        lane = int(chunk.random.integers(LANES)) if chunk.schedule.seeded else 0
        write_lane(context, np.array([lane], np.uint32), mask)
        write_chosen(context, np.arange(context.size) % LANES == lane, mask)

    return run


@instruction("vote", modifiers="sync any all uni ballot")
def _vote(one: Instruction) -> Run:
    destination, predicate, _members = one.operands
    read = raw_reader(predicate, 1)
    kind = next(part for part in one.opcode if part in ("any", "all", "uni", "ballot"))
    write = writer(destination, "b32" if kind == "ballot" else "pred")

    def run(context: Context, mask: Array | None) -> None:
        whole_warps(context, mask)
        votes = context.spread(read(context)).reshape(-1, LANES)
        if kind == "ballot":
            result = (votes.astype(np.uint64) << np.arange(LANES, dtype=np.uint64)).sum(1).astype(np.uint32)
        else:
            every, some = votes.all(1), votes.any(1)
            result = {"any": some, "all": every, "uni": every | ~some}[kind]
        write(context, np.repeat(result, LANES), mask)

    return run


_REDUCED = {
    "add": lambda lanes: lanes.sum(1, dtype=lanes.dtype),  # modulo 2^32
    "min": lambda lanes: lanes.min(1),
    "max": lambda lanes: lanes.max(1),
    "and": lambda lanes: np.bitwise_and.reduce(lanes, 1),
    "or": lambda lanes: np.bitwise_or.reduce(lanes, 1),
    "xor": lambda lanes: np.bitwise_xor.reduce(lanes, 1),
}


@instruction("redux", modifiers="sync add min max and or xor s32 u32 b32")
def _reduce(one: Instruction) -> Run:
    """One value of all lanes, in each of them: redux.sync (9.7.13.7), of integers."""
    destination, value, members = one.operands
    read, read_members, write = raw_reader(value, 32), raw_reader(members, 32), writer(destination, "b32")
    combine, kind = _REDUCED[one.opcode[2]], np.int32 if one.opcode[3] == "s32" else np.uint32

    def run(context: Context, mask: Array | None) -> None:
        whole_warps(context, mask)
        there = slice(None) if mask is None else mask
        if np.any(context.spread(read_members(context))[there].astype(np.uint32) != 0xFFFFFFFF):
            raise UnknownCode("part of a warp")
        lanes = context.spread(read(context)).astype(np.uint32).view(kind).reshape(-1, LANES)
        write(context, np.repeat(combine(lanes), LANES).view(np.uint32), mask)

    return run


@instruction("activemask")
def _active(one: Instruction) -> Run:
    write = writer(one.operands[0], "b32")

    def run(context: Context, mask: Array | None) -> None:
        there = np.ones(context.size, np.bool_) if mask is None else mask
        powers = there.reshape(-1, LANES).astype(np.uint64) << np.arange(LANES, dtype=np.uint64)
        write(context, np.repeat(powers.sum(1).astype(np.uint32), LANES), mask)

    return run
