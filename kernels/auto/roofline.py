"""What a layer costs and how fast it could be: operations, bytes and lower bounds of time, without a GPU.

`layer_cost` lists the kernels that a pass of the layer runs, each with its floating-point operations and the bytes it
moves between memory and chip; `roofline_seconds` adds up, over those kernels in order,

    max(operations / matrix rate, bytes / copy bandwidth)

(Williams, Waterman, Patterson: "Roofline", CACM 52(4), 2009). It is a bound, not a prediction of a measured time.

Assumptions, the same on all sides unless said:

* A kernel reads and writes each of its tensors once. What other programs of the same kernel read again comes from L2.
* Nothing stays on the chip from one kernel to the next: a tensor that one writes and the next reads moves twice.
* Operations are the convolution's, 2 N P K (C/groups) taps each for forward, dgrad and wgrad, padding counted, as is
  customary. Activations, pools and bias are counted as bytes only.
* `eager` is PyTorch on cuDNN: the convolution without bias, then bias by an in-place pass of its own (what PyTorch's
  cuDNN path does; its depthwise kernels add it inside), activation out of place, pool. Max pooling writes int64 indices
  in every mode. Backward runs the pool's, the activation's (which reads what it saved), dgrad, wgrad and a sum over
  pixels for the bias. The fill with zeros before the pool's backward scatters, cuDNN's workspaces and its layout
  transposes are left out, all in eager's favour.
* `fused` is one kernel per result. wgrad writes its partial sums (float32, `splits` slices of the weight and the bias)
  to a workspace that a second kernel reads: both are counted, with the split that the default tile has on `target`.
* `mix` is cuDNN's convolution and the epilogue kernel forward, and backward the unpool kernel, which writes the full
  gradient at the convolution's output once, then dense dgrad and wgrad on it.
* With a smooth activation under an average, `fused` and `mix` compute the convolution again in backward.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

import torch

from tidepool.kernels.layer.geometry import MAX_BYTE_CODES, MAX_INT16_CODES, Geometry, Shapes
from tidepool.kernels.runtime.targets import SM_80, SM_86, SM_87, SM_89, SM_90, SM_100, SM_103, SM_120, Target
from tidepool.kernels.tiles.dense import DEPTHWISE_CHANNELS, DEPTHWISE_PIXELS, wgrad_tile

PASSES = ("forward", "forward_training", "dgrad", "wgrad", "backward", "train")
"""forward saves nothing; forward_training saves what backward needs; backward is dgrad and wgrad; train is the last
two."""
VARIANTS = ("fused", "eager", "mix")
_INDEX_BYTES = 8


@dataclass(frozen=True)
class KernelCost:
    """One kernel's floating-point operations and the bytes it moves; `operands` is what it multiplies, if anything."""

    name: str
    flops: int
    bytes_read: int
    bytes_written: int
    operands: str


@dataclass(frozen=True)
class Cost:
    """A pass of a layer as the kernels it runs, in order, and the scratch memory it holds at most."""

    kernels: tuple[KernelCost, ...]
    workspace_bytes: int = 0

    @property
    def flops(self) -> int:
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def bytes_read(self) -> int:
        """Bytes from memory, workspaces included."""
        return sum(kernel.bytes_read for kernel in self.kernels)

    @property
    def bytes_written(self) -> int:
        """Bytes to memory, workspaces included."""
        return sum(kernel.bytes_written for kernel in self.kernels)

    @property
    def bytes_moved(self) -> int:
        return self.bytes_read + self.bytes_written

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.kernels + other.kernels, max(self.workspace_bytes, other.workspace_bytes))


@dataclass(frozen=True)
class Device:
    """Ceilings of a GPU. `matrix_tflops`: 10^12 operations a second by operand kind (half, tf32, ieee, double)."""

    name: str
    matrix_tflops: Mapping[str, float]
    copy_bytes_per_s: float
    target: Target
    multiprocessors: int
    source: str = "data sheet, dense"


_HOPPER = {"half": 989.0, "tf32": 494.0, "ieee": 67.0, "double": 67.0}


