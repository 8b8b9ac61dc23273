"""Model names -> builders, with every argument checked before a single parameter is made."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from tidepool.kernels.layer.arguments import BACKENDS

InputKind = Literal["image", "waveform", "video"]
DIMENSIONS: dict[InputKind, tuple[str, ...]] = {
    "image": ("height", "width"),
    "waveform": ("samples",),
    "video": ("frames", "height", "width"),
}
"""What the spatial dimensions of an input are called, in order. A spectrogram is an image: mels by frames."""
USUAL_INPUT: dict[InputKind, tuple[int, ...]] = {
    "image": (3, 32, 32),
    "waveform": (1, 8000),
    "video": (3, 16, 112, 112),
}
"""(C, *spatial) that a network of this kind is shown at where its family names no other."""
_PLURAL: dict[InputKind, str] = {"image": "images", "waveform": "waveforms", "video": "videos"}


@dataclass(frozen=True)
class ModelInputs:
    """What every family is built for: (N, in_channels, *image_size) into `num_classes` logits."""

    num_classes: int
    in_channels: int
    image_size: tuple[int, ...] | None
    """One number for each dimension of the family's kind of input, or None where it was not given."""
    backend: str


ModelBuilder = Callable[..., nn.Module]


@dataclass(frozen=True)
class _Entry:
    builder: ModelBuilder
    kind: InputKind
    usual_input: tuple[int, ...]


_ENTRIES: dict[str, _Entry] = {}


def register(
    name: str, kind: InputKind = "image", *, usual_input: tuple[int, ...] | None = None
) -> Callable[[ModelBuilder], ModelBuilder]:
    """Decorator: offer `builder(inputs: ModelInputs, *, <options with defaults>) -> nn.Module` under `name`.

    The builder's keywords are options of this network alone: flags of `train.py`, keywords of `build_model`. Each is
    annotated with its type and explained in the docstring as "`option`: what it does." `kind` says what the network
    takes, and with it how many dimensions `image_size` has; `usual_input` is a (C, *spatial) it is often used at.
    """

    def add(builder: ModelBuilder) -> ModelBuilder:
        if name in _ENTRIES:
            raise ValueError(f"model {name!r} is registered twice")
        _ENTRIES[name] = _Entry(builder, kind, USUAL_INPUT[kind] if usual_input is None else usual_input)
        return builder

    return add


def available_models() -> tuple[str, ...]:
    """The names `build_model` knows, in alphabetical order."""
    return tuple(sorted(_ENTRIES))


def input_kind(name: str) -> InputKind:
    """What the network takes: "image" (N, C, H, W), spectrograms too; "waveform" (N, C, samples); or "video"
    (N, C, T, H, W). ValueError for an unknown name."""
    return _entry(name).kind


def usual_input(name: str) -> tuple[int, ...]:
    """(C, *spatial) that the network is often used at. ValueError for an unknown name."""
    return _entry(name).usual_input


def model_builder(name: str) -> ModelBuilder:
    """The builder that `name` means; its keyword-only parameters are the network's options. ValueError for an unknown
    name."""
    return _entry(name).builder


def model_options(name: str) -> dict[str, Any]:
    """The family's own options with their defaults. ValueError for an unknown name."""
    parameters = inspect.signature(model_builder(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _entry(name: str) -> _Entry:
    if name not in _ENTRIES:
        raise ValueError(f"unknown model {name!r}; expected one of: {', '.join(available_models())}")
    return _ENTRIES[name]


def build_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int | tuple[int, ...] | None = None,
    backend: str = "auto",
    **options: Any,
) -> nn.Module:
    """Build a network that maps (N, in_channels, *image_size) to logits (N, num_classes).

    Weights are drawn from torch's global CPU generator: after the same `torch.manual_seed` they are the same for
    every backend. `image_size` is (H, W) for images and spectrograms (mels, frames), (samples,) for waveforms and
    (T, H, W) for videos; one number for the same in every dimension; or None for networks that take any size.
    `options` are the family's own (`model_options(name)`).

    Raises:
        ValueError: an unknown name, option or backend, a value out of range, or images too small for the network;
            one line that says what exists or what was expected.
    """
    entry = _entry(name)
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; expected one of: {', '.join(BACKENDS)}")
    known = model_options(name)
    for option in options:
        if option not in known:
            raise ValueError(f"model {name!r} has no option {option!r}; it has: {', '.join(known) or 'none'}")
    inputs = ModelInputs(
        num_classes=at_least_one("num_classes", num_classes),
        in_channels=at_least_one("in_channels", in_channels),
        image_size=_per_dimension(image_size, entry.kind),
        backend=backend,
    )
    return entry.builder(inputs, **options)


def at_least_one(what: str, value: int) -> int:
    """`value` if it is a whole number of 1 or more; otherwise a ValueError that names `what`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{what}={value!r}; expected a whole number of at least 1")
    return value


def fraction(what: str, value: float) -> float:
    """`value` if it is a number from 0 to below 1; otherwise a ValueError that names `what`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{what}={value!r}; expected a number from 0 to below 1")
    return value


def above_zero(what: str, value: float) -> float:
    """`value` if it is a finite number above 0; otherwise a ValueError that names `what`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{what}={value!r}; expected a finite number above 0")
    return value


def require_size(name: str, image_size: tuple[int, ...] | None) -> tuple[int, ...]:
    """`image_size`, for a network whose weights depend on it; ValueError when it was not given."""
    if image_size is None:
        raise ValueError(f"model {name!r} needs image_size: its first fully connected layer depends on it")
    return image_size


def check_smallest(name: str, image_size: tuple[int, ...], smallest: int | tuple[int, ...]) -> None:
    """ValueError unless every side of `image_size` leaves at least one pixel, that is, is at least `smallest`."""
    least = (smallest,) * len(image_size) if isinstance(smallest, int) else smallest
    if any(size < bound for size, bound in zip(image_size, least, strict=True)):
        given, taken = ("x".join(map(str, sizes)) for sizes in (image_size, least))
        what = _PLURAL[input_kind(name)]
        raise ValueError(f"model {name!r} cannot take {given} {what}; the smallest size it takes is {taken}")


def _per_dimension(image_size: int | tuple[int, ...] | None, kind: InputKind) -> tuple[int, ...] | None:
    if image_size is None:
        return None
    names = DIMENSIONS[kind]
    if isinstance(image_size, int):
        image_size = (image_size,) * len(names)
    if not isinstance(image_size, (tuple, list)) or len(image_size) != len(names):
        each = f"({', '.join(names)})" if len(names) > 1 else f"({names[0]},)"
        raise ValueError(f"image_size={image_size!r}; expected one number or {each}")
    return tuple(at_least_one(f"image_size {what}", size) for what, size in zip(names, image_size, strict=True))
