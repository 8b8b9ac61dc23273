"""wgmma: products of 64 rows that four warps make together (PTX ISA 8.7, section 9.7.15).

Operands come from shared memory by descriptors, A from registers too; half of a sparse A, which metadata in registers
tells the columns of. Products run on their own: they are done when
their warps have waited for the group they were committed with, in the order they were started. Until then nothing may
write what they read, and their accumulators have no value.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tidepool.simulator.chunk import Chunk, Context
from tidepool.simulator.faults import Fault, UnknownCode
from tidepool.simulator.instructions.matrices import (
    ELEMENT_BYTES,
    VALUES,
    a_matrix,
    accumulator_words,
    accumulators,
    product,
)
from tidepool.simulator.instructions.memory import whole_warps
from tidepool.simulator.instructions.registry import Run, constant_of, instruction, raw_reader
from tidepool.simulator.instructions.sparse import metadata_lanes, sparse_product, stored_columns
from tidepool.simulator.numbers import Array
from tidepool.simulator.ptx import Instruction, Operand, Register, Vector
from tidepool.simulator.registers import LANES
from tidepool.simulator.tensor_map import swizzled

WARPS = 4
ROWS = 64
_ROW_BYTES = (16, 128, 64, 32)
"""Bytes of a row of the pattern, by a descriptor's number for it; the first is no swizzle."""


@dataclass(eq=False)
class Work:
    """Products of one instruction for one warp group of several programs; `run` takes the programs (of the chunk)."""

    group: int
    ctas: Array
    numbers: Array
    run: Callable[[Array], None]


class Products:
    """The products under way of a chunk, and which group each warp group of a program has open."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.open = np.zeros((-(-chunk.warps // WARPS), chunk.ctas), np.int64)
        self.under_way: list[Work] = []

    def begin(self, group: int, ctas: Array, run: Callable[[Array], None]) -> None:
        self.under_way.append(Work(group, ctas, self.open[group, ctas], run))

    def wait(self, group: int, ctas: Array, left: int) -> None:
        """All but the `left` latest groups of these programs' warp group are done."""
        waiting = np.zeros(self.chunk.ctas, np.bool_)
        waiting[ctas] = True
        still = []
        for work in self.under_way:
            done = waiting[work.ctas] & (work.numbers < self.open[group, work.ctas] - left)
            if work.group != group or not done.any():
                still.append(work)
                continue
            work.run(work.ctas[done])
            if not done.all():
                still.append(Work(group, work.ctas[~done], work.numbers[~done], work.run))
        self.under_way = still

    def left_over(self) -> bool:
        """Whether a product was never waited for."""
        return bool(self.under_way)


