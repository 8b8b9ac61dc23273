"""A Gluon kernel that loads pixels with an im2col descriptor; Triton has them from 3.9 on."""

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma
from triton.experimental.gluon.nvidia import hopper


@gluon.jit
def load_pixels_kernel(x, out, n, h, w, c, OFF_H: gl.constexpr, OFF_W: gl.constexpr):
    buffer = gl.allocate_shared_memory(gl.float16, x.block_type.shape, x.layout)
    arrived = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(arrived, count=1)
    mbarrier.expect(arrived, x.block_type.nbytes)
    tma.async_load_im2col(x, [n, h, w, c], [OFF_H, OFF_W], arrived, buffer)
    mbarrier.wait(arrived, 0)
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [16, 2], [4, 1], [1, 0])
    pixels = gl.arange(0, x.block_type.shape[0], layout=gl.SliceLayout(1, layout))
    channels = gl.arange(0, x.block_type.shape[1], layout=gl.SliceLayout(0, layout))
    gl.store(out + pixels[:, None] * x.block_type.shape[1] + channels[None, :], buffer.load(layout))


def load_pixels(
    x: Tensor, *, lower: list[int], upper: list[int], steps: list[int], base: list[int], offsets: tuple[int, int]
) -> Tensor:
    """[32, 16] float16 of x (N, H, W, C): 32 pixels' 16 channels from `base` (N, H, W, C) on, `offsets` (H, W) away."""
    block = [32, 16]
    layout = gl.NVMMASharedLayout.get_default_for(block, gl.float16)
    descriptor = hopper.TensorDescriptorIm2Col.from_tensor(
        x, block, layout, element_strides=steps, pixel_box_lower_corner=lower, pixel_box_upper_corner=upper
    )
    out = torch.empty(block, dtype=torch.float16)
    load_pixels_kernel[(1,)](descriptor, out, *base, OFF_H=offsets[0], OFF_W=offsets[1], num_warps=4)
    return out
