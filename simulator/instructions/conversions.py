"""cvt: from one type to another (PTX ISA 8.7, section 9.7.9.21)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tidepool.simulator.chunk import Context
from tidepool.simulator.faults import UnknownCode
from tidepool.simulator.instructions.registry import Run, computed, instruction, reader, types_of, writer
from tidepool.simulator.numbers import SIGNED, UNSIGNED, Array, bf16_bits, bits_of, f16_bits, flush, round_tf32
from tidepool.simulator.numbers import to_integer as rounded_integer
from tidepool.simulator.ptx import Instruction

_WHOLE: dict[str, Callable[[Array], Array]] = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@instruction("cvt", modifiers="rn rz rna ftz sat rni rzi rmi rpi satfinite")
def _convert(one: Instruction) -> Run:
    result, source = types_of(one)
    if result in ("bf16x2", "f16x2"):
        return _packed(one, result, source)
    if result == "tf32":
        if "rna" not in one.opcode:
            raise UnknownCode("rounding of tf32")
        return computed(one.operands[0], "b32", [(one.operands[1], "f32")], round_tf32)
    if "rz" in one.opcode or "sat" in one.opcode or "satfinite" in one.opcode:
        raise UnknownCode("rounding toward zero and saturation")
    convert = _conversion(result, source, one)
    if "ftz" in one.opcode:
        return computed(one.operands[0], result, [(one.operands[1], source)], lambda a: flush(convert(flush(a))))
    return computed(one.operands[0], result, [(one.operands[1], source)], convert)


def _conversion(result: str, source: str, one: Instruction) -> Callable[[Array], Array]:
    if result in ("bf16", "f16"):
        return _to_half
    dtype: Any
    if result[0] == "f":
        dtype = {32: np.float32, 64: np.float64}[bits_of(result)]
        whole = next((_WHOLE[part] for part in one.opcode if part in _WHOLE), None)
        if whole is not None:
            return lambda a: whole(a).astype(dtype)
    else:
        dtype = (SIGNED if result[0] == "s" else UNSIGNED)[bits_of(result)]
        if "f" in source:
            rounding = next(part for part in one.opcode if part in _WHOLE)
            return lambda a: rounded_integer(a, dtype, rounding)
    return lambda a: a.astype(dtype)


def _to_half(a: Array) -> Array:
    """What the writer rounds to 16 bits; 64-bit values by way of float32 would be rounded twice."""
    if a.dtype == np.float64 or (a.dtype.kind in "iu" and a.dtype.itemsize > 2):
        raise UnknownCode("16-bit floats from wide types")
    return a.astype(np.float32)


def _packed(one: Instruction, result: str, source: str) -> Run:
    """Two float32 to one register: the first operand is the upper half."""
    if source != "f32" or "relu" in one.opcode:
        raise UnknownCode(f"{result} of {source}")
    destination, upper, lower = one.operands
    to_bits = bf16_bits if result == "bf16x2" else f16_bits
    read_upper, read_lower, write = reader(upper, source), reader(lower, source), writer(destination, "b32")

    def run(context: Context, mask: Array | None) -> None:
        high, low = to_bits(read_upper(context)), to_bits(read_lower(context))
        write(context, high.astype(np.uint32) << np.uint32(16) | low, mask)

    return run
