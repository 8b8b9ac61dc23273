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
def average_divisor(od, oh, ow, conv_d, conv_h, conv_w, G: tl.constexpr):
    """How many pixels PyTorch divides the window at output (od, oh, ow) by."""
    count = _window_span(ow, conv_w, G.pool_stride_w, G.pool_padding_w, G.window_w, G.count_include_pad)
    if G.rank >= 2:
        count *= _window_span(oh, conv_h, G.pool_stride_h, G.pool_padding_h, G.window_h, G.count_include_pad)
    if G.rank == 3:
        count *= _window_span(od, conv_d, G.pool_stride_d, G.pool_padding_d, G.window_d, G.count_include_pad)
    return count


@device_function
def _window_span(o, size, STRIDE: tl.constexpr, PADDING: tl.constexpr, WINDOW: tl.constexpr, INCLUDE_PAD: tl.constexpr):
    start = o * STRIDE - PADDING
    if INCLUDE_PAD:
        return tl.minimum(start + WINDOW, size + PADDING) - start
    else:
        return tl.minimum(start + WINDOW, size) - tl.maximum(start, 0)


@device_function
def conv_gradient(
    grad_ptr, code_ptr, saved_ptr,
    n, d, h, w, mask_p, k, mask_k,
    conv_d, conv_h, conv_w, out_d, out_h, out_w,
    stride_gn, stride_gk, stride_gd, stride_gh, stride_gw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    G: tl.constexpr, ACC: tl.constexpr,
):
    """Gradient of the loss at the convolution's output (n, k, d, h, w), read through pool and activation.

    Pixels (n, d, h, w) with `mask_p` broadcast against filters k with `mask_k`, which say what exists; k counts within
    the group and the pointers point at it. The full-size gradient is never written to memory: it is rebuilt from the
    pooled one wherever a kernel needs it. `code_ptr` holds what forward saved, with strides e: the winners' codes, or
    for ReLU + average pool the packed bits. `saved_ptr` holds pre-activations: the winners' (strides e), or for a
    smooth activation under an average the whole recomputed convolution output.
    """  # fmt: skip
    grad_k = keep_in_range(k * stride_gk, mask_k)
    code_k = keep_in_range(k * stride_ek, mask_k)
    mask = mask_p & mask_k
    if G.pool == "none":
        at = n * stride_gn + offset_of(d, h, w, stride_gd, stride_gh, stride_gw, G)
        grad = load_operand(grad_ptr, keep_in_range(at, mask_p) + grad_k, mask, ACC)
        if G.activation != "none":
            at = n * stride_en + offset_of(d, h, w, stride_ed, stride_eh, stride_ew, G)
            at = keep_in_range(at, mask_p) + code_k
            if G.activation == "relu":
                code = tl.load(code_ptr + at, mask=mask, other=G.code_off)
                grad = tl.where(code == 0, grad, 0.0).to(grad.dtype)
            else:
                z = widen(load_operand(saved_ptr, at, mask, ACC), ACC)
                grad = widen(grad, ACC) * activation_slope(z, G)
        return grad
    else:
        # Windows that cover a pixel: floor((p + padding) / stride) and the ones before it, REACH in all.
        REACH_D: tl.constexpr = ((G.window_d - 1) * G.pool_dilation_d) // G.pool_stride_d + 1
        REACH_H: tl.constexpr = ((G.window_h - 1) * G.pool_dilation_h) // G.pool_stride_h + 1
        REACH_W: tl.constexpr = ((G.window_w - 1) * G.pool_dilation_w) // G.pool_stride_w + 1
        # With one window per pixel the gradient is chosen, never added up, and may stay in its own type.
        SINGLE: tl.constexpr = REACH_D * REACH_H * REACH_W == 1
        total = tl.zeros(mask.shape, dtype=ACC)
        for jd in tl.static_range(REACH_D):
            od = 0
            ed = 0
            ok_d = True
            if G.rank == 3:
                od, ed, ok_d = _covering(d, jd, out_d, G.window_d, G.pool_stride_d, G.pool_padding_d, G.pool_dilation_d)
            for jh in tl.static_range(REACH_H):
                oh = 0
                eh = 0
                ok_h = True
                if G.rank >= 2:
                    oh, eh, ok_h = _covering(
                        h, jh, out_h, G.window_h, G.pool_stride_h, G.pool_padding_h, G.pool_dilation_h
                    )
                for jw in tl.static_range(REACH_W):
                    ow, ew, ok_w = _covering(
                        w, jw, out_w, G.window_w, G.pool_stride_w, G.pool_padding_w, G.pool_dilation_w
                    )
                    ok_p = mask_p & ok_w
                    if G.rank >= 2:
                        ok_p = ok_p & ok_h
                    if G.rank == 3:
                        ok_p = ok_p & ok_d
                    ok = ok_p & mask_k
                    at = n * stride_gn + offset_of(od, oh, ow, stride_gd, stride_gh, stride_gw, G)
                    grad = load_operand(grad_ptr, keep_in_range(at, ok_p) + grad_k, ok, ACC)
                    if G.pool == "max":
                        at = n * stride_en + offset_of(od, oh, ow, stride_ed, stride_eh, stride_ew, G)
                        at = keep_in_range(at, ok_p) + code_k
                        code = tl.load(code_ptr + at, mask=ok, other=G.code_off)
                        element = (ed * G.window_h + eh) * G.window_w + ew
                        won = ok & (code.to(tl.int32) == element)
                        if G.smooth:
                            z = widen(load_operand(saved_ptr, at, ok, ACC), ACC)
                            grad = widen(grad, ACC) * activation_slope(z, G)
                        if SINGLE:
                            total = tl.where(won, grad, 0.0).to(grad.dtype)
                        else:
                            total += tl.where(won, widen(grad, ACC), 0.0)
                    else:
                        divisor = average_divisor(od, oh, ow, conv_d, conv_h, conv_w, G)
                        total += tl.where(ok, widen(grad, ACC) / divisor, 0.0)
        at = n * stride_en + offset_of(d, h, w, stride_ed, stride_eh, stride_ew, G)
        if G.saves_bits:
            # One bit per convolution output, eight filters to a byte (kernels/README.md, "The byte code").
            byte = keep_in_range(at, mask_p) + keep_in_range((k // 8) * stride_ek, mask_k)
            bits = tl.load(code_ptr + byte, mask=mask, other=0).to(tl.int32)
            total = tl.where(((bits >> (k % 8)) & 1) == 1, total, 0.0)
        elif G.pool == "avg" and G.smooth:
            z = widen(load_operand(saved_ptr, keep_in_range(at, mask_p) + code_k, mask, ACC), ACC)
            total = total * activation_slope(z, G)
        return total


@device_function
def _covering(
    p, j: tl.constexpr, out_size,
    WINDOW: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
):  # fmt: skip
    """The j-th window back that covers pixel p: its index, the window element p is, and whether there is one."""
    if PADDING > 0:
        p = p + PADDING
    o = p // STRIDE
    if j > 0:
        o = o - j
    element = p - o * STRIDE
    ok = (o >= 0) & (o < out_size)
    if DILATION > 1:
        ok = ok & (element % DILATION == 0)
        element = element // DILATION
    ok = ok & (element < WINDOW)
    return o, element, ok
