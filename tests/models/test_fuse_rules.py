"""What `fuse` takes into one call, spelling by spelling, and what it leaves alone and why."""

import random
from collections.abc import Callable
from typing import Any

import einops
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import fuse
from models.fuse import FusedCall
from tests.models.fused_pairs import Net, assert_alike, pair, small_conv

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
    layers = {"conv": small_conv(), "norm": nn.BatchNorm2d(3), "act": nn.ReLU(), "nothing": nn.Identity()}
    plain, fused, report = pair(lambda: Net(SPELLINGS[spelling], **layers))
    assert len(report.fused) == 1, str(report)
    assert not report.skipped
    assert_alike(plain, fused, 3, 3, 6, 7)


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank: int) -> None:
    conv, norm, pool = {
        1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d),
        3: (nn.Conv3d, nn.BatchNorm3d, nn.AvgPool3d),
    }[rank]
    plain, fused, report = pair(lambda: nn.Sequential(conv(2, 3, 3, padding=1), norm(3), nn.ReLU(), pool(2)))
    assert [" ".join(layer.steps) for layer in report.fused] == [
        f"conv norm relu {'max-' if rank == 1 else 'average '}pool"
    ]
    assert_alike(plain, fused, 2, 2, *(6,) * rank)


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
    plain, fused, report = pair(lambda: Net(forward, conv=small_conv(), norm=nn.BatchNorm2d(3)))
    assert len(report.fused) == count, str(report)
    assert reason in " | ".join(layer.reason for layer in report.skipped)
    assert_alike(plain, fused, 3, 3, 6, 7)


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (lambda: small_conv(padding_mode="reflect"), "padding_mode='reflect': the fused ops pad with zeros"),
        (lambda: nn.ConvTranspose2d(3, 3, 3), "ConvTranspose2d is not a convolution of the fused ops"),
        (lambda: _hooked(small_conv()), "it has hooks, which a fused op would not call"),
        (lambda: Padded(3, 3, 3), "Padded has a forward of its own"),
    ],
)
def test_other_convolutions_stay(conv: Callable[[], nn.Module], reason: str) -> None:
    plain, fused, report = pair(lambda: nn.Sequential(conv(), nn.ReLU()))
    assert not report.fused
    assert report.skipped[0].reason == reason
    assert_alike(plain, fused, 2, 3, 6, 7)


def test_an_input_written_between_convolution_and_sum_counts_as_it_was() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.norm(net.conv(x))
        x *= 3
        return torch.relu(y + x)

    plain, fused, report = pair(lambda: Net(forward, conv=small_conv(), norm=nn.BatchNorm2d(3)))
    assert [" ".join(layer.steps) for layer in report.fused] == ["conv norm"]
    x = torch.randn(2, 3, 6, 7)
    with torch.no_grad():
        assert torch.equal(fused.eval()(x.clone()), plain.eval()(x.clone()))


def test_gradients_switched_off_inside_a_forward_stay_off() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = net.conv(x).relu()
        return y * x

    plain, fused, report = pair(lambda: Net(forward, conv=small_conv()))
    assert "switches gradients" in report.skipped[0].reason
    assert_alike(plain, fused, 2, 3, 6, 7)


