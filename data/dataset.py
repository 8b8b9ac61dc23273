"""What every loader returns: splits of inputs with their labels, class names and channel statistics."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from einops import repeat

from tidepool.data.augmentation import NO_AUGMENTATION, Augmentation

Kind = Literal["image", "waveform", "video"]
"""What a network takes: images and spectrograms (N, C, H, W), waveforms (N, C, samples), videos (N, C, T, H, W)."""
Holds = Literal["images", "audio", "videos"]
"""What a data set holds."""
KINDS_OF: dict[Holds, tuple[Kind, ...]] = {"images": ("image",), "audio": ("image", "waveform"), "videos": ("video",)}
VALIDATION_NAMES = ("validation", "valid", "val", "dev")
"""What a data set's own validation split may be called."""
_MODELS_OF: dict[Kind, str] = {"image": "images or spectrograms", "waveform": "waveforms", "video": "videos"}


class DataError(ValueError):
    """The data cannot be used. The message is one line: where (path, row), what was found, what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def require_kind(name: str, holds: Holds, kind: Kind) -> None:
    """DataError unless data `name`, which holds `holds`, can be given to a network that takes `kind`."""
    if kind not in KINDS_OF[holds]:
        wanted = " or ".join(_MODELS_OF[possible] for possible in KINDS_OF[holds])
        raise DataError(
            f"data {name!r} holds {holds}, but the model takes {_MODELS_OF[kind]}; expected a model for {wanted}"
        )


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs (N, C, *spatial), uint8 in 0..255 or float32, and labels (N,) int64, both on one device."""

    inputs: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return self.inputs.shape[0]


@dataclass(frozen=True)
class Factor:
    """One part of labels that are made of several: `of_class[label]` is the index in `names` of its value there."""

    name: str
    names: tuple[str, ...]
    of_class: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LabelledData:
    """A classification data set held whole on the training device.

    `mean` and `std` are float32 (C,), of the training inputs, pixels scaled to 0..1. A channel that never varies has
    std 1, so that dividing by it is harmless. `augmentation` is what may be done to the inputs without making their
    labels wrong. `factors` are the parts of the labels, none for labels of one piece. `validation` is the split that
    the data set came with, or what `validation.with_validation` held out of `train`; None before that. `groups` (N,)
    int64 on the CPU says which training samples belong together, such as those of one speaker: validation holds out
    whole groups.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: torch.Tensor
    std: torch.Tensor
    augmentation: Augmentation = NO_AUGMENTATION
    factors: tuple[Factor, ...] = ()
    validation: Split | None = None
    groups: torch.Tensor | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        return self.train.inputs.shape[1]

    @property
    def input_size(self) -> tuple[int, ...]:
        """The spatial sizes: (height, width), (mels, frames), (samples,) or (frames, height, width)."""
        return tuple(self.train.inputs.shape[2:])


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """A split of images or videos in host memory: (N, C, *spatial) uint8 and labels (N,) int64."""

    inputs: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def assemble(
    name: str,
    train: ArraySplit,
    test: ArraySplit,
    class_names: tuple[str, ...],
    device: torch.device | str,
    *,
    augmentation: Augmentation | None = None,
    factors: tuple[Factor, ...] = (),
    validation: ArraySplit | None = None,
    groups: npt.NDArray[np.int64] | None = None,
) -> LabelledData:
    """Check that the splits belong together, measure the channels and move everything to `device`.

    Without an `augmentation` the inputs are taken for images (`image_augmentation`).

    Raises:
        DataError: the splits' images differ in size.
    """
    others = {"test": test} | ({} if validation is None else {"validation": validation})
    for split, other in others.items():
        if train.inputs.shape[2:] != other.inputs.shape[2:]:
            raise DataError(
                f"{name}: train images are {size_text(train.inputs)} but {split} images are "
                f"{size_text(other.inputs)}; expected one size, or --image_size to bring them to one"
            )
    # A split is grey only when all its images are; with a coloured one they become RGB with R = G = B.
    channels = max(split.inputs.shape[1] for split in (train, *others.values()))
    train, test = _with_channels(train, channels), _with_channels(test, channels)
    mean, std = channel_statistics(train.inputs)
    return LabelledData(
        name=name,
        train=_to_device(train, device),
        test=_to_device(test, device),
        class_names=class_names,
        mean=mean.to(device),
        std=std.to(device),
        augmentation=image_augmentation(train.inputs.shape[1:]) if augmentation is None else augmentation,
        factors=factors,
        validation=None if validation is None else _to_device(_with_channels(validation, channels), device),
        groups=None if groups is None else torch.from_numpy(groups),
    )


def image_augmentation(shape: tuple[int, ...]) -> Augmentation:
    """For (C, H, W) images: shifts of up to an eighth of the shorter side, reflected, and mirror images of those
    in colour. Mirrored characters are wrong characters, and those are grey; of photographs few things are.
    """
    channels, height, width = shape
    return Augmentation((min(height, width) // 8,) * 2, "reflect", flip=channels == 3)


def channel_statistics(images: npt.NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and population standard deviation per channel, float32 (C,), of (N, C, *spatial) pixels scaled to 0..1.

    Computed from each channel's 256-bin histogram in float64, so the result does not depend on summation order.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.bincount(torch.from_numpy(images[:, channel].ravel()), minlength=256).double()
        share = counts / counts.sum()
        mean = (share * levels).sum()
        std = (share * (levels - mean).square()).sum().sqrt()
        means.append(mean)
        stds.append(std if counts.count_nonzero() > 1 else torch.ones_like(std))
    return torch.stack(means).float(), torch.stack(stds).float()


def statistics_of(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What `channel_statistics` gives of pixels; of floats, such as audio, one mean and standard deviation of all the
    values, float32 (1,)."""
    if inputs.dtype == torch.uint8:
        return channel_statistics(inputs.cpu().numpy())
    wide = inputs.double()
    std = wide.std(correction=0)
    return wide.mean().float().view(1), torch.where(std > 0, std, 1.0).float().view(1)


def size_text(images: npt.NDArray[np.uint8]) -> str:
    """`32x24` (height x width) for (..., H, W) images."""
    return f"{images.shape[-2]}x{images.shape[-1]}"


def _with_channels(split: ArraySplit, channels: int) -> ArraySplit:
    if split.inputs.shape[1] == channels:
        return split
    return ArraySplit(repeat(split.inputs, "n 1 h w -> n c h w", c=channels).copy(), split.labels)


def _to_device(split: ArraySplit, device: torch.device | str) -> Split:
    return Split(torch.from_numpy(split.inputs).to(device), torch.from_numpy(split.labels).to(device))
