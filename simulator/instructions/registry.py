"""Decoders by instruction name, and how operands are read and results written.

A decoder looks at an instruction once and returns what runs it: a function of a context and the lanes that take part
(None: all), which returns None, or what the context has to wait for before the instruction can be done.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tidepool.simulator.chunk import Context
from tidepool.simulator.faults import UnknownCode
from tidepool.simulator.numbers import SIGNED, UNSIGNED, Array, bits_of, decoder, encoder, register_dtype
from tidepool.simulator.ptx import Address, Immediate, Instruction, Operand, Register, Sink, Special, Symbol, Vector

Run = Callable[[Context, Array | None], Any]
Decoder = Callable[[Instruction], Run]
Reader = Callable[[Context], Array]
Writer = Callable[[Context, Array, Array | None], None]

_DECODERS: dict[str, tuple[Decoder, frozenset[str]]] = {}
_TYPES = re.compile(r"[bsuf](?:8|16|32|64|128)|b?f16|b?f16x2|[su]16x2|tf32|pred")
PARAMETERS = 1 << 30
"""Where kernel parameters lie as addresses, of 32 bits too, for instructions that are given the address of one."""


def instruction(*names: str, modifiers: str = "") -> Callable[[Decoder], Decoder]:
    """Register a decoder of these instructions, with the modifiers it understands besides types."""

    def register(decode_one: Decoder) -> Decoder:
        for name in names:
            _DECODERS[name] = decode_one, frozenset(modifiers.split())
        return decode_one

    return register


def decode(one: Instruction) -> Run:
    """What runs an instruction. Raises UnknownCode that names the opcode and its line."""
    if one.name not in _DECODERS:
        raise UnknownCode(f"opcode {'.'.join(one.opcode)} ({one.line}): {one.text}")
    decode_one, modifiers = _DECODERS[one.name]
    strange = [part for part in one.opcode[1:] if part not in modifiers and not _TYPES.fullmatch(part)]
    if strange:
        raise UnknownCode(f"modifier .{strange[0]} of {'.'.join(one.opcode)} ({one.line}): {one.text}")
    try:
        return decode_one(one)
    except UnknownCode as error:
        raise UnknownCode(f"{error} in {one.text} ({one.line})") from None


def known_names() -> tuple[str, ...]:
    """The instructions there are decoders for."""
    return tuple(sorted(_DECODERS))


def types_of(one: Instruction) -> list[str]:
    """The types among an instruction's modifiers, in order."""
    return [part for part in one.opcode[1:] if _TYPES.fullmatch(part)]


def raw_reader(operand: Operand, bits: int, program_parameters: Any = None) -> Reader:
    """Reads an operand's bits, cut or zero-extended to a width."""
    dtype: Any = register_dtype(bits)
    if isinstance(operand, Register):
        number = operand.number
        if operand.bits == bits:
            return lambda context: context.read(number)
        return lambda context: context.read(number).astype(dtype)
    if isinstance(operand, Immediate):
        value = bool(operand.value) if bits == 1 else operand.value & ((1 << bits) - 1)
        constant = np.array([value], dtype)
        return lambda context: constant
    if isinstance(operand, Special):
        name = operand.name
        return lambda context: context.special(name).astype(dtype, copy=False)
    if isinstance(operand, Symbol):
        return _symbol_reader(operand.name, dtype)
    if isinstance(operand, Vector):
        return _vector_reader(operand, bits)
    raise UnknownCode(f"operand {operand}")


def _symbol_reader(name: str, dtype: Any) -> Reader:
    def read(context: Context) -> Array:
        program = context.chunk.program
        if name in program.shared:
            return np.array([program.shared[name]], dtype)
        return np.array([PARAMETERS + program.parameters[name].offset], dtype)

    return read


def _vector_reader(vector: Vector, bits: int) -> Reader:
    part = bits // len(vector.items)
    readers = [raw_reader(item, part) for item in vector.items]
    dtype = UNSIGNED[bits]

    def read(context: Context) -> Array:
        values = np.broadcast_arrays(*[one(context) for one in readers])
        return np.ascontiguousarray(np.stack(values, 1)).view(dtype).reshape(-1)

    return read


def reader(operand: Operand, type_name: str) -> Reader:
    """Reads an operand's values as a type."""
    raw = raw_reader(operand, bits_of(type_name))
    values = decoder(type_name)
    if isinstance(operand, Immediate):
        constant = values(raw(None))  # type: ignore[arg-type]
        return lambda context: constant
    return lambda context: values(raw(context))


def writer(operand: Operand, type_name: str) -> Writer:
    """Writes values of a type to an operand: rounded to it, and extended to the register by its sign."""
    if isinstance(operand, Sink):
        return lambda context, values, mask: None
    to_bits = encoder(type_name)
    if isinstance(operand, Vector):
        return _vector_writer(operand, type_name)
    if not isinstance(operand, Register):
        raise UnknownCode(f"destination {operand}")
    number, bits, width = operand.number, operand.bits, bits_of(type_name)
    if bits == width:
        return lambda context, values, mask: context.write(number, to_bits(values), mask)
    narrow: Any = SIGNED[width] if type_name[0] == "s" else UNSIGNED[width]
    wide: Any = SIGNED[bits] if type_name[0] == "s" else UNSIGNED[bits]
    dtype = UNSIGNED[bits]

    def write(context: Context, values: Array, mask: Array | None) -> None:
        context.write(number, to_bits(values).view(narrow).astype(wide).view(dtype), mask)

    return write


def _vector_writer(vector: Vector, type_name: str) -> Writer:
    bits = bits_of(type_name)
    part = bits // len(vector.items)
    writers = [writer(item, f"b{part}") for item in vector.items]
    dtype = UNSIGNED[part]

    def write(context: Context, values: Array, mask: Array | None) -> None:
        pieces = np.ascontiguousarray(values).view(dtype).reshape(values.shape[0], -1)
        for place, one in enumerate(writers):
            one(context, np.ascontiguousarray(pieces[:, place]), mask)

    return write


def computed(
    destination: Operand, result: str, operands: Iterable[tuple[Operand, str]], function: Callable[..., Array]
) -> Run:
    """Runs `function` on the operands' values and writes what it returns, values of type `result`."""
    readers = [reader(operand, type_name) for operand, type_name in operands]
    write = writer(destination, result)
    if len(readers) == 1:
        (only,) = readers
        return lambda context, mask: write(context, function(only(context)), mask)
    if len(readers) == 2:
        first, second = readers
        return lambda context, mask: write(context, function(first(context), second(context)), mask)
    return lambda context, mask: write(context, function(*[read(context) for read in readers]), mask)


def address_reader(operand: Operand) -> Reader:
    """Reads addresses, one a lane of the slice, as int64."""
    if not isinstance(operand, Address):
        raise UnknownCode(f"address {operand}")
    bits = operand.base.bits if isinstance(operand.base, Register) else 64
    base, offset = raw_reader(operand.base, bits), operand.offset

    def read(context: Context) -> Array:
        return context.spread(base(context).astype(np.int64) + offset)

    return read


def items_of(operand: Operand) -> tuple[Operand, ...]:
    """The parts of a vector, or the one operand."""
    return operand.items if isinstance(operand, Vector) else (operand,)


def constant_of(operand: Operand) -> int:
    """The value of an operand that has to be a constant."""
    if not isinstance(operand, Immediate):
        raise UnknownCode(f"operand {operand} that is no constant")
    return operand.value