class Padded(nn.Conv2d):
    """A convolution that does something else first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (2, 0, 2, 0)))


def _hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda module, inputs, output: output + 1)
    return module


def test_hooks_of_a_block_are_called_and_what_is_inside_stays() -> None:
    build = lambda: nn.Sequential(_hooked(nn.Sequential(small_conv(), nn.ReLU())), small_conv(), nn.ReLU())
    plain, fused, report = pair(build)
    assert [layer.name for layer in report.fused] == ["1"]
    assert "hooks" in report.skipped[0].reason
    assert_alike(plain, fused, 2, 3, 6, 7)


def test_hooks_of_the_network_are_called() -> None:
    plain, fused, report = pair(lambda: _hooked(nn.Sequential(small_conv(), nn.ReLU())))
    assert len(report.fused) == 1
    assert_alike(plain, fused, 2, 3, 6, 7)


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
    plain, fused, report = pair(lambda: nn.Sequential(small_conv(), norm(), nn.ReLU()))
    assert len(report.fused) == 1
    assert_alike(plain, fused, 3, 3, 6, 7, steps=3)


def test_a_norm_frozen_alone_keeps_its_statistics() -> None:
    _, fused, _ = pair(lambda: nn.Sequential(small_conv(), nn.BatchNorm2d(3), nn.ReLU()))
    fused.train()
    fused.get_submodule("1").eval()
    fused(torch.randn(2, 3, 6, 7))
    assert fused.get_buffer("1.num_batches_tracked") == 0
    assert torch.equal(fused.get_buffer("1.running_mean"), torch.zeros(3))


def test_shared_layers_stay_shared() -> None:
    block = nn.Sequential(small_conv(), nn.BatchNorm2d(3), nn.ReLU())
    plain, fused, report = pair(lambda: nn.Sequential(block, block))
    assert len(report.fused) == 2
    assert sum(isinstance(module, FusedCall) for module in fused.modules()) == 1
    assert_alike(plain, fused, 3, 3, 6, 7)


def test_einops_can_be_traced() -> None:
    forward = lambda net, x: einops.reduce(net.conv(x).relu(), "n c h w -> n c", "mean")
    plain, fused, report = pair(lambda: Net(forward, conv=small_conv()))
    assert len(report.fused) == 1
    assert_alike(plain, fused, 2, 3, 6, 7)


class Undecided(nn.Module):
    """Its control flow depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(small_conv(), nn.ReLU())
        self.others = nn.ModuleList([nn.Sequential(small_conv(), nn.BatchNorm2d(3), nn.SiLU()) for _ in range(2)])
        self.last = small_conv()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.others:
            if x.sum() > 0:
                x = layer(x)
        return self.last(x)


def test_what_cannot_be_traced_is_fused_part_by_part() -> None:
    plain, fused, report = pair(Undecided)
    assert [layer.name for layer in report.fused] == ["first.0", "others.0.0", "others.1.0"]
    assert report.skipped[0].name == "Undecided"
    assert "control flow" in report.skipped[0].reason
    assert report.skipped[1].name == "last"
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert_alike(plain, fused, 2, 3, 6, 7)


@pytest.mark.parametrize(
    "draw", [lambda: float(torch.rand(1)), random.random, np.random.rand], ids=["torch", "random", "numpy"]
)
def test_a_forward_that_leaves_things_to_chance_goes_on_doing_so(draw: Callable[[], float]) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.block(x) if draw() < 0.5 else x

    _, fused, report = pair(lambda: Net(forward, block=nn.Sequential(small_conv(), nn.ReLU())))
    assert "draws random numbers" in report.skipped[0].reason
    assert [layer.name for layer in report.fused] == ["block.0"]
    x = torch.randn(1, 3, 4, 4)
    assert len({float(fused(x).detach().sum()) for _ in range(40)}) == 2


def test_fusing_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    fuse(nn.Sequential(small_conv(), nn.Dropout(0.5), nn.ReLU()), "cudnn")
    after = torch.rand(1)
    torch.manual_seed(3)
    small_conv()
    assert torch.equal(after, torch.rand(1))


class Constants(nn.Module):
    """A parameter, a buffer and a plain tensor of its own, and one made in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = small_conv()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("shift", torch.tensor(0.5), persistent=False)
        self.plain = torch.tensor(0.25)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu() * self.scale + self.shift + self.plain + torch.tensor(1.0)


def test_tensors_of_the_networks_own_are_found() -> None:
    plain, fused, report = pair(Constants)
    assert len(report.fused) == 1
    assert_alike(plain, fused, 2, 3, 6, 7)
    for network in (plain, fused):
        network.double()
        network.get_submodule("conv").float()
    assert_alike(plain, fused, 2, 3, 6, 7)


def test_the_network_given_is_left_as_it_was() -> None:
    network = Constants()
    before, modes = set(vars(network)), [module.training for module in network.eval().modules()]
    fuse(network, "cudnn")
    assert set(vars(network)) == before
    assert [module.training for module in network.modules()] == modes
    assert type(network(torch.zeros(1, 3, 4, 4))) is Tensor
