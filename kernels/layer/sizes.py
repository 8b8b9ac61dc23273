"""Output sizes of a layer on tensors of given sizes, refused where they do not work out, and the kernels' view of both.

Sizes may be symbolic (torch.compile with dynamic shapes): only comparisons and integer arithmetic here.
"""

from collections.abc import Sequence

from tidepool.kernels.layer.geometry import Geometry, Shapes, Triple, conv_output_size, pool_output_size
from tidepool.kernels.layer.settings import Layer, Sizes
from tidepool.kernels.runtime.errors import ArgumentError


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
