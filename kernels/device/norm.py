"""A norm inside a kernel: its rows, its formula, and the statistics of what a program has computed.

Channels are rows. The formula is written once, `normalised`, so that forward and backward of a layer, in one kernel or
several, take every activation's side alike.
"""

import triton.language as tl

from tidepool.kernels.device.arithmetic import load_operand, of_side, offset_of, quotient_up, round_to, summed, widen
from tidepool.kernels.device.windows import average_divisor
from tidepool.kernels.runtime.interpreting import device_function


@device_function
def normalised(z, mean, scale, shift):
    """(z - mean) * scale + shift, a norm's rows against a tile. Subtracted first: z and mean may be large and close."""
    return (z - mean) * scale + shift


@device_function
def load_row(ptr, k, mask_k, ACC: tl.constexpr):
    """One value a channel, in the accumulator's type.

    Here and in the passes over memory offsets are not pulled into range as the convolutions' are: no loop with a
    product turns these loads into copies that drop their mask, and left as they are they are 16 bytes wide.
    """
    return widen(load_operand(ptr, k, mask_k, ACC), ACC)


@device_function
def affine_rows(weight_ptr, bias_ptr, variance, k, mask_k, ACC: tl.constexpr, EPS: tl.constexpr):
    """1 / sqrt(variance + eps), weight times that, and bias, of channels k; a weight or bias of None is 1 or 0."""
    inverse = 1.0 / tl.sqrt(variance + EPS)
    scale = inverse
    if weight_ptr is not None:
        scale = inverse * load_row(weight_ptr, k, mask_k, ACC)
    shift = tl.zeros_like(inverse)
    if bias_ptr is not None:
        shift = load_row(bias_ptr, k, mask_k, ACC)
    return inverse, scale, shift


@device_function
def epilogue_rows(norm, k, mask_k, ACC: tl.constexpr, NORM: tl.constexpr):
    """mean, scale and shift of channels k from given statistics: the rows of `normalise_results`."""
    mean_ptr, variance_ptr, weight_ptr, bias_ptr, _, _, _, _, _, _ = norm
    mean = load_row(mean_ptr, k, mask_k, ACC)
    variance = load_row(variance_ptr, k, mask_k, ACC)
    _, scale, shift = affine_rows(weight_ptr, bias_ptr, variance, k, mask_k, ACC, NORM.eps)
    return mean, scale, shift


@device_function
def normalise_results(
    z, norm, mean, scale, shift, k, mask_k, n, d, h, w, mask_p,
    DTYPE: tl.constexpr, ACC: tl.constexpr, G: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """Results z [rows, columns] normalised, with the residual at (n, k, d, h, w) where there is one, rounded."""
    _, _, _, _, residual_ptr, stride_rn, stride_rk, stride_rd, stride_rh, stride_rw = norm
    u = normalised(z, mean[:, None], scale[:, None], shift[:, None])
    if NORM.residual:
        at = n * stride_rn + offset_of(d, h, w, stride_rd, stride_rh, stride_rw, G)
        at = at[None, :] + (k * stride_rk)[:, None]
        u += widen(load_operand(residual_ptr, at, mask_k[:, None] & mask_p[None, :], ACC), ACC)
    return widen(round_to(u, DTYPE), ACC)


@device_function
def pooled_results(best, od, oh, ow, conv_d, conv_h, conv_w, DTYPE: tl.constexpr, ACC: tl.constexpr, G: tl.constexpr):
    """A finished fold as it would be stored: an average divided, and rounded."""
    if G.pool == "avg":
        best = best / average_divisor(od, oh, ow, conv_d, conv_h, conv_w, G)[None, :]
        return widen(round_to(best, DTYPE), ACC)
    else:
        return best


@device_function
def store_statistics(
    norm, value, part, channels, k, mask_k, mask_p, ACC: tl.constexpr,
):  # fmt: skip
    """Each row's mean over the columns that exist, and the sum of squares about it: workspace[part, :, k].

    Two passes over registers, and the mean corrected by what the second finds left over: no difference of large sums.
    """
    (workspace_ptr,) = norm
    count = summed(mask_p.to(ACC), 0)
    mean = summed(tl.where(mask_p[None, :], value, 0.0), 1) / count
    deviation = tl.where(mask_p[None, :], value - mean[:, None], 0.0)
    excess = summed(deviation, 1) / count
    squares = summed(deviation * deviation, 1) - count * excess * excess
    squares = tl.where(squares < 0, 0.0, squares)  # not tl.maximum: NaN stays NaN
    at = workspace_ptr + part.to(tl.int64) * 2 * channels + k
    tl.store(at, mean + excess, mask=mask_k)
    tl.store(at + channels, squares, mask=mask_k)


@device_function
def activation_gradient(grad, u, G: tl.constexpr):
    """The gradient before the activation, from the one behind it and the value before it."""
    A: tl.constexpr = G.activation
    if G.activation.needs_side:
        return of_side(grad, A.off(u, A), grad.dtype, A)
    elif G.activation.needs_value:
        return grad * A.slope(u, A)
    else:
        return grad


@device_function
def merge_parts(
    parts_ptr, first, last, chunk, total, channels, k, mask_k, ACC: tl.constexpr, BLOCK_S: tl.constexpr
):  # fmt: skip
    """Number, mean and sum of squares about it of channels k over parts first ... last - 1 of (parts, 2, channels).

    Part i holds the statistics of values i * chunk ... of `total`. Chan's formula for many parts at once:
    mean = sum n_i m_i / n, squares = sum (squares_i + n_i (m_i - mean)^2); means are taken relative to the first
    part's, so that a large common part is not summed.
    """
    at_k = parts_ptr + k[None, :]
    origin = load_row(parts_ptr + first * 2 * channels, k, mask_k, ACC)
    steps = quotient_up(last - first, BLOCK_S)
    weighted = tl.zeros([BLOCK_S, k.shape[0]], dtype=ACC)
    for step in range(steps):
        part = first + step * BLOCK_S + tl.arange(0, BLOCK_S)
        mask = (part < last)[:, None] & mask_k[None, :]
        count = tl.minimum(total - part * chunk, chunk).to(ACC)[:, None]
        mean = tl.load(at_k + (part * 2 * channels)[:, None], mask=mask, other=0.0)
        weighted += tl.where(mask, count * (mean - origin[None, :]), 0.0)
    number = tl.minimum(total, last * chunk) - first * chunk
    mean = origin + summed(weighted, 0) / number.to(ACC)
    squares = tl.zeros([BLOCK_S, k.shape[0]], dtype=ACC)
    for step in range(steps):
        part = first + step * BLOCK_S + tl.arange(0, BLOCK_S)
        mask = (part < last)[:, None] & mask_k[None, :]
        count = tl.minimum(total - part * chunk, chunk).to(ACC)[:, None]
        at = at_k + (part * 2 * channels)[:, None]
        distance = tl.load(at, mask=mask, other=0.0) - mean[None, :]
        within = tl.load(at + channels, mask=mask, other=0.0)
        squares += tl.where(mask, within + count * distance * distance, 0.0)
    return number, mean, summed(squares, 0)
