"""What is taken into one call, spelling by spelling, and what is left alone and why."""

from collections.abc import Callable
from typing import Any

import einops
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    "F.gelu, tanh": lambda net, x: F.gelu(net.conv(x), approximate="tanh"),
    "F.relu6, in place": lambda net, x: F.relu6(net.conv(x), True),
    "nn.ReLU6": lambda net, x: net.six(net.conv(x)),
    "F.leaky_relu, in place": lambda net, x: F.leaky_relu(net.conv(x), 0.2, True),
    "F.elu by name": lambda net, x: F.elu(net.conv(x), alpha=1.5),
    "F.hardswish": lambda net, x: F.hardswish(net.conv(x)),
    "F.hardsigmoid": lambda net, x: F.hardsigmoid(net.conv(x)),
    "F.mish": lambda net, x: F.mish(net.conv(x)),
    "PReLU": lambda net, x: net.slope(net.conv(x)),
    "PReLU behind a norm and a sum": lambda net, x: net.slope(net.norm(net.conv(x)) + x),
    "PReLU behind a norm, pooled": lambda net, x: F.max_pool2d(net.slope(net.norm(net.conv(x))), 2),
    "sigmoid": lambda net, x: torch.sigmoid(net.conv(x)),
    "tanh, method": lambda net, x: net.conv(x).tanh(),
    "ReLU6 behind a max pool": lambda net, x: F.relu6(F.max_pool2d(net.conv(x), 2)),
    "torch.max_pool2d": lambda net, x: torch.max_pool2d(net.conv(x), 2),
    "F.max_pool2d": lambda net, x: F.max_pool2d(net.conv(x).relu(), kernel_size=3, stride=2, padding=1),
    "F.avg_pool2d": lambda net, x: F.avg_pool2d(net.conv(x).relu(), 2, 1, 1, count_include_pad=False),
    "identity between": lambda net, x: net.nothing(net.conv(x)).relu(),
    "norm between pool and GELU": lambda net, x: F.gelu(net.norm(F.max_pool2d(net.conv(x), 2))),
    "pool before ReLU, norm before both": lambda net, x: F.max_pool2d(net.norm(net.conv(x)), 2).relu(),
    "sum, torch.add": lambda net, x: torch.add(net.norm(net.conv(x)), x).relu(),
    "sum, the other way round": lambda net, x: torch.relu(x + net.norm(net.conv(x))),
    "sum, method in place": lambda net, x: net.norm(net.conv(x)).add_(x).relu_(),
    "sum and pool": lambda net, x: F.max_pool2d(torch.relu(net.norm(net.conv(x)) + x), 2),
    "a function's weight": lambda net, x: F.conv2d(x, net.conv.weight, padding=1).relu(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_one_call(spelling: str) -> None:
    layers = {
        "conv": small_conv(),
        "norm": nn.BatchNorm2d(3),
        "act": nn.ReLU(),
        "six": nn.ReLU6(),
        "slope": nn.PReLU(3),
        "nothing": nn.Identity(),
    }
    plain, fused, report = pair(lambda: Net(SPELLINGS[spelling], **layers))
    assert_alike(plain, fused, 3, 3, 6, 7, steps=1)
    assert len(report.fused) == 1, str(report)
    assert len(report.fused[0].steps) > 1
    assert not report.skipped


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank: int) -> None:
    conv, norm, pool = {
        1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d),
        3: (nn.Conv3d, nn.BatchNorm3d, nn.AvgPool3d),
    }[rank]
    plain, fused, report = pair(lambda: nn.Sequential(conv(2, 3, 3, padding=1), norm(3), nn.ReLU(), pool(2)))
    assert_alike(plain, fused, 2, 2, *(6,) * rank)
    steps = f"conv norm relu {'max' if rank == 1 else 'average'}-pool"
    assert [" ".join(layer.steps) for layer in report.fused] == [steps]


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


