"""Edge cases 1-20: shapes and settings, each as PyTorch 2.13 does it, or refused in one line."""

import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.kernels.exact import DEVICE, assert_as_pytorch, integers
from tests.kernels.guarded_memory import guarded_memory
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool
from tidepool.kernels.runtime.errors import ArgumentError


def random(*size: int, seed: int = 0) -> Tensor:
    """Small integers: sums are exact."""
    return integers(size, torch.float32, torch.Generator().manual_seed(seed + sum(size)))


def assert_refused(message: str, x: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> None:
    """Every backend refuses the call before it runs anything, in one line that holds `message`."""
    for backend in ("triton", "cudnn", "auto"):
        with pytest.raises(ArgumentError, match=re.escape(message)) as refusal:
            conv_relu_pool(x, weight, bias, **options, backend=backend)
        assert "\n" not in str(refusal.value)
        assert isinstance(refusal.value, ValueError)
        assert isinstance(refusal.value, RuntimeError)


@pytest.mark.parametrize("pool", [MaxPool(2), MaxPool(3, 1, 1), AvgPool(2), None], ids=repr)
@pytest.mark.parametrize("groups", [1, 2])
def test_01_no_images(pool: Any, groups: int) -> None:
    """In memory that starts as NaN: fresh memory often happens to be zeros."""
    x, weight, bias = torch.zeros(0, 2, 5, 6), random(4, 2 // groups, 3, 3), random(4)
    leaves = [t.to(DEVICE).requires_grad_() for t in (x, weight, bias)]
    with guarded_memory(0xFF) as allocations:
        y = conv_relu_pool(*leaves, padding=1, groups=groups, pool=pool, backend="triton")
        y.sum().backward()
    assert len(allocations) >= 2  # of dweight and dbias
    expected = F.max_pool2d(F.conv2d(x, weight, bias, padding=1, groups=groups), 1)
    if pool is not None:
        expected = torch.zeros(0, 4, *((5, 6) if pool == MaxPool(3, 1, 1) else (2, 3)))
    assert y.shape == expected.shape
    assert leaves[0].grad.shape == x.shape
    assert torch.equal(leaves[1].grad.cpu(), torch.zeros_like(weight))
    assert torch.equal(leaves[2].grad.cpu(), torch.zeros_like(bias))


def test_02_no_input_channels_refused() -> None:
    """PyTorch returns a tensor without channels, which nobody can have meant."""
    assert_refused("at least 1 input channel", torch.zeros(1, 0, 5, 5), torch.zeros(2, 0, 3, 3))


def test_03_no_filters_refused() -> None:
    message = "expected weight to be at least 1 at dimension 0, but got weight of size [0, 1, 3, 3]"
    assert_refused(message, random(1, 1, 5, 5), torch.zeros(0, 1, 3, 3))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("padding", [0, 2])
def test_04_no_pixels_refused(size: tuple[int, int], padding: int) -> None:
    message = "Kernel size can't be greater than actual input size"
    assert_refused(message, torch.zeros(1, 1, *size), random(2, 1, 1, 1), padding=padding)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_05_one_pixel(spatial: int) -> None:
    ones = (1,) * spatial
    for pool in (MaxPool(1), AvgPool(1), None):
        assert_as_pytorch(random(2, 3, *ones), random(4, 3, *ones), random(4), pool=pool)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_06_unbatched(spatial: int) -> None:
    x, weight = random(2, *(5, 6, 4)[:spatial]), random(3, 2, *(2, 3, 2)[:spatial])
    for pool in (MaxPool(2), AvgPool(2), None):
        assert_as_pytorch(x, weight, random(3), pool=pool)


@pytest.mark.parametrize("pool", [MaxPool(2), MaxPool(1), AvgPool(2), None], ids=repr)
@pytest.mark.parametrize("x_last", [False, True])
def test_06_unbatched_in_other_formats(x_last: bool, pool: Any) -> None:
    """A channels_last weight gives a channels_last result without a pool only; x cannot be channels_last."""
    x, weight = random(2, 5, 6), random(3, 2, 2, 3).to(memory_format=torch.channels_last)
    x = x.movedim(0, -1).contiguous().movedim(-1, 0) if x_last else x
    assert_as_pytorch(x, weight, random(3), pool=pool)
    assert_as_pytorch(x, weight.contiguous(), random(3), pool=pool)
    y = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), pool=pool, backend="triton")
    assert y.is_contiguous() == (pool is not None)


