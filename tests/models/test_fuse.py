"""`fuse` on networks of others: the same results, gradients, statistics and state; what was fused, and why not."""

import copy
import itertools
import pickle
import random
from collections.abc import Callable
from typing import Any

import einops
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.arguments import ArgumentError
from models import FuseReport, build_model, fuse
from models.fuse import FusedCall
from tests.kernels.exact import DEVICE
from tests.models.foreign_networks import NETWORKS, ResNetStyle
from tests.models.network_step import without_pytorchs


def _pair(build: Callable[[], nn.Module], backend: str = "cudnn") -> tuple[nn.Module, nn.Module, FuseReport]:
    """A network, and a copy of it fused."""
    torch.manual_seed(0)
    plain = build()
    for module in plain.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    fused, report = fuse(copy.deepcopy(plain), backend)
    return plain, fused, report


def _assert_alike(plain: nn.Module, fused: nn.Module, *size: int, steps: int = 2, exact: bool = True) -> None:
    """Results, gradients and buffers after some training steps and in evaluation; bit by bit, if `exact`."""
    close: dict[str, float] = {"rtol": 0.0, "atol": 0.0} if exact else {"rtol": 2e-4, "atol": 2e-5}
    for step in range(steps + 1):
        x = torch.randn(*size, generator=torch.Generator().manual_seed(step))
        results = []
        for network in (plain, fused):
            network.train(step < steps)
            torch.manual_seed(step)
            given = x.to(next(network.parameters()).device, copy=True).requires_grad_()
            y = network(given * 1)  # not a leaf, which in-place layers may not write into
            gradients = torch.autograd.grad(y.square().mean(), [given, *network.parameters()], allow_unused=True)
            results.append((y.detach(), *gradients, *(buffer.clone() for buffer in network.buffers())))
        for expected, ours in zip(*results, strict=True):
            assert (expected is None) == (ours is None)
            if expected is not None:
                torch.testing.assert_close(ours, expected, **close)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_fused_network_is_the_network(name: str) -> None:
    build, size, _ = NETWORKS[name]
    plain, fused, _ = _pair(build)
    _assert_alike(plain, fused, *size)


@pytest.mark.parametrize("name", NETWORKS)
def test_as_many_layers_are_fused_as_a_reader_counts(name: str) -> None:
    build, _, count = NETWORKS[name]
    report = _pair(build)[2]
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
    _, fused, _ = _pair(NETWORKS["resnet"][0])
    x = torch.randn(2, 3, 8, 8)
    twin = copy.deepcopy(fused).double()
    y = fused(x)
    torch.testing.assert_close(twin(x.double()), y.double(), rtol=1e-4, atol=1e-5)
    for parameter in fused.parameters():
        nn.init.zeros_(parameter)
    assert twin(x.double()).abs().max() > 0


def test_a_fused_network_can_be_pickled() -> None:
    _, fused, _ = _pair(ResNetStyle)
    fused.get_submodule("stem.1").eval()
    again = pickle.loads(pickle.dumps(fused))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(again(x), fused(x))
    for module, twin in zip(fused.modules(), again.modules(), strict=True):
        assert type(twin) is type(module)
        assert twin.training == module.training
    assert torch.equal(again.eval()(x), fused.eval()(x))


def test_layers_may_be_replaced_by_others_of_their_kind() -> None:
    plain, fused, _ = _pair(lambda: nn.Sequential(_conv(), nn.BatchNorm2d(3), nn.ReLU()))
    for network in (plain, fused):
        torch.manual_seed(7)
        setattr(network, "0", _conv(filters=3))
    _assert_alike(plain, fused, 2, 3, 6, 7)
    x = torch.randn(2, 3, 6, 7)
    assert torch.equal(copy.deepcopy(fused)(x), plain.eval()(x))


def test_a_layer_of_another_kind_is_refused() -> None:
    fused, _ = fuse(nn.Sequential(_conv(), nn.BatchNorm2d(3), nn.ReLU()), "cudnn")
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(fused)
    with pytest.raises(RuntimeError, match=r"^1 was a BatchNorm2d when it was fused and is a SyncBatchNorm now: fuse"):
        converted(torch.randn(2, 3, 6, 7))


