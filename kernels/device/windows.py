"""Pooling windows and their codes, shared by every kernel of the family and inlined into each.

Forward folds the convolution outputs of a window into one result and notes what backward needs (`start_fold`, `fold`,
`store_bits`, `write_outputs`); backward reads the pooled gradient back through that note (`conv_gradient`).
"""

import triton.language as tl

from tidepool.kernels.device.arithmetic import (
    keep_in_range,
    load_operand,
    of_side,
    offset_of,
    quotient,
    remainder,
    round_to,
    split_element,
    summed,
    widen,
)
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def window_pixel(od, oh, ow, element, G: tl.constexpr):
    """Convolution pixel that is the given element of the window of pooled output (od, oh, ow)."""
    ed, eh, ew = split_element(element, G)
    pw = ow * G.pool_stride_w + (ew * G.pool_dilation_w - G.pool_padding_w)
    ph = oh
    pd = od
    if G.rank >= 2:
        ph = oh * G.pool_stride_h + (eh * G.pool_dilation_h - G.pool_padding_h)
    if G.rank == 3:
        pd = od * G.pool_stride_d + (ed * G.pool_dilation_d - G.pool_padding_d)
    return pd, ph, pw


@device_function
def start_fold(ROWS: tl.constexpr, COLUMNS: tl.constexpr, ACC: tl.constexpr, G: tl.constexpr):
    """Running result, winner's element (-1: none yet) and winner's pre-activation, each [ROWS, COLUMNS]."""
    if G.pool == "avg":
        best = tl.zeros([ROWS, COLUMNS], dtype=ACC)
    else:
        best = tl.full([ROWS, COLUMNS], float("-inf"), dtype=ACC)
    return best, tl.full([ROWS, COLUMNS], -1, dtype=tl.int32), tl.zeros([ROWS, COLUMNS], dtype=ACC)


@device_function
def joint_piece(value, PIECE: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, JOINT: tl.constexpr):
    """Columns PIECE * BLOCK_P ... of `value` as [BLOCK_K, BLOCK_P]: a choice of registers, no data moves."""
    if JOINT == 2:
        even, odd = tl.split(tl.permute(tl.reshape(value, [BLOCK_K, 2, BLOCK_P]), (0, 2, 1)))
        if PIECE == 0:
            return even
        else:
            return odd
    else:
        even, odd = tl.split(tl.permute(tl.reshape(value, [BLOCK_K, 2, 2, BLOCK_P]), (0, 3, 1, 2)))
        half = even
        if PIECE % 2 == 1:
            half = odd
        low, high = tl.split(half)
        if PIECE // 2 == 0:
            return low
        else:
            return high


@device_function
def activated(value, slope, DTYPE: tl.constexpr, ACC: tl.constexpr, A: tl.constexpr):
    """The activation of value [rows, columns] as it would be stored; `slope` [rows] is the learned one, if any."""
    if A.learned:
        return widen(round_to(A.forward(value, slope[:, None], A), DTYPE), ACC)
    else:
        return widen(round_to(A.forward(value, A), DTYPE), ACC)


@device_function
def load_slope(slope_ptr, k, mask_k, ACC: tl.constexpr, SLOPES: tl.constexpr):
    """The learned slope of filters k, of which there are one for all or one each: in the accumulator's type."""
    if SLOPES == 1:
        k = k * 0
    return widen(load_operand(slope_ptr, keep_in_range(k, mask_k), mask_k, ACC), ACC)


@device_function
def fold(best, code, winner, value, element, exists, slope, DTYPE: tl.constexpr, G: tl.constexpr):
    """Fold one window element into the running result. First of equals wins, the last NaN beats everything."""
    A: tl.constexpr = G.activation
    if G.pool == "avg":
        active = activated(value, slope, DTYPE, best.dtype, A)
        return best + tl.where(exists[None, :], active, 0.0), code, winner
    else:
        active = value
        if not G.activation.clips:
            active = activated(value, slope, DTYPE, best.dtype, A)
        if G.codes_sides:
            element = element + tl.where(A.off(value, A), G.window, 0)
        if G.pool == "none":  # one element: nothing to compare, nothing to keep in registers
            if G.codes_sides:
                return active, element, value
            else:
                return active, tl.zeros_like(code), value
        take = exists[None, :] & ((active > best) | (active != active) | (code < 0))
        if G.saves_winner:
            winner = tl.where(take, value, winner)
        return tl.where(take, active, best), tl.where(take, element, code), winner


