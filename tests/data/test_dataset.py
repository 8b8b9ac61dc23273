"""Channel statistics, and what has to hold between two splits."""

import numpy as np
import pytest
import torch

from tidepool.data.dataset import ArraySplit, DataError, assemble, channel_statistics


def _split(num: int, channels: int, height: int = 4, width: int = 3) -> ArraySplit:
    generator = np.random.default_rng(num)
    return ArraySplit(
        generator.integers(0, 256, (num, channels, height, width), dtype=np.uint8), np.zeros(num, dtype=np.int64)
    )


def test_statistics_are_numpys() -> None:
    images = _split(11, 3).inputs
    mean, std = channel_statistics(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean.numpy(), scaled.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), scaled.std((0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_channel_has_std_one(level: int) -> None:
    mean, std = channel_statistics(np.full((2, 1, 3, 3), level, dtype=np.uint8))
    assert mean.item() == pytest.approx(level / 255, rel=1e-6)
    assert std.item() == 1.0


def test_grey_split_beside_a_coloured_one_becomes_coloured() -> None:
    grey, coloured = _split(2, 1), _split(3, 3)
    together = assemble("pets", grey, coloured, ("cat",), "cpu")
    assert together.in_channels == 3
    for channel in range(3):
        assert torch.equal(together.train.inputs[:, channel], torch.from_numpy(grey.inputs[:, 0]))
    assert torch.equal(together.test.inputs, torch.from_numpy(coloured.inputs))


def test_splits_of_different_sizes_are_refused() -> None:
    found = r"^pets: train images are 4x3 but test images are 4x9; expected one size, or --image_size to bring them"
    with pytest.raises(DataError, match=found):
        assemble("pets", _split(2, 1), _split(2, 1, width=9), ("cat",), "cpu")


def test_an_error_is_always_one_line() -> None:
    assert str(DataError("first\nsecond\n  third")) == "first second third"
