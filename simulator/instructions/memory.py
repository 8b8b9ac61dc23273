"""Loads and stores, and matrices by rows (PTX ISA 8.7, sections 9.7.9.8 to 9.7.9.12, 9.7.14.5.15 and .16)."""

import re
from typing import Any

import numpy as np

from tidepool.simulator.chunk import Context
from tidepool.simulator.faults import Fault, UnknownCode
from tidepool.simulator.instructions.registry import (
    Run,
    address_reader,
    instruction,
    items_of,
    raw_reader,
    writer,
)
from tidepool.simulator.numbers import UNSIGNED, Array, bits_of
from tidepool.simulator.ptx import Address, Instruction, Symbol, Vector
from tidepool.simulator.registers import LANES

_HINTS = (
    "v2 v4 v8 relaxed weak volatile sys gpu cta nc ca cg cs lu cv wb wt "
    "L1_evict_last L1_evict_first L1_evict_normal L1_no_allocate L2_128B L2_256B L2_64B L2_cache_hint"
)


@instruction("ld", modifiers=f"param global shared shared_cta {_HINTS}")
def _load(one: Instruction) -> Run:
    destination, address = one.operands[:2]
    if "param" in one.opcode:
        return _load_parameter(one)
    width = bits_of(one.type) // 8
    items = items_of(destination)
    writers = [writer(item, one.type if one.type[0] in "su" else f"b{8 * width}") for item in items]
    read_address = address_reader(address)
    count = len(items)
    everywhere = "global" in one.opcode
    if not everywhere and not any(part.startswith("shared") for part in one.opcode):
        raise UnknownCode("generic addresses")
    dtype: Any = UNSIGNED[8 * width]

    def run(context: Context, mask: Array | None) -> None:
        lanes = context.chosen(mask)
        addresses = read_address(context)
        if mask is not None:
            addresses = addresses[lanes]
        get = _from_global if everywhere else _from_shared
        values = get(context, addresses, width, count, lanes, one)
        for place, write in enumerate(writers):
            column = values[:, place]
            if mask is not None:
                whole = np.zeros(context.size, dtype)
                whole[lanes] = column
                column = whole
            write(context, np.ascontiguousarray(column), mask)

    return run


def _load_parameter(one: Instruction) -> Run:
    address = one.operands[1]
    if not isinstance(address, Address) or not isinstance(address.base, Symbol):
        raise UnknownCode("parameter address")
    name, offset, width = address.base.name, address.offset, bits_of(one.type) // 8
    items = items_of(one.operands[0])
    writers = [writer(item, one.type if one.type[0] in "su" else f"b{8 * width}") for item in items]

    def run(context: Context, mask: Array | None) -> None:
        launch = context.chunk.launch
        start = launch.program.parameters[name].offset + offset
        for place, write in enumerate(writers):
            raw = launch.parameters[start + place * width : start + (place + 1) * width]
            write(context, np.frombuffer(raw, UNSIGNED[8 * width]), mask)

    return run


