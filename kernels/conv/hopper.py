"""Forward on compute capability 9.0: weights on wgmma's rows, pixels on its columns, boxes of x fetched by TMA.

    acc[k, (n, h, w)] = sum_{r, s, c} weight[k, (r, s), c] * x[n, h + r*dilation - padding, w + s*dilation - padding, c]

A program owns BLOCK_K filters at a box of BLOCK_N pictures x BLOCK_H x BLOCK_W convolution pixels. For each tap and
block of channels one copy by tensor descriptor brings the box of x, shifted by the tap: coordinates before the first
and past the last pixel read zero, which is the padding, and neither offsets nor masks are computed. Layers of stride 2
read x as [N, H/2, 2, W/2, 2C], where a tap's pixels are a box again.

In wgmma's accumulator a thread owns neighbouring columns and columns 8 apart, hence whole 2x2 windows as long as
BLOCK_W is a multiple of 8: bias, activation, pool and code are arithmetic on its own registers (HOPPER.md).
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from tidepool.kernels.device.arithmetic import multiply_accumulate, quotient, quotient_up, remainder, widen
from tidepool.kernels.device.boxes import finish_box
from tidepool.kernels.layer.formats import five_strides, layout_of
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.learned_slope import number_of_slopes
from tidepool.kernels.runtime.interpreting import INTERPRETING, device_function, kernel
from tidepool.kernels.runtime.launch import Layout, Prepared, accumulator, launch_prepared, offset_type
from tidepool.kernels.tiles.hopper import HopperTile, programs_per_multiprocessor


@kernel
def conv_act_pool_hopper_kernel(
    y_ptr, code_ptr, winner_ptr, bias_ptr, slope_ptr, x_desc, weight_desc,
    num_tiles, batch, conv_h, conv_w, out_h, out_w,
    stride_yn, stride_yk, stride_yh, stride_yw,
    stride_en, stride_ek, stride_eh, stride_ew,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr,
    HAS_BIAS: tl.constexpr, SLOPES: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
    PERSISTENT: tl.constexpr,
):  # fmt: skip
    # One program: one tile, or if PERSISTENT every num_programs-th. `flatten` makes one loop of the walk over tiles and
    # the sum within a tile, so that the next tile's first copies are issued before this one's results are written.
    if PERSISTENT:
        for tile in tl.range(tl.program_id(0), num_tiles, tl.num_programs(0), flatten=True):
            _compute_tile(
                tile, y_ptr, code_ptr, winner_ptr, bias_ptr, slope_ptr, x_desc, weight_desc,
                batch, conv_h, conv_w, out_h, out_w,
                stride_yn, stride_yk, stride_yh, stride_yw, stride_en, stride_ek, stride_eh, stride_ew,
                G, ACC, OFFSET, HAS_BIAS, SLOPES, SAVE, BLOCK_K, BLOCK_N, BLOCK_H, BLOCK_W, BLOCK_C,
            )  # fmt: skip
    else:
        _compute_tile(
            tl.program_id(0), y_ptr, code_ptr, winner_ptr, bias_ptr, slope_ptr, x_desc, weight_desc,
            batch, conv_h, conv_w, out_h, out_w,
            stride_yn, stride_yk, stride_yh, stride_yw, stride_en, stride_ek, stride_eh, stride_ew,
            G, ACC, OFFSET, HAS_BIAS, SLOPES, SAVE, BLOCK_K, BLOCK_N, BLOCK_H, BLOCK_W, BLOCK_C,
        )  # fmt: skip


@device_function
def _compute_tile(
    tile, y_ptr, code_ptr, winner_ptr, bias_ptr, slope_ptr, x_desc, weight_desc, batch, conv_h, conv_w, out_h, out_w,
    stride_yn, stride_yk, stride_yh, stride_yw, stride_en, stride_ek, stride_eh, stride_ew,
    G: tl.constexpr, ACC: tl.constexpr, OFFSET: tl.constexpr,
    HAS_BIAS: tl.constexpr, SLOPES: tl.constexpr, SAVE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """BLOCK_K filters at BLOCK_N x BLOCK_H x BLOCK_W pixels. Filters vary fastest with the tile's number: programs that
    run at the same time share their pixels in L2."""
    NUM_K: tl.constexpr = (G.filters + BLOCK_K - 1) // BLOCK_K
    tile_k = remainder(tile, NUM_K) * BLOCK_K
    box = quotient(tile, NUM_K)
    tiles_w = quotient_up(conv_w, BLOCK_W)
    tiles_h = quotient_up(conv_h, BLOCK_H)
    w0 = (box % tiles_w) * BLOCK_W
    h0 = (box // tiles_w % tiles_h) * BLOCK_H
    n0 = box // (tiles_w * tiles_h) * BLOCK_N

    acc = _convolve(x_desc, weight_desc, tile_k, n0, h0, w0, G, ACC, BLOCK_K, BLOCK_N * BLOCK_H * BLOCK_W, BLOCK_C)
    finish_box(
        acc, y_ptr, code_ptr, winner_ptr, bias_ptr, slope_ptr, tile_k, n0, h0, w0, batch, conv_h, conv_w, out_h, out_w,
        stride_yn, stride_yk, stride_yh, stride_yw, stride_en, stride_ek, stride_eh, stride_ew,
        G, ACC, OFFSET, HAS_BIAS, SLOPES, SAVE, BLOCK_K, BLOCK_N, BLOCK_H, BLOCK_W,
    )  # fmt: skip


@device_function
def _convolve(
    x_desc, weight_desc, k0, n0, h0, w0,
    G: tl.constexpr, ACC: tl.constexpr, BLOCK_K: tl.constexpr, PIXELS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The convolution, without bias, of the program's filters at its pixels: [BLOCK_K, PIXELS]."""
    BLOCKS_C: tl.constexpr = (G.channels + BLOCK_C - 1) // BLOCK_C
    acc = tl.zeros([BLOCK_K, PIXELS], dtype=ACC)
    for step in range(G.taps * BLOCKS_C):
        tap = quotient(step, BLOCKS_C)
        c = remainder(step, BLOCKS_C) * BLOCK_C
        h = quotient(tap, G.kernel_w) * G.dilation_h - G.padding_h
        w = remainder(tap, G.kernel_w) * G.dilation_w - G.padding_w
        if G.stride_h == 1:
            x = x_desc.load([n0, h0 + h, w0 + w, c])
        else:
            x = x_desc.load([n0, h0 + (h >> 1), h & 1, w0 + (w >> 1), (w & 1) * G.channels + c])
        weight = _as_operand(weight_desc.load([k0, step * BLOCK_C]), ACC)
        x = _as_operand(tl.reshape(x, [PIXELS, BLOCK_C]), ACC)
        acc = multiply_accumulate(weight, tl.trans(x), acc, "ieee")
    return acc


