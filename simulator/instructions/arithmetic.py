"""Integer and floating-point arithmetic, minima, comparisons and choices (PTX ISA 8.7, sections 9.7.1 to 9.7.6).

`ex2`, `lg2`, `rsqrt`, `rcp`, `sin`, `cos`, `tanh` and `sqrt` with `.approx`, and `div` with `.approx` and `.full`, are
computed exactly and rounded once: a GPU's may differ by the few units that the ISA allows. Everything else is to the
bit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tidepool.simulator.chunk import Context
from tidepool.simulator.faults import Fault, UnknownCode
from tidepool.simulator.instructions.registry import (
    Reader,
    Run,
    computed,
    instruction,
    raw_reader,
    reader,
    types_of,
    writer,
)
from tidepool.simulator.numbers import (
    SIGNED,
    UNSIGNED,
    Array,
    bits_of,
    flush,
    fma32,
    fma_pairs,
)
from tidepool.simulator.ptx import Instruction, Operand, Pair, Sink


def _plain(one: Instruction, function: Callable[..., Array]) -> Run:
    """All operands and the result are of the instruction's type."""
    destination, *operands = one.operands
    if "ftz" in one.opcode:
        unflushed = function
        function = lambda *values: flush(unflushed(*[flush(value) for value in values]))
    return computed(destination, one.type, [(operand, one.type) for operand in operands], function)


def _is_float(type_name: str) -> bool:
    return "f" in type_name and type_name not in ("pred",)


@instruction("add", "sub", modifiers="rn ftz sat cc")
def _add(one: Instruction) -> Run:
    if {"sat", "cc"} & set(one.opcode):
        raise UnknownCode("saturation and carries")
    return _plain(one, np.add if one.name == "add" else np.subtract)


@instruction("mul", modifiers="rn ftz lo hi wide")
def _multiply(one: Instruction) -> Run:
    if _is_float(one.type) or "lo" in one.opcode:
        return _plain(one, np.multiply)
    product, result = _integer_product(one)
    return computed(one.operands[0], result, [(operand, one.type) for operand in one.operands[1:]], product)


def _integer_product(one: Instruction) -> tuple[Callable[[Array, Array], Array], str]:
    """The function and result type of a product that is not the low half."""
    bits = bits_of(one.type)
    kinds: Any = SIGNED if one.type[0] == "s" else UNSIGNED
    if "hi" in one.opcode:
        if bits == 64:
            return (_high_signed if one.type[0] == "s" else _high_unsigned), one.type
        wide = kinds[2 * bits]
        narrow = kinds[bits]
        return (lambda a, b: (a.astype(wide) * b.astype(wide) >> wide(bits)).astype(narrow)), one.type
    wide = kinds[2 * bits]
    return (lambda a, b: a.astype(wide) * b.astype(wide)), f"{one.type[0]}{2 * bits}"


def _high_unsigned(a: Array, b: Array) -> Array:
    """The upper 64 bits of a product of 64 by 64, from products of 32 by 32."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1, b0, b1 = a & low, a >> half, b & low, b >> half
    middle = a1 * b0 + (a0 * b0 >> half)
    return a1 * b1 + (middle >> half) + (a0 * b1 + (middle & low) >> half)


def _high_signed(a: Array, b: Array) -> Array:
    high = _high_unsigned(a.view(np.uint64), b.view(np.uint64)).view(np.int64)
    return high - np.where(a < 0, b, 0) - np.where(b < 0, a, 0)


@instruction("mad", modifiers="lo hi wide")
def _multiply_add(one: Instruction) -> Run:
    destination, a, b, c = one.operands
    if "lo" in one.opcode:
        return _plain(one, lambda x, y, z: x * y + z)
    product, result = _integer_product(one)
    return computed(destination, result, [(a, one.type), (b, one.type), (c, result)], lambda x, y, z: product(x, y) + z)


@instruction("fma", modifiers="rn ftz relu")
def _fused(one: Instruction) -> Run:
    if "relu" in one.opcode:
        raise UnknownCode(".relu")
    if one.type == "f64":
        return _plain(one, _fma64)
    return _plain(one, fma32 if one.type == "f32" else fma_pairs)


def _fma64(a: Array, b: Array, c: Array) -> Array:
    """In extended precision, rounded twice: the last bit of a float64 may differ from one rounding's."""
    return (a.astype(np.longdouble) * b + c).astype(np.float64)


