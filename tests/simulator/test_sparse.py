"""Products with a sparse A: random 2:4 (of 32-bit elements 1:2) integers, encoded here on their own, against the dense
product. Lanes that hold no metadata hold what would be invalid."""

from dataclasses import dataclass

import numpy as np
import pytest

from tests.simulator.ptx_kernels import EAGER, LATE, execute, kernel
from tidepool.simulator.faults import Fault, UnknownCode
from tidepool.simulator.machine import steps_of
from tidepool.simulator.numbers import Array, bf16_bits, f16_bits
from tidepool.simulator.ptx import parse
from tidepool.simulator.schedule import Schedule
from tidepool.simulator.tensor_map import swizzled

BITS = {"f16": f16_bits, "bf16": bf16_bits, "tf32": lambda values: values.view(np.uint32)}
WIDTH = {"f16": 2, "bf16": 2, "tf32": 4}
INVALID = 0xFFFFFFFF
COLUMNS = 16
"""Columns of B in the products of a warp group."""


@dataclass
class Sparse:
    """A [rows, depth], what is stored of it [rows, depth / 2], and the four bits of each chunk [rows, chunks]."""

    dense: Array
    stored: Array
    nibbles: Array


def sparse(rows: int, depth: int, kind: str, seed: int, ordered: bool = True) -> Sparse:
    random = np.random.default_rng(seed)
    chunk = 8 // WIDTH[kind]
    dense = np.zeros((rows, depth), np.float32)
    stored = np.zeros((rows, depth // 2), np.float32)
    nibbles = np.zeros((rows, depth // chunk), np.uint32)
    for row in range(rows):
        for number in range(depth // chunk):
            values = random.integers(-4, 5, 2).astype(np.float32)
            if chunk == 2:
                kept = int(random.integers(2))
                dense[row, 2 * number + kept] = stored[row, number] = values[0]
                nibbles[row, number] = (0b0100, 0b1110)[kept]
            else:
                first, second = random.choice(4, 2, replace=False).tolist()
                if ordered:
                    first, second = min(first, second), max(first, second)
                dense[row, 4 * number + first], dense[row, 4 * number + second] = values
                stored[row, 2 * number : 2 * number + 2] = values
                nibbles[row, number] = first | second << 2
    return Sparse(dense, stored, nibbles)


def lane_words(nibbles: Array, selector: int) -> Array:
    """[32]: the metadata registers of a warp for 16 rows: bit 16 h + 4 c of lane 4g + p begins chunk 4p + c of row
    g + 8h, where p counts from the selected lane (CUTLASS's ELayout_64x32 and ELayout_64x16 say the same)."""
    words = np.full(32, INVALID, np.uint32)
    each = nibbles.shape[1] // 4
    for group in range(8):
        for part in range(each):
            word = 0
            for half in range(2):
                for number in range(4):
                    word |= int(nibbles[group + 8 * half, 4 * part + number]) << (16 * half + 4 * number)
            words[4 * group + each * selector + part] = word
    return words


def fragments(matrix: Array, kind: str, rows_per_pair: int) -> Array:
    """[32, registers] of a matrix whose rows lie 8 by 8 over the lanes: `rows_per_pair` rows, then the next columns."""
    bits = BITS[kind](matrix)
    each = 8 if WIDTH[kind] == 2 else 4
    registers = []
    for first in range(0, matrix.shape[1], each):
        for row in range(0, rows_per_pair, 8):
            block = np.ascontiguousarray(bits[row : row + 8, first : first + each])
            registers.append(block.view(np.uint32).reshape(32))
    return np.stack(registers, 1)


def names(count: int, first: int) -> str:
    return ", ".join(f"%r{first + number}" for number in range(count))


def loads(count: int, first: int, pointer: int) -> str:
    """Each thread's own `count` words of an array, into registers from `first` on."""
    body = f"mad.wide.u32 %rd10, %r0, {4 * count}, %rd{pointer};"
    return body + "".join(f"ld.global.b32 %r{first + n}, [%rd10+{4 * n}];" for n in range(count))


def stores(count: int, first: int, pointer: int) -> str:
    body = f"mad.wide.u32 %rd10, %r0, {4 * count}, %rd{pointer};"
    return body + "".join(f"st.global.b32 [%rd10+{4 * n}], %r{first + n};" for n in range(count))


def warp_product(a: Sparse, b: Array, metadata: Array, kind: str, selector: int, qualifier: str = "sp") -> Array:
    """[16, 8]: 1 + A B by mma.sp; b [8, depth]."""
    fragment_a, fragment_b = fragments(a.stored, kind, 16), fragments(b, kind, 8)
    counts = fragment_a.shape[1], fragment_b.shape[1]
    out = np.zeros((32, 4), np.float32)
    shape = f"m16n8k{a.dense.shape[1]}"
    body = f"""{loads(counts[0], 20, 1)} {loads(counts[1], 30, 2)} {loads(1, 40, 3)}
    mov.b32 %r50, 0f3F800000; mov.b32 %r51, 0f3F800000; mov.b32 %r52, 0f3F800000; mov.b32 %r53, 0f3F800000;
    mma.{qualifier}.sync.aligned.{shape}.row.col.f32.{kind}.{kind}.f32 {{{names(4, 60)}}}, {{{names(counts[0], 20)}}},
    {{{names(counts[1], 30)}}}, {{{names(4, 50)}}}, %r40, {selector}; {stores(4, 60, 4)}"""
    execute(body, fragment_a, fragment_b, metadata, out)
    return np.concatenate([out[:, :2].reshape(8, 8), out[:, 2:].reshape(8, 8)])


def other(columns: int, depth: int, seed: int) -> Array:
    return np.random.default_rng(seed + 100).integers(-8, 9, (columns, depth)).astype(np.float32)


SHAPES = [
    (kind, depth, selector)
    for kind, depths in {"f16": (16, 32), "bf16": (16, 32), "tf32": (8, 16)}.items()
    for depth in depths
    for selector in ((0, 1, 2, 3) if depth == depths[0] else (0, 1))
]


@pytest.mark.parametrize("qualifier", ["sp", "sp::ordered_metadata"])
@pytest.mark.parametrize(("kind", "depth", "selector"), SHAPES)
def test_a_warps_sparse_product_is_the_dense_one(kind: str, depth: int, selector: int, qualifier: str) -> None:
    a, b = sparse(16, depth, kind, selector), other(8, depth, selector)
    found = warp_product(a, b, lane_words(a.nibbles, selector), kind, selector, qualifier)
    assert (found == 1 + a.dense @ b.T).all()


def test_indices_in_any_order_unless_they_are_said_to_be_ordered() -> None:
    a, b = sparse(16, 32, "f16", 5, ordered=False), other(8, 32, 5)
    words = lane_words(a.nibbles, 0)
    assert (warp_product(a, b, words, "f16", 0) == 1 + a.dense @ b.T).all()
    with pytest.raises(Fault, match=r"matrix: .*indices do not increase"):
        warp_product(a, b, words, "f16", 0, "sp::ordered_metadata")


@pytest.mark.parametrize("nibble", [0b0000, 0b0101, 0b1010, 0b1111])
@pytest.mark.parametrize("qualifier", ["sp", "sp::ordered_metadata"])
def test_the_same_index_twice_is_told(nibble: int, qualifier: str) -> None:
    a = sparse(16, 16, "bf16", 6)
    a.nibbles[11, 2] = nibble
    with pytest.raises(Fault, match=r"matrix: .*same index twice"):
        warp_product(a, other(8, 16, 6), lane_words(a.nibbles, 1), "bf16", 1, qualifier)


@pytest.mark.parametrize("nibble", [0b0001, 0b1001, 0b1011, 0b1100, 0b0000])
def test_metadata_of_32_bit_elements_has_two_values(nibble: int) -> None:
    a = sparse(16, 16, "tf32", 7)
    a.nibbles[3, 5] = nibble
    with pytest.raises(Fault, match=r"matrix: .*0b0100 and 0b1110"):
        warp_product(a, other(8, 16, 7), lane_words(a.nibbles, 1), "tf32", 1)


def test_what_a_does_not_store_takes_no_part() -> None:
    a, b = sparse(16, 16, "f16", 8), other(8, 16, 8)
    a.nibbles[:] = 0b0100  # columns 0 and 1 of each four
    dense = np.zeros_like(a.dense)
    dense[:, [0, 1, 4, 5, 8, 9, 12, 13]] = a.stored
    expected = 1 + dense @ b.T
    b[:, 2::4], b[:, 3::4] = np.inf, np.nan
    assert (warp_product(a, b, lane_words(a.nibbles, 0), "f16", 0) == expected).all()


WARP = "mma.sp.sync.aligned.{}.row.col.f32.{}.{}.f32 {{%r1, %r2, %r3, %r4}}, {{{}}}, {{{}}}, {{%r1, %r2, %r3, %r4}}, "


@pytest.mark.parametrize(
    "text",
    [
        WARP.format("m16n8k16", "f16", "f16", "%r1, %r2", "%r1, %r2") + "%r5, 4;",
        WARP.format("m16n8k32", "f16", "f16", names(4, 1), names(4, 1)) + "%r5, 2;",
        WARP.format("m16n8k8", "f16", "f16", "%r1", "%r1") + "%r5, 0;",
        WARP.format("m16n8k32", "f16", "f16", names(2, 1), names(4, 1)) + "%r5, 0;",
        WARP.format("m16n8k16", "f16", "bf16", "%r1, %r2", "%r1, %r2") + "%r5, 0;",
    ],
)
def test_shapes_and_selectors_that_there_are_not(text: str) -> None:
    with pytest.raises(UnknownCode, match=r"selector|product"):
        steps_of(parse(kernel(text, 0)))


def image_of(matrix: Array, kind: str, pattern: int) -> Array:
    """Bytes of [rows, columns] with columns in rows: 8 rows of 16 bytes lie together, those of the same rows follow one
    another; with a pattern, rows of its bytes swizzled."""
    raw = np.ascontiguousarray(BITS[kind](matrix)).view(np.uint8)
    size = raw.shape[1]
    image = np.zeros(matrix.shape[0] * max(size, pattern), np.uint8)
    for row in range(matrix.shape[0]):
        for byte in range(size):
            if pattern:
                place = int(swizzled(np.array([row * pattern + byte]), pattern)[0])
            else:
                place = row // 8 * 8 * size + byte // 16 * 128 + row % 8 * 16 + byte % 16
            image[place] = raw[row, byte]
    return image


def descriptor(start: int, row_bytes: int, pattern: int) -> int:
    number = {0: 0, 128: 1, 64: 2, 32: 3}[pattern]
    return start >> 4 | 128 >> 4 << 16 | (8 * max(row_bytes, pattern) >> 4) << 32 | number << 62


def group_product(
    a: Sparse, b: Array, kind: str, selector: int, schedule: Schedule, *, registers: bool, pattern: int = 0
) -> Array:
    """[64, COLUMNS]: A B by wgmma.sp; b [COLUMNS, depth]. A lies in shared memory at 0, B at 8192."""
    image = np.zeros(12288, np.uint8)
    part = image_of(a.stored, kind, 0)
    image[: len(part)] = part
    part = image_of(b, kind, pattern)
    image[8192 : 8192 + len(part)] = part
    warps = [slice(16 * warp, 16 * warp + 16) for warp in range(4)]
    fragment_a = np.concatenate([fragments(a.stored[rows], kind, 16) for rows in warps])
    metadata = np.concatenate([lane_words(a.nibbles[rows], selector) for rows in warps])
    out = np.zeros((128, COLUMNS // 2), np.float32)
    copies = "".join(
        f"ld.global.b32 %r1, [%rd11+{512 * n}]; st.shared.b32 [%r2+{512 * n}], %r1;" for n in range(len(image) // 512)
    )
    depth = b.shape[1]
    operand_a, turned = (f"{{{names(4, 20)}}}", ", 0") if registers else ("%rd21", ", 0, 0")
    body = f"""mad.wide.u32 %rd11, %r0, 4, %rd4; shl.b32 %r2, %r0, 2; {copies}
    {loads(4, 20, 1)} {loads(1, 30, 2)} setp.eq.u32 %p1, %r0, 1000;
    mov.b64 %rd21, {descriptor(0, 32, 0)}; mov.b64 %rd22, {descriptor(8192, depth * WIDTH[kind], pattern)};
    fence.proxy.async.shared::cta; bar.sync 0; wgmma.fence.sync.aligned;
    wgmma.mma_async.sp.sync.aligned.m64n{COLUMNS}k{depth}.f32.{kind}.{kind} {{{names(COLUMNS // 2, 60)}}},
    {operand_a}, %rd22, %r30, {selector}, %p1, 1, 1{turned if kind != "tf32" else ""};
    wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0; {stores(COLUMNS // 2, 60, 3)}"""
    execute(body, fragment_a, metadata, out, image, threads=128, shared=len(image), schedule=schedule)
    parts = out.reshape(4, 8, 4, COLUMNS // 8, 2, 2)  # warp, row, quarter, columns by 8, upper or lower, column
    return parts.transpose(0, 4, 1, 3, 2, 5).reshape(64, COLUMNS)


@pytest.mark.parametrize("schedule", [EAGER, LATE, Schedule(kind="seeded", seed=2)], ids=lambda one: one.kind)
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("registers", [False, True], ids=["shared", "registers"])
@pytest.mark.parametrize("kind", ["f16", "bf16", "tf32"])
def test_a_warp_groups_sparse_product_is_the_dense_one(
    kind: str, registers: bool, selector: int, schedule: Schedule
) -> None:
    depth = 64 // WIDTH[kind]
    a, b = sparse(64, depth, kind, selector, ordered=False), other(COLUMNS, depth, selector)
    found = group_product(a, b, kind, selector, schedule, registers=registers)
    assert (found == a.dense @ b.T).all()


@pytest.mark.parametrize("pattern", [64, 128])
def test_b_in_a_swizzle_pattern(pattern: int) -> None:
    a, b = sparse(64, 32, "f16", 3), other(COLUMNS, 32, 3)
    assert (group_product(a, b, "f16", 0, LATE, registers=False, pattern=pattern) == a.dense @ b.T).all()


def test_rows_of_b_wider_than_their_pattern_are_refused() -> None:
    a, b = sparse(64, 32, "f16", 3), other(COLUMNS, 32, 3)
    with pytest.raises(UnknownCode, match="64 bytes in a row, in a pattern of 32"):
        group_product(a, b, "f16", 0, EAGER, registers=False, pattern=32)


@pytest.mark.parametrize("row", [0, 9, 25, 63])
def test_each_warp_has_the_metadata_of_its_rows(row: int) -> None:
    a = sparse(64, 32, "f16", 4)
    a.nibbles[row, 7] = 0b1010
    with pytest.raises(Fault, match=r"matrix: .*same index twice"):
        group_product(a, other(COLUMNS, 32, 4), "f16", 1, EAGER, registers=False)
