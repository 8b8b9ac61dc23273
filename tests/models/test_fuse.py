"""`fuse` on whole networks of others: the same results, gradients, statistics and state, and a report of it."""

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kernels.arguments import ArgumentError
from models import FuseReport, build_model, fuse
from tests.kernels.exact import DEVICE
from tests.models.foreign_networks import NETWORKS, ResNetStyle
from tests.models.fused_pairs import Net, assert_alike, pair, small_conv
from tests.models.network_step import without_pytorchs


@pytest.mark.parametrize("name", NETWORKS)
def test_the_fused_network_is_the_network(name: str) -> None:
    build, size, _ = NETWORKS[name]
    plain, fused, _ = pair(build)
    assert_alike(plain, fused, *size)


@pytest.mark.parametrize("name", NETWORKS)
def test_as_many_layers_are_fused_as_a_reader_counts(name: str) -> None:
    build, _, count = NETWORKS[name]
    report = pair(build)[2]
    assert len(report.fused) == count, str(report)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_the_same_objects_under_the_same_names(name: str) -> None:
    network = NETWORKS[name][0]()
    fused, _ = fuse(network, "cudnn")
    assert list(fused.state_dict()) == list(network.state_dict())
    pairs = itertools.zip_longest(fused.named_parameters(), network.named_parameters())
    assert all(ours[0] == theirs[0] and ours[1] is theirs[1] for ours, theirs in pairs)
    pairs = itertools.zip_longest(fused.named_buffers(), network.named_buffers())
    assert all(ours[0] == theirs[0] and ours[1] is theirs[1] for ours, theirs in pairs)