@pytest.mark.parametrize("size", [(5, 5), (1, 2, 3, 5, 5), (5,)])
def test_06_other_ranks_refused(size: tuple[int, ...]) -> None:
    message = f"Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size: {list(size)}"
    assert_refused(message, torch.zeros(size), random(2, 2, 3, 3))


def test_06_weight_of_other_rank_refused() -> None:
    for size in ((3,), (2, 3), (1, 1, 1, 1, 1, 1)):
        assert_refused("expected weight to have 3, 4 or 5 dimensions", random(1, 1, 5, 5), torch.zeros(size))


def test_07_kernel_over_input_refused() -> None:
    message = (
        "Calculated padded input size per channel: (2 x 2). Kernel size: (3 x 3). "
        "Kernel size can't be greater than actual input size"
    )
    assert_refused(message, random(1, 1, 2, 2), random(1, 1, 3, 3))
    assert_refused("(4 x 9). Kernel size: (5 x 3)", random(1, 1, 2, 7), random(1, 1, 3, 3), padding=1, dilation=(2, 1))
    assert_refused("kernel size to be at least 1", random(1, 1, 5, 5), torch.zeros(1, 1, 0, 3))


@pytest.mark.parametrize("pool", [MaxPool(3), AvgPool(3), MaxPool(2, dilation=2)], ids=repr)
def test_08_convolution_smaller_than_the_window_refused(pool: Any) -> None:
    message = "Calculated output size: (0 x 1). Output size is too small"
    assert_refused(message, random(1, 1, 4, 5), random(1, 1, 3, 3), pool=pool)


def test_08_an_average_of_volumes_takes_no_window_over_its_input_however_padded() -> None:
    pool = AvgPool((1, 3, 1), 1, (0, 1, 0))
    message = "Given pool input size: (3 x 2 x 3), smaller than pool.kernel: (1 x 3 x 1)"
    assert_refused(message, random(1, 1, 3, 2, 3), random(1, 1, 1, 1, 1), pool=pool)
    assert_as_pytorch(random(1, 1, 2, 3), random(1, 1, 1, 1), pool=AvgPool((3, 1), 1, (1, 0)))


def test_08_a_padded_window_may_be_larger() -> None:
    assert_as_pytorch(random(1, 1, 4, 5), random(1, 1, 3, 3), pool=MaxPool(3, padding=1))
    assert_as_pytorch(random(1, 1, 3, 4), random(1, 1, 3, 3), pool=MaxPool(2, 2, 1, ceil_mode=True))


@pytest.mark.parametrize(("kind", "window", "padding"), [(MaxPool, 2, 2), (AvgPool, 3, 2), (MaxPool, (4, 1), 1)])
def test_09_pool_padding_over_half_the_window_refused(kind: Any, window: Any, padding: int) -> None:
    message = "pool.padding: pad should be at most half of effective kernel size"
    assert_refused(message, random(1, 1, 9, 9), random(1, 1, 3, 3), pool=kind(window, 1, padding))


def test_10_pool_padding_with_dilation() -> None:
    """A window of 3 dilated by 2 spans 5 pixels; PyTorch's pools still allow half of 3 only, and say half of 5."""
    x, weight = random(1, 1, 9, 9), random(1, 1, 3, 3)
    assert_refused("but got pad=2, kernel_size=3 and dilation=2", x, weight, pool=MaxPool(3, 1, 2, dilation=2))
    assert_refused("half of effective kernel size", x, weight, pool=MaxPool(3, 1, 3, dilation=2))
    for pool_op in (F.max_pool1d, F.max_pool2d):
        with pytest.raises(RuntimeError, match="half of"):
            pool_op(x[0], 3, 1, 2, 2)
    assert_as_pytorch(x, weight, pool=MaxPool(3, 1, 1, dilation=2))


