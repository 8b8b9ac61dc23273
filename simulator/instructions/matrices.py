"""mma.sync and mma.sp.sync: products of small matrices, a warp each (PTX ISA 8.7, sections 9.7.14.5 and 9.7.14.6).

Products are exact and summed in float64, then rounded once to float32: the order in which a tensor core sums, and what
it cuts off on the way, are not specified. Integers that float32 holds come out to the bit. Products of float64 are
summed in float64, in an order of NumPy's.
"""

import re
from collections.abc import Callable

import numpy as np

from tidepool.simulator.chunk import Context
from tidepool.simulator.faults import UnknownCode
from tidepool.simulator.instructions.memory import scattered, whole_warps
from tidepool.simulator.instructions.registry import Run, constant_of, instruction, raw_reader, types_of, writer
from tidepool.simulator.instructions.sparse import metadata_lanes, sparse_product, stored_columns
from tidepool.simulator.numbers import Array, bf16_values, f16_values, tf32_values
from tidepool.simulator.ptx import Instruction, Vector
from tidepool.simulator.registers import LANES

ELEMENT_BYTES = {"bf16": 2, "f16": 2, "tf32": 4}
VALUES: dict[str, Callable[[Array], Array]] = {"bf16": bf16_values, "f16": f16_values, "tf32": tf32_values}


def _eight_rows(words: Array, kind: str) -> Array:
    """[..., 32] registers of a warp -> [..., 8, columns]: lane i has row i / 4, and of it columns 2 (i % 4) and the
    next of 16-bit elements, column i % 4 of 32-bit ones (section 9.7.14.5, fragment layouts)."""
    if ELEMENT_BYTES[kind] == 4:
        return VALUES[kind](words).reshape(*words.shape[:-1], 8, 4)
    halves = np.ascontiguousarray(words).view(np.uint16).reshape(*words.shape[:-1], 8, 8)
    return VALUES[kind](halves)


def a_matrix(words: Array, kind: str) -> Array:
    """Registers [4 or 2, warps, 32] of operand A -> [warps, 16, columns]: a0 and a1 are the upper and lower rows of the
    left half, or of all columns, a2 and a3 of the right half."""
    part = _eight_rows(words, kind)
    return np.concatenate(list(np.concatenate([part[0::2], part[1::2]], 2)), 2)


def b_matrix(words: Array, kind: str) -> Array:
    """Registers [2 or 4, warps, 32] of operand B -> [warps, 8 columns of B, its rows]."""
    return np.concatenate(list(_eight_rows(words, kind)), 2)


def accumulators(words: Array) -> Array:
    """Registers [4 n, warps, 32] of float32 -> [warps, 16, 8 n]: c0 c1 are columns 2 (i % 4) and the next of row i / 4,
    c2 c3 of row i / 4 + 8."""
    count, warps = words.shape[0] // 4, words.shape[1]
    parts = words.view(np.float32).reshape(count, 2, 2, warps, 8, 4)
    return np.ascontiguousarray(parts.transpose(3, 1, 4, 0, 5, 2)).reshape(warps, 16, 8 * count)


