"""Networks of `models/` whose user replaces, patches or hooks layers compute what the modules say."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidepool.models import build_model


def _instance_norm(network: Any) -> None:
    network.bn1 = nn.InstanceNorm2d(network.bn1.num_features, affine=True)


def _group_norm(network: Any) -> None:
    network.bn1 = nn.GroupNorm(2, network.bn1.num_features)


def _synchronised(network: Any) -> None:
    for name, child in list(network.named_modules()):
        if isinstance(child, nn.BatchNorm2d):
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, nn.SyncBatchNorm.convert_sync_batchnorm(child))


def _circular(network: Any) -> None:
    old = network.conv1
    network.conv1 = nn.Conv2d(
        3, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False, padding_mode="circular"
    )
    network.conv1.load_state_dict(old.state_dict())


def _spectral(network: Any) -> None:
    torch.manual_seed(1)
    torch.nn.utils.parametrizations.spectral_norm(network.conv1)


def _hooked(network: Any) -> None:
    network.conv1.register_forward_hook(lambda module, inputs, result: result * 2)


def _patched(network: Any) -> None:
    conv = network.conv1
    conv.forward = lambda x: F.conv2d(x, conv.weight * 2, None, conv.stride, conv.padding)


CHANGES: dict[str, Callable[[Any], None]] = {
    "instance norm": _instance_norm,
    "group norm": _group_norm,
    "synchronised norm": _synchronised,
    "circular padding": _circular,
    "spectral norm": _spectral,
    "hook": _hooked,
    "forward patched": _patched,
}


class Stem(nn.Module):
    """What the network computes up to its first block, by the modules themselves."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.network.bn1(self.network.conv1(x))), 3, 2, 1)


@pytest.mark.parametrize("change", CHANGES)
def test_a_residual_network_calls_what_was_put_into_it(change: str) -> None:
    torch.manual_seed(0)
    network = build_model("resnet18", num_classes=4, image_size=32, backend="cudnn").eval()
    CHANGES[change](network)
    x, seen = torch.randn(2, 3, 32, 32), []
    network.layer1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    expected = Stem(copy.deepcopy(network))(x)
    network(x)
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-5)


def test_untouched_layers_are_fused() -> None:
    from tidepool.models.fused import recorded_calls

    network = build_model("resnet18", num_classes=4, image_size=32, backend="cudnn").eval()
    x = torch.randn(1, 3, 32, 32)
    with recorded_calls() as calls:
        network(x)
    fused = len(calls)
    _instance_norm(network)
    with recorded_calls() as calls:
        network(x)
    assert len(calls) == fused - 1
