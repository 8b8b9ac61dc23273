"""A layer's launches at its own size and, in the same tiles, at smaller ones."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from tidepool.benchmarking.cases import LayerCase
from tidepool.kernels.compile_check.compile import Launch, collecting
from tidepool.kernels.compile_check.conv_cases import Case
from tidepool.kernels.compile_check.conv_launches import Tensors, tensors_of
from tidepool.kernels.conv.choose import conv_act_pool_dgrad, conv_act_pool_forward, conv_act_pool_wgrad
from tidepool.kernels.conv.depthwise import conv_act_pool_depthwise_dgrad, conv_act_pool_depthwise_wgrad
from tidepool.kernels.conv.wgrad import empty_workspace
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.tiles.dense import DepthwiseTile, DgradTile, ForwardTile, WgradTile
from tidepool.kernels.tiles.few_channels import FewChannelsTile
from tidepool.kernels.tiles.hopper import HopperTile
from tidepool.kernels.tiles.windowed import WindowedDgradTile, WindowedWgradTile

KERNELS = ("forward", "dgrad", "wgrad", "wgrad reduce")
"""By the names that the roofline gives them."""
_TILES: dict[str, Any] = {
    "conv_act_pool_forward_kernel": ForwardTile,
    "conv_act_pool_hopper_kernel": HopperTile,
    "conv_act_pool_few_channels_kernel": FewChannelsTile,
    "conv_act_pool_dgrad_kernel": DgradTile,
    "conv_act_pool_windowed_dgrad_kernel": WindowedDgradTile,
    "conv_act_pool_wgrad_kernel": WgradTile,
    "conv_act_pool_windowed_wgrad_kernel": WindowedWgradTile,
    "conv_act_pool_depthwise_forward_kernel": DepthwiseTile,
    "conv_act_pool_depthwise_dgrad_kernel": DepthwiseTile,
    "conv_act_pool_depthwise_wgrad_kernel": DepthwiseTile,
}
_WORDS = {"warps": "num_warps", "stages": "num_stages"}


@dataclass(frozen=True, kw_only=True)
class Size:
    """Images and pixels of a layer's input."""

    batch: int
    spatial: tuple[int, ...]

    def __str__(self) -> str:
        return "x".join(map(str, (self.batch, *self.spatial)))


@dataclass(frozen=True, kw_only=True)
class Sized:
    """A layer's launches at one size, by the roofline's names."""

    size: Size
    geometry: Geometry
    shapes: Shapes
    launches: Mapping[str, Launch]


def case_of(layer: LayerCase) -> Case:
    """The suite's layer as the compile check takes one."""
    settings = {**layer.options, "activation": layer.activation, "pool": layer.pool}
    return Case(layer.name, layer.x, layer.weight, options=settings, input_gradient=layer.input_gradient)


def at_size(layer: LayerCase, size: Size, dtype: str, like: Sized | None = None) -> Sized:
    """The launches of forward in training, dgrad and wgrad at a size; in the tiles of `like` where it is given."""
    case = replace(case_of(layer), x=(size.batch, layer.x[1], *size.spatial))
    tensors = tensors_of(case, dtype)
    tiles = {} if like is None else {name: tile_of(launch) for name, launch in like.launches.items()}
    with collecting(dtype) as asked:
        _launch_all(tensors, layer, tiles)
    names = [name for name in KERNELS if name != "dgrad" or layer.input_gradient]
    return Sized(
        size=size,
        geometry=tensors.geometry,
        shapes=tensors.shapes,
        launches=dict(zip(names, asked, strict=False)),
    )


