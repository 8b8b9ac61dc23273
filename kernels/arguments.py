"""Turns what a caller wrote into a checked `Layer`, or refuses it in PyTorch's vocabulary.

Every refusal is one line that names the argument, what was expected and what came, and is raised before anything
is launched. Sizes may be symbolic (torch.compile with dynamic shapes): only comparisons and integer arithmetic here.
"""

import functools
import numbers
import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from kernels.geometry import Geometry, Shapes, Triple, conv_output_size, pool_output_size
from kernels.pooling import AvgPool, MaxPool, Pool, Size

BACKENDS = ("auto", "triton", "cudnn", "compile")
ACTIVATIONS = ("relu", "silu", "gelu", None)
Sizes = tuple[int, ...]
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class ArgumentError(ValueError, RuntimeError):
    """A refused argument. PyTorch raises RuntimeError where Python's habit is ValueError: this is both."""


@dataclass(frozen=True)
class Layer:
    """A caller's settings, one number per spatial dimension: what the registered operator takes."""

    stride: Sizes
    padding: Sizes  # low side of each dimension, then high side of each
    dilation: Sizes
    groups: int
    activation: str  # relu, silu, gelu, none
    pool: str  # max, avg, none
    window: Sizes
    pool_stride: Sizes
    pool_padding: Sizes
    pool_dilation: Sizes
    ceil_mode: bool
    count_include_pad: bool

    def text(self) -> str:
        """The settings as `name=value` words: what the registered operators take as their one non-tensor argument."""
        words = []
        for name in LAYER_FIELDS:
            value = getattr(self, name)
            if isinstance(value, tuple):
                # operator.index makes plain numbers of symbolic ones, while torch.compile traces this as well.
                value = ",".join([str(operator.index(v)) for v in value])
            elif name in _LAYER_FLAGS:
                value = "1" if value else "0"
            words.append(f"{name}={value}")
        return " ".join(words)


LAYER_FIELDS = tuple(field.name for field in fields(Layer))
_LAYER_WORDS, _LAYER_NUMBERS, _LAYER_FLAGS = ("activation", "pool"), ("groups",), ("ceil_mode", "count_include_pad")


@functools.cache
def layer_from_text(text: str) -> Layer:
    """The `Layer` that wrote `text`. Raises ArgumentError when none did."""
    values: dict[str, Any] = dict(word.split("=", 1) for word in text.split())
    if tuple(values) != LAYER_FIELDS:
        raise ArgumentError(f"expected layer to be settings as Layer.text() writes them, but got {text!r}")
    for name, value in values.items():
        if name in _LAYER_NUMBERS:
            values[name] = int(value)
        elif name in _LAYER_FLAGS:
            values[name] = value == "1"
        elif name not in _LAYER_WORDS:
            values[name] = tuple(int(v) for v in value.split(","))
    return Layer(**values)


def _is_integer(value: object) -> bool:
    """Whether PyTorch takes the value for an integer wherever it wants one: NumPy's are, True is not."""
    return isinstance(value, (int, torch.SymInt, numbers.Integral)) and not isinstance(value, bool)


def _plain(value: Any) -> int:
    """The integer as Python's, whose sums do not overflow; a symbolic one as it is."""
    return value if isinstance(value, (int, torch.SymInt)) else operator.index(value)  # type: ignore[return-value]


def _per_dimension(value: object, rank: int, name: str) -> Sizes:
    """One integer per spatial dimension from an integer, a 1-sequence or a `rank`-sequence."""
    if _is_integer(value):
        return (_plain(value),) * rank
    is_list = isinstance(value, Sequence) and not isinstance(value, str) and len(value) in (1, rank)
    if is_list and all(_is_integer(v) for v in value):  # type: ignore[attr-defined]
        return tuple([_plain(v) for v in value]) * (rank if len(value) == 1 else 1)  # type: ignore[attr-defined,arg-type]
    raise ArgumentError(
        f"expected {name} to be a single integer value or a list of {rank} values to match the convolution "
        f"dimensions, but got {name}={value!r}"
    )


