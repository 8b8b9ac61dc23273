"""Layers with a norm for the tests, their tensors, and what a call of them leaves behind, by name."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.kernels.exact import DEVICE, integers, placed
from tidepool.kernels import AvgPool, MaxPool, conv_norm_act
from tidepool.kernels.layer.pooling import Pool
from tidepool.kernels.oracle.reference import pool_reference


@dataclass(frozen=True)
class NormLayer:
    """Sizes of x (N, C, *spatial) and weight (K, C/groups, *kernel), `conv_norm_act`'s settings, and its tensors."""

    name: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    training: bool = True
    residual: bool = False
    conv_bias: bool = False
    affine: bool = True
    channels_last: bool = False

    @property
    def rank(self) -> int:
        """Spatial dimensions."""
        return len(self.weight) - 2

    @property
    def pool(self) -> Pool:
        return self.options.get("pool")

    @property
    def pool_first(self) -> bool:
        return bool(self.options.get("pool_first", False))

    @property
    def convolution(self) -> dict[str, Any]:
        """The convolution's own settings."""
        return {k: v for k, v in self.options.items() if k in ("stride", "padding", "dilation", "groups")}


CONV = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
LAYERS = (
    NormLayer("resnet_block", (2, 5, 8, 7), (6, 5, 3, 3), {"padding": 1}, residual=True, channels_last=True),
    NormLayer("resnet_stem", (2, 3, 17, 15), (9, 3, 7, 7), {"stride": 2, "padding": 3, "pool": MaxPool(3, 2, 1)}),
    NormLayer("downsample", (3, 4, 9, 8), (6, 4, 1, 1), {"stride": 2, "activation": None}),
    NormLayer("vgg_bn", (2, 3, 9, 10), (5, 3, 3, 3), {"padding": 1, "pool": MaxPool(2)}, conv_bias=True),
    NormLayer(
        "speednet", (2, 4, 9, 8), (7, 4, 3, 3),
        {"padding": "same", "pool": MaxPool(2), "pool_first": True, "activation": "gelu"}, channels_last=True,
    ),
    NormLayer(
        "average_first", (2, 3, 8, 9), (4, 3, 3, 3), {"padding": 1, "pool": AvgPool(2), "pool_first": True},
        residual=True,
    ),
    NormLayer(
        "mbconv_depthwise", (2, 5, 9, 8), (5, 1, 3, 3),
        {"padding": 1, "stride": (2, 1), "groups": 5, "activation": "silu"}, channels_last=True,
    ),
    NormLayer("depthwise_pooled", (2, 3, 8, 7), (6, 1, 3, 2), {"groups": 3, "pool": MaxPool(3, 2)}, conv_bias=True),
    NormLayer(
        "depthwise_pool_first", (2, 4, 8, 9), (4, 1, 3, 3),
        {"groups": 4, "pool": AvgPool(3, 2, 1, count_include_pad=False), "pool_first": True},
    ),
    NormLayer(
        "grouped_silu_average", (2, 6, 7, 8), (4, 3, 2, 3),
        {"groups": 2, "dilation": (2, 1), "activation": "silu", "pool": AvgPool((3, 2), 2)}, residual=True,
    ),
    NormLayer(
        "relu_average", (2, 3, 8, 6), (5, 3, 3, 3), {"padding": 1, "pool": AvgPool(2, 2, 1, ceil_mode=True)},
        residual=True, affine=False,
    ),
    NormLayer("silu_overlapping", (2, 3, 7, 9), (4, 3, 3, 3), {"activation": "silu", "pool": MaxPool(3, 2, 1)}),
    NormLayer("waveform", (3, 4, 31), (6, 4, 5), {"stride": 2, "padding": 2, "pool": MaxPool(3, 2)}),
    NormLayer("video", (2, 2, 4, 5, 6), (4, 2, 2, 3, 3), {"padding": 1, "activation": "silu"}, residual=True),
    NormLayer(
        "video_pooled", (1, 2, 5, 6, 5), (3, 2, 2, 2, 2), {"pool": MaxPool((1, 2, 2))}, channels_last=True
    ),
    NormLayer("frozen_block", (2, 5, 8, 7), (6, 5, 3, 3), {"padding": 1}, training=False, residual=True),
    NormLayer(
        "frozen_pool_first", (2, 4, 9, 8), (5, 4, 3, 3), {"pool": MaxPool(2), "pool_first": True}, training=False,
        residual=True, channels_last=True,
    ),
    NormLayer(
        "frozen_depthwise", (2, 5, 7, 8), (5, 1, 3, 3), {"groups": 5, "activation": "silu", "pool": AvgPool(2)},
        training=False, conv_bias=True,
    ),
)  # fmt: skip
NAMED = {layer.name: layer for layer in LAYERS}
NORM_TENSORS = ("norm_weight", "norm_bias", "running_mean", "running_var")