def test_parameters_can_be_swapped_for_one_call() -> None:
    _, fused, _ = _pair(lambda: nn.Sequential(_conv(), nn.ReLU()))
    zeros = {name: torch.zeros_like(parameter) for name, parameter in fused.named_parameters()}
    assert torch.func.functional_call(fused, zeros, torch.randn(2, 3, 6, 7)).abs().max() == 0


def test_the_originals_settings_and_methods_are_at_hand() -> None:
    network = Net(lambda net, x: net.conv(x).relu(), conv=_conv())
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
            self.conv = _conv()

        def forward(self, x: Tensor, scale: float = 2.0, *, shift: float = 0.0) -> dict[str, Any]:
            y = self.conv(x).relu()
            return {"y": y, "all": (y * scale, y + shift)}

    plain, fused, report = _pair(Several)
    assert len(report.fused) == 1
    x = torch.randn(2, 3, 6, 7)
    ours, theirs = (network(x, scale=3.0, shift=1.0) for network in (fused, plain))
    assert torch.equal(ours["all"][0], theirs["all"][0])
    assert torch.equal(ours["all"][1], theirs["all"][1])
    assert torch.equal(fused(x)["all"][0], plain(x)["all"][0])


def test_the_order_of_steps_and_the_layers_are_reported() -> None:
    report = _pair(NETWORKS["resnet"][0])[2]
    steps = {layer.name: (" ".join(layer.steps), layer.layers) for layer in report.fused}
    assert steps["stem.0"] == ("conv norm relu max-pool", ("stem.0", "stem.1", "stem.2", "stem.3"))
    assert steps["layers.0.conv2"][0] == "conv norm add relu"
    assert steps["layers.1.shortcut.0"] == ("conv norm", ("layers.1.shortcut.0", "layers.1.shortcut.1"))
    assert not report.skipped


def test_an_activation_the_ops_lack_is_named() -> None:
    report = _pair(NETWORKS["mobilenet"][0])[2]
    reasons = {layer.name: layer.reason for layer in report.skipped}
    assert reasons["depthwise.2"] == "ReLU6 is not an activation of the fused ops (relu, silu, gelu)"
    assert [" ".join(layer.steps) for layer in report.fused] == ["conv norm", "conv norm", "conv norm add"]


def test_the_report_prints_a_line_a_layer() -> None:
    lines = str(_pair(NETWORKS["squeezenet"][0])[2]).splitlines()
    assert lines[0] == "5 fused"
    assert lines[1].split() == ["features.0", "conv", "->", "relu", "->", "max-pool"]
    assert lines[6] == "1 left as they were"
    assert lines[7].split()[0] == "adaptive_avg_pool2d"