@device_function
def store_bits(code_ptr, value, at, exists, offs_k, group, stride_ek, G: tl.constexpr, BLOCK_K: tl.constexpr):
    """Write "not off" of each convolution output, eight filters to a byte: value [BLOCK_K, COLUMNS]."""
    A: tl.constexpr = G.activation
    BYTES: tl.constexpr = (G.rows + 7) // 8
    COLUMNS: tl.constexpr = value.shape[1]
    on = tl.where(A.off(value, A), 0, 1) & (offs_k < G.rows)[:, None]
    weighed = tl.reshape(on << remainder(offs_k, 8).to(tl.int32)[:, None], [BLOCK_K // 8, 8, COLUMNS])
    packed = summed(weighed, 1).to(tl.uint8)
    # Every eighth filter's index is enough to find a byte; its minimum over eight is the first.
    byte = quotient(tl.min(tl.reshape(offs_k, [BLOCK_K // 8, 8]), axis=1), 8)
    mask = (byte < BYTES)[:, None] & exists[None, :]
    offsets = (group * BYTES + byte)[:, None] * stride_ek + at[None, :]
    tl.store(code_ptr + tl.where(mask, offsets, 0), packed, mask=mask)


@device_function
def write_outputs(
    y_ptr, code_ptr, winner_ptr, best, code, winner, k, mask_k, n, od, oh, ow, mask_p, conv_d, conv_h, conv_w,
    stride_yn, stride_yk, stride_yd, stride_yh, stride_yw,
    stride_en, stride_ek, stride_ed, stride_eh, stride_ew,
    G: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    """Finish the fold and store it for filters k (rows) and pooled outputs (n, od, oh, ow) (columns), with its note."""
    A: tl.constexpr = G.activation
    Y_DTYPE: tl.constexpr = y_ptr.dtype.element_ty
    mask = mask_k[:, None] & mask_p[None, :]
    # Masked stores, unlike pipelined loads, keep their mask: offsets stay as they are, contiguous along the filters.
    at = n * stride_en + offset_of(od, oh, ow, stride_ed, stride_eh, stride_ew, G)
    at = k[:, None] * stride_ek + at[None, :]
    if SAVE and G.saves_winner:
        tl.store(winner_ptr + at, round_to(winner, Y_DTYPE), mask=mask)
    if SAVE and G.saves_code:
        off = code < 0
        if G.activation.needs_side and not G.codes_sides:
            off = off | A.off(best, A)
        tl.store(code_ptr + at, tl.where(off, G.code_off, code).to(code_ptr.dtype.element_ty), mask=mask)
    if G.pool == "avg":
        best = best / average_divisor(od, oh, ow, conv_d, conv_h, conv_w, G)[None, :]
    elif G.activation.clips:
        best = A.forward(best, A)  # max(f(v)) = f(max(v)), gradients and NaN included
    at = n * stride_yn + offset_of(od, oh, ow, stride_yd, stride_yh, stride_yw, G)
    at = k[:, None] * stride_yk + at[None, :]
    tl.store(y_ptr + at, round_to(best, Y_DTYPE), mask=mask)


@device_function
def average_divisor(od, oh, ow, conv_d, conv_h, conv_w, G: tl.constexpr):
    """How many pixels PyTorch divides the window at output (od, oh, ow) by; 1 at least, beyond the last window too."""
    count = _window_span(ow, conv_w, G.pool_stride_w, G.pool_padding_w, G.window_w, G.count_include_pad)
    if G.rank >= 2:
        count *= _window_span(oh, conv_h, G.pool_stride_h, G.pool_padding_h, G.window_h, G.count_include_pad)
    if G.rank == 3:
        count *= _window_span(od, conv_d, G.pool_stride_d, G.pool_padding_d, G.window_d, G.count_include_pad)
    return tl.maximum(count, 1)


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
    for an activation of two slopes under an average the packed bits. `saved_ptr` holds pre-activations: the winners'
    (strides e), or under an average the whole recomputed convolution output.
    """  # fmt: skip
    A: tl.constexpr = G.activation
    grad_k = keep_in_range(k * stride_gk, mask_k)
    code_k = keep_in_range(k * stride_ek, mask_k)
    mask = mask_p & mask_k
    if G.pool == "none":
        at = n * stride_gn + offset_of(d, h, w, stride_gd, stride_gh, stride_gw, G)
        grad = load_operand(grad_ptr, keep_in_range(at, mask_p) + grad_k, mask, ACC)
        if not G.activation.is_identity:
            at = n * stride_en + offset_of(d, h, w, stride_ed, stride_eh, stride_ew, G)
            at = keep_in_range(at, mask_p) + code_k
            if G.activation.needs_side:
                code = tl.load(code_ptr + at, mask=mask, other=G.code_off)
                grad = of_side(grad, code != 0, ACC, A)
            else:
                z = widen(load_operand(saved_ptr, at, mask, ACC), ACC)
                grad = widen(grad, ACC) * A.slope(z, A)
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
                        if G.codes_sides:
                            off = ok & (code.to(tl.int32) == element + G.window)
                            won = won | off
                            grad = of_side(grad, off, ACC, A)
                        if G.saves_winner:
                            z = widen(load_operand(saved_ptr, at, ok, ACC), ACC)
                            grad = widen(grad, ACC) * A.slope(z, A)
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
            byte = keep_in_range(at, mask_p) + keep_in_range(quotient(k, 8) * stride_ek, mask_k)
            bits = tl.load(code_ptr + byte, mask=mask, other=0).to(tl.int32)
            total = of_side(total, ((bits >> remainder(k, 8)) & 1) == 0, ACC, A)
        elif G.pool == "avg" and G.activation.needs_value:
            z = widen(load_operand(saved_ptr, keep_in_range(at, mask_p) + code_k, mask, ACC), ACC)
            total = total * A.slope(z, A)
        return total


@device_function
def _covering(
    p, j: tl.constexpr, out_size,
    WINDOW: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
):  # fmt: skip
    """The j-th window back that covers pixel p: its index, the window element p is, and whether there is one; of p that
    lies before the padding anything, which is masked."""
    if PADDING > 0:
        p = p + PADDING
    o = quotient(p, STRIDE) - j
    element = remainder(p, STRIDE) + j * STRIDE
    if STRIDE == 1:
        ok = (o >= 0) & (o < out_size)
    else:
        # A negative one is too large as an unsigned number. On sm_80 either form spills 8 bytes in the other's place:
        # this in a 3x3 window of stride 1 and dilation 2 (bf16 wgrad), the other in one of stride 2 (float32 dgrad).
        ok = o.to(tl.uint32) < out_size
    if DILATION > 1:
        ok = ok & (remainder(element, DILATION) == 0)
        element = quotient(element, DILATION)
    ok = ok & (element < WINDOW)
    return o, element, ok
