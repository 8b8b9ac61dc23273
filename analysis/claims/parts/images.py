"""Digits, and a sample of CIFAR-10 where it is on this machine, as standardised float tensors."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from tidepool.analysis.claims.frame import MissingDataError
from tidepool.data import load_data

CIFAR10 = "cifar10"


@dataclass(frozen=True, eq=False)
class Images:
    """Images (N, C, H, W) of mean 0 and variance 1, and labels (N,), to train on and to test on."""

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor


@functools.cache
def digits() -> Images:
    """1,437 and 360 digits of 8x8 pixels."""
    return _standardised("digits", None)


@functools.cache
def roomy_digits() -> Images:
    """The digits in the middle of 16x16 pixels, so that a circular shift by up to four pixels cuts none."""
    small = digits()
    empty = float(small.train.min())
    train, test = (F.pad(x, (4, 4, 4, 4), value=empty) for x in (small.train, small.test))
    return Images(train, small.train_labels, test, small.test_labels)


@functools.cache
def cifar10() -> Images:
    """All of CIFAR-10. Raises MissingDataError where `TIDEPOOL_DATA` names no folder that holds it."""
    folder = Path(os.environ.get("TIDEPOOL_DATA", "")) / CIFAR10
    if not os.environ.get("TIDEPOOL_DATA") or not folder.is_dir():
        raise MissingDataError(
            "needs CIFAR-10: set TIDEPOOL_DATA to a folder that holds cifar10/ with its Parquet files"
        )
    return _standardised(CIFAR10, folder)


def sample(images: Images, train: int, test: int, seed: int) -> Images:
    """So many images drawn with `seed` to train on, and the first `test` test images, the same for every seed."""
    chosen = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(seed))[:train]
    return Images(images.train[chosen], images.train_labels[chosen], images.test[:test], images.test_labels[:test])


def _standardised(name: str, folder: Path | None) -> Images:
    data = load_data(name, data_dir=folder)
    mean, std = (statistic.view(1, -1, 1, 1) for statistic in (data.mean, data.std))
    train, test = ((split.inputs.float() / 255 - mean) / std for split in (data.train, data.test))
    return Images(train, data.train.labels, test, data.test.labels)