def _launch_all(t: Tensors, layer: LayerCase, tiles: Mapping[str, Any]) -> None:
    """Forward, dgrad where it is wanted and wgrad, with what the layer has of a bias."""
    bias, gradient, sizes = t.bias if layer.bias else None, (t.y, t.code, t.saved), (t.geometry, t.shapes)
    conv_act_pool_forward(t.x, t.weight, bias, t.y, t.code, t.winner, *sizes, tiles.get("forward"))
    dx, dweight = torch.empty_like(t.x), torch.empty_like(t.weight)
    dbias = None if bias is None else torch.empty_like(bias)
    if not t.geometry.depthwise or not tiles:
        if layer.input_gradient:
            conv_act_pool_dgrad(*gradient, t.weight, dx, *sizes, tiles.get("dgrad"))
        conv_act_pool_wgrad(*gradient, t.x, dweight, dbias, *sizes, tiles.get("wgrad"))
        return
    if layer.input_gradient:
        conv_act_pool_depthwise_dgrad(*gradient, t.weight, dx, *sizes, tiles["dgrad"])
    row = t.geometry.taps * t.geometry.channels + int(layer.bias)
    workspace = empty_workspace(t.y, tiles["wgrad"].splits * t.weight.shape[0] * row)
    conv_act_pool_depthwise_wgrad(*gradient, t.x, workspace, (True, layer.bias), *sizes, tiles["wgrad"])


def tile_of(launch: Launch) -> Any:
    """The tile that a launch was made in, read off its keywords and grid; None for a kernel without."""
    kind = _TILES.get(launch.name)
    if kind is None:
        return None
    depthwise_dgrad = launch.name == "conv_act_pool_depthwise_dgrad_kernel"
    values: dict[str, Any] = {}
    for field in fields(kind):
        word = _WORDS.get(field.name, field.name.upper())
        if field.name == "splits":
            values["splits"] = launch.grid[1] if "wgrad" in launch.name else 1
        elif field.name == "block_k" and depthwise_dgrad:
            values["block_k"] = launch.keywords["BLOCK_C"]
        elif word in launch.keywords:
            values[field.name] = launch.keywords[word]
    return kind(**values)


def tensors(launch: Launch) -> list[Tensor]:
    """A launch's tensors, those of tensor descriptors included, in the order of the kernel's signature."""
    return list(_by_name(launch).values())


def tensor_names(launch: Launch) -> list[str]:
    """The names of their parameters."""
    return list(_by_name(launch))


def tensor_bytes(launch: Launch) -> dict[str, int]:
    """Bytes of each of them."""
    return {name: tensor.numel() * tensor.element_size() for name, tensor in _by_name(launch).items()}


def _by_name(launch: Launch) -> dict[str, Tensor]:
    found = {name: _tensor(value) for name, value in launch.named.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _tensor(value: Any) -> Tensor | None:
    base = getattr(value, "base", value) if hasattr(value, "block_shape") else value
    return base if isinstance(base, Tensor) else None


def runs_code_of(small: Launch, full: Launch) -> bool:
    """Whether the code compiled for `full` may run `small`: the same kernel and tile, and what the compiler was told of
    the numbers (1, or a multiple of 16) holds where vectors of elements and their masks depend on it. Those lie along
    the channels, whose addresses are made of strides; of few or odd channels along the pixels: then all numbers count.
    """
    if small.name != full.name or tile_of(small) != tile_of(full):
        return False
    geometry: Geometry = full.keywords["G"]
    along_pixels = geometry.rank == 1 or any(n % 16 for n in _channels(geometry))
    of_small = small.named
    for name, value in full.named.items():
        if isinstance(value, int) and not isinstance(value, bool) and name not in full.keywords:
            if value == 1 and of_small[name] != 1:
                return False
            aligned = value % 16 == 0 and (along_pixels or name.startswith("stride"))
            if aligned and of_small[name] % 16 != 0 and name != "batch":
                return False
    return True


def _channels(geometry: Geometry) -> tuple[int, int]:
    """Of x and of y."""
    return geometry.groups * geometry.channels, geometry.groups * geometry.filters


def programs(launch: Launch) -> int:
    """Programs of the grid; of a persistent launch, whose programs go on from tile to tile, the tiles."""
    if launch.keywords.get("PERSISTENT"):
        return int(launch.named["num_tiles"])
    return prod(launch.grid)


def trips(launch: Launch) -> int:
    """Trips of all programs through the loop that depends on sizes: over a split's pixels, or a program's boxes of
    pixels; as many as programs where no loop does."""
    arguments = launch.named
    if "num_boxes" in arguments:
        return int(arguments["num_boxes"]) * prod(launch.grid[1:])
    share = next((value for name, value in arguments.items() if name.endswith("_per_split")), None)
    return programs(launch) * (1 if share is None else -(-share // arguments["BLOCK_P"]))