def _card(
    name: str,
    rates: Mapping[str, float],
    terabytes: float,
    target: Target,
    multiprocessors: int | None = None,
) -> Device:
    count = target.multiprocessors if multiprocessors is None else multiprocessors
    return Device(name, rates, terabytes * 1e12, target, count)


def _rates(half: float, tf32: float, ieee: float, double: float) -> dict[str, float]:
    return {"half": half, "tf32": tf32, "ieee": ieee, "double": double}


DEVICES = (
    _card("H200", _HOPPER, 4.8, SM_90),
    _card("H100", _HOPPER, 3.35, SM_90),
    _card("A100", _rates(312.0, 156.0, 19.5, 19.5), 2.0, SM_80),
    _card("B200", _rates(2250.0, 1100.0, 75.0, 37.0), 8.0, SM_100),
    _card("B300", _rates(2250.0, 1100.0, 75.0, 1.2), 8.0, SM_103),
    _card("RTX 3090", _rates(71.0, 35.6, 35.6, 0.56), 0.936, SM_86),
    _card("Orin", _rates(42.5, 21.2, 5.3, 0.08), 0.2048, SM_87),
    _card("RTX 4090", _rates(165.2, 82.6, 82.6, 1.29), 1.008, SM_89),
    _card("L40S", _rates(362.0, 183.0, 91.6, 1.43), 0.864, SM_89, 142),
    _card("L4", _rates(121.0, 60.0, 30.3, 0.47), 0.3, SM_89, 58),
    _card("RTX 5090", _rates(209.5, 104.8, 104.8, 1.64), 1.792, SM_120),
)
"""Vendors' figures (SXM variants), for bounds before anything is measured. Put a measured `Device` in their place."""


def device_named(gpu: str) -> Device | None:
    """The entry of DEVICES whose name is a word of `gpu`, as the driver spells it; None where none is."""
    return next((device for device in DEVICES if re.search(rf"\b{device.name}\b", gpu)), None)


def reference_device(target: Target, gpu: str) -> Device:
    """The first entry of DEVICES of that target, or of the first where it has none, renamed `gpu`."""
    known = next((device for device in DEVICES if device.target is target), DEVICES[0])
    return replace(known, name=gpu, target=target, source=f"data sheet of {known.name}")


def operands_of(dtype: torch.dtype) -> str:
    """Kind of product on a GPU: half, tf32 or ieee for float32 (as PyTorch's convolutions are set), double."""
    if dtype == torch.float64:
        return "double"
    if dtype == torch.float32:
        return "tf32" if torch.backends.cudnn.conv.fp32_precision == "tf32" else "ieee"  # type: ignore[attr-defined]
    return "half"


def roofline_seconds(cost: Cost, device: Device) -> float:
    """Least time of the kernels of `cost` one after another on `device`, in seconds."""
    total = 0.0
    for kernel in cost.kernels:
        moving = (kernel.bytes_read + kernel.bytes_written) / device.copy_bytes_per_s
        total += max(kernel.flops / (device.matrix_tflops[kernel.operands] * 1e12), moving)
    return total


def layer_cost(
    geometry: Geometry,
    shapes: Shapes,
    dtype: torch.dtype,
    pass_: str,
    variant: str,
    *,
    bias: bool = True,
    input_gradient: bool = True,
    device: Device = DEVICES[0],
) -> Cost:
    """Cost of one pass ("forward", "forward_training", "dgrad", "wgrad", "backward", "train") of a layer.

    `variant` is "fused", "eager" or "mix". `input_gradient=False` leaves dgrad out of "backward" and "train".
    "wgrad" includes the bias gradient. `device` decides the weight gradient's split. Raises ValueError for other words.
    """
    if pass_ not in PASSES or variant not in VARIANTS:
        raise ValueError(
            f"expected a pass of {', '.join(PASSES)} and a variant of {', '.join(VARIANTS)}, "
            f"but got {pass_!r} and {variant!r}"
        )
    layer = _LayerBytes(geometry, shapes, dtype, bias, device)
    count: _Fused | _Eager | _Mix
    count = _Fused(layer) if variant == "fused" else _Eager(layer) if variant == "eager" else _Mix(layer)
    if pass_ in ("forward", "forward_training"):
        return count.forward(pass_ == "forward_training")
    before = count.before_gradients()
    if pass_ == "dgrad":
        return before + count.dgrad()
    if pass_ == "wgrad":
        return before + count.wgrad()
    backward = before + count.dgrad() + count.wgrad() if input_gradient else before + count.wgrad()
    return backward if pass_ == "backward" else count.forward(True) + backward