@instruction("neg", modifiers="ftz")
def _negate(one: Instruction) -> Run:
    if _is_float(one.type):
        return _plain(one, np.negative)
    return _plain(one, lambda a: np.zeros(1, a.dtype) - a)


@instruction("abs", modifiers="ftz")
def _absolute(one: Instruction) -> Run:
    return _plain(one, np.abs)


@instruction("min", "max", modifiers="ftz NaN xorsign abs")
def _extreme(one: Instruction) -> Run:
    if {"xorsign", "abs"} & set(one.opcode):
        raise UnknownCode(".xorsign")
    if not _is_float(one.type):
        return _plain(one, np.minimum if one.name == "min" else np.maximum)
    keeps_nan = "NaN" in one.opcode
    if one.name == "min":
        return _plain(one, _ordered_zeros(np.minimum if keeps_nan else np.fmin, first=True))
    return _plain(one, _ordered_zeros(np.maximum if keeps_nan else np.fmax, first=False))


def _ordered_zeros(function: Callable[..., Array], first: bool) -> Callable[[Array, Array], Array]:
    """A minimum or maximum for which -0 is less than +0 (section 9.7.3.12)."""

    def extreme(a: Array, b: Array) -> Array:
        result = function(a, b)
        zeros = (a == 0) & (b == 0)
        if zeros.any():
            negative = (np.signbit(a) | np.signbit(b)) if first else (np.signbit(a) & np.signbit(b))
            result = np.where(zeros, np.where(negative, result.dtype.type(-0.0), result.dtype.type(0.0)), result)
        return result

    return extreme


def _approximate(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda a: function(a.astype(np.float64)).astype(a.dtype)


_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "ex2": _approximate(np.exp2),
    "lg2": _approximate(np.log2),
    "rsqrt": _approximate(lambda a: 1 / np.sqrt(a)),
    "rcp": lambda a: (1 / a).astype(a.dtype),
    "sqrt": np.sqrt,
    "sin": _approximate(np.sin),
    "cos": _approximate(np.cos),
    "tanh": _approximate(np.tanh),
}


@instruction(*_FUNCTIONS, modifiers="approx rn ftz")
def _function(one: Instruction) -> Run:
    return _plain(one, _FUNCTIONS[one.name])


@instruction("div", "rem", modifiers="full approx rn ftz")
def _divide(one: Instruction) -> Run:
    if _is_float(one.type):
        return _plain(one, np.divide)
    destination, a, b = one.operands
    read_a, read_b, write = reader(a, one.type), reader(b, one.type), writer(destination, one.type)
    remainder = one.name == "rem"

    def run(context: Context, mask: Array | None) -> None:
        dividend, divisor = read_a(context), read_b(context)
        zero = divisor == 0
        if zero.any() and (mask is None or (zero & mask).any()):
            raise Fault("division", "integer division by zero")
        write(context, _truncated(dividend, np.where(zero, divisor.dtype.type(1), divisor), remainder), mask)

    return run


def _truncated(a: Array, b: Array, remainder: bool) -> Array:
    """Quotient toward zero, or the remainder that goes with it, of the dividend's sign."""
    if a.dtype.kind == "u":
        return a % b if remainder else a // b
    rest = np.fmod(a, b)
    return rest if remainder else (a - rest) // b


_ORDERED: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
    "equ": lambda a, b: (a == b) | _unordered(a, b),
    "neu": lambda a, b: ~(a == b),
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
    "num": lambda a, b: ~_unordered(a, b),
    "nan": lambda a, b: _unordered(a, b),
}


def _unordered(a: Array, b: Array) -> Array:
    return np.isnan(a) | np.isnan(b)


def _compare(name: str, type_name: str) -> Callable[[Array, Array], Array]:
    if name != "ne":
        return _ORDERED[name]
    # Of floats `ne` is false where one is NaN (section 9.7.6, floating-point comparisons).
    return (lambda a, b: (a != b) & ~_unordered(a, b)) if _is_float(type_name) else np.not_equal


_COMBINE: dict[str, Callable[[Array, Array], Array]] = {
    "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor,
}  # fmt: skip