class Net(nn.Module):
    """A network from layers by name and a forward that is given them."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def _conv(channels: int = 3, filters: int = 3, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, 3, padding=1, **settings)


SPELLINGS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "module": lambda net, x: net.act(net.conv(x)),
    "F.relu": lambda net, x: F.relu(net.conv(x)),
    "F.relu, in place": lambda net, x: F.relu(net.conv(x), True),
    "F.relu_": lambda net, x: F.relu_(net.conv(x)),
    "torch.relu": lambda net, x: torch.relu(net.conv(x)),
    "torch.relu_": lambda net, x: torch.relu_(net.conv(x)),
    "method": lambda net, x: net.conv(x).relu(),
    "method, in place": lambda net, x: net.conv(x).relu_(),
    "F.silu": lambda net, x: F.silu(net.conv(x)),
    "F.gelu": lambda net, x: F.gelu(net.conv(x)),
    "torch.max_pool2d": lambda net, x: torch.max_pool2d(net.conv(x), 2),
    "F.max_pool2d": lambda net, x: F.max_pool2d(net.conv(x).relu(), kernel_size=3, stride=2, padding=1),
    "F.avg_pool2d": lambda net, x: F.avg_pool2d(net.conv(x).relu(), 2, 1, 1, count_include_pad=False),
    "input by name": lambda net, x: F.max_pool2d(input=F.relu(input=net.conv(input=x)), kernel_size=2),
    "identity between": lambda net, x: net.nothing(net.conv(x)).relu(),
    "norm between pool and ReLU": lambda net, x: F.gelu(net.norm(F.max_pool2d(net.conv(x), 2))),
    "pool before ReLU, norm before both": lambda net, x: F.max_pool2d(net.norm(net.conv(x)), 2).relu(),
    "sum, torch.add": lambda net, x: torch.add(net.norm(net.conv(x)), x).relu(),
    "sum, the other way round": lambda net, x: torch.relu(x + net.norm(net.conv(x))),
    "sum, method in place": lambda net, x: net.norm(net.conv(x)).add_(x).relu_(),
    "sum with what broadcasts": lambda net, x: torch.relu(net.norm(net.conv(x)) + x.mean((2, 3), keepdim=True)),
    "sum and pool": lambda net, x: F.max_pool2d(torch.relu(net.norm(net.conv(x)) + x), 2),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_one_call(spelling: str) -> None:
    layers = {"conv": _conv(), "norm": nn.BatchNorm2d(3), "act": nn.ReLU(), "nothing": nn.Identity()}
    plain, fused, report = _pair(lambda: Net(SPELLINGS[spelling], **layers))
    assert len(report.fused) == 1, str(report)
    assert not report.skipped
    _assert_alike(plain, fused, 3, 3, 6, 7)


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank: int) -> None:
    conv, norm, pool = {
        1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d),
        3: (nn.Conv3d, nn.BatchNorm3d, nn.AvgPool3d),
    }[rank]
    plain, fused, report = _pair(lambda: nn.Sequential(conv(2, 3, 3, padding=1), norm(3), nn.ReLU(), pool(2)))
    assert [" ".join(layer.steps) for layer in report.fused] == [
        f"conv norm relu {'max-' if rank == 1 else 'average '}pool"
    ]
    _assert_alike(plain, fused, 2, 2, *(6,) * rank)


def _twice(net: Any, x: Tensor) -> Tensor:
    y = net.conv(x)
    return F.relu(y) + y


def _relu_whose_result_is_dropped(net: Any, x: Tensor) -> Tensor:
    y = net.conv(x)
    F.relu(y, inplace=True)
    return y * 2


def _written_before_the_sum(net: Any, x: Tensor) -> Tensor:
    x = x * 1
    y = net.norm(net.conv(x.clone()))
    x += 1
    return torch.relu(y + x)


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], int, str]] = {
    "two uses of one tensor": (_twice, 0, "its result is used 2 times"),
    "ReLU in place for its effect": (_relu_whose_result_is_dropped, 0, "its result is used 2 times"),
    "something written before the sum": (_written_before_the_sum, 1, ""),
    "two sums": (lambda net, x: (net.norm(net.conv(x)) + x + x.detach()).relu(), 1, ""),
    "a sum with itself": (lambda net, x: (y := net.norm(net.conv(x))) + y, 1, ""),
    "a scaled sum": (lambda net, x: torch.add(net.norm(net.conv(x)), x, alpha=2), 1, ""),
    "a sum with a number": (lambda net, x: net.norm(net.conv(x)) + 1, 1, ""),
    "sum without norm": (lambda net, x: net.conv(x) + x, 0, "only an addition behind a norm is fused"),
    "average pool before ReLU": (
        lambda net, x: F.avg_pool2d(net.conv(x), 2).relu(),
        1,
        "relu and the pool before it do not commute",
    ),
    "SiLU behind a max-pool": (
        lambda net, x: F.silu(F.max_pool2d(net.conv(x), 2)),
        1,
        "silu and the pool before it do not commute",
    ),
    "norm behind ReLU": (lambda net, x: net.norm(net.conv(x).relu()), 1, "a norm behind the activation is not fused"),
    "tanh GELU": (lambda net, x: F.gelu(net.conv(x), approximate="tanh"), 0, "no tanh approximation of GELU"),
    "indices asked for": (
        lambda net, x: F.max_pool2d(net.conv(x), 2, return_indices=True)[0],
        0,
        "max_pool2d_with_indices is not a pool of the fused ops",
    ),
    "divisor": (lambda net, x: F.avg_pool2d(net.conv(x), 2, divisor_override=3), 0, "divisor_override"),
    "adaptive pool": (
        lambda net, x: F.adaptive_max_pool2d(net.conv(x), 2),
        0,
        "adaptive_max_pool2d is not a pool of the fused ops",
    ),
    "the network's result": (lambda net, x: net.conv(x), 0, "its result goes to the output"),
    "two results": (lambda net, x: net.conv(x).relu() + net.conv(x + 1), 1, "only an addition behind a norm is fused"),
    "a function's weight": (lambda net, x: F.conv2d(x, net.conv.weight).relu(), 0, "a function's weight belongs to no"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_fused_stays_and_is_reported(case: str) -> None:
    forward, count, reason = REFUSED[case]
    plain, fused, report = _pair(lambda: Net(forward, conv=_conv(), norm=nn.BatchNorm2d(3)))
    assert len(report.fused) == count, str(report)
    assert reason in " | ".join(layer.reason for layer in report.skipped)
    _assert_alike(plain, fused, 3, 3, 6, 7)


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (lambda: _conv(padding_mode="reflect"), "padding_mode='reflect': the fused ops pad with zeros"),
        (lambda: nn.ConvTranspose2d(3, 3, 3), "ConvTranspose2d is not a convolution of the fused ops"),
        (lambda: _hooked(_conv()), "it has hooks, which a fused op would not call"),
        (lambda: Padded(3, 3, 3), "Padded has a forward of its own"),
    ],
)
def test_other_convolutions_stay(conv: Callable[[], nn.Module], reason: str) -> None:
    plain, fused, report = _pair(lambda: nn.Sequential(conv(), nn.ReLU()))
    assert not report.fused
    assert report.skipped[0].reason == reason
    _assert_alike(plain, fused, 2, 3, 6, 7)


def test_an_input_written_between_convolution_and_sum_counts_as_it_was() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.norm(net.conv(x))
        x *= 3
        return torch.relu(y + x)

    plain, fused, report = _pair(lambda: Net(forward, conv=_conv(), norm=nn.BatchNorm2d(3)))
    assert [" ".join(layer.steps) for layer in report.fused] == ["conv norm"]
    x = torch.randn(2, 3, 6, 7)
    with torch.no_grad():
        assert torch.equal(fused.eval()(x.clone()), plain.eval()(x.clone()))


def test_gradients_switched_off_inside_a_forward_stay_off() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = net.conv(x).relu()
        return y * x

    plain, fused, report = _pair(lambda: Net(forward, conv=_conv()))
    assert "switches gradients" in report.skipped[0].reason
    _assert_alike(plain, fused, 2, 3, 6, 7)


class Padded(nn.Conv2d):
    """A convolution that does something else first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (2, 0, 2, 0)))