def test_an_optimizer_of_the_network_trains_the_fused_one() -> None:
    network = NETWORKS["resnet"][0]()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    fused, _ = fuse(network, "cudnn")
    before = fused.get_parameter("stem.0.weight").clone()
    fused(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(fused.get_parameter("stem.0.weight"), before)


def test_a_copy_of_a_fused_network_is_on_its_own() -> None:
    _, fused, _ = pair(NETWORKS["resnet"][0])
    x = torch.randn(2, 3, 8, 8)
    twin = copy.deepcopy(fused).double()
    y = fused(x)
    torch.testing.assert_close(twin(x.double()), y.double(), rtol=1e-4, atol=1e-5)
    for parameter in fused.parameters():
        nn.init.zeros_(parameter)
    assert twin(x.double()).abs().max() > 0


def test_a_fused_network_can_be_pickled() -> None:
    _, fused, _ = pair(ResNetStyle)
    fused.get_submodule("stem.1").eval()
    again = pickle.loads(pickle.dumps(fused))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(again(x), fused(x))
    for module, twin in zip(fused.modules(), again.modules(), strict=True):
        assert type(twin) is type(module)
        assert twin.training == module.training
    assert torch.equal(again.eval()(x), fused.eval()(x))


def test_layers_may_be_replaced_by_others_of_their_kind() -> None:
    plain, fused, _ = pair(lambda: nn.Sequential(small_conv(), nn.BatchNorm2d(3), nn.ReLU()))
    for network in (plain, fused):
        torch.manual_seed(7)
        setattr(network, "0", small_conv(filters=3))
    assert_alike(plain, fused, 2, 3, 6, 7)
    x = torch.randn(2, 3, 6, 7)
    assert torch.equal(copy.deepcopy(fused)(x), plain.eval()(x))


def test_a_layer_of_another_kind_is_refused() -> None:
    fused, _ = fuse(nn.Sequential(small_conv(), nn.BatchNorm2d(3), nn.ReLU()), "cudnn")
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(fused)
    with pytest.raises(RuntimeError, match=r"^1 was a BatchNorm2d when it was fused and is a SyncBatchNorm now: fuse"):
        converted(torch.randn(2, 3, 6, 7))


def test_parameters_can_be_swapped_for_one_call() -> None:
    _, fused, _ = pair(lambda: nn.Sequential(small_conv(), nn.ReLU()))
    zeros = {name: torch.zeros_like(parameter) for name, parameter in fused.named_parameters()}
    assert torch.func.functional_call(fused, zeros, torch.randn(2, 3, 6, 7)).abs().max() == 0


def test_the_originals_settings_and_methods_are_at_hand() -> None:
    network = Net(lambda net, x: net.conv(x).relu(), conv=small_conv())
    network.threshold = 0.25
    fused, _ = fuse(network, "cudnn")
    assert fused.threshold == 0.25
    assert fused.function is network.function
    with pytest.raises(AttributeError, match="nowhere"):
        fused.nowhere  # noqa: B018


def test_keyword_arguments_and_several_results() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = small_conv()

        def forward(self, x: Tensor, scale: float = 2.0, *, shift: float = 0.0) -> dict[str, Any]:
            y = self.conv(x).relu()
            return {"y": y, "all": (y * scale, y + shift)}

    plain, fused, report = pair(Several)
    assert len(report.fused) == 1
    x = torch.randn(2, 3, 6, 7)
    ours, theirs = (network(x, scale=3.0, shift=1.0) for network in (fused, plain))
    assert torch.equal(ours["all"][0], theirs["all"][0])
    assert torch.equal(ours["all"][1], theirs["all"][1])
    assert torch.equal(fused(x)["all"][0], plain(x)["all"][0])


def test_the_order_of_steps_and_the_layers_are_reported() -> None:
    report = pair(NETWORKS["resnet"][0])[2]
    steps = {layer.name: (" ".join(layer.steps), layer.layers) for layer in report.fused}
    assert steps["stem.0"] == ("conv norm relu max-pool", ("stem.0", "stem.1", "stem.2", "stem.3"))
    assert steps["layers.0.conv2"][0] == "conv norm add relu"
    assert steps["layers.1.shortcut.0"] == ("conv norm", ("layers.1.shortcut.0", "layers.1.shortcut.1"))
    assert not report.skipped


def test_an_activation_the_ops_lack_is_named() -> None:
    report = pair(NETWORKS["mobilenet"][0])[2]
    reasons = {layer.name: layer.reason for layer in report.skipped}
    assert reasons["depthwise.2"] == "ReLU6 is not an activation of the fused ops (relu, silu, gelu)"
    assert [" ".join(layer.steps) for layer in report.fused] == ["conv norm", "conv norm", "conv norm add"]


def test_the_report_prints_a_line_a_layer() -> None:
    lines = str(pair(NETWORKS["squeezenet"][0])[2]).splitlines()
    assert lines[0] == "5 fused"
    assert lines[1].split() == ["features.0", "conv", "->", "relu", "->", "max-pool"]
    assert lines[6] == "1 left as they were"
    assert lines[7].split()[0] == "adaptive_avg_pool2d"


def test_fusing_again_changes_nothing() -> None:
    fused, _ = fuse(NETWORKS["resnet"][0](), "cudnn")
    again, report = fuse(fused, "cudnn")
    assert again is fused
    assert not report.fused


def test_a_network_of_this_projects_own_is_fused_already() -> None:
    network = build_model("lenet5", num_classes=10, image_size=8)
    assert fuse(network)[0] is network


def test_a_network_without_convolutions_comes_back() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    fused, report = fuse(network)
    assert fused is network
    assert report == FuseReport()


@pytest.mark.parametrize("name", ["lenet", "resnet", "efficientnet"])
def test_on_this_projects_kernels_the_fused_network_is_the_network(name: str) -> None:
    build, size, _ = NETWORKS[name]
    plain, fused, _ = pair(build, backend="triton")
    assert_alike(plain.to(DEVICE), fused.to(DEVICE), *size, steps=1, exact=False)


def test_fully_fused_networks_call_no_convolution_pool_or_norm_of_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fused, report = pair(NETWORKS["resnet"][0], backend="triton")
    assert not report.skipped
    fused.to(DEVICE)
    with without_pytorchs(monkeypatch):
        fused(torch.randn(2, 3, 8, 8, device=DEVICE)).square().sum().backward()


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "squeezenet1_1", "mobilenet_v2", "efficientnet_b0"])
def test_torchvisions_networks_are_what_they_were(name: str, torchvision: Any) -> None:
    settings = {"init_weights": False} if name == "googlenet" else {}
    plain, fused, report = pair(lambda: getattr(torchvision, name)(num_classes=10, **settings))
    counts = {"resnet18": 20, "googlenet": 59, "squeezenet1_1": 26, "mobilenet_v2": 52, "efficientnet_b0": 65}
    assert len(report.fused) == counts[name]
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(fused.eval()(x), plain.eval()(x))


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ArgumentError, match="expected backend to be one of"):
        fuse(nn.Sequential(small_conv(), nn.ReLU()), backend="cuda")