@instruction("setp", modifiers=f"{' '.join(_ORDERED)} ne and or xor ftz")
def _set_predicate(one: Instruction) -> Run:
    destination, a, b, *rest = one.operands
    compare = _compare(one.opcode[1], one.type)
    read_a, read_b = reader(a, one.type), reader(b, one.type)
    first, second = (destination.first, destination.second) if isinstance(destination, Pair) else (destination, Sink())
    write_first, write_second = writer(first, "pred"), writer(second, "pred")
    pairs = one.type.endswith("x2")
    if rest:
        combine = next(_COMBINE[part] for part in one.opcode if part in _COMBINE)
        read_c = raw_reader(rest[0], 1)
    flushed = "ftz" in one.opcode

    def run(context: Context, mask: Array | None) -> None:
        x, y = read_a(context), read_b(context)
        result = compare(flush(x), flush(y)) if flushed else compare(x, y)
        other = result[:, 1] if pairs else ~result
        result = result[:, 0] if pairs else result
        if rest:
            with_c = read_c(context)
            result, other = combine(result, with_c), combine(other, with_c)
        write_first(context, result, mask)
        if not isinstance(second, Sink):
            write_second(context, other, mask)

    return run


@instruction("set", modifiers=f"{' '.join(_ORDERED)} ne ftz")
def _set(one: Instruction) -> Run:
    """All bits of a result, or 1.0, where the comparison holds."""
    result, compared = types_of(one)
    compare = _compare(one.opcode[1], compared)
    destination, a, b = one.operands
    if compared.endswith("x2"):
        return computed(
            destination, "u16x2", [(a, compared), (b, compared)],
            lambda x, y: np.where(compare(x, y), np.uint16(0xFFFF), np.uint16(0)),
        )  # fmt: skip
    if result == "f32":
        return computed(
            destination, "f32", [(a, compared), (b, compared)], lambda x, y: compare(x, y).astype(np.float32)
        )
    ones = UNSIGNED[32](0xFFFFFFFF)
    return computed(
        destination, "u32", [(a, compared), (b, compared)], lambda x, y: np.where(compare(x, y), ones, np.uint32(0))
    )


@instruction("selp")
def _select(one: Instruction) -> Run:
    destination, a, b, predicate = one.operands
    raw = f"b{bits_of(one.type)}"
    read_a, read_b = reader(a, raw), reader(b, raw)
    read_p = raw_reader(predicate, 1)
    write = writer(destination, raw)

    def run(context: Context, mask: Array | None) -> None:
        choice = read_p(context)
        if choice.shape[0] == 1:
            write(context, _shared(context, a if choice[0] else b, read_a if choice[0] else read_b), mask)
        else:
            write(context, np.where(choice, read_a(context), read_b(context)), mask)

    return run


def _shared(context: Context, operand: Operand, read: Reader) -> Array:
    number = getattr(operand, "number", None)
    if number is not None:
        context.registers.share(number)
    return read(context)


@instruction("popc", "clz", "brev")
def _count_bits(one: Instruction) -> Run:
    bits = bits_of(one.type)
    result = "b32" if one.name != "brev" else one.type
    return computed(one.operands[0], result, [(one.operands[1], f"b{bits}")], _BIT_COUNTS[one.name](bits))


def _leading_zeros(bits: int) -> Callable[[Array], Array]:
    def count(a: Array) -> Array:
        length = np.zeros(a.shape, np.uint32)
        for _ in range(bits):
            length += (a != 0).astype(np.uint32)
            a = a >> a.dtype.type(1)
        return np.uint32(bits) - length

    return count


def _reversed(bits: int) -> Callable[[Array], Array]:
    def reverse(a: Array) -> Array:
        result = np.zeros_like(a)
        for place in range(bits):
            result |= (a >> a.dtype.type(place) & a.dtype.type(1)) << a.dtype.type(bits - 1 - place)
        return result

    return reverse


_BIT_COUNTS: dict[str, Callable[[int], Callable[[Array], Array]]] = {
    "popc": lambda bits: lambda a: np.bitwise_count(a).astype(np.uint32),
    "clz": _leading_zeros,
    "brev": _reversed,
}


@instruction("copysign")
def _copysign(one: Instruction) -> Run:
    return _plain(one, lambda a, b: np.copysign(b, a))
