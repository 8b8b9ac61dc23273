"""PTX's number types in NumPy: what a register's bits mean, and rounding as the PTX ISA 8.7 prescribes (section 9.7.3).

Registers hold unsigned integers (predicates bool). `decode` gives the values of a type: integers of the right sign,
float32 or float64; 16-bit floats as float32, packed pairs with a last axis of two. `encode` rounds values to a type's
bits, to nearest even, NaN as the canonical one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidepool.simulator.faults import UnknownCode

Array = NDArray[Any]

UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
SIGNED: dict[int, type[np.signedinteger[Any]]] = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
_WORDS: dict[str, int] = {
    "f16": 16,
    "bf16": 16,
    "f16x2": 32,
    "bf16x2": 32,
    "s16x2": 32,
    "u16x2": 32,
    "tf32": 32,
    "pred": 1,
}
SMALLEST_NORMAL = np.float32(2.0**-126)


def bits_of(type_name: str) -> int:
    """Width of a type in bits. Raises UnknownCode."""
    if type_name in _WORDS:
        return _WORDS[type_name]
    if type_name[:1] in "busf" and type_name[1:].isdigit():
        return int(type_name[1:])
    raise UnknownCode(f"type .{type_name}")


def register_dtype(bits: int) -> type[np.generic]:
    """What a register of that width is kept as."""
    return np.bool_ if bits == 1 else UNSIGNED[bits]


def decoder(type_name: str) -> Callable[[Array], Array]:
    """Bits of a type -> values."""
    bits = bits_of(type_name)
    if type_name == "pred":
        return lambda raw: raw
    if type_name in ("bf16", "f16"):
        return bf16_values if type_name == "bf16" else f16_values
    if type_name.endswith("x2"):
        return _PAIRS[type_name]
    if type_name == "tf32":
        return tf32_values
    dtype: Any = {32: np.float32, 64: np.float64}[bits] if type_name[0] == "f" else UNSIGNED[bits]
    if type_name[0] == "s":
        dtype = SIGNED[bits]
    return lambda raw: raw.view(dtype)


def encoder(type_name: str) -> Callable[[Array], Array]:
    """Values -> bits of a type, rounded to nearest even."""
    if type_name == "pred":
        return lambda values: values
    if type_name in ("bf16", "f16"):
        return bf16_bits if type_name == "bf16" else f16_bits
    if type_name.endswith("x2"):
        return _FROM_PAIRS[type_name]
    dtype = UNSIGNED[bits_of(type_name)]
    return lambda values: np.ascontiguousarray(values).view(dtype)


def bf16_values(raw: Array) -> Array:
    """bfloat16 is the upper half of a float32."""
    return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)


def bf16_bits(values: Array) -> Array:
    """To nearest even; NaN becomes 0x7FFF (section 9.7.9.21, cvt)."""
    raw = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (raw + np.uint32(0x7FFF) + ((raw >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded.astype(np.uint16))


def f16_values(raw: Array) -> Array:
    """float16 as float32, exactly."""
    return raw.view(np.float16).astype(np.float32)


def f16_bits(values: Array) -> Array:
    """To nearest even; NaN becomes 0x7FFF."""
    half = np.asarray(values).astype(np.float16)
    return np.where(np.isnan(half), np.uint16(0x7FFF), half.view(np.uint16))


def tf32_values(raw: Array) -> Array:
    """The upper 19 bits of a float32: what the tensor cores read of one (section 5.2.3)."""
    return (raw & np.uint32(0xFFFFE000)).view(np.float32)


def _halves(raw: Array) -> Array:
    return np.ascontiguousarray(raw).view(np.uint16).reshape(*raw.shape, 2)


def _whole(halves: Array) -> Array:
    return np.ascontiguousarray(halves).view(np.uint32).reshape(halves.shape[:-1])


_PAIRS: dict[str, Callable[[Array], Array]] = {
    "bf16x2": lambda raw: bf16_values(_halves(raw)),
    "f16x2": lambda raw: f16_values(_halves(raw)),
    "s16x2": lambda raw: _halves(raw).view(np.int16),
    "u16x2": _halves,
}
_FROM_PAIRS: dict[str, Callable[[Array], Array]] = {
    "bf16x2": lambda values: _whole(bf16_bits(values)),
    "f16x2": lambda values: _whole(f16_bits(values)),
    "s16x2": lambda values: _whole(values.view(np.uint16)),
    "u16x2": _whole,
}


def flush(values: Array) -> Array:
    """`.ftz`: subnormal float32 become zeros of their sign (section 9.7.3)."""
    if values.dtype != np.float32:
        return values
    tiny = np.abs(values) < SMALLEST_NORMAL
    return np.where(tiny, np.copysign(np.float32(0), values), values) if tiny.any() else values


def fma32(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float32 with one rounding (section 9.7.3.6).

    The product is exact in float64. Rounding the sum to float64 and then to float32 differs from rounding once only
    where the first result lies in the middle between two float32, or is below the normal ones: there the sum is made
    again, rounded to odd, which the second rounding cannot spoil (S. Boldo, G. Melquiond, "Emulation of FMA and
    correctly rounded sums: proved algorithms using rounding to odd", 2008).
    """
    product = a.astype(np.float64) * b.astype(np.float64)
    total = product + c
    raw = total.view(np.int64)
    doubtful = ((raw & 0x1FFFFFFF) == 0x10000000) | (np.abs(total) < 2.0**-125)
    if doubtful.any():
        total = np.where(doubtful, sum_to_odd(*np.broadcast_arrays(product, c.astype(np.float64))), total)
    return total.astype(np.float32)


def sum_to_odd(a: Array, b: Array) -> Array:
    """a + b in float64, rounded to odd: truncated, the last bit set where anything was cut off."""
    total = a + b
    low = total - a
    error = (a - (total - low)) + (b - low)  # D. E. Knuth's exact error of a sum
    raw = total.view(np.int64)
    inexact = (error != 0) & ((raw & 1) == 0) & np.isfinite(total)
    away = np.where((error > 0) == (total > 0), raw + 1, raw - 1)
    return np.where(inexact, away, raw).view(np.float64)


def fma_pairs(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of 16-bit floats, to be rounded by the caller: float32, rounded to odd."""
    product = a.astype(np.float64) * b.astype(np.float64)
    total = sum_to_odd(*np.broadcast_arrays(product, c.astype(np.float64)))
    return to_odd_float32(total)


def to_odd_float32(values: Array) -> Array:
    """float64 -> float32 rounded to odd, so that another rounding is right."""
    near = values.astype(np.float32)
    back = near.astype(np.float64)
    raw = near.view(np.int32)
    finite = np.isfinite(near) & np.isfinite(values)
    toward_zero = np.where((np.abs(back) > np.abs(values)) & finite, raw - 1, raw)
    return np.where((back != values) & finite, toward_zero | 1, toward_zero).astype(np.int32).view(np.float32)


def round_tf32(values: Array) -> Array:
    """float32 -> tf32 bits, to nearest, ties away from zero (cvt.rna.tf32.f32)."""
    raw = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (raw + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(values), rounded, raw)


def to_integer(values: Array, dtype: Any, rounding: str) -> Array:
    """Floats -> integers, clamped to the range, NaN to 0 (section 9.7.9.21)."""
    rounded = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[rounding](values.astype(np.float64))
    limits = np.iinfo(dtype)
    rounded = np.where(np.isnan(rounded), 0, rounded)
    too_large = rounded >= float(limits.max)
    clipped = np.clip(rounded, float(limits.min), float(limits.max))
    return np.where(too_large, limits.max, np.where(too_large, 0, clipped).astype(dtype))