def test_10_a_dilated_window_that_steps_over_every_pixel_refused() -> None:
    """PyTorch answers -inf there and remembers an index outside of the tensor, which backward then writes to."""
    value, index = F.max_pool1d(torch.ones(1, 1, 1), 2, None, 1, 2, return_indices=True)
    assert value.item() == -torch.inf
    assert index.item() == 1
    message = "(3 x 1): a window of pool.kernel: (2 x 2), dilated by (2 x 2) and padded by (0 x 1), would hold no pixel"
    x, weight = random(1, 1, 3, 1), random(1, 1, 1, 1)
    assert_refused(message, x, weight, pool=MaxPool(2, None, (0, 1), dilation=2))
    pool = MaxPool(3, 1, 1, dilation=3)  # its first window starts at -1 and meets pixel 2
    assert_refused("would hold no pixel", random(1, 1, 3), random(1, 1, 1), pool=MaxPool(2, 1, 1, dilation=4))
    assert_as_pytorch(random(2, 1, 6, 5), random(1, 1, 1, 1), pool=pool)


def test_11_negative_padding_refused() -> None:
    x, weight = random(1, 1, 9, 9), random(1, 1, 3, 3)
    assert_refused("negative padding is not supported", x, weight, padding=(0, -1))
    assert_refused("pad must be non-negative", x, weight, pool=MaxPool(2, padding=-1))
    assert_refused("pad must be non-negative", x, weight, pool=AvgPool(2, padding=-1))


def test_12_zero_stride_and_dilation_refused() -> None:
    x, weight = random(1, 1, 9, 9), random(1, 1, 3, 3)
    assert_refused("non-positive stride is not supported", x, weight, stride=0)
    assert_refused("dilation should be greater than zero", x, weight, dilation=(1, 0))
    for kind in (MaxPool, AvgPool):
        assert_refused("pool.stride should be greater than zero", x, weight, pool=kind(2, 0))
        assert_refused("pool.kernel should be greater than zero", x, weight, pool=kind(0))
    assert_refused("pool.dilation should be greater than zero", x, weight, pool=MaxPool(2, dilation=0))


def test_12_settings_of_wrong_length_or_type_refused() -> None:
    x, weight = random(1, 1, 9, 9), random(1, 1, 3, 3)
    assert_refused("expected stride to be a single integer value or a list of 2 values", x, weight, stride=(1, 1, 1))
    assert_refused("expected padding to be a single integer value", x, weight, padding=1.5)
    for value in (True, 1.0, np.True_, np.float32(1), torch.tensor(1)):
        assert_refused("expected stride to be a single integer value", x, weight, stride=value)
        assert_refused("expected dilation to be a single integer value", x, weight, dilation=(1, value))
        assert_refused("expected pool.kernel to be a single integer value", x, weight, pool=MaxPool((1, value)))  # type: ignore[arg-type]
    assert_refused("expected pool.kernel to be a single integer value", x, weight, pool=MaxPool((2, 2, 2)))
    assert_refused("expected pool to be MaxPool, AvgPool or None", x, weight, pool=2)
    assert_refused("expected activation to be one of elu, gelu, ", x, weight, activation="softplus")
    with pytest.raises(ArgumentError, match="expected backend to be one of auto, triton, cudnn, compile"):
        conv_relu_pool(x, weight, backend="cuda")


@pytest.mark.parametrize("integer", [np.int64, np.uint8])
def test_12_integers_of_numpy_are_integers(integer: Any) -> None:
    """Of any width: 200 + 200 does not fit a uint8."""
    one, two = integer(1), integer(2)
    x, weight = random(2, 4, 9, 8), random(6, 2, 3, 2)
    assert_as_pytorch(x, weight, stride=two, padding=one, dilation=one, groups=two, pool=MaxPool(two, one, one, one))
    assert_as_pytorch(x, weight, stride=(one, 2), padding=[two, one], groups=two, pool=AvgPool((two, 1), (1, two)))
    assert_as_pytorch(random(1, 1, 3), random(1, 1, 2), padding=integer(100), pool=MaxPool(integer(100), integer(100)))
    assert_as_pytorch(random(1, 1, 300), random(1, 1, 2), dilation=integer(120), padding=integer(120), pool=None)