def saved_bytes(geometry: Geometry, shapes: Shapes, dtype: torch.dtype, variant: str) -> int:
    """Bytes held from forward to backward besides x, weight and bias.

    Eager keeps the pre-pool activation and the indices; of all activations but ReLU the pre-activation as well.
    """
    layer = _LayerBytes(geometry, shapes, dtype, True, DEVICES[0])
    if variant != "eager":
        return layer.saved
    kept = layer.conv if geometry.smooth else 0
    if geometry.activation.keeps_result or geometry.pool != "none":
        kept += layer.conv  # what ReLU returned, or what the pool was given: one tensor
    return kept + (layer.indices if geometry.pool == "max" else 0)


class _LayerBytes:
    """Sizes of a layer's tensors in bytes, and of one product in operations."""

    def __init__(self, geometry: Geometry, shapes: Shapes, dtype: torch.dtype, bias: bool, device: Device) -> None:
        size = dtype.itemsize
        filters = geometry.groups * geometry.filters
        self.geometry, self.device = geometry, device
        self.bare = geometry.activation.is_identity and geometry.pool == "none"
        self.operands = operands_of(dtype)
        self.weight_elements = filters * geometry.channels * geometry.taps
        self.x = shapes.batch * geometry.groups * geometry.channels * _product(shapes.input) * size
        self.weight = self.weight_elements * size
        self.bias = filters * size if bias else 0
        self.conv = shapes.conv_pixels * filters * size
        self.y = shapes.num_outputs * filters * size
        self.indices = shapes.num_outputs * filters * _INDEX_BYTES
        self.flops = 2 * shapes.conv_pixels * self.weight_elements
        self.saved = _saved(geometry, shapes, size)
        self.workspace = _workspace(geometry, shapes, dtype, bias, device)

    def kernel(self, name: str, read: int, written: int, products: int = 0) -> Cost:
        return Cost((KernelCost(name, products * self.flops, read, written, self.operands),))


class _Eager:
    """PyTorch's passes, one kernel each."""

    def __init__(self, layer: _LayerBytes) -> None:
        self.layer = layer

    def forward(self, training: bool) -> Cost:
        layer, geometry = self.layer, self.layer.geometry
        inside = layer.bias if geometry.depthwise else 0
        cost = layer.kernel("convolution", layer.x + layer.weight + inside, layer.conv, 1)
        if layer.bias and not geometry.depthwise:
            cost += layer.kernel("bias", layer.conv + layer.bias, layer.conv)
        if not geometry.activation.is_identity:
            cost += layer.kernel("activation", layer.conv, layer.conv)
        if geometry.pool != "none":
            indices = layer.indices if geometry.pool == "max" else 0
            cost += layer.kernel("pool", layer.conv, layer.y + indices)
        return cost

    def before_gradients(self) -> Cost:
        layer, geometry = self.layer, self.layer.geometry
        cost = Cost(())
        if geometry.pool != "none":
            indices = layer.indices if geometry.pool == "max" else 0
            cost += layer.kernel("pool backward", layer.y + indices, layer.conv)
        if not geometry.activation.is_identity:
            cost += layer.kernel("activation backward", 2 * layer.conv, layer.conv)
        return cost

    def dgrad(self) -> Cost:
        return _dense_dgrad(self.layer)

    def wgrad(self) -> Cost:
        return _dense_wgrad(self.layer)