def accumulator_words(values: Array) -> Array:
    """The inverse of `accumulators`."""
    warps, _, columns = values.shape
    parts = values.reshape(warps, 2, 8, columns // 8, 4, 2).transpose(3, 1, 5, 0, 2, 4)
    return np.ascontiguousarray(parts).reshape(columns // 2, warps, LANES).view(np.uint32)


def product(a: Array, b: Array, c: Array) -> Array:
    """[.., M, K] times [.., N, K] transposed, plus [.., M, N], rounded once."""
    exact = np.matmul(a.astype(np.float64), np.swapaxes(b, -1, -2).astype(np.float64))
    return (exact + c).astype(np.float32)


@instruction("mma", modifiers="sync aligned m16n8k32 m16n8k16 m16n8k8 m16n8k4 m8n8k4 row col sp sp_ordered_metadata")
def _multiply(one: Instruction) -> Run:
    """Operands D, A, B, C; of a sparse product also its metadata and the constant that selects lanes of it."""
    sparse = one.opcode[1].startswith("sp")
    result, kind, other, added = types_of(one)
    if (result, kind, other, added, sparse) == ("f64",) * 4 + (False,):
        return _multiply_doubles(one)
    shape = re.fullmatch(r"m16n8k(\d+)", one.opcode[4 if sparse else 3])
    if (result, added) != ("f32", "f32") or kind != other or kind not in VALUES or shape is None:
        raise UnknownCode("kind of product")
    depth = int(shape[1])
    row = depth * ELEMENT_BYTES[kind]
    vectors = [operand.items for operand in one.operands if isinstance(operand, Vector)]
    counts = (4, row // (16 if sparse else 8), row // 16, 4)
    if row not in ((32, 64) if sparse else (32,)) or tuple(map(len, vectors)) != counts:
        raise UnknownCode("shape of product")
    writers = [writer(item, "b32") for item in vectors[0]]
    a, b, c = ([raw_reader(item, 32) for item in items] for items in vectors[1:])
    read_columns = _columns_reader(one, ELEMENT_BYTES[kind], depth) if sparse else None
    products = 16 * 8 * depth // (2 if sparse else 1)

    def run(context: Context, mask: Array | None) -> None:
        lanes = whole_warps(context, mask)
        counters = context.chunk.counters
        counters.add(one.line, "mma.sync", len(lanes))
        counters.add(one.line, "mma.sync products", len(lanes) * products)
        if not context.chunk.schedule.values:
            return
        words = [np.stack([context.spread(read(context))[lanes] for read in reads]) for reads in (a, b, c)]
        operands = a_matrix(words[0], kind), b_matrix(words[1], kind), accumulators(words[2])
        values = sparse_product(*operands, read_columns(context, lanes)) if read_columns else product(*operands)
        for write, one_word in zip(writers, accumulator_words(values), strict=True):
            write(context, scattered(context, one_word, lanes, mask), mask)

    return run


_DOUBLES = {"m8n8k4": (8, 4), "m16n8k4": (16, 4), "m16n8k8": (16, 8), "m16n8k16": (16, 16)}
"""Rows and depth of the products of float64, eight columns wide."""


def _multiply_doubles(one: Instruction) -> Run:
    """Lane i has of A rows i / 4 and, of 16, the one 8 below, alternately, and columns i % 4, 4 further every time all
    rows were met; of B row i % 4, 4 further with each register, and column i / 4; of C and D columns 2 (i % 4) and the
    next of its rows (fragment layouts of .f64)."""
    if one.opcode[3] not in _DOUBLES:
        raise UnknownCode("kind of product")
    rows, depth = _DOUBLES[one.opcode[3]]
    upper, blocks = rows // 8, depth // 4
    vectors = [operand.items if isinstance(operand, Vector) else (operand,) for operand in one.operands]
    if tuple(map(len, vectors)) != (2 * upper, upper * blocks, blocks, 2 * upper):
        raise UnknownCode("shape of product")
    writers = [writer(item, "b64") for item in vectors[0]]
    a, b, c = ([raw_reader(item, 64) for item in items] for items in vectors[1:])

    def run(context: Context, mask: Array | None) -> None:
        lanes = whole_warps(context, mask)
        counters = context.chunk.counters
        counters.add(one.line, "mma.sync", len(lanes))
        counters.add(one.line, "mma.sync products", len(lanes) * rows * 8 * depth)
        if not context.chunk.schedule.values:
            return
        left, right, sums = (
            np.stack([context.spread(read(context))[lanes] for read in reads]).view(np.float64) for reads in (a, b, c)
        )
        warps = left.shape[1]
        # Registers by (block of columns, upper or lower rows), lanes by (row, column).
        of_a = left.reshape(blocks, upper, warps, 8, 4).transpose(2, 1, 3, 0, 4).reshape(warps, rows, depth)
        of_b = right.reshape(blocks, warps, 8, 4).transpose(1, 2, 0, 3).reshape(warps, 8, depth)
        of_c = sums.reshape(upper, 2, warps, 8, 4).transpose(2, 0, 3, 4, 1).reshape(warps, rows, 8)
        values = np.matmul(of_a, np.swapaxes(of_b, 1, 2)) + of_c
        words = values.reshape(warps, upper, 8, 4, 2).transpose(1, 4, 0, 2, 3).reshape(2 * upper, warps, LANES)
        for write, one_word in zip(writers, np.ascontiguousarray(words).view(np.uint64), strict=True):
            write(context, scattered(context, one_word, lanes, mask), mask)

    return run


def _columns_reader(one: Instruction, element: int, depth: int) -> Callable[[Context, Array], Array]:
    """Reads which columns the stored elements of A belong to: [warps, 16, depth / 2], of lanes [warps, 32]."""
    metadata, selector = one.operands[4:]
    read, of_four = raw_reader(metadata, 32), metadata_lanes(element, depth, constant_of(selector))
    ordered = one.opcode[1] == "sp_ordered_metadata"
    return lambda context, lanes: stored_columns(context.spread(read(context))[lanes], element, of_four, ordered)