def _from_global(context: Context, addresses: Array, width: int, count: int, lanes: Array, one: Instruction) -> Array:
    chunk = context.chunk
    numbers = chunk.number_of[lanes + context.low]
    values = chunk.memory.load(addresses, width, count, numbers, one.number in chunk.program.guesses)
    chunk.counters.global_access(one.line, "load", addresses, width * count, (lanes + context.low) // LANES)
    return values


def _from_shared(context: Context, addresses: Array, width: int, count: int, lanes: Array, one: Instruction) -> Array:
    shared = context.chunk.shared
    ctas, warps = context.ctas_and_warps(lanes)
    offsets = shared.place(addresses, width * count, ctas)
    shared.note_read(offsets, width * count, ctas, warps)
    context.chunk.counters.shared_access(one.line, "load", addresses, width * count, lanes + context.low)
    return shared.load(offsets, width, count)


@instruction("st", modifiers=f"global shared shared_cta {_HINTS}")
def _store(one: Instruction) -> Run:
    address, source = one.operands[:2]
    width = bits_of(one.type) // 8
    items = items_of(source)
    readers = [raw_reader(item, 8 * width) for item in items]
    read_address = address_reader(address)
    count, line = len(items), one.line
    everywhere = "global" in one.opcode
    if not everywhere and not any(part.startswith("shared") for part in one.opcode):
        raise UnknownCode("generic addresses")

    def run(context: Context, mask: Array | None) -> None:
        lanes = context.chosen(mask)
        addresses = read_address(context)[lanes]
        values = np.stack([context.spread(read(context))[lanes] for read in readers], 1)
        if everywhere:
            chunk = context.chunk
            chunk.memory.store(addresses, width, values, chunk.number_of[lanes + context.low])
            chunk.counters.global_access(line, "store", addresses, width * count, (lanes + context.low) // LANES)
        else:
            _to_shared(context, addresses, width, values, lanes, line)

    return run


def _to_shared(context: Context, addresses: Array, width: int, values: Array, lanes: Array, line: str) -> None:
    shared = context.chunk.shared
    size = width * values.shape[1]
    ctas, warps = context.ctas_and_warps(lanes)
    offsets = shared.place(addresses, size, ctas)
    context.chunk.counters.shared_access(line, "store", addresses, size, lanes + context.low)
    if not shared.writes_again(offsets, size, width, values):
        shared.note_written(offsets, size, ctas, warps)
    shared.store(offsets, width, values)
    if (shared.load(offsets, width, values.shape[1]) != values).any():
        raise Fault("race", "two lanes write different values to the same shared memory at once")


_MATRICES = {"x1": 1, "x2": 2, "x4": 4}


@instruction("ldmatrix", "stmatrix", modifiers="sync aligned m8n8 x1 x2 x4 trans shared shared_cta")
def _matrix_rows(one: Instruction) -> Run:
    """8 x 8 matrices of 16-bit elements: lanes 8m to 8m + 7 give the addresses of matrix m's rows, and lane i has the
    elements 2 (i % 4) and the next of row i / 4; transposed, of that column."""
    count = _MATRICES[next(part for part in one.opcode if re.fullmatch(r"x\d", part))]
    transposed, loads = "trans" in one.opcode, one.name == "ldmatrix"
    vector, address = one.operands if loads else one.operands[::-1]
    if not isinstance(vector, Vector) or len(vector.items) != count:
        raise UnknownCode(f"{count} matrices")
    read_address, line = address_reader(address), one.line
    writers = [writer(item, "b32") for item in vector.items] if loads else []
    readers = [raw_reader(item, 32) for item in vector.items]

    def run(context: Context, mask: Array | None) -> None:
        shared = context.chunk.shared
        lanes = whole_warps(context, mask)
        rows = lanes[:, : 8 * count].reshape(-1)
        addresses = read_address(context)[rows]
        ctas, warps = context.ctas_and_warps(rows)
        offsets = shared.place(addresses, 16, ctas)
        verb = "load" if loads else "store"
        context.chunk.counters.shared_access(line, verb, addresses, 16, rows + context.low)
        if loads:
            shared.note_read(offsets, 16, ctas, warps)
            halves = shared.load(offsets, 2, 8).reshape(-1, count, 8, 8)
            halves = np.swapaxes(halves, 2, 3) if transposed else halves
            words = np.ascontiguousarray(halves).view(np.uint32).reshape(-1, count, LANES)
            for place, write in enumerate(writers):
                write(context, scattered(context, words[:, place], lanes, mask), mask)
        else:
            shared.note_written(offsets, 16, ctas, warps)
            words = np.stack([context.spread(read(context))[lanes] for read in readers], 1)
            halves = np.ascontiguousarray(words).view(np.uint16).reshape(-1, count, 8, 8)
            halves = np.swapaxes(halves, 2, 3) if transposed else halves
            shared.store(offsets, 2, halves.reshape(-1, 8))

    return run


def whole_warps(context: Context, mask: Array | None) -> Array:
    """[warps that take part, 32]: their lanes' numbers in the slice. Raises Fault where a warp has others."""
    if not context.warps_whole(mask):
        raise Fault("convergence", "part of a warp at an instruction that all its lanes have to reach together")
    return context.chosen(mask).reshape(-1, LANES)


def scattered(context: Context, values: Array, lanes: Array, mask: Array | None) -> Array:
    """[warps, 32] values as one a lane of the slice."""
    if mask is None:
        return values.reshape(-1)
    whole = np.zeros(context.size, values.dtype)
    whole[lanes.reshape(-1)] = values.reshape(-1)
    return whole
