"""Model names -> builders, with every argument checked before a single parameter is made."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from kernels.arguments import BACKENDS


@dataclass(frozen=True)
class ModelInputs:
    """What every family is built for: pictures of `in_channels` and `image_size` (H, W) into `num_classes` logits."""

    num_classes: int
    in_channels: int
    image_size: tuple[int, int] | None
    backend: str


ModelBuilder = Callable[..., nn.Module]
_BUILDERS: dict[str, ModelBuilder] = {}


def register(name: str) -> Callable[[ModelBuilder], ModelBuilder]:
    """Decorator: offer `builder(inputs: ModelInputs, *, <options with defaults>) -> nn.Module` under `name`."""

    def add(builder: ModelBuilder) -> ModelBuilder:
        if name in _BUILDERS:
            raise ValueError(f"model {name!r} is registered twice")
        _BUILDERS[name] = builder
        return builder

    return add


def available_models() -> tuple[str, ...]:
    """The names `build_model` knows, in alphabetical order."""
    return tuple(sorted(_BUILDERS))


def build_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int | tuple[int, int] | None = None,
    backend: str = "auto",
    **options: Any,
) -> nn.Module:
    """Build a network that maps (N, in_channels, H, W) to logits (N, num_classes).

    Weights are drawn from torch's global CPU generator: after the same `torch.manual_seed` they are the same for
    every backend. `image_size` is one number for square pictures, (H, W), or None for networks that take any size.
    `options` are the family's own (`mlp`: hidden; `convnet`: width, depth).

    Raises:
        ValueError: an unknown name, option or backend, a value out of range, or pictures too small for the network;
            one line that says what exists or what was expected.
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown model {name!r}; expected one of: {', '.join(available_models())}")
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; expected one of: {', '.join(BACKENDS)}")
    builder = _BUILDERS[name]
    known = [p.name for p in inspect.signature(builder).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise ValueError(f"model {name!r} has no option {option!r}; it has: {', '.join(known) or 'none'}")
    inputs = ModelInputs(
        num_classes=at_least_one("num_classes", num_classes),
        in_channels=at_least_one("in_channels", in_channels),
        image_size=_height_and_width(image_size),
        backend=backend,
    )
    return builder(inputs, **options)


def at_least_one(what: str, value: int) -> int:
    """`value` if it is a whole number of 1 or more; otherwise a ValueError that names `what`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{what}={value!r}; expected a whole number of at least 1")
    return value


def require_size(name: str, image_size: tuple[int, int] | None) -> tuple[int, int]:
    """`image_size`, for a network whose weights depend on it; ValueError when it was not given."""
    if image_size is None:
        raise ValueError(f"model {name!r} needs image_size: its first fully connected layer depends on it")
    return image_size


def check_smallest(name: str, image_size: tuple[int, int], smallest: int) -> None:
    """ValueError unless both sides of `image_size` leave at least one pixel, that is, are at least `smallest`."""
    if min(image_size) < smallest:
        height, width = image_size
        raise ValueError(
            f"model {name!r} cannot take {height}x{width} pictures; the smallest size it takes is {smallest}x{smallest}"
        )


def _height_and_width(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if not isinstance(image_size, (tuple, list)) or len(image_size) != 2:
        raise ValueError(f"image_size={image_size!r}; expected one number or (height, width)")
    height, width = image_size
    return at_least_one("image_size height", height), at_least_one("image_size width", width)
