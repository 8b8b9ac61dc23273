"""Edge case 43 without the memory: tensors of a few elements that lie 2^30 apart, so that offsets pass 2^31.

What lies between is a mapping without memory behind it, and as much lies below: an offset that wrapped reads zeros
there, or writes where nobody looks. Every kernel is asked for the dimension that its arithmetic would miss.
"""

import mmap
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.kernels.exact import INTERPRETED
from tidepool.kernels.conv.choose import conv_act_pool_dgrad, conv_act_pool_forward, conv_act_pool_wgrad
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.pooling import MaxPool, Pool
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.ops.average import average
from tidepool.kernels.ops.gate import excite
from tidepool.kernels.tiles.dense import DgradTile
from tidepool.kernels.tiles.few_channels import FewChannelsTile
from tidepool.kernels.tiles.hopper import HopperTile
from tidepool.kernels.tiles.windowed import WindowedDgradTile, WindowedWgradTile

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="the mapping is the host's")
NORESERVE = 0x4000  # MAP_NORESERVE of Linux, which Python 3.11 has no name for
APART = 2**30
BELOW = 2**32
FEW = FewChannelsTile(16, 4, 32)
HOPPER = HopperTile(64, 1, 8, 8, 16, False)


def spread(like: Tensor, dim: int) -> Tensor:
    """The values of `like`, neighbours along `dim` 2^30 elements apart."""
    others = [d for d in range(like.dim()) if d != dim]
    if dim != 1:
        others = [d for d in others if d != 1] + [1]  # channels innermost
    strides = [0] * like.dim()
    step = 1
    for d in reversed(others):
        strides[d], step = step, step * like.shape[d]
    strides[dim] = APART
    elements = BELOW + 1 + sum((n - 1) * s for n, s in zip(like.shape, strides, strict=True))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE
    memory = torch.frombuffer(mmap.mmap(-1, elements * like.element_size(), flags=flags), dtype=like.dtype)
    return memory.as_strided(like.shape, strides, BELOW).copy_(like)


def integers(*size: int) -> Tensor:
    return torch.randint(-2, 3, size, generator=torch.Generator().manual_seed(sum(size))).half()


def images(which: str) -> int:
    """How many images a test needs: so many that the last one's offset passes 2^31, where images lie apart."""
    return 3 if which.endswith("images") else 1


def layer(x: Tensor, weight: Tensor, groups: int = 1, pool: Pool = None) -> tuple[Geometry, Shapes]:
    return build_geometry(x.shape, weight.shape, parse_layer(weight.shape[2:], 1, 0, 1, groups, None, pool))