def _hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda module, inputs, output: output + 1)
    return module


def test_hooks_of_a_block_are_called_and_what_is_inside_stays() -> None:
    build = lambda: nn.Sequential(_hooked(nn.Sequential(_conv(), nn.ReLU())), _conv(), nn.ReLU())
    plain, fused, report = _pair(build)
    assert [layer.name for layer in report.fused] == ["1"]
    assert "hooks" in report.skipped[0].reason
    _assert_alike(plain, fused, 2, 3, 6, 7)


def test_hooks_of_the_network_are_called() -> None:
    plain, fused, report = _pair(lambda: _hooked(nn.Sequential(_conv(), nn.ReLU())))
    assert len(report.fused) == 1
    _assert_alike(plain, fused, 2, 3, 6, 7)


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm2d(3, momentum=None),
        lambda: nn.BatchNorm2d(3, track_running_stats=False),
        lambda: nn.BatchNorm2d(3, affine=False, eps=1e-3, momentum=0.3),
    ],
    ids=["cumulative", "no running statistics", "not affine"],
)
def test_every_setting_of_a_norm(norm: Callable[[], nn.Module]) -> None:
    plain, fused, report = _pair(lambda: nn.Sequential(_conv(), norm(), nn.ReLU()))
    assert len(report.fused) == 1
    _assert_alike(plain, fused, 3, 3, 6, 7, steps=3)


def test_a_norm_frozen_alone_keeps_its_statistics() -> None:
    _, fused, _ = _pair(lambda: nn.Sequential(_conv(), nn.BatchNorm2d(3), nn.ReLU()))
    fused.train()
    fused.get_submodule("1").eval()
    fused(torch.randn(2, 3, 6, 7))
    assert fused.get_buffer("1.num_batches_tracked") == 0
    assert torch.equal(fused.get_buffer("1.running_mean"), torch.zeros(3))


def test_shared_layers_stay_shared() -> None:
    block = nn.Sequential(_conv(), nn.BatchNorm2d(3), nn.ReLU())
    plain, fused, report = _pair(lambda: nn.Sequential(block, block))
    assert len(report.fused) == 2
    assert sum(isinstance(module, FusedCall) for module in fused.modules()) == 1
    _assert_alike(plain, fused, 3, 3, 6, 7)


