"""Layers to tune without listing them: what common networks pool or stride, at the sizes they are published for."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

from tidepool.kernels.activations import activation_from_text
from tidepool.kernels.layer.described import DescribedLayer
from tidepool.kernels.layer.pooling import AvgPool, MaxPool, Pool


class LayerTextError(ValueError):
    """A layer's description that cannot be read; the message is one line and says what was expected."""


@dataclass(frozen=True)
class TuneLayer(DescribedLayer):
    """A layer to tune, on channels_last tensors where there are such."""

    name: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    bias: bool = True

    def at_batch(self, batch: int) -> "TuneLayer":
        """The same layer on `batch` samples."""
        return replace(self, x=(batch, *self.x[1:]))


def _square(name: str, channels: int, filters: int, size: int, kernel: int, **options: Any) -> TuneLayer:
    return TuneLayer(name, (64, channels, size, size), (filters, channels, kernel, kernel), options)


SUITES: dict[str, tuple[TuneLayer, ...]] = {
    "lenet5": (_square("lenet5_1", 1, 6, 28, 5, padding=2), _square("lenet5_2", 6, 16, 14, 5)),
    "alexnet": (
        _square("alexnet_1", 3, 64, 224, 11, stride=4, padding=2, pool=MaxPool(3, 2)),
        _square("alexnet_2", 64, 192, 27, 5, padding=2, pool=MaxPool(3, 2)),
        _square("alexnet_5", 256, 256, 13, 3, padding=1, pool=MaxPool(3, 2)),
    ),
    "vgg16": tuple(
        _square(f"vgg16_{number}", channels, channels, size, 3, padding=1)
        for number, (channels, size) in enumerate(((64, 224), (128, 112), (256, 56), (512, 28), (512, 14)), start=1)
    ),
    "resnet": (_square("resnet_stem", 3, 64, 224, 7, stride=2, padding=3, pool=MaxPool(3, 2, 1)),),
}
"""Layers at batch 64. Tables hold for the batch they were tuned at: give the one you train with."""

_SETTING = re.compile(r"^([a-z_]+)=(\S+)$")
_NUMBERS = re.compile(r"^\d+(x\d+)*$")
_POOL = re.compile(r"^(max|avg)(\d+)(?:/(\d+))?(?:p(\d+))?$")


def layer_from_words(text: str) -> TuneLayer:
    """The layer of `x=64x3x32x32 weight=16x3x3x3 padding=1 pool=max3/2p1 activation=silu bias=no`.

    x and weight are sizes; stride, padding and dilation numbers, one or one per dimension (1x2); groups a number; pool
    max or avg with its window, /stride and pPADDING, or none; activation a name like relu, leaky_relu:0.2 or none; bias
    yes or no. Raises LayerTextError.
    """
    words: dict[str, str] = {}
    for word in text.split():
        found = _SETTING.match(word)
        if found is None or found[1] in words:
            raise LayerTextError(f"layer {text!r}: expected distinct words like padding=1, got {word!r}")
        words[found[1]] = found[2]
    sizes = [_numbers(text, name, words.pop(name, "")) for name in ("x", "weight")]
    bias = words.pop("bias", "yes")
    if bias not in ("yes", "no"):
        raise LayerTextError(f"layer {text!r}: expected bias to be yes or no, got {bias!r}")
    options = {name: _setting(text, name, value) for name, value in words.items()}
    return TuneLayer(text, sizes[0], sizes[1], options, bias == "yes")


def _numbers(text: str, name: str, value: str) -> tuple[int, ...]:
    if not _NUMBERS.match(value):
        raise LayerTextError(f"layer {text!r}: expected {name} as numbers with x between them, got {value!r}")
    return tuple(int(number) for number in value.split("x"))


def _setting(text: str, name: str, value: str) -> Any:
    if name in ("stride", "padding", "dilation"):
        if name == "padding" and value in ("same", "valid"):
            return value
        numbers = _numbers(text, name, value)
        return numbers[0] if len(numbers) == 1 else numbers
    if name == "groups":
        return _numbers(text, name, value)[0]
    if name == "activation":
        return activation_from_text(value) if ":" in value else None if value == "none" else value
    if name == "pool":
        return _pool(text, value)
    raise LayerTextError(
        f"layer {text!r}: expected x, weight, stride, padding, dilation, groups, activation, pool or bias, got {name!r}"
    )


def _pool(text: str, value: str) -> Pool:
    if value == "none":
        return None
    found = _POOL.match(value)
    if found is None:
        raise LayerTextError(f"layer {text!r}: expected pool like max2, max3/2p1, avg2 or none, got {value!r}")
    window, stride, padding = int(found[2]), None if found[3] is None else int(found[3]), int(found[4] or 0)
    return MaxPool(window, stride, padding) if found[1] == "max" else AvgPool(window, stride, padding)
