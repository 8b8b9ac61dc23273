"""What forward keeps for backward, counted in bytes."""

import pytest
import torch

from tests.kernels.activations.listed import ACTIVATIONS
from tests.kernels.exact import DEVICE
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool
from tidepool.kernels.activations import Activation
from tidepool.kernels.layer.pooling import Pool

N, C, H, W, K = 2, 3, 12, 10, 16
CONV = N * K * H * W  # convolution outputs, padding 1
POOLED = CONV // 4


def saved_bytes(dtype: torch.dtype, **settings: object) -> tuple[int, list[torch.Tensor]]:
    """Bytes kept besides x and weight, and everything that is kept."""
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    x = torch.randn(N, C, H, W, dtype=dtype, device=DEVICE)
    weight = torch.randn(K, C, 3, 3, dtype=dtype, device=DEVICE, requires_grad=True)
    bias = torch.zeros(K, dtype=dtype, device=DEVICE, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        conv_relu_pool(x, weight, bias, padding=1, backend="triton", **settings)  # type: ignore[arg-type]
    inputs = {x.data_ptr(), weight.data_ptr(), bias.data_ptr()}
    return sum(t.numel() * t.element_size() for t in kept if t.data_ptr() not in inputs or not t.numel()), kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pool": MaxPool(2)}, POOLED),
        ({"pool": MaxPool(2), "activation": None}, POOLED),
        ({"pool": None}, CONV),
        ({"pool": None, "activation": None}, 0),
        ({"pool": MaxPool((4, 5), 1)}, N * K * 9 * 6),
        ({"pool": AvgPool(2)}, CONV // 8),
        ({"pool": AvgPool(2), "activation": None}, 0),
    ],
    ids=["relu-max", "max", "relu", "linear", "relu-overlapping", "relu-avg", "avg"],
)
def test_bytes_saved_beside_input_and_weight_do_not_depend_on_the_dtype(
    dtype: torch.dtype, settings: dict[str, object], expected: int
) -> None:
    assert saved_bytes(dtype, **settings)[0] == expected


needing_values = pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a.needs_value], ids=str)


@pytest.mark.parametrize(("pool", "expected"), [(MaxPool(2), POOLED), (None, CONV), (AvgPool(2), CONV // 8)], ids=str)
@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a.needs_side], ids=str)
def test_activation_of_two_slopes_saves_a_byte_an_output_or_under_an_average_a_bit_a_convolution_output(
    activation: Activation, pool: Pool, expected: int
) -> None:
    assert saved_bytes(torch.bfloat16, pool=pool, activation=activation)[0] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@needing_values
def test_smooth_activation_under_max_pool_saves_the_winner_and_its_code(
    dtype: torch.dtype, activation: Activation
) -> None:
    assert saved_bytes(dtype, pool=MaxPool(2), activation=activation)[0] == POOLED * (1 + dtype.itemsize)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@needing_values
def test_smooth_activation_alone_saves_the_convolution(dtype: torch.dtype, activation: Activation) -> None:
    assert saved_bytes(dtype, pool=None, activation=activation)[0] == CONV * dtype.itemsize


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@needing_values
def test_smooth_activation_under_average_saves_a_copy_of_the_bias(dtype: torch.dtype, activation: Activation) -> None:
    """The convolution is computed again. The copy lets the bias be edited in place, which PyTorch allows."""
    assert saved_bytes(dtype, pool=AvgPool(2), activation=activation)[0] == K * dtype.itemsize


def test_windows_over_254_elements_are_coded_in_two_bytes() -> None:
    x = torch.randn(1, 1, 20, 20, device=DEVICE)
    weight = torch.randn(2, 1, 1, 1, device=DEVICE, requires_grad=True)
    y = conv_relu_pool(x, weight, pool=MaxPool(16), backend="triton")
    codes = [t for t in y.grad_fn.saved_tensors if t is not None and t.dtype == torch.int16]  # type: ignore[union-attr]
    assert [c.shape for c in codes] == [y.shape]


def test_no_int64_and_no_full_size_activation_is_kept() -> None:
    _, kept = saved_bytes(torch.float32, pool=MaxPool(2))
    assert all(t.dtype != torch.int64 for t in kept)
    assert max(t.numel() for t in kept if t.dtype != torch.float32) == POOLED


def test_input_is_not_kept_when_the_weight_needs_no_gradient() -> None:
    x = torch.randn(N, C, H, W, device=DEVICE, requires_grad=True)
    weight = torch.randn(K, C, 3, 3, device=DEVICE)
    y = conv_relu_pool(x, weight, padding=1, backend="triton")
    assert all(t is None or t.shape != x.shape for t in y.grad_fn.saved_tensors)  # type: ignore[union-attr]