def _groups(context: Context, mask: Array | None) -> list[tuple[int, Array]]:
    """(warp group, programs) that take part. Raises Fault where a warp group is not there as a whole."""
    if not context.warps_whole(mask):
        raise Fault("convergence", "part of a warp at an instruction of a warp group")
    warps = context.warps_of(mask)
    first = context.low // context.chunk.per_warp
    if first % WARPS or len(warps) % WARPS:
        raise Fault("convergence", "part of a warp group at an instruction that its four warps reach together")
    found = []
    for group, four in enumerate(warps.reshape(-1, WARPS, context.chunk.ctas)):
        if (four != four[0]).any():
            raise Fault("convergence", "part of a warp group at an instruction that its four warps reach together")
        if four[0].any():
            found.append((first // WARPS + group, np.nonzero(four[0])[0]))
    return found


@instruction(
    "wgmma",
    modifiers="fence sync aligned commit_group wait_group mma_async sp "
    + " ".join(f"m64n{8 * n}k{k}" for n in range(1, 33) for k in (8, 16, 32)),
)
def _warpgroup(one: Instruction) -> Run:
    kind = one.opcode[1]
    if kind == "fence":
        return lambda context, mask: None
    if kind == "mma_async":
        return _multiply(one)
    left = constant_of(one.operands[0]) if kind == "wait_group" else 0

    def run(context: Context, mask: Array | None) -> None:
        products: Products = context.chunk.part(Products)
        for group, ctas in _groups(context, mask):
            if kind == "commit_group":
                products.open[group, ctas] += 1
            else:
                products.wait(group, ctas, left)

    return run


def operand_places(descriptor: int, rows: int, columns: int, element: int, rows_fastest: bool) -> Array:
    """[rows, columns] shared addresses of an operand's elements (section 9.7.15.5.1, matrix descriptors).

    Bits 0-13, 16-29 and 32-45 are the start and the two offsets, in units of 16 bytes; 62-63 the pattern. A core matrix
    is 8 rows of 16 bytes, and in a pattern of w bytes w / 16 of them lie side by side. Columns in rows (K-major): the
    stride offset leads to the next 8 rows, the leading one to the next 16 bytes, without a pattern only. Rows in
    columns (MN-major): 8 columns of w bytes each, the leading offset to the next w bytes of rows, the stride one to the
    next 8 columns; without a pattern the two are exchanged.
    """
    start, leading, stride = ((descriptor >> bit & 0x3FFF) << 4 for bit in (0, 16, 32))
    pattern = descriptor >> 62 & 3
    if descriptor >> 49 & 7:
        raise UnknownCode("matrix descriptor with a base offset")
    width = _ROW_BYTES[pattern]
    if pattern and not rows_fastest and columns * element > width:
        raise UnknownCode(f"operand with {columns * element} bytes in a row, in a pattern of {width}")
    row, column = np.arange(rows)[:, None], np.arange(columns)[None, :]
    across, along = (row, column) if rows_fastest else (column, row)
    byte = across * element
    places = start + along % 8 * width
    if rows_fastest:
        far, near = (leading, stride) if pattern else (stride, leading)
        places = places + byte % width + byte // width * far + along // 8 * near
    elif pattern:
        places = places + byte + along // 8 * stride
    else:
        places = places + byte % width + byte // width * leading + along // 8 * stride
    return swizzled(places, width if pattern else 0)


@dataclass(frozen=True, kw_only=True)
class _Product:
    """A decoded wgmma.mma_async. `stored`: columns of A that are stored, `depth` or half of it."""

    kind: str
    columns: int
    depth: int
    stored: int
    accumulators: tuple[int, ...]
    a_registers: tuple[int, ...]
    a_rows_fastest: bool
    b_rows_fastest: bool
    line: str


def _multiply(one: Instruction) -> Run:
    """Operands D, A, B, of a sparse product the metadata and its selector, scale-d, two signs, and how A and B lie."""
    sparse = one.opcode[2] == "sp"
    shape = re.fullmatch(r"m64n(\d+)k(\d+)", one.opcode[5 if sparse else 4])
    destination, a, b, *rest = one.operands
    adds, *flags = rest[2:] if sparse else rest
    decoded = _decoded(one, shape, destination, a, [constant_of(operand) for operand in flags])
    read_columns = _columns_reader(decoded, rest[0], constant_of(rest[1])) if sparse else None
    read_a = None if isinstance(a, Vector) else raw_reader(a, 64)
    read_b, read_adds = raw_reader(b, 64), raw_reader(adds, 1)

    def run(context: Context, mask: Array | None) -> None:
        whole_warps(context, mask)
        descriptors_a = context.spread(read_a(context)) if read_a else None
        descriptors_b, adding = context.spread(read_b(context)), context.spread(read_adds(context))
        columns_of = read_columns if context.chunk.schedule.values else None
        for group, ctas in _groups(context, mask):
            lanes = _lanes(context.chunk, group, ctas) - context.low
            _begin(
                context.chunk, decoded, group, ctas,
                None if descriptors_a is None else _uniform(descriptors_a[lanes]),
                _uniform(descriptors_b[lanes]), _uniform(adding[lanes]),
                columns_of(context, lanes) if columns_of else None,
            )  # fmt: skip

    return run


def _decoded(
    one: Instruction, shape: re.Match[str] | None, destination: Operand, a: Operand, flags: list[int]
) -> _Product:
    kind, result = one.opcode[-1], one.opcode[-3]
    if shape is None or result != "f32" or kind not in VALUES or not isinstance(destination, Vector):
        raise UnknownCode("kind of product")
    if flags[:2] != [1, 1]:
        raise UnknownCode("negated operands")
    sparse, turned = one.opcode[2] == "sp", flags[2:]
    decoded = _Product(
        kind=kind,
        columns=int(shape[1]),
        depth=int(shape[2]),
        stored=int(shape[2]) // (2 if sparse else 1),
        accumulators=_numbers(destination),
        a_registers=_numbers(a) if isinstance(a, Vector) else (),
        a_rows_fastest=bool(not isinstance(a, Vector) and turned and turned[0]),
        b_rows_fastest=bool(turned and turned[-1]),
        line=one.line,
    )
    if len(decoded.accumulators) != decoded.columns // 2 or decoded.stored * ELEMENT_BYTES[kind] != 32:
        raise UnknownCode("shape of product")
    return decoded


def _columns_reader(one: _Product, metadata: Operand, selector: int) -> Callable[[Context, Array], Array]:
    """Reads which columns the stored elements of A belong to: [programs, 64, depth / 2]. Each warp has the metadata of
    16 rows (section 9.7.15.6.2)."""
    read, element = raw_reader(metadata, 32), ELEMENT_BYTES[one.kind]
    of_four = metadata_lanes(element, one.depth, selector)

    def read_columns(context: Context, lanes: Array) -> Array:
        words = context.spread(read(context))[lanes]
        columns = stored_columns(words.reshape(-1, LANES), element, of_four, ordered=False)
        return _by_group(columns, words.shape[1])

    return read_columns


def _numbers(vector: Vector) -> tuple[int, ...]:
    if not all(isinstance(item, Register) for item in vector.items):
        raise UnknownCode("constants among the registers of a product")
    return tuple(item.number for item in vector.items if isinstance(item, Register))


def _lanes(chunk: Chunk, group: int, ctas: Array) -> Array:
    """[warps of the group, programs, 32] numbers of their lanes in the chunk."""
    warps = np.arange(WARPS * group, WARPS * (group + 1))
    return warps[:, None, None] * chunk.per_warp + ctas[None, :, None] * LANES + np.arange(LANES)


def _uniform(values: Array) -> Array:
    """[programs] of what all lanes of a warp group have to agree on."""
    if (values != values[:1, :, :1]).any():
        raise Fault("matrix", "descriptors or scale of a product that differ within its warp group")
    return values[0, :, 0]


def _begin(
    chunk: Chunk, one: _Product, group: int, ctas: Array, a: Array | None, b: Array, adds: Array, columns: Array | None
) -> None:  # fmt: skip
    """Start one warp group's product in each of these programs. `columns`: those of the stored elements of A."""
    chunk.counters.add(one.line, "wgmma", len(ctas))
    chunk.counters.add(one.line, "wgmma products", len(ctas) * ROWS * one.columns * one.stored)
    if not chunk.schedule.values:
        return
    position = np.full(chunk.ctas, -1)
    position[ctas] = np.arange(len(ctas))
    shared = chunk.shared
    element = ELEMENT_BYTES[one.kind]
    b_places = _all_places(chunk, b, ctas, (one.columns, one.depth, element), one.b_rows_fastest)
    a_places = None if a is None else _all_places(chunk, a, ctas, (ROWS, one.stored, element), one.a_rows_fastest)
    reads = [_reading(chunk, places, one, group, ctas) for places in (a_places, b_places) if places is not None]
    late = chunk.schedule.late
    early_a = None
    if a_places is None and not chunk.schedule.late_registers:
        early_a = _a_in_registers(chunk, one, group, ctas)
    if not late:
        _compute(chunk, one, group, ctas, a_places, early_a, b_places, adds, columns)

    def finish(which: Array) -> None:
        rows = position[which]
        if late:
            part = None if a_places is None else a_places[rows]
            kept = None if early_a is None else early_a[rows]
            its_columns = None if columns is None else columns[rows]
            _compute(chunk, one, group, which, part, kept, b_places[rows], adds[rows], its_columns)
        for pieces in reads:
            warps = np.full(pieces.shape[1] * len(which), WARPS * group)
            shared.note_async_read_ended(pieces[rows].reshape(-1), np.repeat(which, pieces.shape[1]), warps)

    chunk.part(Products).begin(group, ctas, finish)


def _all_places(chunk: Chunk, descriptors: Array, ctas: Array, shape: tuple[int, int, int], fastest: bool) -> Array:
    """[programs, rows, columns] byte offsets in the chunk's shared memory; `shape`: rows, columns, bytes an element."""
    rows, columns, element = shape
    known = {d: operand_places(d, rows, columns, element, fastest) for d in set(descriptors.tolist())}
    places = np.stack([known[descriptor] for descriptor in descriptors.tolist()])
    return chunk.shared.place(places, element, ctas[:, None, None])


def _reading(chunk: Chunk, places: Array, one: _Product, group: int, ctas: Array) -> Array:
    """Note that a product reads there until it is done: [programs, pieces]. All four warps must know of the writing."""
    element = ELEMENT_BYTES[one.kind]
    flat = places.reshape(-1)
    programs = np.repeat(ctas, places[0].size)
    for warp in range(WARPS * group + 1, WARPS * (group + 1)):
        chunk.shared.check_read(flat, element, programs, np.full(len(flat), warp), proxy=True)
    pieces = chunk.shared.note_async_read_begun(flat, element, programs, np.full(len(flat), WARPS * group))
    return pieces.reshape(len(ctas), -1)


def _a_in_registers(chunk: Chunk, one: _Product, group: int, ctas: Array) -> Array:
    """[programs, 64, stored columns]: operand A from its registers."""
    lanes = _lanes(chunk, group, ctas).reshape(-1)
    words = np.stack([_register(chunk, number)[lanes].reshape(-1, LANES) for number in one.a_registers])
    return _by_group(a_matrix(words, one.kind), len(ctas))


def _compute(
    chunk: Chunk, one: _Product, group: int, ctas: Array, a_places: Array | None, a: Array | None, b_places: Array,
    adds: Array, columns: Array | None,
) -> None:  # fmt: skip
    """Multiply now, and put the sums into the accumulators' registers."""
    element = ELEMENT_BYTES[one.kind]
    memory = chunk.shared.of_width[element]
    lanes = _lanes(chunk, group, ctas).reshape(-1)
    shape = (WARPS * len(ctas), LANES)
    if a_places is None:
        a = _a_in_registers(chunk, one, group, ctas) if a is None else a
    else:
        a = VALUES[one.kind](memory[a_places // element])
    b = VALUES[one.kind](memory[b_places // element])
    c: Array = np.zeros((len(ctas), 1, 1))
    if adds.any():
        words = np.stack([_register(chunk, number)[lanes].reshape(shape) for number in one.accumulators])
        c = np.where(adds[:, None, None], _by_group(accumulators(words), len(ctas)), 0)
    values = product(a, b, c) if columns is None else sparse_product(a, b, c, columns)
    by_warp = values.reshape(len(ctas), WARPS, 16, one.columns).swapaxes(0, 1).reshape(-1, 16, one.columns)
    place = np.zeros(chunk.lanes, np.bool_)
    place[lanes] = True
    for number, word in zip(one.accumulators, accumulator_words(by_warp), strict=True):
        whole = np.zeros(chunk.lanes, np.uint32)
        whole[lanes] = word.reshape(-1)
        chunk.registers.write(number, whole, 0, chunk.lanes, None if place.all() else place)


def _register(chunk: Chunk, number: int) -> Array:
    return np.broadcast_to(chunk.registers.read(number, 0, chunk.lanes), (chunk.lanes,))


def _by_group(matrices: Array, programs: int) -> Array:
    """[four warps of programs, 16, n] -> [programs, 64, n]."""
    four = matrices.reshape(WARPS, programs, 16, -1)
    return four.swapaxes(0, 1).reshape(programs, ROWS, -1)
