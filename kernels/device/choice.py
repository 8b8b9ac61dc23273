"""What the windowed gradients share: which window element a pixel is, as plain numbers, and the choice it makes.

See BACKWARD.md. `G` is the layer's `Geometry`, a constexpr.
"""

import triton.language as tl

from tidepool.kernels.device.arithmetic import (
    inside,
    keep_in_range,
    load_operand,
    offset_of,
    quotient,
    remainder,
    widen,
)
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def channels_in_range(offs, CHANNELS: tl.constexpr):
    """For each of the channel numbers offs one that exists, contiguous in 16s where that can be."""
    if CHANNELS >= 16:
        return remainder(offs, 16)
    else:
        return offs * 0


@device_function
def keep_channels(offs, mask, CHANNELS: tl.constexpr):
    """Channel numbers with the masked ones brought into range, as `keep_in_range` does, but contiguous in 16s.

    Sent to 0 they would be equal, not contiguous, and the compiler gives up 16-byte loads for the unmasked ones too.
    """
    return tl.where(mask, offs, channels_in_range(offs, CHANNELS))


@device_function
def window_back(
    q, j: tl.constexpr, LIFT: tl.constexpr, WINDOW: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr
):  # fmt: skip
    """The j-th window back that covers pixels STRIDE * i + q (padding counted): it is window i + shift, they are its
    `element`, if `ok`. q is one number, at least -LIFT * STRIDE."""
    lifted = q + LIFT * STRIDE
    place = remainder(lifted, STRIDE) + j * STRIDE
    ok = place < WINDOW * DILATION
    if DILATION > 1:
        ok = ok & (remainder(place, DILATION) == 0)
    return quotient(lifted, STRIDE) - LIFT - j, quotient(place, DILATION), ok


@device_function
def spread(value, COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DTYPE: tl.constexpr):
    """A number below COUNT, on every element of [ROWS, COLUMNS].

    Made of choices between constants, bit by bit: the compiler moves arithmetic on constants and loads into the layout
    of a tensor core's operand, and so loads in that layout; where it meets a splatted number it does not, and sends
    the product's operand through shared memory once more (seen in 3.6 and 3.7).
    """
    total = tl.zeros([ROWS, COLUMNS], dtype=DTYPE)
    for bit in tl.static_range(8):
        if (1 << bit) < COUNT:
            if (value & (1 << bit)) != 0:
                part = tl.full([ROWS, COLUMNS], 1 << bit, dtype=DTYPE)
            else:
                part = tl.zeros([ROWS, COLUMNS], dtype=DTYPE)
            total |= part
    return total


@device_function
def chosen_gradient(
    grad_ptr, code_ptr, i_d, i_h, i_w, mask, from_g, from_e, qd, qh, qw, offs_k, out_d, out_h, out_w,
    stride_gk, stride_gd, stride_gh, stride_gw,
    stride_ek, stride_ed, stride_eh, stride_ew,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient at the convolution's pixels (S_d * i_d + qd, S_h * i_h + qh, S_w * i_w + qw), S the pool's strides, of
    filters offs_k: [ROWS, COLUMNS], as `device.windows.conv_gradient`. from_g and from_e are the offsets of pooled
    output (i_d, i_h, i_w)."""
    REACH_D: tl.constexpr = ((G.window_d - 1) * G.pool_dilation_d) // G.pool_stride_d + 1
    REACH_H: tl.constexpr = ((G.window_h - 1) * G.pool_dilation_h) // G.pool_stride_h + 1
    REACH_W: tl.constexpr = ((G.window_w - 1) * G.pool_dilation_w) // G.pool_stride_w + 1
    SINGLE: tl.constexpr = REACH_D * REACH_H * REACH_W == 1
    LIFT_D: tl.constexpr = G.kernel_d * G.dilation_d // G.pool_stride_d + 1
    LIFT_H: tl.constexpr = G.kernel_h * G.dilation_h // G.pool_stride_h + 1
    LIFT_W: tl.constexpr = G.kernel_w * G.dilation_w // G.pool_stride_w + 1
    total = tl.zeros([ROWS, COLUMNS], dtype=ACC)
    for jd in tl.static_range(REACH_D):
        sd, ed, ok_d = window_back(
            qd + G.pool_padding_d, jd, LIFT_D, G.window_d, G.pool_stride_d, G.pool_dilation_d
        )
        for jh in tl.static_range(REACH_H):
            sh, eh, ok_h = window_back(
                qh + G.pool_padding_h, jh, LIFT_H, G.window_h, G.pool_stride_h, G.pool_dilation_h
            )
            for jw in tl.static_range(REACH_W):
                sw, ew, ok_w = window_back(
                    qw + G.pool_padding_w, jw, LIFT_W, G.window_w, G.pool_stride_w, G.pool_dilation_w
                )
                ok = mask & inside(i_d + sd, i_h + sh, i_w + sw, out_d, out_h, out_w, G) & (ok_d & ok_h & ok_w)
                shift = offset_of(sd.to(OFFSET), sh.to(OFFSET), sw.to(OFFSET), stride_gd, stride_gh, stride_gw, G)
                at = keep_in_range(from_g + shift, ok)[:, None] + (offs_k * stride_gk)[None, :]
                grad = load_operand(grad_ptr, at, ok[:, None], ACC)
                if G.saves_code:
                    shift = offset_of(sd.to(OFFSET), sh.to(OFFSET), sw.to(OFFSET), stride_ed, stride_eh, stride_ew, G)
                    at = keep_in_range(from_e + shift, ok)[:, None] + (offs_k * stride_ek)[None, :]
                    # 0 where masked, though that is an element's code: grad is 0 there already.
                    code = tl.load(code_ptr + at, mask=ok[:, None], other=0)
                    element = (ed * G.window_h + eh) * G.window_w + ew
                    won = code == spread(element, G.window, ROWS, COLUMNS, code.dtype)
                    grad = tl.where(won, grad, 0.0).to(grad.dtype)
                if SINGLE:
                    total = grad
                else:
                    total += widen(grad, ACC)
    return total