def weights(x: Tensor, groups: int = 1, filters: int = 16) -> Tensor:
    return integers(filters, x.shape[1] // groups, 3, 3)


@pytest.mark.parametrize(
    ("channels", "groups", "tile"),
    [(4, 1, None), (16, 1, None), (4, 4, None), (3, 1, FEW), (16, 1, HOPPER)],
    ids=["portable", "portable in steps", "depthwise", "few channels", "Hopper"],
)
@pytest.mark.parametrize(
    "which",
    [
        "x images", "x channels", "x rows", "x columns", "y images", "y channels", "y rows", "y columns", "weight",
    ],
)  # fmt: skip
def test_forward(channels: int, groups: int, tile: FewChannelsTile | HopperTile | None, which: str) -> None:
    x = integers(images(which), channels, 6, 6)
    weight = weights(x, groups)
    y = torch.zeros(len(x), 16, 4, 4).half()
    expected = F.conv2d(x.double(), weight.double(), groups=groups).half()
    place, _, along = which.partition(" ")
    dim = {"images": 0, "channels": 1, "rows": 2, "columns": 3, "": 0}[along]
    tensors = {"x": x.to(memory_format=torch.channels_last), "y": y, "weight": weight}
    tensors[place] = spread(tensors[place], dim)
    geometry, shapes = layer(x, weight, groups)
    conv_act_pool_forward(tensors["x"], tensors["weight"], None, tensors["y"], None, None, geometry, shapes, tile)
    assert torch.equal(tensors["y"].contiguous(), expected)


@pytest.mark.parametrize(
    "which", ["dx images", "dx channels", "dx rows", "grad images", "grad channels", "grad rows", "weight"]
)
@pytest.mark.parametrize(
    ("groups", "tile"),
    [(1, None), (1, DgradTile(16, 16, 16, flat=False)), (4, None), (1, WindowedDgradTile(64, 16, 16))],
    ids=["general", "general in steps", "depthwise", "windowed"],
)
def test_dgrad(groups: int, tile: DgradTile | WindowedDgradTile | None, which: str) -> None:
    x = integers(images(which), 4, 6, 6)
    weight = weights(x, groups)
    grad = integers(len(x), 16, 4, 4)
    expected = torch.nn.grad.conv2d_input(x.shape, weight.double(), grad.double(), groups=groups).half()
    place, _, along = which.partition(" ")
    tensors = {"dx": torch.zeros_like(x), "grad": grad, "weight": weight}
    tensors[place] = spread(tensors[place], {"images": 0, "channels": 1, "rows": 2, "": 0}[along])
    geometry, shapes = layer(x, weight, groups)
    conv_act_pool_dgrad(tensors["grad"], None, None, tensors["weight"], tensors["dx"], geometry, shapes, tile)
    assert torch.equal(tensors["dx"].contiguous(), expected)


@pytest.mark.parametrize("dim", [2, 3], ids=["rows", "columns"])
@pytest.mark.parametrize("place", ["grad", "code"])
def test_windowed_dgrad_of_a_large_kernel(place: str, dim: int) -> None:
    """Pooled outputs up to three before a pixel's own: further back than 2^31 elements. Codes of 0: each window's first
    pixel has the gradient."""
    weight, grad = integers(16, 4, 7, 7), integers(1, 16, 4, 4)
    dx = torch.zeros(1, 4, 14, 14).half()
    unpooled = torch.zeros(1, 16, 8, 8).double()
    unpooled[:, :, ::2, ::2] = grad
    expected = torch.nn.grad.conv2d_input(dx.shape, weight.double(), unpooled).half()
    tensors = {"grad": grad, "code": torch.zeros(grad.shape, dtype=torch.uint8)}
    tensors[place] = spread(tensors[place], dim)
    geometry, shapes = layer(dx, weight, pool=MaxPool(2))
    tile = WindowedDgradTile(64, 16, 16)
    conv_act_pool_dgrad(tensors["grad"], tensors["code"], None, weight, dx, geometry, shapes, tile)
    assert torch.equal(dx, expected)


@pytest.mark.parametrize("which", ["x images", "x channels", "x rows", "grad images", "grad channels", "grad rows"])
@pytest.mark.parametrize(
    ("groups", "tile"),
    [(1, None), (4, None), (1, WindowedWgradTile(16, 16, 16, taps=1, splits=1))],
    ids=["general", "depthwise", "windowed"],
)
def test_wgrad(groups: int, tile: WindowedWgradTile | None, which: str) -> None:
    x = integers(images(which), 4, 6, 6)
    weight = weights(x, groups)
    grad = integers(len(x), 16, 4, 4)
    expected = torch.nn.grad.conv2d_weight(x.double(), weight.shape, grad.double(), groups=groups).half()
    place, _, along = which.partition(" ")
    tensors = {"x": x, "grad": grad}
    tensors[place] = spread(tensors[place], {"images": 0, "channels": 1, "rows": 2}[along])
    geometry, shapes = layer(x, weight, groups)
    dweight = torch.zeros_like(weight)
    conv_act_pool_wgrad(tensors["grad"], None, None, tensors["x"], dweight, None, geometry, shapes, tile)
    assert torch.equal(dweight, expected)


@pytest.mark.parametrize("place", [lambda x, gate: (spread(x, 1), gate), lambda x, gate: (x, spread(gate, 1))])
def test_squeeze_excite(place: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    x, gate = integers(1, 5, 3, 4).float(), integers(1, 5, 1, 1).float()
    torch.testing.assert_close(excite(*place(x, gate)).contiguous(), excite(x, gate), rtol=0, atol=0)


@pytest.mark.parametrize("dim", range(4), ids=["images", "channels", "rows", "columns"])
def test_global_average_pool(dim: int) -> None:
    x = integers(3, 5, 3, 4).float()
    torch.testing.assert_close(average(spread(x, dim)), average(x), rtol=0, atol=0)