def test_einops_can_be_traced() -> None:
    forward = lambda net, x: einops.reduce(net.conv(x).relu(), "n c h w -> n c", "mean")
    plain, fused, report = _pair(lambda: Net(forward, conv=_conv()))
    assert len(report.fused) == 1
    _assert_alike(plain, fused, 2, 3, 6, 7)


class Undecided(nn.Module):
    """Its control flow depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(_conv(), nn.ReLU())
        self.others = nn.ModuleList([nn.Sequential(_conv(), nn.BatchNorm2d(3), nn.SiLU()) for _ in range(2)])
        self.last = _conv()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.others:
            if x.sum() > 0:
                x = layer(x)
        return self.last(x)


def test_what_cannot_be_traced_is_fused_part_by_part() -> None:
    plain, fused, report = _pair(Undecided)
    assert [layer.name for layer in report.fused] == ["first.0", "others.0.0", "others.1.0"]
    assert report.skipped[0].name == "Undecided"
    assert "control flow" in report.skipped[0].reason
    assert report.skipped[1].name == "last"
    assert list(fused.state_dict()) == list(plain.state_dict())
    _assert_alike(plain, fused, 2, 3, 6, 7)


@pytest.mark.parametrize(
    "draw", [lambda: float(torch.rand(1)), random.random, np.random.rand], ids=["torch", "random", "numpy"]
)
def test_a_forward_that_leaves_things_to_chance_goes_on_doing_so(draw: Callable[[], float]) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.block(x) if draw() < 0.5 else x

    _, fused, report = _pair(lambda: Net(forward, block=nn.Sequential(_conv(), nn.ReLU())))
    assert "draws random numbers" in report.skipped[0].reason
    assert [layer.name for layer in report.fused] == ["block.0"]
    x = torch.randn(1, 3, 4, 4)
    assert len({float(fused(x).detach().sum()) for _ in range(40)}) == 2


def test_fusing_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    fuse(nn.Sequential(_conv(), nn.Dropout(0.5), nn.ReLU()), "cudnn")
    after = torch.rand(1)
    torch.manual_seed(3)
    _conv()
    assert torch.equal(after, torch.rand(1))


class Constants(nn.Module):
    """A parameter, a buffer and a plain tensor of its own, and one made in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = _conv()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("shift", torch.tensor(0.5), persistent=False)
        self.plain = torch.tensor(0.25)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu() * self.scale + self.shift + self.plain + torch.tensor(1.0)


def test_tensors_of_the_networks_own_are_found() -> None:
    plain, fused, report = _pair(Constants)
    assert len(report.fused) == 1
    _assert_alike(plain, fused, 2, 3, 6, 7)
    for network in (plain, fused):
        network.double()
        network.get_submodule("conv").float()
    _assert_alike(plain, fused, 2, 3, 6, 7)


def test_the_network_given_is_left_as_it_was() -> None:
    network = Constants()
    before, modes = set(vars(network)), [module.training for module in network.eval().modules()]
    fuse(network, "cudnn")
    assert set(vars(network)) == before
    assert [module.training for module in network.modules()] == modes
    assert type(network(torch.zeros(1, 3, 4, 4))) is Tensor


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
    plain, fused, _ = _pair(build, backend="triton")
    _assert_alike(plain.to(DEVICE), fused.to(DEVICE), *size, steps=1, exact=False)


def test_fully_fused_networks_call_no_convolution_pool_or_norm_of_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fused, report = _pair(NETWORKS["resnet"][0], backend="triton")
    assert not report.skipped
    fused.to(DEVICE)
    with without_pytorchs(monkeypatch):
        fused(torch.randn(2, 3, 8, 8, device=DEVICE)).square().sum().backward()


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "squeezenet1_1", "mobilenet_v2", "efficientnet_b0"])
def test_torchvisions_networks_are_what_they_were(name: str, torchvision: Any) -> None:
    settings = {"init_weights": False} if name == "googlenet" else {}
    plain, fused, report = _pair(lambda: getattr(torchvision, name)(num_classes=10, **settings))
    counts = {"resnet18": 20, "googlenet": 59, "squeezenet1_1": 26, "mobilenet_v2": 52, "efficientnet_b0": 65}
    assert len(report.fused) == counts[name]
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(fused.eval()(x), plain.eval()(x))


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ArgumentError, match="expected backend to be one of"):
        fuse(nn.Sequential(_conv(), nn.ReLU()), backend="cuda")
