"""What every kernel of the family shares, inlined into each: index arithmetic, rounding, activations, pooled gradients.

`G` is the layer's `Geometry`, a constexpr: tests on it cost nothing at run time. Coordinates are (d, h, w); of a layer
with fewer spatial dimensions the leading ones are the constant 0 and drop out.
"""

import triton.language as tl

from kernels.runtime import INTERPRETED, device_function

_INTERPRETED = tl.constexpr(INTERPRETED)


@device_function
def split_index(index, size_d, size_h, size_w, G: tl.constexpr):
    """Flat (n, d, h, w) index, w fastest -> n, d, h, w."""
    w = index % size_w
    rest = index // size_w
    h = w * 0
    d = w * 0
    if G.rank >= 2:
        h = rest % size_h
        rest = rest // size_h
    if G.rank == 3:
        d = rest % size_d
        rest = rest // size_d
    return rest, d, h, w


@device_function
def split_tap(tap, G: tl.constexpr):
    """Flat filter element, w fastest -> its (d, h, w)."""
    w = tap % G.kernel_w
    h = w * 0
    d = w * 0
    if G.rank >= 2:
        h = (tap // G.kernel_w) % G.kernel_h
    if G.rank == 3:
        d = tap // (G.kernel_w * G.kernel_h)
    return d, h, w


@device_function
def split_element(element, G: tl.constexpr):
    """Flat window element, w fastest -> its (d, h, w)."""
    w = element % G.window_w
    h = w * 0
    d = w * 0
    if G.rank >= 2:
        h = (element // G.window_w) % G.window_h
    if G.rank == 3:
        d = element // (G.window_w * G.window_h)
    return d, h, w


@device_function
def inside(d, h, w, size_d, size_h, size_w, G: tl.constexpr):
    """Whether (d, h, w) lies in a volume of that size; dimensions the layer lacks are not tested."""
    mask = (w >= 0) & (w < size_w)
    if G.rank >= 2:
        mask = mask & (h >= 0) & (h < size_h)
    if G.rank == 3:
        mask = mask & (d >= 0) & (d < size_d)
    return mask


@device_function
def offset_of(d, h, w, stride_d, stride_h, stride_w, G: tl.constexpr):
    """Element offset of (d, h, w) in a tensor of those strides."""
    offset = w * stride_w
    if G.rank >= 2:
        offset += h * stride_h
    if G.rank == 3:
        offset += d * stride_d
    return offset


@device_function
def round_to(value, DTYPE: tl.constexpr):
    """`value` (the accumulator's type) rounded to nearest even in DTYPE.

    The interpreter cuts bf16 off instead of rounding: there the value is rounded by hand, and the cut is then exact.
    """
    if _INTERPRETED and DTYPE == tl.bfloat16:
        bits = value.to(tl.float32).to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        # A NaN's payload could carry into the sign or run over to zero: keep it as it is.
        kept = tl.where(value == value, rounded, bits | 0x00400000)
        return kept.to(tl.uint32).to(tl.float32, bitcast=True).to(DTYPE)
    else:
        return value.to(DTYPE)


@device_function
def as_operand(value, DTYPE: tl.constexpr, ACC: tl.constexpr):
    """A computed value as an operand of a product of DTYPE tensors: rounded to DTYPE, as if it had been stored."""
    if _INTERPRETED:
        return widen(round_to(value, DTYPE), ACC)
    else:
        return round_to(value, DTYPE)


@device_function
def as_stored(acc, DTYPE: tl.constexpr, ACC: tl.constexpr):
    """`acc` as a tensor of DTYPE would hold it, still in the accumulator's type ACC.

    bf16 goes back to float32 by its bits: of a conversion LLVM makes bf16 comparisons, of twice the instructions and
    with packed predicates (968 machine instructions instead of 1096 in a 64 x 128 tile on sm_90).
    """
    if DTYPE == tl.bfloat16 and ACC == tl.float32 and not _INTERPRETED:
        bits = acc.to(tl.bfloat16).to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        return bits.to(tl.float32, bitcast=True)
    else:
        return widen(round_to(acc, DTYPE), ACC)


@device_function
def widen(value, ACC: tl.constexpr):
    """`value` in the accumulator's type (float32, or float64 for float64 tensors)."""
    if _INTERPRETED and value.dtype == tl.bfloat16 and ACC == tl.float64:
        return value.to(tl.float32).to(ACC)
    else:
        return value.to(ACC)


@device_function
def load_operand(ptr, offsets, mask, ACC: tl.constexpr):
    """Masked load, 0 where masked. Offsets have to be in range even where masked: see `keep_in_range`.

    The interpreter does arithmetic on bf16 bit patterns, so there the value comes back in the accumulator's type.
    """
    value = tl.load(ptr + offsets, mask=mask, other=0.0)
    if _INTERPRETED:
        return widen(value, ACC)
    else:
        return value


@device_function
def keep_in_range(offsets, mask):
    """Offsets with the masked ones pulled to 0, because pipelined copies on a GPU drop the mask.

    Applied to the pixel part and the channel part of an address apart: over the sum the compiler would lose sight of
    the channels' contiguity, and with it of 16-byte loads.
    """
    return tl.where(mask, offsets, 0)


@device_function
def multiply_accumulate(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b, float32 operands multiplied as PRECISION ("ieee" or "tf32") says."""
    return tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@device_function
def activate(x, G: tl.constexpr):
    """ReLU (NaN stays NaN, as in PyTorch), SiLU x·sigmoid(x), exact GELU x·Phi(x), or x itself."""
    if G.activation == "relu":
        return tl.where(x <= 0, 0.0, x).to(x.dtype)  # not tl.maximum: that turns NaN into 0 on sm_90
    elif G.activation == "silu":
        return x / (1.0 + tl.exp(-x))
    elif G.activation == "gelu":
        return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    else:
        return x


@device_function
def activation_slope(z, G: tl.constexpr):
    """d activation / dz for the smooth ones. SiLU: s(1 + z(1 - s)); GELU: Phi(z) + z·phi(z)."""
    if G.activation == "silu":
        s = 1.0 / (1.0 + tl.exp(-z))
        return s * (1.0 + z * (1.0 - s))
    else:
        return 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)) + z * 0.3989422804014327 * tl.exp(-0.5 * z * z)


@device_function
def first_tap(
    phase, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr, STEP: tl.constexpr
):  # fmt: skip
    """Smallest tap that connects pixels of this phase to a convolution output; KERNEL when none does."""
    if STRIDE == 1:
        return phase * 0
    else:
        first = phase * 0 + KERNEL
        for back in tl.static_range(STEP):
            tap = STEP - 1 - back
            first = tl.where((phase + PADDING - tap * DILATION) % STRIDE == 0, tap, first)
        return first


@device_function
def exact_quotient(numerator, STRIDE: tl.constexpr):
    """numerator / STRIDE for multiples of STRIDE, negative ones included; anything for others, which are masked."""
    if STRIDE == 1:
        return numerator
    else:
        return tl.where(numerator < 0, -((-numerator) // STRIDE), numerator // STRIDE)


@device_function
def split_phase_tap(index, G: tl.constexpr):
    """Flat tap of a stride phase, w fastest -> its (d, h, w)."""
    mw = index % G.phase_taps_w
    mh = mw * 0
    md = mw * 0
    if G.rank >= 2:
        mh = (index // G.phase_taps_w) % G.phase_taps_h
    if G.rank == 3:
        md = index // (G.phase_taps_w * G.phase_taps_h)
    return md, mh, mw


@device_function
def phase_tap(first_d, first_h, first_w, md, mh, mw, G: tl.constexpr):
    """The filter element that is tap (md, mh, mw) of a phase whose first tap is given."""
    return first_d + md * G.tap_step_d, first_h + mh * G.tap_step_h, first_w + mw * G.tap_step_w
