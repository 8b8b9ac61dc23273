"""What every kernel of the family shares, inlined into each: index arithmetic, rounding, sides of an activation.

`G` is the layer's `Geometry`, a constexpr: tests on it cost nothing at run time. Coordinates are (d, h, w); of a layer
with fewer spatial dimensions the leading ones are the constant 0 and drop out.
"""

import triton
import triton.language as tl
from triton.language import target_info

from tidepool.kernels.runtime.interpreting import INTERPRETING, device_function


@triton.constexpr_function
def _is_power_of_two(number):
    return number > 0 and number & (number - 1) == 0


@triton.constexpr_function
def _log2(number):
    return number.bit_length() - 1


@device_function
def quotient(value, DIVISOR: tl.constexpr):
    """value // DIVISOR, for value >= 0; of a negative one an arbitrary number, which has to be masked.

    No kernel divides a tensor by a constant but through this function and the next three. A power of two divides
    unsigned numbers, of which LLVM makes a shift: signed ones it may join into a vector's, fill that up with 0 / 1,
    and leave this lane undefined (docs/upstream/llvm-nvptx-sdiv.md). Not a shift from the start, behind which Triton
    loses sight of what is contiguous: with shifts the float32 weight gradient of 64 channels copies 4 bytes at a time
    instead of 16 (sm_90: 77 registers instead of 56).
    """
    if _is_power_of_two(DIVISOR) and isinstance(value, tl.tensor):
        return (_as_unsigned(value) // DIVISOR).to(value.dtype)
    else:
        return value // DIVISOR


@device_function
def remainder(value, DIVISOR: tl.constexpr):
    """value % DIVISOR, for value >= 0; of a negative one 0 where DIVISOR divides it, and only there, and a number that
    leaves a multiple of DIVISOR when taken off. See `quotient`."""
    if _is_power_of_two(DIVISOR) and isinstance(value, tl.tensor):
        return (_as_unsigned(value) % DIVISOR).to(value.dtype)
    else:
        return value % DIVISOR


@device_function
def quotient_up(value, DIVISOR: tl.constexpr):
    """value / DIVISOR rounded up, for value >= 0: `tl.cdiv` by a constant."""
    return quotient(value + (DIVISOR - 1), DIVISOR)


@device_function
def exact_quotient(numerator, STRIDE: tl.constexpr):
    """numerator / STRIDE for multiples of STRIDE, negative ones included; anything for others, which are masked."""
    if _is_power_of_two(STRIDE):
        return numerator >> _log2(STRIDE)
    else:
        return tl.where(numerator < 0, -quotient(-numerator, STRIDE), quotient(numerator, STRIDE))


@device_function
def _as_unsigned(value):
    if value.dtype == tl.int64:
        return value.to(tl.uint64)
    else:
        return value.to(tl.uint32)


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
    w = remainder(tap, G.kernel_w)
    h = w * 0
    d = w * 0
    if G.rank >= 2:
        h = remainder(quotient(tap, G.kernel_w), G.kernel_h)
    if G.rank == 3:
        d = quotient(tap, G.kernel_w * G.kernel_h)
    return d, h, w


@device_function
def split_element(element, G: tl.constexpr):
    """Flat window element, w fastest -> its (d, h, w)."""
    w = remainder(element, G.window_w)
    h = w * 0
    d = w * 0
    if G.rank >= 2:
        h = remainder(quotient(element, G.window_w), G.window_h)
    if G.rank == 3:
        d = quotient(element, G.window_w * G.window_h)
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
    if INTERPRETING and DTYPE == tl.bfloat16:
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
    if INTERPRETING:
        return widen(round_to(value, DTYPE), ACC)
    else:
        return round_to(value, DTYPE)


@device_function
def as_stored(acc, DTYPE: tl.constexpr, ACC: tl.constexpr):
    """`acc` as a tensor of DTYPE would hold it, still in the accumulator's type ACC.

    bf16 goes back to float32 by its bits: of a conversion LLVM makes bf16 comparisons, of twice the instructions and
    with packed predicates (968 machine instructions instead of 1096 in a 64 x 128 tile on sm_90).
    """
    if DTYPE == tl.bfloat16 and ACC == tl.float32 and not INTERPRETING:
        bits = acc.to(tl.bfloat16).to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        return bits.to(tl.float32, bitcast=True)
    else:
        return widen(round_to(acc, DTYPE), ACC)


@device_function
def widen(value, ACC: tl.constexpr):
    """`value` in the accumulator's type (float32, or float64 for float64 tensors)."""
    if INTERPRETING and value.dtype == tl.bfloat16 and ACC == tl.float64:
        return value.to(tl.float32).to(ACC)
    else:
        return value.to(ACC)


@device_function
def load_operand(ptr, offsets, mask, ACC: tl.constexpr):
    """Masked load, 0 where masked. Offsets have to be in range even where masked: see `keep_in_range`.

    The interpreter does arithmetic on bf16 bit patterns, so there the value comes back in the accumulator's type.
    """
    value = tl.load(ptr + offsets, mask=mask, other=0.0)
    if INTERPRETING:
        return widen(value, ACC)
    else:
        return value


@device_function
def keep_in_range(offsets, mask):
    """Offsets with the masked ones pulled to 0, because pipelined copies on a GPU drop the mask.

    Applied to the pixel part and the channel part of an address apart: over the sum the compiler would lose sight of
    the channels' contiguity, and with it of 16-byte loads. A product, because from Triton 3.8 on `tl.where` makes the
    compiler forget that strides are multiples of 16: loads of one element then, none of them pipelined (windowed weight
    gradient 64 x 64 x 64 on sm_90 under 3.9.0: 255 registers and 728 bytes of spills).
    """
    return offsets * mask.to(offsets.dtype)


@device_function
def _alone(value):
    """`value`, of which Triton cannot see what it was made of.

    For the operands of a product it looks for the narrowest type that was loaded on the way, to pack as many to a
    register; of float64 made with the help of a byte (which pixel won) its code generator then fails an assertion
    (MMAv2.cpp, Triton 3.7.1: no gradient behind a max pool compiled). Assembly that may have effects ends the look.
    """
    return tl.inline_asm_elementwise("mov.b64 $0, $1;", "=d,d", [value], dtype=tl.float64, is_pure=False, pack=1)


@device_function
def multiply_accumulate(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b, float32 operands multiplied as PRECISION ("ieee" or "tf32") says."""
    if INTERPRETING:
        pass
    elif acc.dtype == tl.float64 and target_info.is_cuda():
        a, b = _alone(a), _alone(b)
    return tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@device_function
def summed(value, AXIS: tl.constexpr):
    """`tl.sum(value, axis=AXIS)` that leaves the same bits in every lane that holds the sum.

    No kernel sums floating-point numbers but through this function. Lanes exchange their parts and add what comes to
    their own. Of a product, a * b, the compiler makes fma(a, b, what came): each lane adds its own product unrounded to
    the other's rounded, and the two no longer agree; a later change of layout has all of them write to one place of
    shared memory, where which one stays is not specified. What is summed is 0 - a * b, of which LLVM makes
    fma(-a, b, 0) in place of the product, at no cost: it may not take that for -(a * b), because 0 - 0 is 0 and not -0.
    (a * b + 0 would do for a != b; of a square, which is never -0, LLVM of Triton 3.8 leaves the zero out.) The sum of
    negated numbers is the negated sum to the bit.
    """
    if value.dtype.is_floating():
        return 0.0 - tl.sum(0.0 - value, axis=AXIS)
    else:
        return tl.sum(value, axis=AXIS)


@device_function
def of_side(grad, off, ACC: tl.constexpr, A: tl.constexpr):
    """`grad` times the slope of an activation of two slopes, the second where `off`. Where a slope is 0 the gradient is
    chosen, not multiplied, NaN and infinity included; where it is 1 it stays in its own type."""
    if A.on_slope == 1.0 and A.off_slope == 0.0:
        return tl.where(off, 0.0, grad).to(grad.dtype)
    elif A.off_slope == 0.0:
        return tl.where(off, 0.0, widen(grad, ACC) * A.on_slope)
    else:
        grad = widen(grad, ACC)
        return tl.where(off, grad * A.off_slope, grad * A.on_slope)


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
            first = tl.where(remainder(phase + PADDING - tap * DILATION, STRIDE) == 0, tap, first)
        return first


@device_function
def split_phase_tap(index, G: tl.constexpr):
    """Flat tap of a stride phase, w fastest -> its (d, h, w)."""
    mw = remainder(index, G.phase_taps_w)
    mh = mw * 0
    md = mw * 0
    if G.rank >= 2:
        mh = remainder(quotient(index, G.phase_taps_w), G.phase_taps_h)
    if G.rank == 3:
        md = quotient(index, G.phase_taps_w * G.phase_taps_h)
    return md, mh, mw


@device_function
def phase_tap(first_d, first_h, first_w, md, mh, mw, G: tl.constexpr):
    """The filter element that is tap (md, mh, mw) of a phase whose first tap is given."""
    return first_d + md * G.tap_step_d, first_h + mh * G.tap_step_h, first_w + mw * G.tap_step_w


@device_function
def channel_mask(offs, BLOCK: tl.constexpr, CHANNELS: tl.constexpr):
    """offs < CHANNELS, for the BLOCK channels from a multiple of BLOCK on; constant, and gone, where that divides."""
    if CHANNELS % BLOCK == 0:
        return tl.full([BLOCK], 1, dtype=tl.int1)
    else:
        return offs < CHANNELS
