"""What `conv_norm_act`, `squeeze_excite` and `global_average_pool` refuse: in one line, on every backend alike."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.kernels.exact import DEVICE
from tidepool.kernels import MaxPool, conv_norm_act, global_average_pool, squeeze_excite
from tidepool.kernels.layer.norm_settings import norm_settings_from_text, parse_norm_layer
from tidepool.kernels.norm.forward import bind_inference
from tidepool.kernels.runtime.errors import ArgumentError

GOOD: dict[str, Any] = {
    "x": torch.ones(2, 3, 6, 5), "weight": torch.ones(4, 3, 3, 3), "norm_weight": torch.ones(4),
    "norm_bias": torch.zeros(4), "running_mean": torch.zeros(4), "running_var": torch.ones(4), "training": True,
}  # fmt: skip
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one value a channel": (
        {"x": torch.ones(1, 3, 3, 3)},
        r"Expected more than 1 value per channel when training, got input size \[1, 4, 1, 1\]",
    ),
    "one value behind the pool": (
        {"x": torch.ones(1, 3, 4, 4), "pool": MaxPool(2), "pool_first": True},
        r"Expected more than 1 value per channel when training, got input size \[1, 4, 1, 1\]",
    ),
    "unbatched": ({"x": torch.ones(3, 6, 5)}, r"expected x to be batched, 4-dimensional"),
    "weight length": ({"norm_weight": torch.ones(5)}, r"norm_weight should contain 4 elements, but got size \[5\]"),
    "statistics rank": ({"running_mean": torch.ones(1, 4)}, r"running_mean should contain 4 elements"),
    "half the statistics": ({"running_var": None}, "running_mean and running_var must either both be None or neither"),
    "evaluation without them": (
        {"running_mean": None, "running_var": None, "training": False},
        "running_mean and running_var must be defined in evaluation mode",
    ),
    "dtype of the norm": ({"norm_bias": torch.zeros(4).half()}, "expected norm_bias to be torch.float32"),
    "dtypes of the norm": (
        {n: GOOD[n].bfloat16() for n in ("x", "weight", "norm_weight")},
        "expected the norm's tensors to have one dtype, but got norm_weight torch.bfloat16, norm_bias torch.float32",
    ),
    "residual size": (
        {"residual": torch.ones(2, 4, 4, 4)},
        r"expected residual to have the size of what is normalised, \[2, 4, 4, 3\], but got \[2, 4, 4, 4\]",
    ),
    "residual of pooled size": (
        {"residual": torch.ones(2, 4, 2, 1), "pool": MaxPool(2)},
        r"expected residual to have the size of what is normalised, \[2, 4, 4, 3\], but got \[2, 4, 2, 1\]",
    ),
    "residual dtype": ({"residual": torch.ones(2, 4, 4, 3).double()}, "expected residual to be torch.float32"),
    "residual device": (
        {"residual": torch.ones(2, 4, 4, 3, device="meta")},
        "expected x and residual to be on the same",
    ),
    "layout": (
        {"norm_bias": torch.zeros(4).to_sparse()},
        r"expected norm_bias to be a dense \(strided\) tensor, but its",
    ),
    "residual of integers": ({"residual": torch.ones(2, 4, 4, 3).int()}, "floating-point tensor, but got torch.int32"),
    "conv_bias length": ({"conv_bias": torch.ones(3)}, "expected bias to be 1-dimensional with 4 elements"),
    "device": ({"norm_weight": torch.ones(4, device="meta")}, "expected x and norm_weight to be on the same device"),
    "momentum None": ({"momentum": None}, r"expected momentum to be a number \(for a cumulative average pass 1 /"),
    "momentum NaN": ({"momentum": torch.nan}, "expected momentum to be a number"),
    "eps in training": ({"eps": 0}, "batch_norm eps must be positive during training, but got 0"),
    "eps": ({"eps": -1e-5, "training": False}, "batch_norm eps must be non-negative, but got -1e-05"),
    "training": ({"training": 1}, "expected training to be True or False, but got 1"),
    "pool_first without pool": ({"pool_first": True}, "pool_first=True says that pooling comes before the norm"),
    "pool_first": ({"pool_first": "yes"}, "expected pool_first to be True or False, but got 'yes'"),
    "activation": ({"activation": "softplus"}, "expected activation to be one of elu, gelu, "),
    "groups": ({"groups": 2}, "Given groups=2"),
    "pool too large": ({"pool": MaxPool(5)}, "Output size is too small"),
    "backend": ({"backend": "cuda"}, "expected backend to be one of auto, triton, cudnn, compile"),
}


@pytest.mark.parametrize("backend", ["triton", "cudnn"])
@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_runs(name: str, backend: str) -> None:
    changes, message = REFUSED[name]
    given = {"backend": backend} | GOOD | changes
    given = {
        k: v.to(DEVICE) if isinstance(v, torch.Tensor) and v.device.type != "meta" else v for k, v in given.items()
    }
    tensors = [given.pop(k) for k in ("x", "weight", "norm_weight", "norm_bias", "running_mean", "running_var")]
    with pytest.raises(ArgumentError, match=message) as refusal:
        conv_norm_act(*tensors, **given)
    assert "\n" not in str(refusal.value)


def test_inference_needs_running_statistics() -> None:
    x, weight = GOOD["x"], GOOD["weight"]
    with pytest.raises(ArgumentError, match="running_mean and running_var must be defined in evaluation mode"):
        bind_inference(x, weight, None, (None,) * 4, None, x, None, 1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["x", "weight", "norm_weight", "running_var", "residual"])
def test_what_is_no_tensor_is_named(name: str) -> None:
    given = GOOD | {"residual": torch.ones(2, 4, 4, 3)} | {name: [1.0]}
    tensors = [given.pop(k) for k in ("x", "weight", "norm_weight", "norm_bias", "running_mean", "running_var")]
    with pytest.raises(TypeError, match=f"expected {name} to be a Tensor, but got list"):
        conv_norm_act(*tensors, **given)


def test_integers_of_numpy_are_integers() -> None:
    """Groups of eight bits and 300 channels: no sum is kept in the width that came."""
    tensors = [torch.ones(1, 300, 3, 3), torch.ones(4, 150, 3, 3), *(torch.ones(4) for _ in range(4))]
    tensors = [t.to(DEVICE) for t in tensors]
    results = []
    for two in (2, np.uint8(2), np.int64(2)):
        options: dict[str, Any] = {"groups": two, "padding": two, "stride": two, "pool": MaxPool(two)}
        results.append(conv_norm_act(*tensors, **options, training=False, backend="triton"))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_settings_are_two_layers_and_read_back_from_their_text() -> None:
    settings = parse_norm_layer((3, 3), 2, 1, 1, 4, "silu", MaxPool(3), pool_first=True)
    convolution, norm = settings.convolution, settings.norm
    assert (convolution.groups, convolution.pool, convolution.activation.name) == (4, "max", "none")
    assert (norm.groups, norm.pool, norm.activation.name) == (1, "none", "silu")
    found = norm_settings_from_text(settings.text())
    assert (found, found.convolution, found.norm) == (settings, convolution, norm)
    assert found is norm_settings_from_text(settings.text())
    with pytest.raises(ArgumentError, match="expected layer to be two settings"):
        norm_settings_from_text(convolution.text())


@pytest.mark.parametrize("backend", ["triton", "cudnn"])
def test_gates_and_global_pools_refuse_what_does_not_fit(backend: str) -> None:
    x, gate = torch.ones(2, 3, 4, 5, device=DEVICE), torch.ones(2, 3, 1, 1, device=DEVICE)
    for wrong, message in (
        ((x, gate[:, :2]), r"expected gate to have size \[2, 3, 1, 1\] for x of size \[2, 3, 4, 5\], but got \[2, 2"),
        ((x, gate[..., 0, 0]), r"expected gate to have size \[2, 3, 1, 1\]"),
        ((x[0, 0], gate), r"expected x to be \(N, C, \*spatial\)"),
        ((x.int(), gate), "expected x to be a dense tensor of float16, bfloat16, float32 or float64"),
        ((x, gate.to("meta")), "expected x and gate to be on the same device"),
    ):
        with pytest.raises(ArgumentError, match=message):
            squeeze_excite(*wrong, backend=backend)
    for bad, message in (
        (x[0, 0], r"expected x to be \(N, C, \*spatial\)"),
        (x[:, :, :0], "Expected input to have non-zero size for non-batch dimensions"),
        (x.long(), "expected x to be a dense tensor"),
    ):
        with pytest.raises(ArgumentError, match=message):
            global_average_pool(bad, backend=backend)
    with pytest.raises(ArgumentError, match="expected keepdim to be True or False, but got 1"):
        global_average_pool(x, keepdim=1, backend=backend)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected gate to be a Tensor, but got float"):
        squeeze_excite(x, 0.5, backend=backend)  # type: ignore[arg-type]
