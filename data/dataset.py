"""What every loader returns: two splits of uint8 images with their labels, class names and channel statistics."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from einops import repeat


class DataError(ValueError):
    """The data cannot be used. The message is one line: where (path, row), what was found, what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@dataclass(frozen=True, eq=False)
class Split:
    """Images (N, C, H, W) uint8 in 0..255 and labels (N,) int64, both on one device."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return self.images.shape[0]


@dataclass(frozen=True, eq=False)
class ImageData:
    """A classification data set held whole on the training device.

    `mean` and `std` are float32 (C,), of the training images scaled to 0..1. A channel that never varies has
    std 1, so that dividing by it is harmless.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: torch.Tensor
    std: torch.Tensor

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.train.images.shape[2], self.train.images.shape[3]


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """A split as a loader reads it: images (N, C, H, W) uint8 and labels (N,) int64 in host memory."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def assemble(
    name: str, train: ArraySplit, test: ArraySplit, class_names: tuple[str, ...], device: torch.device | str
) -> ImageData:
    """Check that the splits belong together, measure the channels and move everything to `device`.

    Raises:
        DataError: the two splits' pictures differ in size.
    """
    if train.images.shape[2:] != test.images.shape[2:]:
        raise DataError(
            f"{name}: train pictures are {size_text(train.images)} but test pictures are {size_text(test.images)}; "
            "expected one size"
        )
    # A split is grey only when all its pictures are; beside a coloured split its pictures become RGB with R = G = B.
    channels = max(train.images.shape[1], test.images.shape[1])
    train, test = _with_channels(train, channels), _with_channels(test, channels)
    mean, std = channel_statistics(train.images)
    return ImageData(
        name=name,
        train=_to_device(train, device),
        test=_to_device(test, device),
        class_names=class_names,
        mean=mean.to(device),
        std=std.to(device),
    )


def channel_statistics(images: npt.NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and population standard deviation per channel, float32 (C,), of (N, C, H, W) images scaled to 0..1.

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


def size_text(images: npt.NDArray[np.uint8]) -> str:
    """`32x24` (height x width) for (..., H, W) images."""
    return f"{images.shape[-2]}x{images.shape[-1]}"


def _with_channels(split: ArraySplit, channels: int) -> ArraySplit:
    if split.images.shape[1] == channels:
        return split
    return ArraySplit(repeat(split.images, "n 1 h w -> n c h w", c=channels).copy(), split.labels)


def _to_device(split: ArraySplit, device: torch.device | str) -> Split:
    return Split(torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device))
