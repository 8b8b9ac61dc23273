"""A channels_last input is read where it lies: no launcher, for any GPU, makes a tensor of the input's size but dx."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tidepool.kernels import AvgPool, MaxPool
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.operators.call import layer_call
from tidepool.kernels.operators.conv_implementations import input_gradient, run_forward, weight_gradient
from tidepool.kernels.runtime import mode
from tidepool.kernels.runtime.launch import replace_launcher
from tidepool.kernels.runtime.targets import GFX942, SM_80, SM_90


class Made(TorchDispatchMode):
    """Notes every tensor with memory of its own that an operator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.tensors += [t for t in tree_leaves(out) if isinstance(t, Tensor) and t.device.type != "meta"]
        return out


@pytest.fixture(params=[SM_80, SM_90, GFX942], ids=str)
def as_compiled(request: pytest.FixtureRequest) -> Any:
    """Launchers decide as for a GPU, and launch nothing."""
    mode.force(mode.Mode(request.param, interpreted=False))
    launched: list[str] = []
    replace_launcher(lambda kernel, *_, **__: launched.append(kernel.__name__))
    yield launched
    replace_launcher(None)
    mode.force(None)


@pytest.mark.parametrize(
    "settings",
    [
        {"padding": 1},
        {"padding": 1, "pool": AvgPool(2)},
        {"padding": 1, "pool": None, "stride": 2},
        {"padding": 1, "groups": 2},
        {"padding": 1, "groups": 64, "pool": MaxPool(3, 2, 1)},
        {"padding": 1, "activation": "silu"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_channels_last_input_is_not_copied(
    settings: dict[str, Any], dtype: torch.dtype, as_compiled: list[str]
) -> None:
    x = torch.zeros(2, 64, 21, 19, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.zeros(64, 64 // settings.get("groups", 1), 3, 3, dtype=dtype)
    call = layer_call(x, weight, parse_layer((3, 3), **settings))
    with Made() as made:
        y, code, winner = run_forward(x, weight, weight[:, 0, 0, 0], call)
        assert y.shape != x.shape
        dx = input_gradient(y, code, winner, weight, call)
        weight_gradient(y, code, winner, x, weight, True, True, call)
    assert as_compiled
    assert [t.data_ptr() for t in made.tensors if t.numel() >= x.numel() and t.dtype == dtype] == [dx.data_ptr()]
