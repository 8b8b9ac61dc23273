"""From each program's statistics of a convolution's results to a norm's coefficients and its running statistics.

    mean, squares = merge of the parts that the forward kernel wrote          squares = sum (z - mean)^2
    coefficients  = mean, 1 / sqrt(squares / M + eps), weight times that, bias                     (4, K)
    running_mean  = momentum * mean + (1 - momentum) * running_mean
    running_var   = momentum * squares / (M - 1) + (1 - momentum) * running_var

M = N * pixels. Parts are merged in a fixed order by fixed programs: the result repeats to the bit. Many parts are
merged in two rounds, about the square root of their number in each.
"""

import functools
import math
import struct

import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool.kernels.device.arithmetic import round_to
from tidepool.kernels.device.norm import affine_rows, load_row, merge_parts
from tidepool.kernels.runtime.interpreting import kernel
from tidepool.kernels.runtime.launch import Prepared, accumulator, launch
from tidepool.kernels.runtime.mode import mode_of
from tidepool.kernels.tiles.norm import MERGE_CHANNELS, MERGE_PARTS, power_of_two

_MOST_AT_ONCE = 4 * MERGE_PARTS
"""Parts that the coefficients' kernel merges itself."""


@kernel
def conv_norm_act_merge_kernel(
    merged_ptr, parts_ptr,
    parts, each, chunk, total, channels,
    ACC: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_K channels of `each` successive parts, merged into one.
    offs_k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    mask_k = offs_k < channels
    merged = tl.program_id(1).to(tl.int64)
    first = merged * each
    last = tl.minimum(first + each, parts)
    _, mean, squares = merge_parts(parts_ptr, first, last, chunk, total, channels, offs_k, mask_k, ACC, BLOCK_S)
    at = merged_ptr + merged * 2 * channels + offs_k
    tl.store(at, mean, mask=mask_k)
    tl.store(at + channels, squares, mask=mask_k)


@kernel
def conv_norm_act_coefficients_kernel(
    coefficients_ptr, parts_ptr, weight_ptr, bias_ptr, running_mean_ptr, running_var_ptr,
    parts, chunk, total, channels, momentum_bits,
    ACC: tl.constexpr, TRAINING: tl.constexpr, EPS: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK_K channels, from their parts (training) or from the running statistics.
    offs_k = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    mask_k = offs_k < channels
    if TRAINING:
        first = tl.zeros([], dtype=tl.int64)
        last = first + parts
        number, mean, squares = merge_parts(
            parts_ptr, first, last, chunk, total, channels, offs_k, mask_k, ACC, BLOCK_S
        )
        variance = squares / number.to(ACC)
        if running_mean_ptr is not None:
            momentum = momentum_bits.to(tl.int64).to(tl.float64, bitcast=True)
            new, old = momentum.to(ACC), (1.0 - momentum).to(ACC)
            unbiased = squares / (number - 1).to(ACC)
            kept = old * load_row(running_mean_ptr, offs_k, mask_k, ACC)
            kept_var = old * load_row(running_var_ptr, offs_k, mask_k, ACC)
            DTYPE: tl.constexpr = running_mean_ptr.dtype.element_ty
            tl.store(running_mean_ptr + offs_k, round_to(new * mean + kept, DTYPE), mask=mask_k)
            tl.store(running_var_ptr + offs_k, round_to(new * unbiased + kept_var, DTYPE), mask=mask_k)
    else:
        mean = load_row(running_mean_ptr, offs_k, mask_k, ACC)
        variance = load_row(running_var_ptr, offs_k, mask_k, ACC)
    inverse, scale, shift = affine_rows(weight_ptr, bias_ptr, variance, offs_k, mask_k, ACC, EPS)
    tl.store(coefficients_ptr + offs_k, mean, mask=mask_k)
    tl.store(coefficients_ptr + channels + offs_k, inverse, mask=mask_k)
    tl.store(coefficients_ptr + 2 * channels + offs_k, scale, mask=mask_k)
    tl.store(coefficients_ptr + 3 * channels + offs_k, shift, mask=mask_k)


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """What statistics and coefficients of tensors of this dtype are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def conv_norm_act_coefficients(
    z: Tensor,
    parts: Tensor | None,
    chunk: int,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """The norm's coefficients (4, K) for z (N, K, *spatial): mean, inverse deviation, scale, shift.

    `parts` (parts, 2, K): mean and squares of each `chunk` of z's pixels; running statistics, if given, are updated in
    place. None: coefficients come from the running statistics, which stay.
    """
    channels, total = z.shape[1], z.shape[0] * math.prod(z.shape[2:])
    coefficients = torch.empty(4, channels, dtype=statistics_dtype(z.dtype), device=z.device)
    training = parts is not None
    if parts is not None:
        parts, chunk = _merged_once(parts, chunk, total)
    updated = [None if t is None else t.contiguous() for t in (running_mean, running_var)]
    count = parts.shape[0] if parts is not None else 0
    launched = _prepare(channels, z.dtype, training, eps, count, mode_of(z.device).interpreted)
    bits = struct.unpack("<q", struct.pack("<d", momentum))[0]
    launch(
        conv_norm_act_coefficients_kernel, launched.grid,
        coefficients, parts, _plain(norm_weight), _plain(norm_bias), *updated,
        count, chunk, total, channels, bits, **launched.keywords,
    )  # fmt: skip
    if training:
        for given, new in zip((running_mean, running_var), updated, strict=True):
            if given is not None and new is not None and new is not given:
                given.copy_(new)
    return coefficients


def _plain(tensor: Tensor | None) -> Tensor | None:
    """The same values side by side."""
    return None if tensor is None else tensor.contiguous()


def _merged_once(parts: Tensor, chunk: int, total: int) -> tuple[Tensor, int]:
    """Parts few enough for the coefficients' kernel, and the values each of them stands for."""
    count, _, channels = parts.shape
    if count <= _MOST_AT_ONCE:
        return parts, chunk
    each = power_of_two(math.isqrt(count), MERGE_PARTS, count)
    merged = parts.new_empty(-(-count // each), 2, channels)
    block_k = _block_k(channels, mode_of(parts.device).interpreted)
    blocks = {"ACC": accumulator(parts.dtype), "BLOCK_S": MERGE_PARTS, "BLOCK_K": block_k}
    grid = (triton.cdiv(channels, block_k), merged.shape[0])
    launch(conv_norm_act_merge_kernel, grid, merged, parts, count, each, chunk, total, channels, **blocks)
    return merged, chunk * each


def _block_k(channels: int, interpreted: bool) -> int:
    return power_of_two(channels, 1, 1024) if interpreted else MERGE_CHANNELS


@functools.lru_cache(maxsize=4096)
def _prepare(channels: int, dtype: torch.dtype, training: bool, eps: float, parts: int, interpreted: bool) -> Prepared:
    block_s = power_of_two(parts, 1, _MOST_AT_ONCE) if interpreted else MERGE_PARTS
    block_k = _block_k(channels, interpreted)
    keywords = {
        "ACC": accumulator(dtype), "TRAINING": training, "EPS": eps,
        "BLOCK_S": block_s, "BLOCK_K": block_k,
    }  # fmt: skip
    return Prepared((triton.cdiv(channels, block_k),), (), keywords)