@device_function
def _as_operand(value, ACC: tl.constexpr):
    """What a descriptor loaded, as an operand of a product: the interpreter would multiply bf16 bit patterns."""
    if INTERPRETING:
        return widen(value, ACC)
    else:
        return value


def bind_hopper(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    winner: Tensor | None,
    geometry: Geometry,
    shapes: Shapes,
    tile: HopperTile,
    slope: Tensor | None,
) -> Callable[..., None]:
    """The kernel's launch for tensors laid out as these; arguments as `bind_forward`'s, for layers that `fits_hopper`
    accepts and an x that `readable_by_tma` does."""
    saved = code if code is not None else winner
    prepared = _prepare(
        geometry, shapes, x.dtype, tile, bias is not None, _multiprocessors(x.device), layout_of(y),
        None if saved is None else layout_of(saved), number_of_slopes(slope),
    )  # fmt: skip
    view_of_x = _view_of_x(layout_of(x), geometry, tile)

    def launch(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        y: Tensor,
        code: Tensor | None,
        winner: Tensor | None,
        slope: Tensor | None,
    ) -> None:
        weight = _packed(weight, tile.block_c)
        launch_prepared(
            conv_act_pool_hopper_kernel, prepared,
            y, code if code is not None else y, winner if winner is not None else y,
            bias.contiguous() if bias is not None else y, slope if slope is None else slope.contiguous(),
            _descriptor(x, *view_of_x), _descriptor(weight, *_view_of_weight(weight.shape, tile)),
        )  # fmt: skip

    return launch


def readable_by_tma(x: Tensor, geometry: Geometry) -> bool:
    """Whether a descriptor can stand for x (N, C, H, W): channels one element apart, all else in steps of 16 bytes, and
    for stride 2 pixels side by side."""
    step = 16 // x.element_size()
    n, c, h, w = x.stride()
    if c != 1 or n % step or h % step or w % step or min(n, h, w) <= 0 or x.data_ptr() % 16:
        return False
    return geometry.stride_w == 1 or w == geometry.channels


