"""From each program's statistics of a convolution's results to a norm's coefficients and its running statistics.

    mean, squares = merge of the parts that the forward kernel wrote          squares = sum (z - mean)^2
    coefficients  = mean, 1 / sqrt(squares / M + eps), weight times that, bias                     (4, K)
    running_mean  = momentum * mean + (1 - momentum) * running_mean
    running_var   = momentum * squares / (M - 1) + (1 - momentum) * running_var

M = N * pixels. Parts are merged in a fixed order by fixed programs: the result repeats to the bit. Many parts are
merged in two rounds, about the square root of their number in each.
"""

import math
import struct
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool.kernels.device.arithmetic import round_to
from tidepool.kernels.device.norm import affine_rows, load_row, merge_parts
from tidepool.kernels.runtime.interpreting import kernel
from tidepool.kernels.runtime.launch import Prepared, accumulator, launch_prepared
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
    count = None if parts is None else parts.shape[0]
    launch = bind_coefficients(z.dtype, z.device, channels, total, count, chunk, eps)
    launch(coefficients, parts, norm_weight, norm_bias, running_mean, running_var, momentum)
    return coefficients


def bind_coefficients(
    dtype: torch.dtype, device: torch.device, channels: int, total: int, parts: int | None, chunk: int, eps: float
) -> Callable[..., None]:
    """`conv_norm_act_coefficients` made ready for `parts` parts (None: statistics are given) of `chunk` pixels each, of
    `total` pixels of z, of this dtype: a function of (coefficients, parts, norm_weight, norm_bias, running_mean,
    running_var, momentum) that launches and decides nothing."""
    interpreted = mode_of(device).interpreted
    merge, count, chunk = _bind_merge(parts, chunk, total, channels, interpreted)
    prepared: dict[float, Prepared] = {}

    def launch_coefficients(
        coefficients: Tensor, parts: Tensor | None, weight: Tensor | None, bias: Tensor | None,
        mean: Tensor | None, variance: Tensor | None, momentum: float,
    ) -> None:  # fmt: skip
        launched = prepared.get(momentum)
        if launched is None:
            prepared.clear()  # of a cumulative average every step has its own
            launched = _prepare(channels, dtype, total, parts is not None, eps, count, chunk, momentum, interpreted)
            prepared[momentum] = launched
        new_mean, new_variance = _plain(mean), _plain(variance)
        launch_prepared(
            conv_norm_act_coefficients_kernel, launched,
            coefficients, parts if parts is None or merge is None else merge(parts), _plain(weight), _plain(bias),
            new_mean, new_variance,
        )  # fmt: skip
        if parts is not None:
            for given, new in ((mean, new_mean), (variance, new_variance)):
                if given is not None and new is not None and new is not given:
                    given.copy_(new)

    return launch_coefficients


def _plain(tensor: Tensor | None) -> Tensor | None:
    """The same values side by side."""
    return None if tensor is None else tensor.contiguous()


def _bind_merge(
    count: int | None, chunk: int, total: int, channels: int, interpreted: bool
) -> tuple[Callable[[Tensor], Tensor] | None, int, int]:
    """What merges parts until they are few enough for the coefficients' kernel (None: they are), how many are left, and
    the values each of those stands for."""
    if count is None or count <= _MOST_AT_ONCE:
        return None, count or 0, chunk
    each = power_of_two(math.isqrt(count), MERGE_PARTS, count)
    left, block_k = -(-count // each), _block_k(channels, interpreted)
    scalars = (count, each, chunk, total, channels)
    grid = (triton.cdiv(channels, block_k), left)
    prepared: dict[torch.dtype, Prepared] = {}

    def merge(parts: Tensor) -> Tensor:
        launched = prepared.get(parts.dtype)
        if launched is None:
            blocks = {"ACC": accumulator(parts.dtype), "BLOCK_S": MERGE_PARTS, "BLOCK_K": block_k}
            launched = prepared[parts.dtype] = Prepared(grid, scalars, blocks)
        merged = parts.new_empty(left, 2, channels)
        launch_prepared(conv_norm_act_merge_kernel, launched, merged, parts)
        return merged

    return merge, left, chunk * each


def _block_k(channels: int, interpreted: bool) -> int:
    return power_of_two(channels, 1, 1024) if interpreted else MERGE_CHANNELS


def _prepare(
    channels: int, dtype: torch.dtype, total: int, training: bool, eps: float, parts: int, chunk: int, momentum: float,
    interpreted: bool,
) -> Prepared:  # fmt: skip
    block_s = power_of_two(parts, 1, _MOST_AT_ONCE) if interpreted else MERGE_PARTS
    block_k = _block_k(channels, interpreted)
    keywords = {
        "ACC": accumulator(dtype), "TRAINING": training, "EPS": eps,
        "BLOCK_S": block_s, "BLOCK_K": block_k,
    }  # fmt: skip
    bits = struct.unpack("<q", struct.pack("<d", momentum))[0]
    return Prepared((triton.cdiv(channels, block_k),), (parts, chunk, total, channels, bits), keywords)
