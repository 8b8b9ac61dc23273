"""Torchvision's names, shapes and results: against the record of them everywhere, against itself where installed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.models.torchvision_reference import (
    LISTED,
    NETWORKS,
    REFERENCE,
    VALUED,
    digest,
    fill,
    names_and_shapes,
    picture,
    result,
)
from tidepool.models import available_models, build_model, load_checkpoint

RECORDED = json.loads(REFERENCE.read_text(encoding="utf-8"))


def _on_meta(name: str, num_classes: int = 1000) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, num_classes=num_classes, backend="cudnn")


def test_every_network_of_the_record_is_built() -> None:
    assert set(NETWORKS) <= set(available_models())


@pytest.mark.parametrize("name", LISTED)
def test_names_shapes_and_their_order_are_torchvisions(name: str) -> None:
    assert names_and_shapes(_on_meta(name)) == RECORDED["names"][name]


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_have_the_digest_of_torchvisions(name: str) -> None:
    assert digest(names_and_shapes(_on_meta(name))) == RECORDED["digests"][name]


@pytest.mark.parametrize("name", VALUED)
def test_results_in_float64_are_torchvisions(name: str) -> None:
    expected = torch.tensor(RECORDED["values"][name], dtype=torch.float64)
    ours = result(_on_meta(name, num_classes=10), name)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("alexnet", 61_100_840),
        ("vgg16", 138_357_544),
        ("resnet18", 11_689_512),
        ("resnet50", 25_557_032),
        ("efficientnet_b0", 5_288_548),
        ("efficientnet_b7", 66_347_960),
    ],
)
def test_parameters_are_as_many_as_published(name: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in _on_meta(name).parameters()) == count


def _filled(torchvision: Any, name: str) -> nn.Module:
    network = getattr(torchvision, name)(num_classes=10).eval()
    fill(network)
    return network


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_a_torchvision_checkpoint_gives_torchvisions_results(name: str, torchvision: Any, tmp_path: Path) -> None:
    theirs = _filled(torchvision, name)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = build_model(name, num_classes=10, backend="cudnn").eval()
    load_checkpoint(ours, tmp_path / "weights.pth")
    x = picture(VALUED[name]).float()
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "efficientnet_b5"])
def test_a_training_step_updates_statistics_as_torchvisions_does(name: str, torchvision: Any) -> None:
    theirs = _filled(torchvision, name).train()
    ours = build_model(name, num_classes=10, backend="cudnn").train()
    ours.load_state_dict(theirs.state_dict())
    _without_chance(theirs)
    _without_chance(ours)
    x = picture(VALUED[name]).float()
    for network in (ours, theirs):
        network(x).square().mean().backward()
    for (buffer, value), expected in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert torch.equal(value, expected), buffer
    for (parameter, value), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(value.grad, expected.grad, msg=parameter)


def _without_chance(network: nn.Module) -> None:
    """No dropout and no stochastic depth, which draw their numbers in another order."""
    for module in network.modules():
        if isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
        elif type(module).__name__ == "InvertedBottleneck":
            module.drop = 0.0


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_one_seed_starts_both_alike(name: str, torchvision: Any) -> None:
    torch.manual_seed(3)
    theirs = getattr(torchvision, name)(num_classes=10)
    torch.manual_seed(3)
    ours = build_model(name, num_classes=10)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