LEFT: dict[str, tuple[Callable[[Any, Tensor], Any], str, str]] = {
    "two uses of one tensor": (_twice, "", "its result is used 2 times"),
    "ReLU in place for its effect": (_relu_whose_result_is_dropped, "", "its result is used 2 times"),
    "something written before the sum": (_written_before_the_sum, "conv norm", ""),
    "two sums": (lambda net, x: (net.norm(net.conv(x)) + x + x.detach()).relu(), "conv norm add", ""),
    "a sum with itself": (lambda net, x: (y := net.norm(net.conv(x))) + y, "conv norm", ""),
    "a scaled sum": (lambda net, x: torch.add(net.norm(net.conv(x)), x, alpha=2), "conv norm", ""),
    "a sum with a number": (lambda net, x: net.norm(net.conv(x)) + 1, "conv norm", ""),
    "a sum with what broadcasts": (
        lambda net, x: torch.relu(net.norm(net.conv(x)) + x.mean((2, 3), keepdim=True)),
        "conv norm",
        "",
    ),
    "sum without norm": (lambda net, x: net.conv(x) + x, "", "a sum is fused behind a norm alone"),
    "average pool before ReLU": (lambda net, x: F.avg_pool2d(net.conv(x), 2).relu(), "conv average-pool", ""),
    "SiLU behind a max pool": (lambda net, x: F.silu(F.max_pool2d(net.conv(x), 2)), "conv max-pool", ""),
    "norm behind ReLU": (lambda net, x: net.norm(net.conv(x).relu()), "conv relu", ""),
    "an activation the ops lack": (lambda net, x: F.softplus(net.conv(x)), "", "its result goes to softplus"),
    "hardtanh": (lambda net, x: F.hardtanh(net.conv(x)), "", "hardtanh of limits (-1.0, 1.0)"),
    "indices asked for": (
        lambda net, x: F.max_pool2d(net.conv(x), 2, return_indices=True)[0],
        "",
        "the pool's indices are wanted",
    ),
    "divisor": (
        lambda net, x: F.avg_pool2d(net.conv(x), 2, divisor_override=3),
        "",
        "the pool has a divisor of its own",
    ),
    "adaptive pool": (
        lambda net, x: F.adaptive_max_pool2d(net.conv(x), 2),
        "",
        "its result goes to adaptive_max_pool2d",
    ),
    "the network's result": (lambda net, x: net.conv(x), "", "its result leaves the graph"),
    "transposed": (lambda net, x: F.conv_transpose2d(x, net.conv.weight).relu(), "", "a transposed convolution"),
    "group norm": (lambda net, x: F.group_norm(net.conv(x), 3), "", "its result goes to group_norm"),
    "instance norm": (lambda net, x: F.instance_norm(net.conv(x)), "", "its result goes to instance_norm"),
    "no batch": (lambda net, x: net.conv(x[0]).relu(), "", "its input has no batch dimension"),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_cannot_be_fused_stays_and_is_reported(case: str) -> None:
    forward, steps, reason = LEFT[case]
    plain, fused, report = pair(lambda: Net(forward, conv=small_conv(), norm=nn.BatchNorm2d(3)))
    assert_alike(plain, fused, 3, 3, 6, 7, steps=1)
    assert " | ".join(" ".join(layer.steps) for layer in report.fused) == steps, str(report)
    assert reason in " | ".join(layer.reason for layer in report.skipped)


class Padded(nn.Conv2d):
    """A convolution that does something else first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (2, 0, 2, 0)))


def _hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda module, inputs, output: output + 1)
    return module


@pytest.mark.parametrize(
    ("conv", "fused"),
    [
        (lambda: small_conv(padding_mode="reflect"), 1),
        (lambda: small_conv(padding_mode="replicate"), 1),
        (lambda: Padded(3, 3, 3), 1),
        (lambda: nn.Conv2d(3, 3, 4, padding="same"), 1),
        (lambda: nn.ConvTranspose2d(3, 3, 3), 0),
        (lambda: _hooked(small_conv()), 0),
    ],
)
def test_other_convolutions(conv: Callable[[], nn.Module], fused: int) -> None:
    plain, other, report = pair(lambda: nn.Sequential(conv(), nn.ReLU()))
    assert_alike(plain, other, 2, 3, 6, 7, steps=1)
    assert len(report.fused) == fused, str(report)


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm2d(3, track_running_stats=False),
        lambda: nn.BatchNorm2d(3, affine=False, eps=1e-3, momentum=0.3),
    ],
    ids=["no running statistics", "not affine"],
)
def test_every_setting_of_a_norm(norm: Callable[[], nn.Module]) -> None:
    plain, fused, report = pair(lambda: nn.Sequential(small_conv(), norm(), nn.ReLU()))
    assert_alike(plain, fused, 3, 3, 6, 7, steps=3)
    assert [" ".join(layer.steps) for layer in report.fused] == ["conv norm relu"]


def test_a_cumulative_average_is_right() -> None:
    plain, fused, _ = pair(lambda: nn.Sequential(small_conv(), nn.BatchNorm2d(3, momentum=None), nn.ReLU()))
    assert_alike(plain, fused, 3, 3, 6, 7, steps=3)


def test_a_synchronised_norm_without_a_process_group_is_a_batch_norm() -> None:
    plain, fused, report = pair(lambda: nn.Sequential(small_conv(), nn.SyncBatchNorm(3), nn.ReLU()))
    assert_alike(plain, fused, 2, 3, 6, 7, steps=1)
    assert [" ".join(layer.steps) for layer in report.fused] == ["conv norm relu"]


def test_einops_is_captured() -> None:
    forward = lambda net, x: einops.reduce(net.conv(x).relu(), "n c h w -> n c", "mean")
    plain, fused, report = pair(lambda: Net(forward, conv=small_conv()))
    assert_alike(plain, fused, 2, 3, 6, 7, steps=1)
    assert len(report.fused) == 1


def test_what_depends_on_values_is_fused_on_either_side() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.one(x).relu()
        return net.two(y).relu() if y.sum() > 0 else y

    plain, fused, report = pair(lambda: Net(forward, one=small_conv(), two=small_conv()))
    assert_alike(plain, fused, 2, 3, 6, 7, steps=1)
    assert [layer.name for layer in report.fused] == ["one", "two"]


def test_symbolic_sizes() -> None:
    plain, fused, report = pair(lambda: nn.Sequential(small_conv(), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)))
    for size in (6, 8, 10, 13):
        x = torch.randn(2, 3, size, size + 1)
        assert torch.equal(fused(x), plain(x))
    assert len(report.graphs) <= 3  # the second size makes it symbolic
    assert all(graph.fused for graph in report.graphs), str(report.graphs)
