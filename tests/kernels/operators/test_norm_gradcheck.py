"""Backward of the norm's layers, the gates and global pools against finite differences, in float64."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from tests.kernels.activations.listed import every_activation, every_pool
from tests.kernels.exact import INTERPRETED
from tests.kernels.norm_layers import NormLayer, call, norm_tensors
from tidepool.kernels import AvgPool, MaxPool, global_average_pool, squeeze_excite
from tidepool.kernels.activations import Activation
from tidepool.kernels.layer.pooling import Pool

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="float64 products are compiled for no GPU's tensor cores")

LAYERS = (
    NormLayer("relu", (2, 1, 4, 3), (2, 1, 2, 2), {"padding": 1}, residual=True, conv_bias=True),
    NormLayer(
        "silu_average", (2, 2, 4, 4), (2, 1, 2, 2), {"groups": 2, "activation": "silu", "pool": AvgPool(2, 1)},
        residual=True,
    ),
    NormLayer("gelu_max", (1, 2, 5, 4), (3, 2, 2, 2), {"activation": "gelu", "pool": MaxPool(2)}),
    NormLayer("max_first", (2, 1, 5, 6), (2, 1, 2, 3), {"activation": "silu", "pool": MaxPool(2), "pool_first": True}),
    NormLayer(
        "average_first", (2, 1, 5, 4), (2, 1, 2, 1), {"activation": None, "pool": AvgPool(2), "pool_first": True}
    ),
    NormLayer("frozen", (2, 1, 4, 3), (2, 1, 2, 2), {"activation": "silu"}, training=False, residual=True),
)  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_gradients_are_finite_differences(layer: NormLayer) -> None:
    assert check(layer)


@pytest.mark.full
@pytest.mark.parametrize("training", [True, False], ids=["training", "frozen"])
@every_pool
@every_activation
def test_gradients_of_every_activation_are_finite_differences(
    activation: Activation, pool: Pool, training: bool
) -> None:
    options = {"activation": activation, "pool": pool}
    assert check(NormLayer("any", (2, 1, 4, 4), (2, 1, 2, 2), options, training=training, residual=True))


def check(layer: NormLayer) -> bool:
    tensors = norm_tensors(layer, torch.float64, torch.float64, seed=2)
    names = [name for name, t in tensors.items() if t is not None and not name.startswith("running")]

    def function(*given: Tensor) -> Tensor:
        # Running statistics are updated in place at every call, and have no part in a batch's values.
        running = {name: tensors[name].clone() for name in ("running_mean", "running_var")}  # type: ignore[union-attr]
        return call(layer, tensors | running | dict(zip(names, given, strict=True)), "triton")

    given = [tensors[name].clone().requires_grad_() for name in names]  # type: ignore[union-attr]
    return gradcheck(function, given, eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_gradients_of_gate_and_global_pool_are_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    x, gate = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((2, 3, 3, 2), (2, 3, 1, 1)))
    given = (x.requires_grad_(), gate.requires_grad_())
    assert gradcheck(lambda x, gate: squeeze_excite(x, gate, backend="triton"), given, fast_mode=True)
    assert gradcheck(lambda x: global_average_pool(x, backend="triton"), given[:1], fast_mode=True)