@pytest.mark.parametrize("kind", [MaxPool, AvgPool])
@pytest.mark.parametrize("kernel", [2, (1, 4)])
def test_13_pool_stride_is_the_kernel_by_default(kind: Any, kernel: Any) -> None:
    x, weight = random(2, 1, 9, 9), random(1, 1, 2, 2)
    assert_as_pytorch(x, weight, pool=kind(kernel))
    by_default = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), pool=kind(kernel), backend="triton")
    spelled_out = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), pool=kind(kernel, kernel), backend="triton")
    assert torch.equal(by_default, spelled_out)


def test_14_stride_over_the_kernel_skips_inputs() -> None:
    x, weight = random(2, 2, 9, 11) + 3.0, torch.ones(3, 2, 2, 1)
    assert_as_pytorch(x, weight, stride=(4, 3), pool=None)
    leaf = x.to(DEVICE).requires_grad_()
    conv_relu_pool(leaf, weight.to(DEVICE), stride=(4, 3), pool=None, backend="triton").sum().backward()
    touched = torch.zeros(9, 11, dtype=torch.bool)
    touched[[0, 1, 4, 5]] = True
    touched[:, [1, 2, 4, 5, 7, 8, 10]] = False
    assert torch.equal((leaf.grad.cpu() != 0).all(dim=1), touched.expand(2, 9, 11))
    assert_as_pytorch(random(2, 1, 9, 11), random(2, 1, 1, 1), pool=MaxPool((2, 1), (4, 3)))
    assert_as_pytorch(random(2, 1, 9, 11), random(2, 1, 1, 1), pool=AvgPool((2, 1), (4, 3)))


@pytest.mark.parametrize("pool", [MaxPool(3, 1), MaxPool(3, 2), MaxPool(3, 2, 1), AvgPool(4, 1)], ids=repr)
def test_15_overlapping_windows(pool: Any) -> None:
    assert_as_pytorch(random(2, 2, 8, 9), random(3, 2, 2, 2), random(3), pool=pool)


def test_15_a_pixel_that_wins_several_windows_gets_the_sum() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 9.0
    leaf = x.to(DEVICE).requires_grad_()
    y = conv_relu_pool(leaf, torch.ones(1, 1, 1, 1, device=DEVICE), pool=MaxPool(3, 1), backend="triton")
    y.backward(torch.arange(1.0, 10.0, device=DEVICE).view(1, 1, 3, 3))
    expected = torch.zeros(1, 1, 5, 5)
    expected[0, 0, 2, 2] = 45.0
    assert torch.equal(leaf.grad.cpu(), expected)


@pytest.mark.parametrize("kind", [MaxPool, AvgPool])
def test_16_odd_sizes_lose_their_last_row_and_column(kind: Any) -> None:
    x, weight = random(1, 1, 5, 7) + 3.0, torch.ones(1, 1, 1, 1)
    assert_as_pytorch(x, weight, pool=kind(2))
    leaf = x.to(DEVICE).requires_grad_()
    conv_relu_pool(leaf, weight.to(DEVICE), pool=kind(2), backend="triton").sum().backward()
    assert not leaf.grad[..., -1, :].any()
    assert not leaf.grad[..., :, -1].any()


def test_17_ceil_mode_keeps_a_partial_window() -> None:
    x, weight = random(1, 2, 5, 5), random(2, 2, 1, 1)
    assert_as_pytorch(x, weight, pool=MaxPool(2, ceil_mode=True))
    y = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), pool=MaxPool(2, ceil_mode=True), backend="triton")
    assert y.shape == (1, 2, 3, 3)


