"""scikit-learn's handwritten digits: 1,797 grey 8x8 pictures that come with the package and need no network."""

import numpy as np
import torch
from einops import rearrange

from data.dataset import ArraySplit, ImageData, assemble

TEST_EVERY = 5  # every fifth picture, counted class by class: 1,437 to train on and 360 to test on


def load_digits(device: torch.device | str = "cpu") -> ImageData:
    """The digits with a fixed split, stratified to within one picture a class and independent of any seed.

    The original values 0..16 are stretched to 0..255.
    """
    from sklearn import datasets  # a second to import, so only when it is asked for

    bunch = datasets.load_digits()
    images = rearrange(np.rint(bunch.images * (255 / 16)).astype(np.uint8), "n h w -> n 1 h w")
    labels = bunch.target.astype(np.int64)
    by_class = np.argsort(labels, kind="stable")
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[by_class[::TEST_EVERY]] = True
    return assemble(
        "digits",
        ArraySplit(images[~is_test], labels[~is_test]),
        ArraySplit(images[is_test], labels[is_test]),
        tuple(str(name) for name in bunch.target_names),
        device,
    )