def _packed(weight: Tensor, step: int) -> Tensor:
    """`weight` (K, C, R, S) as dense (K, R, S, C) at a multiple of 16 bytes, copied unless it is so already.

    C is filled up with zeros to a multiple of `step`: a box of the weight must not reach from one tap into the next.
    """
    packed = weight.movedim(1, -1)
    missing = -packed.shape[-1] % step
    if missing:
        filled = packed.new_zeros((*packed.shape[:-1], packed.shape[-1] + missing))
        filled[..., : packed.shape[-1]] = packed
        return filled
    packed = packed.contiguous()
    return packed if packed.data_ptr() % 16 == 0 else packed.clone()


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    """Of the device; 3 where there is no GPU, so that interpreted persistent programs have several tiles each."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 3


View = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""What a descriptor says of a tensor: shape, strides in elements, and the box of one load."""


@functools.lru_cache(maxsize=4096)
def _view_of_x(x: Layout, geometry: Geometry, tile: HopperTile) -> View:
    batch, channels, height, width = x[0]
    n, _, h, w = x[1]
    if geometry.stride_h == 1:
        shape, strides = (batch, height, width, channels), (n, h, w, 1)
        return shape, strides, (tile.block_n, tile.block_h, tile.block_w, tile.block_c)
    # Pairs of rows and of columns: the pixels of a tap lie in one member of each pair.
    pairs = (batch, height // 2, 2, width // 2, 2 * channels), (n, 2 * h, h, 2 * w, 1)
    return *pairs, (tile.block_n, tile.block_h, 1, tile.block_w, tile.block_c)


@functools.lru_cache(maxsize=4096)
def _view_of_weight(packed: torch.Size, tile: HopperTile) -> View:
    filters, row = packed[0], packed[1:].numel()
    return (filters, row), (row, 1), (tile.block_k, tile.block_c)


_CHECKED_FIELDS = vars(TensorDescriptor(torch.empty(16), [16], [1], [16]))
"""The fields of any descriptor, those that this Triton has beside shape, strides and box included."""


def _descriptor(base: Tensor, shape: tuple[int, ...], strides: tuple[int, ...], box: tuple[int, ...]) -> Any:
    """A tensor descriptor made without Triton's checks, a third of a launch's time: `readable_by_tma` has made them."""
    descriptor = object.__new__(TensorDescriptor)
    descriptor.__dict__.update(_CHECKED_FIELDS)
    descriptor.base, descriptor.shape, descriptor.strides, descriptor.block_shape = base, shape, strides, box
    return descriptor


@functools.lru_cache(maxsize=4096)
def _prepare(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    tile: HopperTile,
    has_bias: bool,
    multiprocessors: int,
    y: Layout,
    saved: Layout | None,
    slopes: int,
) -> Prepared:
    _, conv_h, conv_w = shapes.conv
    boxes = triton.cdiv(shapes.batch, tile.block_n) * triton.cdiv(conv_h, tile.block_h)
    tiles = boxes * triton.cdiv(conv_w, tile.block_w) * triton.cdiv(geometry.filters, tile.block_k)
    programs = min(tiles, multiprocessors * programs_per_multiprocessor(tile)) if tile.persistent else tiles
    y_n, y_k, _, y_h, y_w = five_strides(y)
    saved_n, saved_k, _, saved_h, saved_w = five_strides(saved or y)
    scalars = (
        tiles, shapes.batch, conv_h, conv_w, *shapes.output[1:], y_n, y_k, y_h, y_w, saved_n, saved_k, saved_h, saved_w,
    )  # fmt: skip
    keywords = {
        "G": geometry, "ACC": accumulator(dtype), "OFFSET": offset_type(y, saved),
        "HAS_BIAS": has_bias, "SLOPES": slopes, "SAVE": saved is not None,
        "BLOCK_K": tile.block_k, "BLOCK_N": tile.block_n, "BLOCK_H": tile.block_h, "BLOCK_W": tile.block_w,
        "BLOCK_C": tile.block_c, "PERSISTENT": tile.persistent, "num_warps": tile.warps, "num_stages": tile.stages,
    }  # fmt: skip
    return Prepared((programs,), scalars, keywords)