def _at_least(values: Sizes, least: int, message: str) -> Sizes:
    if any(v < least for v in values):
        raise ArgumentError(f"{message}, but got {list(values)}")
    return values


def _conv_padding(padding: Size | str, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Sizes:
    """Low padding of each dimension, then high padding of each; "same" pads the odd pixel at the high end."""
    rank = len(kernel)
    if isinstance(padding, str):
        if padding == "valid":
            return (0,) * (2 * rank)
        if padding != "same":
            raise ArgumentError(f"Invalid padding string: {padding!r}, expected 'same' or 'valid'")
        if any(s != 1 for s in stride):
            raise ArgumentError(f"padding='same' is not supported for strided convolutions, but got stride={stride}")
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple(t // 2 for t in total) + tuple(t - t // 2 for t in total)
    pads = _at_least(_per_dimension(padding, rank, "padding"), 0, "negative padding is not supported")
    return pads * 2


def _pool_fields(pool: Pool, rank: int) -> tuple[str, Sizes, Sizes, Sizes, Sizes]:
    """Kind, window, stride, padding and dilation of the pool; a 1-wide window for none."""
    ones, zeros = (1,) * rank, (0,) * rank
    if pool is None:
        return "none", ones, ones, zeros, ones
    if not isinstance(pool, (MaxPool, AvgPool)):
        raise ArgumentError(f"expected pool to be MaxPool, AvgPool or None, but got {type(pool).__name__}")
    for name in ("ceil_mode", "count_include_pad"):
        if not isinstance(getattr(pool, name, False), bool):
            raise ArgumentError(f"expected pool.{name} to be True or False, but got {getattr(pool, name)!r}")
    window = _at_least(_per_dimension(pool.kernel, rank, "pool.kernel"), 1, "pool.kernel should be greater than zero")
    stride = window
    if pool.stride is not None and not (isinstance(pool.stride, (list, tuple)) and len(pool.stride) == 0):
        stride = _at_least(
            _per_dimension(pool.stride, rank, "pool.stride"), 1, "pool.stride should be greater than zero"
        )
    padding = _at_least(_per_dimension(pool.padding, rank, "pool.padding"), 0, "pool.padding: pad must be non-negative")
    dilation = ones
    if isinstance(pool, MaxPool):
        dilation = _per_dimension(pool.dilation, rank, "pool.dilation")
        _at_least(dilation, 1, "pool.dilation should be greater than zero")
    for p, k, d in zip(padding, window, dilation, strict=True):
        # PyTorch's documents speak of the dilated window, its pools hold padding to half of the plain one.
        if p > k // 2:
            size = "effective kernel size" if p > ((k - 1) * d + 1) // 2 else "kernel size, dilated or not"
            raise ArgumentError(
                f"pool.padding: pad should be at most half of {size}, but got pad={p}, kernel_size={k} and dilation={d}"
            )
    return ("max" if isinstance(pool, MaxPool) else "avg"), window, stride, padding, dilation


def parse_layer(
    kernel: Sizes,
    stride: Size,
    padding: Size | str,
    dilation: Size,
    groups: int,
    activation: str | None,
    pool: Pool,
) -> Layer:
    """Check the settings that do not depend on a tensor and spell them out per dimension.

    `kernel` is the filter's spatial size. Raises ArgumentError.
    """
    rank = len(kernel)
    strides = _at_least(_per_dimension(stride, rank, "stride"), 1, "non-positive stride is not supported")
    dilations = _at_least(_per_dimension(dilation, rank, "dilation"), 1, "dilation should be greater than zero")
    if not _is_integer(groups) or groups < 1:
        raise ArgumentError(
            f"non-positive groups is not supported: expected an integer of at least 1, but got {groups!r}"
        )
    if activation not in ACTIVATIONS:
        raise ArgumentError(f"expected activation to be one of relu, silu, gelu or None, but got {activation!r}")
    kind, window, pool_stride, pool_padding, pool_dilation = _pool_fields(pool, rank)
    return Layer(
        stride=strides,
        padding=_conv_padding(padding, kernel, strides, dilations),
        dilation=dilations,
        groups=_plain(groups),
        activation=activation or "none",
        pool=kind,
        window=window,
        pool_stride=pool_stride,
        pool_padding=pool_padding,
        pool_dilation=pool_dilation,
        ceil_mode=False if pool is None else bool(pool.ceil_mode),
        count_include_pad=pool.count_include_pad if isinstance(pool, AvgPool) else True,
    )


def check_backend(backend: str) -> None:
    """Raise ArgumentError unless `backend` is one of BACKENDS."""
    if backend not in BACKENDS:
        raise ArgumentError(f"expected backend to be one of {', '.join(BACKENDS)}, but got {backend!r}")


def check_tensors(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Check ranks, dtypes and devices of the tensors. Raises ArgumentError, or TypeError for a non-tensor."""
    for name, value in (("x", x), ("weight", weight), ("bias", bias)):
        if not isinstance(value, Tensor) and not (name == "bias" and value is None):
            raise TypeError(f"expected {name} to be a Tensor, but got {type(value).__name__}")
    for name, value in (("x", x), ("weight", weight), ("bias", bias)):
        if value is not None and value.layout != torch.strided:
            raise ArgumentError(f"expected {name} to be a dense (strided) tensor, but its layout is {value.layout}")
    if weight.dim() not in (3, 4, 5):
        raise ArgumentError(
            f"expected weight to have 3, 4 or 5 dimensions (K, C/groups, *kernel), but got {weight.dim()}"
        )
    rank = weight.dim() - 2
    if x.dim() not in (rank + 1, rank + 2):
        raise ArgumentError(
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to conv{rank}d, "
            f"but got input of size: {list(x.shape)}"
        )
    for name, value in (("weight", weight), ("bias", bias)):
        if value is None:
            continue
        if value.dtype != x.dtype and _autocast_dtype(value) != _autocast_dtype(x):
            raise ArgumentError(f"Input type ({x.dtype}) and {name} type ({value.dtype}) should be the same")
        if value.device != x.device:
            raise ArgumentError(
                f"expected x and {name} to be on the same device, but x is on {x.device} and {name} on {value.device}"
            )
    if x.dtype not in DTYPES:
        raise ArgumentError(f"expected x to be float16, bfloat16, float32 or float64, but got {x.dtype}")


def _autocast_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype autocast, if it is on, will turn the tensor into before the operator runs."""
    device = tensor.device.type
    if not tensor.is_floating_point() or tensor.dtype == torch.float64 or not torch.amp.is_autocast_available(device):
        return tensor.dtype
    if not torch.is_autocast_enabled(device):
        return tensor.dtype
    return torch.get_autocast_dtype(device)


def check_channels(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    """Check channels, filters and bias length of checked tensors against `groups` >= 1. Raises ArgumentError."""
    channels = x.shape[1 - weight.dim()]
    filters, per_group = weight.shape[:2]
    size = list(weight.shape)
    if filters < groups:
        raise ArgumentError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, "
            f"but got weight of size {size} instead"
        )
    if filters % groups != 0:
        raise ArgumentError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size {size} instead"
        )
    if per_group < 1:
        raise ArgumentError(f"expected weight to have at least 1 input channel, but got weight of size {size}")
    if channels != per_group * groups:
        raise ArgumentError(
            f"Given groups={groups}, weight of size {size}, expected input to have {per_group * groups} channels, "
            f"but got {channels} channels instead"
        )
    if any(k < 1 for k in weight.shape[2:]):
        raise ArgumentError(f"expected weight's kernel size to be at least 1 everywhere, but got weight of size {size}")
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != filters):
        raise ArgumentError(
            f"Given weight of size {size}, expected bias to be 1-dimensional with {filters} elements, "
            f"but got bias of size {list(bias.shape)} instead"
        )


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(str(s) for s in sizes)


def spatial_sizes(spatial: Sequence[int], kernel: Sequence[int], layer: Layer) -> tuple[Sizes, Sizes]:
    """Convolution and pooled output sizes, one number per dimension. Raises ArgumentError when either is empty."""
    rank = len(kernel)
    low, high = layer.padding[:rank], layer.padding[rank:]
    conv = tuple(
        conv_output_size(spatial[i], kernel[i], layer.stride[i], low[i], high[i], layer.dilation[i])
        for i in range(rank)
    )
    if any(s < 1 for s in conv) or any(s < 1 for s in spatial):
        padded = [spatial[i] + low[i] + high[i] for i in range(rank)]
        effective = [layer.dilation[i] * (kernel[i] - 1) + 1 for i in range(rank)]
        raise ArgumentError(
            f"Calculated padded input size per channel: ({_by(padded)}). Kernel size: ({_by(effective)}). "
            "Kernel size can't be greater than actual input size"
        )
    if layer.pool == "none":
        return conv, conv
    if layer.pool == "avg" and rank == 3 and any(s < w for s, w in zip(conv, layer.window, strict=True)):
        raise ArgumentError(  # as PyTorch's avg_pool3d has it, whatever the padding; its other pools do not mind
            f"Given pool input size: ({_by(conv)}), smaller than pool.kernel: ({_by(layer.window)}), "
            "which a 3-dimensional AvgPool does not take"
        )
    output = tuple(
        pool_output_size(
            size, layer.window[i], layer.pool_stride[i], layer.pool_padding[i], layer.pool_dilation[i], layer.ceil_mode
        )
        for i, size in enumerate(conv)
    )
    if any(s < 1 for s in output):
        raise ArgumentError(
            f"Given pool input size: ({_by(conv)}) and pool.kernel: ({_by(layer.window)}). "
            f"Calculated output size: ({_by(output)}). Output size is too small"
        )
    if any(
        _window_misses(conv[i], output[i], layer.pool_stride[i], layer.pool_padding[i], layer.pool_dilation[i])
        for i in range(rank)
    ):
        # PyTorch answers -inf, and its backward writes beside the tensor.
        raise ArgumentError(
            f"Given pool input size: ({_by(conv)}): a window of pool.kernel: ({_by(layer.window)}), dilated by "
            f"({_by(layer.pool_dilation)}) and padded by ({_by(layer.pool_padding)}), would hold no pixel at all"
        )
    return conv, output


def _window_misses(size: int, count: int, stride: int, padding: int, dilation: int) -> bool:
    """Whether one of `count` windows steps over all `size` pixels: from the padding before them to behind them."""
    if padding == 0 or size >= dilation:
        return False
    return any(start % dilation >= size for start in range(-padding, 0, stride)[: int(count)])


def _triple(values: Sequence[int], fill: int) -> Triple:
    padded = (fill,) * (3 - len(values)) + tuple(values)
    return padded[0], padded[1], padded[2]


def build_geometry(x_size: Sequence[int], weight_size: Sequence[int], layer: Layer) -> tuple[Geometry, Shapes]:
    """The kernels' view of a checked batched call: x (N, C, *spatial), weight (K, C/groups, *kernel)."""
    kernel, spatial = tuple(weight_size[2:]), tuple(x_size[2:])
    rank = len(kernel)
    conv, output = spatial_sizes(spatial, kernel, layer)
    triples: dict[str, tuple[Sequence[int], int]] = {
        "kernel": (kernel, 1),
        "stride": (layer.stride, 1),
        "padding": (layer.padding[:rank], 0),
        "dilation": (layer.dilation, 1),
        "window": (layer.window, 1),
        "pool_stride": (layer.pool_stride, 1),
        "pool_padding": (layer.pool_padding, 0),
        "pool_dilation": (layer.pool_dilation, 1),
    }
    per_dimension = {
        f"{name}_{axis}": value
        for name, (values, fill) in triples.items()
        for axis, value in zip("dhw", _triple(values, fill), strict=True)
    }
    geometry = Geometry(
        rank=rank,
        groups=layer.groups,
        channels=weight_size[1],
        filters=weight_size[0] // layer.groups,
        activation=layer.activation,
        pool=layer.pool,
        partial_windows=layer.ceil_mode or any(layer.pool_padding),
        count_include_pad=layer.count_include_pad,
        **per_dimension,
    )
    return geometry, Shapes(x_size[0], _triple(spatial, 1), _triple(conv, 1), _triple(output, 1))
