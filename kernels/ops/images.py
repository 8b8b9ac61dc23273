"""What kernels that take an image at a time share: a program owns BLOCK_C channels of one image and a share of its
pixels, and sums over pixels are added up over the shares in a fixed order."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tidepool.kernels.device.arithmetic import quotient_up, round_to, widen
from tidepool.kernels.layer.formats import five_strides, layout_of
from tidepool.kernels.runtime.interpreting import device_function, kernel
from tidepool.kernels.runtime.launch import accumulator, launch, offset_type, programs_in_flight
from tidepool.kernels.runtime.mode import mode_of
from tidepool.kernels.tiles.norm import NormTile, norm_tile, power_of_two

_BLOCK = 256


@dataclass(frozen=True)
class Rank:
    """The number of spatial dimensions: all that the index arithmetic asks of a layer."""

    rank: int


@device_function
def image_rows(channels, BLOCK_C: tl.constexpr):
    """This program's image n, its channels [BLOCK_C] and their mask: program_id(0) runs over (n, channel block)."""
    blocks = quotient_up(channels, BLOCK_C)
    offs_c = (tl.program_id(0) % blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    return (tl.program_id(0) // blocks).to(tl.int64), offs_c, offs_c < channels


@kernel
def image_sums_reduce_kernel(
    sums_ptr, workspace_ptr, gate_ptr,
    num_rows, splits, channels, pixels, stride_gn, stride_gc,
    ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # One program: BLOCK (image, channel) rows over all splits: a mean, or what a gate's gradient is made of.
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < num_rows
    total = tl.zeros([BLOCK], dtype=ACC)
    for split in range(splits):
        total += tl.load(workspace_ptr + split * num_rows + offs, mask=mask, other=0.0)
    if gate_ptr is None:
        total = total / pixels
    else:
        at = offs // channels * stride_gn + offs % channels * stride_gc
        gate = widen(tl.load(gate_ptr + at, mask=mask, other=0.0), ACC)
        slope = 1.0 / (1.0 + tl.exp(-gate))
        total = total * slope * (1.0 - slope)
    tl.store(sums_ptr + offs, round_to(total, sums_ptr.dtype.element_ty), mask=mask)


def image_tile(x: Tensor) -> NormTile:
    """The tile for x (N, C, *spatial), split so that the device is busy."""
    pixels = math.prod(x.shape[2:])
    wanted = -(-programs_in_flight(x.device) // max(x.shape[0], 1))
    return norm_tile(x.shape[1], pixels, x.stride(1) == 1, mode_of(x.device).target, wanted)


def image_grid(x: Tensor, tile: NormTile) -> tuple[int, int]:
    """A program for each image, channel block and share of the pixels."""
    return x.shape[0] * triton.cdiv(x.shape[1], tile.block_k), tile.splits


def image_scalars(x: Tensor, tile: NormTile) -> tuple[int, ...]:
    """Channels, pixels, pixels of a share, and depth, height and width of x (N, C, *spatial)."""
    pixels = math.prod(x.shape[2:])
    return x.shape[1], pixels, triton.cdiv(pixels, tile.splits), *(1, 1, *x.shape[2:])[-3:]


def image_keywords(x: Tensor, tile: NormTile, *others: Tensor) -> dict[str, Any]:
    """Constexprs of a kernel over x and what else it reads or writes; offsets are counted within an image."""
    wide = any(t.dtype == torch.float64 for t in (x, *others))
    return {
        "G": Rank(x.dim() - 2), "ACC": accumulator(torch.float64 if wide else torch.float32),
        "OFFSET": offset_type(*(layout_of(t[:1]) for t in (x, *others))),
        "BLOCK_C": tile.block_k, "BLOCK_P": tile.block_p, "num_warps": tile.warps,
    }  # fmt: skip


def image_strides(x: Tensor) -> tuple[int, ...]:
    """Element strides of image, channel, depth, height and width."""
    return five_strides(layout_of(x))


def empty_sums(x: Tensor, tile: NormTile, wide: bool) -> Tensor:
    """Unwritten sums (splits, N, C), float64 if `wide`."""
    dtype = torch.float64 if wide else torch.float32
    return torch.empty(tile.splits, *x.shape[:2], dtype=dtype, device=x.device)


def reduce_image_sums(sums: Tensor, workspace: Tensor, pixels: int, gate: Tensor | None) -> None:
    """Launch the sum over splits of `workspace` (splits, N, C) into sums (N, C, ...): over pixels, or at the gate."""
    rows = sums.shape[0] * sums.shape[1]
    block = power_of_two(rows, 1, 2**16) if mode_of(sums.device).interpreted else _BLOCK
    strides = (0, 0) if gate is None else gate.stride()[:2]
    launch(
        image_sums_reduce_kernel, (triton.cdiv(rows, block),),
        sums, workspace, gate, rows, workspace.shape[0], sums.shape[1], pixels, *strides,
        ACC=accumulator(workspace.dtype), BLOCK=block,
    )  # fmt: skip