class _Mix:
    """cuDNN's convolutions with the epilogue kernel behind and the unpool kernel before them."""

    def __init__(self, layer: _LayerBytes) -> None:
        self.layer = layer

    def forward(self, training: bool) -> Cost:
        layer = self.layer
        if layer.bare:
            return _Eager(layer).forward(training)
        saved = layer.saved if training else 0
        cost = layer.kernel("convolution", layer.x + layer.weight, layer.conv, 1)
        return cost + layer.kernel("epilogue", layer.conv + layer.bias, layer.y + saved)

    def before_gradients(self) -> Cost:
        layer = self.layer
        cost, saved = _recomputed(layer)
        if layer.bare:
            return cost  # y's gradient is the convolution's
        return cost + layer.kernel("unpool", layer.y + saved, layer.conv)

    def dgrad(self) -> Cost:
        return _dense_dgrad(self.layer)

    def wgrad(self) -> Cost:
        return _dense_wgrad(self.layer)


class _Fused:
    """One kernel per result."""

    def __init__(self, layer: _LayerBytes) -> None:
        self.layer = layer

    def forward(self, training: bool) -> Cost:
        layer = self.layer
        saved = layer.saved if training else 0
        return layer.kernel("forward", layer.x + layer.weight + layer.bias, layer.y + saved, 1)

    def before_gradients(self) -> Cost:
        return _recomputed(self.layer)[0]

    def dgrad(self) -> Cost:
        layer = self.layer
        return layer.kernel("dgrad", layer.y + _recomputed(layer)[1] + layer.weight, layer.x, 1)

    def wgrad(self) -> Cost:
        layer = self.layer
        cost = layer.kernel("wgrad", layer.y + _recomputed(layer)[1] + layer.x, layer.workspace, 1)
        cost += layer.kernel("wgrad reduce", layer.workspace, layer.weight + layer.bias)
        return Cost(cost.kernels, layer.workspace)


def _recomputed(layer: _LayerBytes) -> tuple[Cost, int]:
    """What backward computes again before it starts, and the bytes its kernels read besides y's gradient."""
    if layer.geometry.smooth and layer.geometry.pool == "avg":
        return layer.kernel("convolution again", layer.x + layer.weight + layer.bias, layer.conv, 1), layer.conv
    return Cost(()), layer.saved


def _dense_dgrad(layer: _LayerBytes) -> Cost:
    return layer.kernel("dgrad", layer.conv + layer.weight, layer.x, 1)


def _dense_wgrad(layer: _LayerBytes) -> Cost:
    cost = layer.kernel("wgrad", layer.conv + layer.x, layer.weight, 1)
    return cost + layer.kernel("bias gradient", layer.conv, layer.bias) if layer.bias else cost


def _saved(geometry: Geometry, shapes: Shapes, size: int) -> int:
    """Bytes of codes, bits and winners' pre-activations."""
    rows = geometry.row_groups * geometry.code_channels
    total = 0
    if geometry.saves_code:
        width = 1 if geometry.codes <= MAX_BYTE_CODES else 2 if geometry.codes <= MAX_INT16_CODES else 4
        total += width * shapes.num_outputs * rows
    elif geometry.saves_bits:
        total += shapes.conv_pixels * rows
    if geometry.saves_winner:
        total += size * shapes.num_outputs * geometry.groups * geometry.filters
    return total


def _workspace(geometry: Geometry, shapes: Shapes, dtype: torch.dtype, bias: bool, device: Device) -> int:
    """Bytes of the weight gradient's partial sums with the default tile."""
    pixels, programs = shapes.conv_pixels, 4 * device.multiprocessors  # as launch.programs_in_flight
    if pixels == 0:
        return 0
    if geometry.depthwise:
        # The finer of the depthwise blocks splits less; the coarser one, counted here, is the upper bound.
        splits = min(max(ceil(programs * DEPTHWISE_CHANNELS[-1] / geometry.rows), 1), ceil(pixels / DEPTHWISE_PIXELS))
    else:
        kind = operands_of(dtype)
        splits = wgrad_tile(geometry, pixels, device.target, "ieee" if kind == "double" else kind, programs).splits
    row = geometry.taps * geometry.channels + int(bias)
    return splits * geometry.groups * geometry.filters * row * (8 if dtype == torch.float64 else 4)


def _product(sizes: tuple[int, ...]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