def normalised_size(layer: NormLayer) -> torch.Size:
    """The size of what is normalised, and of a residual."""
    x, weight = (torch.empty(size, device="meta") for size in (layer.x, layer.weight))
    z = CONV[layer.rank](x, weight, **layer.convolution)
    return (pool_reference(z, layer.pool, layer.rank) if layer.pool_first else z).shape


def norm_tensors(layer: NormLayer, dtype: torch.dtype, norm_dtype: torch.dtype, seed: int) -> dict[str, Tensor | None]:
    """Unit-scale tensors of a layer by the names of `conv_norm_act`'s arguments; None for those it has not."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    channels = layer.weight[0]
    tensors: dict[str, Tensor | None] = {
        "x": normal(*layer.x).to(dtype),
        "weight": (normal(*layer.weight) / torch.Size(layer.weight[1:]).numel() ** 0.5).to(dtype),
        "conv_bias": normal(channels).to(dtype) if layer.conv_bias else None,
        "residual": normal(*normalised_size(layer)).to(dtype) if layer.residual else None,
        "norm_weight": (1 + normal(channels) / 4).to(norm_dtype) if layer.affine else None,
        "norm_bias": (normal(channels) / 2).to(norm_dtype) if layer.affine else None,
        "running_mean": (normal(channels) / 4).to(norm_dtype),
        "running_var": (1 + normal(channels).abs()).to(norm_dtype),
    }
    if layer.channels_last:
        for name in ("x", "residual"):
            given = tensors[name]
            formats = {4: torch.channels_last, 5: torch.channels_last_3d}
            tensors[name] = None if given is None else given.to(memory_format=formats[given.dim()])
    return tensors


def exact_tensors(layer: NormLayer, dtype: torch.dtype) -> dict[str, Tensor | None]:
    """Small integers, and a norm that is exact in any dtype: variance 1 with eps 0, weights of -2, -1, 1 or 2."""
    generator = torch.Generator().manual_seed(0)
    tensors = norm_tensors(layer, dtype, dtype, seed=0)
    channels = layer.weight[0]
    tensors["x"] = integers(layer.x, dtype, generator)
    tensors["weight"] = integers(layer.weight, dtype, generator, most=1)
    if layer.residual:
        tensors["residual"] = integers(tuple(normalised_size(layer)), dtype, generator)
    if layer.conv_bias:
        tensors["conv_bias"] = integers((channels,), dtype, generator)
    tensors["norm_weight"] = torch.tensor([1.0, -2.0, 2.0, -1.0]).repeat(channels)[:channels].to(dtype)
    tensors["norm_bias"] = integers((channels,), dtype, generator)
    tensors["running_mean"] = integers((channels,), dtype, generator)
    tensors["running_var"] = torch.ones(channels, dtype=dtype)
    return tensors


def leaves(
    tensors: dict[str, Tensor | None], wanted: tuple[str, ...] | None = None, device: str | None = None
) -> dict[str, Tensor | None]:
    """Copies to differentiate, the same views, elsewhere if asked: all but the running statistics, or those wanted."""
    copies = {name: None if t is None else placed(t, device or t.device.type) for name, t in tensors.items()}
    for name, copy in copies.items():
        if copy is not None and (not name.startswith("running") if wanted is None else name in wanted):
            copy.requires_grad_()
    return copies


def device_of(backend: str) -> str:
    """Where a backend runs in these tests."""
    return DEVICE if backend == "triton" else "cpu"


def call(layer: NormLayer, tensors: dict[str, Tensor | None], backend: str, **others: Any) -> Tensor:
    """`conv_norm_act` on the layer's tensors: the kernels where they run, PyTorch on the CPU."""
    there = {name: None if t is None else t.to(device_of(backend)) for name, t in tensors.items()}
    norm = [there[name] for name in NORM_TENSORS]
    keywords = {"conv_bias": there["conv_bias"], "residual": there["residual"], "training": layer.training}
    x, weight = there["x"], there["weight"]
    assert x is not None
    assert weight is not None
    y = conv_norm_act(x, weight, *norm, **{**keywords, **layer.options, **others}, backend=backend)
    for name in ("running_mean", "running_var"):
        given, updated = tensors[name], there[name]
        if given is not None and updated is not None and updated is not given:
            given.copy_(updated)
    return y


def results(
    layer: NormLayer, tensors: dict[str, Tensor | None], grad: Tensor, backend: str, **others: Any
) -> dict[str, Tensor]:
    """y, every gradient as d<name>, and the running statistics after the call."""
    copies = leaves(tensors, device=device_of(backend))
    y = call(layer, copies, backend, **others)
    y.backward(placed(grad, y.device.type).to(y.dtype))
    found = {"y": y.detach().cpu()}
    for name, copy in copies.items():
        if copy is not None and name.startswith("running"):
            found[name] = copy.cpu()
        elif copy is not None:
            assert copy.grad is not None
            found[f"d{name}"] = copy.grad.cpu()
    return found