@pytest.mark.parametrize("size", [4, 5, 6, 7])
@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 1), (2, 3, 1), (3, 3, 1), (3, 2, 0), (1, 3, 0)])
def test_17_ceil_mode_drops_a_window_that_starts_in_the_padding(
    size: int, window: int, stride: int, padding: int
) -> None:
    x, weight = random(1, 1, size, size + 1), random(2, 1, 1, 1)
    assert_as_pytorch(x, weight, pool=MaxPool(window, stride, padding, ceil_mode=True))


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 1), (3, 2, 0), (4, 3, 1), ((1, 3), 2, (0, 1))])
def test_17_ceil_mode_average_divides_by_what_pytorch_divides_by(
    window: Any, stride: int, padding: Any, include: bool
) -> None:
    """All of the window, up to the padding's end, or what is inside: every divisor goes into 144 without remainder."""
    pool = AvgPool(window, stride, padding, ceil_mode=True, count_include_pad=include)
    x, weight = 144 * random(1, 2, 6, 8), random(2, 2, 1, 1)
    grad = torch.full(conv_relu_pool(x, weight, pool=pool, backend="cudnn").shape, 144.0)
    assert_as_pytorch(x, weight, grad=grad, pool=pool)


@pytest.mark.parametrize("kernel", [(2, 4), (4, 1), (3, 2), (5, 3)])
@pytest.mark.parametrize("dilation", [1, (1, 2)])
def test_18_same_padding_pads_more_below_and_right(kernel: tuple[int, int], dilation: Any) -> None:
    assert_as_pytorch(random(1, 2, 6, 9), random(2, 2, *kernel), padding="same", dilation=dilation, pool=MaxPool(2, 1))


def test_18_valid_padding_is_none() -> None:
    assert_as_pytorch(random(1, 2, 6, 9), random(2, 2, 3, 2), padding="valid", stride=2)


def test_18_same_with_stride_and_unknown_words_refused() -> None:
    x, weight = random(1, 1, 9, 9), random(1, 1, 3, 3)
    message = "padding='same' is not supported for strided convolutions"
    assert_refused(message, x, weight, padding="same", stride=(1, 2))
    assert_refused("Invalid padding string: 'full'", x, weight, padding="full")


@pytest.mark.parametrize("dilation", [2, (1, 3), (4, 2)])
@pytest.mark.parametrize("stride", [1, 2, (2, 3)])
def test_19_dilation(dilation: Any, stride: Any) -> None:
    x, weight = random(1, 2, 11, 10), random(2, 2, 3, 3)
    assert_as_pytorch(x, weight, dilation=dilation, stride=stride, padding=2, pool=MaxPool(2, 1))


@pytest.mark.parametrize(("channels", "filters", "groups"), [(4, 6, 2), (3, 3, 3), (3, 9, 3), (6, 3, 3), (1, 5, 1)])
@pytest.mark.parametrize("pool", [MaxPool(2), AvgPool(2)], ids=repr)
def test_19_groups_and_depthwise(channels: int, filters: int, groups: int, pool: Any) -> None:
    x, weight = random(2, channels, 6, 7), random(filters, channels // groups, 3, 2)
    assert_as_pytorch(x, weight, random(filters), groups=groups, padding=1, pool=pool)


def test_19_groups_that_do_not_divide_refused() -> None:
    x = random(1, 4, 5, 5)
    assert_refused("expected weight to be divisible by 2 at dimension 0", x, random(3, 2, 3, 3), groups=2)
    assert_refused("to have 6 channels, but got 4 channels instead", x, random(3, 2, 3, 3), groups=3)
    for groups in (0, -1, 1.0, True, np.True_, torch.tensor(1)):
        assert_refused("non-positive groups is not supported", x, random(4, 4, 3, 3), groups=groups)


def test_20_channel_mismatch_refused() -> None:
    message = "weight of size [2, 3, 3, 3], expected input to have 3 channels, but got 4 channels instead"
    assert_refused(message, random(1, 4, 5, 5), random(2, 3, 3, 3))
    assert_refused(message, random(4, 5, 5), random(2, 3, 3, 3))


@pytest.mark.parametrize("size", [(1,), (3,), (2, 1), ()])
def test_20_bias_of_another_size_refused(size: tuple[int, ...]) -> None:
    message = f"expected bias to be 1-dimensional with 2 elements, but got bias of size {list(size)} instead"
    assert_refused(message, random(1, 3, 5, 5), random(2, 3, 3, 3), torch.zeros(size))


def test_20_what_is_no_tensor_refused() -> None:
    with pytest.raises(TypeError, match="expected bias to be a Tensor, but got float"):
        conv_relu_pool(random(1, 3, 5, 5), random(2, 3, 3, 3), 1.0)  # type: ignore[arg-type]
