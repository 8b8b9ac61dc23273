"""scikit-learn's handwritten digits: 1,797 grey 8x8 images that come with the package and need no network."""

import numpy as np
import numpy.typing as npt
from einops import rearrange

from tidepool.data.dataset import ArraySplit, LabelledData, assemble
from tidepool.data.registry import Request, register

TEST_EVERY = 5  # every fifth image, counted class by class: 1,437 to train on and 360 to test on


@register("digits", holds="images")
def digits(request: Request) -> LabelledData:
    """The digits, split as `digit_splits` says. No options."""
    train, test = (ArraySplit(rearrange(pixels, "n h w -> n 1 h w"), labels) for pixels, labels in digit_splits())
    return assemble(request.name, train, test, tuple(str(digit) for digit in range(10)), request.device)


def digit_splits() -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    """Pixels (N, 8, 8) and digits (N,) of train and of test: a fixed split, stratified to within one image a class
    and independent of any seed. The original values 0..16 are stretched to 0..255.
    """
    from sklearn import datasets  # a second to import, so only when it is asked for

    bunch = datasets.load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    digits = bunch.target.astype(np.int64)
    by_class = np.argsort(digits, kind="stable")
    is_test = np.zeros(len(digits), dtype=bool)
    is_test[by_class[::TEST_EVERY]] = True
    return [(pixels[chosen], digits[chosen]) for chosen in (~is_test, is_test)]
