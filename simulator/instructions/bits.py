"""Logic, shifts and bit fields (PTX ISA 8.7, sections 9.7.7 and 9.7.1)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tidepool.simulator.instructions.registry import Run, computed, constant_of, instruction
from tidepool.simulator.numbers import SIGNED, UNSIGNED, Array, bits_of
from tidepool.simulator.ptx import Instruction

_LOGIC: dict[str, Callable[..., Array]] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
}


@instruction(*_LOGIC)
def _logic(one: Instruction) -> Run:
    destination, *operands = one.operands
    return computed(destination, one.type, [(operand, one.type) for operand in operands], _LOGIC[one.name])


@instruction("lop3")
def _any_logic(one: Instruction) -> Run:
    """Any function of three bits: bit 4a + 2b + c of the table says what comes out."""
    destination, *operands, table = one.operands
    wanted = constant_of(table)

    def look_up(a: Array, b: Array, c: Array) -> Array:
        result = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), a.dtype)
        for row in range(8):
            if wanted >> row & 1:
                result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        return result

    return computed(destination, "b32", [(operand, "b32") for operand in operands], look_up)


@instruction("shl", "shr")
def _shift(one: Instruction) -> Run:
    """By 32-bit counts; a count beyond the width shifts everything out (a sign stays)."""
    destination, value, count = one.operands
    bits = bits_of(one.type)
    operands = [(value, one.type), (count, "u32")]
    return computed(destination, one.type, operands, _left(bits) if one.name == "shl" else _right(bits))


def _left(bits: int) -> Callable[[Array, Array], Array]:
    def shift(a: Array, count: Array) -> Array:
        moved = a << np.minimum(count, bits - 1).astype(a.dtype)
        return np.where(count >= bits, a.dtype.type(0), moved) if (count >= bits).any() else moved

    return shift


def _right(bits: int) -> Callable[[Array, Array], Array]:
    def shift(a: Array, count: Array) -> Array:
        moved = a >> np.minimum(count, bits - 1).astype(a.dtype)
        if a.dtype.kind == "i" or not (count >= bits).any():
            return moved
        return np.where(count >= bits, a.dtype.type(0), moved)

    return shift


@instruction("shf", modifiers="l r wrap clamp")
def _funnel(one: Instruction) -> Run:
    """32 bits out of 64, moved left (the upper half comes out) or right (the lower)."""
    destination, low, high, count = one.operands
    left, wraps = "l" in one.opcode, "wrap" in one.opcode

    def shift(a: Array, b: Array, n: Array) -> Array:
        both = b.astype(np.uint64) << np.uint64(32) | a
        n = (n & 31 if wraps else np.minimum(n, 32)).astype(np.uint64)
        moved = both << n >> np.uint64(32) if left else both >> n
        return moved.astype(np.uint32)

    return computed(destination, "b32", [(low, "b32"), (high, "b32"), (count, "u32")], shift)


@instruction("bfe")
def _extract(one: Instruction) -> Run:
    """`length` bits from `position` on, extended by the sign of the field's last bit that exists."""
    destination, value, position, length = one.operands
    bits = bits_of(one.type)
    signed = one.type[0] == "s"
    kinds: Any = SIGNED if signed else UNSIGNED

    def extract(a: Array, at: Array, count: Array) -> Array:
        at, count = at & 0xFF, count & 0xFF
        end = np.minimum(at + count, bits)
        up = (bits - end).astype(a.dtype)
        kept = np.minimum(np.minimum(at, bits) + up.astype(np.uint32), bits - 1).astype(a.dtype)
        field = (a << up) >> kept
        beyond = np.right_shift(a, a.dtype.type(bits - 1)) if signed else np.zeros(1, kinds[bits])
        return np.where(count == 0, a.dtype.type(0), np.where(at >= bits, beyond, field))

    return computed(destination, one.type, [(value, one.type), (position, "u32"), (length, "u32")], extract)


@instruction("bfi")
def _insert(one: Instruction) -> Run:
    """The low `length` bits of one value put over another from `position` on."""
    destination, value, under, position, length = one.operands
    bits = bits_of(one.type)
    dtype = UNSIGNED[bits]

    def insert(a: Array, b: Array, at: Array, count: Array) -> Array:
        at, count = (at & 0xFF).astype(np.uint64), np.minimum(count & 0xFF, bits).astype(np.uint64)
        ones = np.where(count >= 64, ~np.uint64(0), (np.uint64(1) << np.minimum(count, 63)) - np.uint64(1))
        place = np.minimum(at, 63)
        field = np.where(at >= bits, np.uint64(0), ones << place).astype(dtype)
        return (b & ~field) | ((a.astype(np.uint64) << place).astype(dtype) & field)

    operands = [(value, one.type), (under, one.type), (position, "u32"), (length, "u32")]
    return computed(destination, one.type, operands, insert)


@instruction("prmt")
def _permute(one: Instruction) -> Run:
    """Four bytes out of eight, by four bits each: three for the byte, one to spread its sign."""
    destination, a, b, selector = one.operands

    def permute(low: Array, high: Array, choice: Array) -> Array:
        both = high.astype(np.uint64) << np.uint64(32) | low
        result = np.zeros(np.broadcast_shapes(both.shape, choice.shape), np.uint32)
        for place in range(4):
            code = choice >> np.uint32(4 * place) & np.uint32(15)
            byte = (both >> ((code & 7) * 8).astype(np.uint64) & np.uint64(0xFF)).astype(np.uint32)
            sign = np.where(byte & 0x80, np.uint32(0xFF), np.uint32(0))
            result |= np.where(code & 8, sign, byte) << np.uint32(8 * place)
        return result

    return computed(destination, "b32", [(a, "b32"), (b, "b32"), (selector, "b32")], permute)
