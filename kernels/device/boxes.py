"""From a box of convolution outputs, pictures x rows x columns, to what forward stores: bias, activation, pool, code.

Shared by the kernels whose programs own boxes of pixels, and inlined into each. Their layers have two dimensions and
either no pool or one of 2x2 windows side by side, so that a box with even sides holds whole windows.
"""

import triton.language as tl

from tidepool.kernels.device.arithmetic import as_stored, quotient, remainder, widen
from tidepool.kernels.device.windows import fold, load_slope, start_fold, store_bits, window_pixel, write_outputs
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def finish_box(
    acc, y_ptr, code_ptr, winner_ptr, bias_ptr, slope_ptr, tile_k, n0, h0, w0, batch, conv_h, conv_w, out_h, out_w,
    stride_yn, stride_yk, stride_yh, stride_yw, stride_en, stride_ek, stride_eh, stride_ew,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr,
    HAS_BIAS: tl.constexpr, SLOPES: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Store what comes of convolution outputs `acc` [BLOCK_K, BLOCK_N * BLOCK_H * BLOCK_W]: filters from tile_k, in
    the box from (n0, h0, w0)."""
    Y_DTYPE: tl.constexpr = y_ptr.dtype.element_ty
    WINDOW: tl.constexpr = G.window
    BOX_H: tl.constexpr = BLOCK_H // G.window_h  # of pooled outputs
    BOX_W: tl.constexpr = BLOCK_W // G.window_w
    OUTPUTS: tl.constexpr = BLOCK_N * BOX_H * BOX_W
    offs_k = (tile_k + tl.arange(0, BLOCK_K)).to(OFFSET)
    mask_k = offs_k < G.filters
    if HAS_BIAS:
        acc += widen(tl.load(bias_ptr + offs_k, mask=mask_k, other=0.0), ACC)[:, None]
    slope = None
    if SLOPES > 0:
        slope = load_slope(slope_ptr, offs_k, mask_k, ACC, SLOPES)
    # Rounded before windows are compared, so that ties fall where PyTorch's do.
    value = as_stored(acc, Y_DTYPE, ACC)

    offs_p = tl.arange(0, OUTPUTS)
    n = (n0 + quotient(offs_p, BOX_H * BOX_W)).to(OFFSET)
    oh = (quotient(h0, G.window_h) + remainder(quotient(offs_p, BOX_W), BOX_H)).to(OFFSET)
    ow = (quotient(w0, G.window_w) + remainder(offs_p, BOX_W)).to(OFFSET)
    mask_p = (n < batch) & (oh < out_h) & (ow < out_w)
    best, code, winner = start_fold(BLOCK_K, OUTPUTS, ACC, G)
    for element in tl.static_range(WINDOW):
        part = _window_element(value, element, G, BLOCK_K, BLOCK_N * BOX_H, BOX_W)
        _, ph, pw = window_pixel(oh * 0, oh, ow, element, G)
        if G.partial_windows:
            exists = (ph < conv_h) & (pw < conv_w)
        else:
            exists = tl.full([OUTPUTS], True, dtype=tl.int1)  # of a window that is stored every element does
        if SAVE and G.saves_bits:
            at = n * stride_en + ph * stride_eh + pw * stride_ew
            store_bits(code_ptr, part, at, exists & mask_p, offs_k, 0, stride_ek, G, BLOCK_K)
        best, code, winner = fold(best, code, winner, part, element, exists, slope, Y_DTYPE, G)
    write_outputs(
        y_ptr, code_ptr, winner_ptr, best, code, winner, offs_k, mask_k, n, oh * 0, oh, ow, mask_p, 1, conv_h, conv_w,
        stride_yn, stride_yk, 0, stride_yh, stride_yw,
        stride_en, stride_ek, 0, stride_eh, stride_ew, G, SAVE,
    )  # fmt: skip


@device_function
def _window_element(
    value, ELEMENT: tl.constexpr, G: tl.constexpr, BLOCK_K: tl.constexpr, ROWS: tl.constexpr, BOX_W: tl.constexpr
):  # fmt: skip
    """One element of every window, [BLOCK_K, ROWS * BOX_W], of pixels [BLOCK_K, ROWS * 2 * BOX_W * 2]: a choice among
    a thread's registers, no data moves."""
    if G.window == 1:
        return value
    else:
        split = tl.permute(tl.reshape(value, [BLOCK_K, ROWS, 2, BOX_W, 2]), (0, 1, 3, 2, 4))
        left, right = tl.split(split)
        side = left
        if ELEMENT % 2 == 1:
            side = right
        upper, lower = tl.split(side)
        if ELEMENT // 2 == 0:
            return tl.reshape(upper, [BLOCK_K, ROWS * BOX_W])
        else:
            return tl.reshape(lower, [BLOCK_K, ROWS * BOX_W])
