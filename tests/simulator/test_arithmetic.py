"""What instructions compute, against Python's integers and fractions."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from tests.simulator.ptx_kernels import lanewise
from tidepool.simulator.faults import Fault
from tidepool.simulator.numbers import Array, bf16_bits, bf16_values

COUNT = 256
EDGES = [0, 1, 2, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 31, 32, 33, 64]


def words(seed: int) -> Array:
    """Random 32-bit words with the edges among them."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 2**32, COUNT, dtype=np.uint32)
    values[::3] = random.choice(np.array(EDGES, np.uint32), len(values[::3]))
    return values


def signed(value: int, bits: int = 32) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def truncated(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def bit_field(a: int, position: int, length: int) -> int:
    """bfe.s32: the field, extended by the sign of its last bit that exists."""
    position, length = position & 0xFF, length & 0xFF
    if length == 0:
        return 0
    last = min(position + length - 1, 31)
    sign = a >> last & 1
    field = a >> position & ((1 << max(last - position + 1, 0)) - 1) if position < 32 else 0
    width = max(min(length, 32 - position), 0) if position < 32 else 0
    return field | (-sign << width)


def inserted(a: int, b: int, position: int, length: int) -> int:
    position, length = position & 0xFF, length & 0xFF
    for bit in range(length):
        if position + bit < 32:
            b = b & ~(1 << (position + bit)) | (a >> bit & 1 if bit < 32 else 0) << (position + bit)
    return b


def permuted(a: int, b: int, selector: int) -> int:
    both, result = b << 32 | a, 0
    for place in range(4):
        code = selector >> (4 * place) & 15
        byte = both >> (8 * (code & 7)) & 0xFF
        if code & 8:
            byte = 0xFF if byte & 0x80 else 0
        result |= byte << (8 * place)
    return result


INTEGERS: dict[str, Callable[..., int]] = {
    "add.s32 {d}, {0}, {1};": lambda a, b, c: a + b,
    "sub.s32 {d}, {0}, {1};": lambda a, b, c: a - b,
    "mul.lo.s32 {d}, {0}, {1};": lambda a, b, c: a * b,
    "mul.hi.s32 {d}, {0}, {1};": lambda a, b, c: signed(a) * signed(b) >> 32,
    "mul.hi.u32 {d}, {0}, {1};": lambda a, b, c: a * b >> 32,
    "mad.lo.s32 {d}, {0}, {1}, {2};": lambda a, b, c: a * b + c,
    "div.s32 {d}, {0}, {1};": lambda a, b, c: truncated(signed(a), signed(b)),
    "rem.s32 {d}, {0}, {1};": lambda a, b, c: signed(a) - truncated(signed(a), signed(b)) * signed(b),
    "div.u32 {d}, {0}, {1};": lambda a, b, c: a // b,
    "rem.u32 {d}, {0}, {1};": lambda a, b, c: a % b,
    "min.s32 {d}, {0}, {1};": lambda a, b, c: min(signed(a), signed(b)),
    "max.u32 {d}, {0}, {1};": lambda a, b, c: max(a, b),
    "abs.s32 {d}, {0};": lambda a, b, c: abs(signed(a)),
    "neg.s32 {d}, {0};": lambda a, b, c: -a,
    "not.b32 {d}, {0};": lambda a, b, c: ~a,
    "lop3.b32 {d}, {0}, {1}, {2}, 0xCA;": lambda a, b, c: a & b | ~a & c,
    "shl.b32 {d}, {0}, {1};": lambda a, b, c: a << b if b < 32 else 0,
    "shr.u32 {d}, {0}, {1};": lambda a, b, c: a >> b if b < 32 else 0,
    "shr.s32 {d}, {0}, {1};": lambda a, b, c: signed(a) >> min(b, 31),
    "shf.l.wrap.b32 {d}, {0}, {1}, {2};": lambda a, b, c: (b << 32 | a) << (c & 31) >> 32,
    "shf.r.clamp.b32 {d}, {0}, {1}, {2};": lambda a, b, c: (b << 32 | a) >> min(c, 32),
    "bfe.u32 {d}, {0}, 3, 7;": lambda a, b, c: a >> 3 & 127,
    "bfe.s32 {d}, {0}, {1}, {2};": bit_field,
    "bfi.b32 {d}, {0}, {1}, 5, 9;": lambda a, b, c: inserted(a, b, 5, 9),
    "prmt.b32 {d}, {0}, {1}, {2};": permuted,
    "popc.b32 {d}, {0};": lambda a, b, c: a.bit_count(),
    "clz.b32 {d}, {0};": lambda a, b, c: 32 - a.bit_length(),
    "brev.b32 {d}, {0};": lambda a, b, c: int(f"{a:032b}"[::-1], 2),
    "cvt.s32.s16 {d}, {0};": lambda a, b, c: signed(a, 16),
    "cvt.u32.u16 {d}, {0};": lambda a, b, c: a & 0xFFFF,
    "{{ .reg .pred q; setp.lt.s32 q, {0}, {1}; selp.b32 {d}, {2}, 7, q; }}": (
        lambda a, b, c: c if signed(a) < signed(b) else 7
    ),
    "{{ .reg .pred q; setp.hi.and.u32 q, {0}, {1}, true; selp.b32 {d}, 1, 0, q; }}": lambda a, b, c: int(a > b),
}


@pytest.mark.parametrize("instruction", INTEGERS)
def test_integers(instruction: str) -> None:
    a, b, c = (words(seed) for seed in (1, 2, 3))
    if "div" in instruction or "rem" in instruction:
        b[b == 0] = 5
        a[(a == 0x80000000) & (b == 0xFFFFFFFF)] = 9  # overflows, and has no value
    found = lanewise(instruction, a, b, c, result=np.uint32)
    for x, y, z, result in zip(a.tolist(), b.tolist(), c.tolist(), found.tolist(), strict=True):
        assert result == INTEGERS[instruction](x, y, z) & 0xFFFFFFFF, (hex(x), hex(y), hex(z))


LONG: dict[str, Callable[[int, int], int]] = {
    "mul.hi.u64 {d}, {0}, {1};": lambda a, b: a * b >> 64,
    "mul.hi.s64 {d}, {0}, {1};": lambda a, b: signed(a, 64) * signed(b, 64) >> 64,
    "mad.lo.s64 {d}, {0}, {1}, {0};": lambda a, b: a * b + a,
    "sub.s64 {d}, {0}, {1};": lambda a, b: a - b,
    "xor.b64 {d}, {0}, {1};": lambda a, b: a ^ b,
}


@pytest.mark.parametrize("instruction", LONG)
def test_long_integers(instruction: str) -> None:
    random = np.random.default_rng(4)
    a, b = (random.integers(0, 2**64, COUNT, dtype=np.uint64) for _ in range(2))
    found = lanewise(instruction, a, b, result=np.uint64)
    for x, y, result in zip(a.tolist(), b.tolist(), found.tolist(), strict=True):
        assert result == LONG[instruction](x, y) & (2**64 - 1)


def test_wide_products() -> None:
    a, b = words(5), words(6)
    found = lanewise("mul.wide.s32 {d}, {0}, {1};", a, b, result=np.int64)
    assert found.tolist() == [signed(x) * signed(y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    found = lanewise("mul.wide.u32 {d}, {0}, {1};", a, b, result=np.uint64)
    assert found.tolist() == [x * y for x, y in zip(a.tolist(), b.tolist(), strict=True)]


def nearest(value: Fraction) -> np.float32:
    """The float32 nearest to a fraction, ties to even: of the three around its rounding by way of float64."""
    guess = np.float32(float(value))
    around = {guess, np.nextafter(guess, np.float32(np.inf)), np.nextafter(guess, np.float32(-np.inf))}
    finite = [one for one in around if np.isfinite(one)]
    return min(finite, key=lambda one: (abs(Fraction(float(one)) - value), int(one.view(np.uint32)) & 1))


def test_fma_rounds_once() -> None:
    random = np.random.default_rng(7)
    a = random.standard_normal(COUNT).astype(np.float32)
    b = random.standard_normal(COUNT).astype(np.float32)
    c = (-a.astype(np.float64) * b * (1 + random.integers(-3, 4, COUNT) * 2.0**-24)).astype(np.float32)
    # A sum half way between two float32 once it has been rounded to float64, and not before.
    a[:2], b[:2], c[:2] = (1 + 2.0**-23, 2.0**-100), (1, 2.0**-40), (2.0**-24 + 2.0**-60, 0)
    a[2], b[2], c[2] = 1 + 2.0**-12, 1 + 2.0**-12, 2.0**-90
    found = lanewise("fma.rn.f32 {d}, {0}, {1}, {2};", a, b, c, result=np.float32)
    for x, y, z, result in zip(a, b, c, found, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        assert result == nearest(exact), (x, y, z)


def test_fma_of_one_product_and_a_sum_for_every_lane() -> None:
    """Registers that all lanes have alike are one value, here beside others; subnormal, so that it rounds with care."""
    c = np.linspace(0, 2.0**-130, 32, dtype=np.float32)
    found = lanewise("fma.rn.f32 {d}, 0f00000001, 0f3F800000, {0};", c, result=np.float32)
    assert (found == c + np.float32(2.0**-149)).all()


FLOATS: dict[str, Callable[[Array, Array], Array]] = {
    "add.f32 {d}, {0}, {1};": np.add,
    "sub.f32 {d}, {0}, {1};": np.subtract,
    "mul.f32 {d}, {0}, {1};": np.multiply,
    "max.f32 {d}, {0}, {1};": np.fmax,
    "max.NaN.f32 {d}, {0}, {1};": np.maximum,
    "min.f32 {d}, {0}, {1};": np.fmin,
    "neg.f32 {d}, {0};": lambda a, b: -a,
    "abs.f32 {d}, {0};": lambda a, b: np.abs(a),
    "sqrt.rn.f32 {d}, {0};": lambda a, b: np.sqrt(a),
    "ex2.approx.f32 {d}, {0};": lambda a, b: np.exp2(a.astype(np.float64)).astype(np.float32),
    "div.full.f32 {d}, {0}, {1};": np.divide,
}


@pytest.mark.parametrize("instruction", FLOATS)
def test_floats(instruction: str) -> None:
    random = np.random.default_rng(8)
    a = (random.standard_normal(COUNT) * 4).astype(np.float32)
    b = random.standard_normal(COUNT).astype(np.float32)
    a[:4], b[2:6] = (np.nan, np.inf, 0.0, -1.0), (np.nan, 0.5, np.inf, 1.0)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(lanewise(instruction, a, b, result=np.float32), FLOATS[instruction](a, b))


def test_minus_zero_is_less_than_zero() -> None:
    a, b = np.zeros(32, np.float32), np.full(32, -0.0, np.float32)
    for x, y in ((a, b), (b, a)):
        assert not np.signbit(lanewise("max.f32 {d}, {0}, {1};", x, y, result=np.float32)).any()
        assert np.signbit(lanewise("min.f32 {d}, {0}, {1};", x, y, result=np.float32)).all()


def test_subnormals_are_flushed_where_asked() -> None:
    a = np.full(32, 2.0**-130, np.float32)
    b = np.full(32, 2.0**10, np.float32)
    assert (lanewise("mul.ftz.f32 {d}, {0}, {1};", a, b, result=np.float32) == 0).all()
    assert (lanewise("mul.f32 {d}, {0}, {1};", a, b, result=np.float32) == 2.0**-120).all()


COMPARISONS = {
    "eq": [0, 0, 1],
    "ne": [1, 0, 0],
    "neu": [1, 1, 0],
    "ltu": [1, 1, 0],
    "nan": [0, 1, 0],
    "num": [1, 0, 1],
}
"""What each says of 1 and 3, NaN and 1, 2 and 2."""


@pytest.mark.parametrize(("comparison", "expected"), COMPARISONS.items())
def test_comparisons_with_nan(comparison: str, expected: list[int]) -> None:
    a, b = np.array([1, np.nan, 2] + [0] * 29, np.float32), np.array([3, 1, 2] + [0] * 29, np.float32)
    text = f"{{{{ .reg .pred q; setp.{comparison}.f32 q, {{0}}, {{1}}; selp.b32 {{d}}, 1, 0, q; }}}}"
    assert lanewise(text, a, b, result=np.uint32)[:3].tolist() == expected


def test_bfloat16_rounds_to_nearest_even_and_fma_once() -> None:
    random = np.random.default_rng(9)
    values = random.standard_normal(COUNT).astype(np.float32)
    values[:3] = np.array([0x3F808000, 0x3F818000, 0x7F800001], np.uint32).view(np.float32)
    found = lanewise("cvt.rn.bf16.f32 {d}, {0};", values, result=np.uint16)
    assert found[:3].tolist() == [0x3F80, 0x3F82, 0x7FFF]
    a, b, c = (bf16_bits(random.standard_normal(COUNT).astype(np.float32)) for _ in range(3))
    found = lanewise("fma.rn.bf16 {d}, {0}, {1}, {2};", a, b, c, result=np.uint16)
    exact = bf16_values(a).astype(np.float64) * bf16_values(b) + bf16_values(c)  # 16 and 8 bits: no rounding here
    for value, result in zip(exact, found, strict=True):
        near = bf16_values(np.array([result - 1, result, result + 1], np.uint16)).astype(np.float64)
        assert abs(near[1] - value) <= min(abs(near[0] - value), abs(near[2] - value))


def test_float16_pairs() -> None:
    a = np.array([[1.5, -2.0]] * 32, np.float16)
    b = np.array([[0.25, 2048.0]] * 32, np.float16)
    found = lanewise("add.f16x2 {d}, {0}, {1};", a.view(np.uint32).ravel(), b.view(np.uint32).ravel(), result=np.uint32)
    assert found.view(np.float16).reshape(-1, 2)[0].tolist() == [1.75, 2046.0]


CONVERSIONS = [
    (2.5, "rni", 2),
    (-2.5, "rzi", -2),
    (3e9, "rzi", 2**31 - 1),
    (math.nan, "rni", 0),
    (-1.5, "rmi", -2),
    (1.2, "rpi", 2),
]


@pytest.mark.parametrize(("value", "rounding", "expected"), CONVERSIONS)
def test_floats_to_integers(value: float, rounding: str, expected: int) -> None:
    found = lanewise(f"cvt.{rounding}.s32.f32 {{d}}, {{0}};", np.full(32, value, np.float32), result=np.int32)
    assert (found == expected).all()


def test_floats_to_whole_floats() -> None:
    values = np.array([2.5, -2.5, 0.4, 1e10] * 8, np.float32)
    assert lanewise("cvt.rni.f32.f32 {d}, {0};", values, result=np.float32)[:4].tolist() == [2, -2, 0, 1e10]
    assert lanewise("cvt.rmi.f32.f32 {d}, {0};", values, result=np.float32)[:3].tolist() == [2, -3, 0]


def test_division_by_zero_is_told() -> None:
    with pytest.raises(Fault, match=r"division: .*integer division by zero"):
        lanewise("div.s32 {d}, {0}, {1};", words(1), np.zeros(COUNT, np.uint32), result=np.uint32)
