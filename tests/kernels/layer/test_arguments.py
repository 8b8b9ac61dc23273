"""Refusals that the numbered edge cases do not cover."""

import numpy as np
import pytest
import torch

from tests.kernels.exact import DEVICE
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.runtime.errors import ArgumentError


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(1, 2, 8, 8, device=DEVICE), torch.zeros(3, 2, 3, 3, device=DEVICE)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"stride": 1}, {"stride": True}),
        ({"stride": 1}, {"stride": 1.0}),
        ({"stride": (1, 1)}, {"stride": (True, 1.0)}),
        ({"stride": np.int64(1)}, {"stride": np.True_}),
        ({"stride": (np.int64(1), 1)}, {"stride": (np.True_, 1)}),
        ({"groups": 1}, {"groups": True}),
        ({"groups": np.int64(1)}, {"groups": True}),
        ({"pool": MaxPool(np.int64(1))}, {"pool": MaxPool(True)}),  # type: ignore[arg-type]
        ({"pool": MaxPool(2)}, {"pool": MaxPool(2.0)}),  # type: ignore[arg-type]
        ({"pool": MaxPool((2, 2))}, {"pool": MaxPool((2, 2.0))}),  # type: ignore[arg-type]
        ({"pool": MaxPool(2, ceil_mode=True)}, {"pool": MaxPool(2, ceil_mode=1)}),  # type: ignore[arg-type]
    ],
)
def test_a_bad_setting_is_refused_after_an_equal_good_one_was_accepted(
    good: dict[str, object], bad: dict[str, object]
) -> None:
    x, weight = tensors()
    conv_relu_pool(x, weight, backend="triton", **good)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError):
        conv_relu_pool(x, weight, backend="triton", **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["triton", "cudnn"])
@pytest.mark.parametrize(
    ("pool", "named"),
    [
        (MaxPool(3, ceil_mode="no"), "ceil_mode"),  # type: ignore[arg-type]
        (AvgPool(2, count_include_pad="no"), "count_include_pad"),  # type: ignore[arg-type]
    ],
)
def test_a_flag_of_the_pool_is_a_bool(pool: MaxPool | AvgPool, named: str, backend: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        conv_relu_pool(*tensors(), pool=pool, backend=backend)


def test_sparse_input_is_refused_by_name() -> None:
    x, weight = tensors()
    conv_relu_pool(x, weight, backend="triton")
    with pytest.raises(ArgumentError, match="expected x to be a dense"):
        conv_relu_pool(x.to_sparse(), weight, backend="triton")


def test_integers_of_numpy_make_the_same_layer_as_pythons() -> None:
    one, two = np.uint8(1), np.int64(2)
    found = parse_layer((3, 3), one, (two, one), two, one, "relu", MaxPool(two, (one, 1), one, two))  # type: ignore[arg-type]
    assert found == parse_layer((3, 3), 1, (2, 1), 2, 1, "relu", MaxPool(2, (1, 1), 1, 2))
    assert found.text() == parse_layer((3, 3), 1, (2, 1), 2, 1, "relu", MaxPool(2, (1, 1), 1, 2)).text()
    numbers = [found.groups, *found.stride, *found.padding, *found.dilation, *found.window, *found.pool_stride]
    assert all(type(n) is int for n in (*numbers, *found.pool_padding, *found.pool_dilation))
