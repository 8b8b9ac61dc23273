"""A training step of every family on this project's kernels alone, as right as PyTorch's."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.kernels.exact import DEVICE
from tests.models.network_step import MEMBERS, ForbiddenCallError, Member, assert_rule, build, step, without_pytorchs
from tidepool.models import available_models
from tidepool.models.families.efficientnet import InvertedBottleneck, Scale, StageShape

BY_NAME = {member.name: member for member in MEMBERS}
CONVOLUTIONAL = [member for member in MEMBERS if member.name != "mlp"]


@pytest.fixture(autouse=True)
def whole_products() -> Iterator[None]:
    """No TF32 in convolutions, which is PyTorch's default on a GPU and whose errors would hide others."""
    convolutions: Any = torch.backends.cudnn.conv
    before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    yield
    convolutions.fp32_precision = before


def test_every_family_has_a_member_here() -> None:
    """Members of one family differ in depth and width alone: the rest of each is listed."""
    others = {
        *(f"vgg{layers}{norm}" for layers in (13, 16, 19) for norm in ("", "_bn")),
        *(f"resnet{layers}" for layers in (34, 101, 32, 44, 56, 110)),
        *(f"efficientnet_b{number}" for number in range(1, 8)),
    }
    assert set(available_models()) == set(BY_NAME) | others


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_a_step_calls_no_convolution_pool_or_norm_of_pytorchs_and_is_right(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build(member, "triton")
    with without_pytorchs(monkeypatch):
        ours = step(network, member)
    assert_rule(ours, member)


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "speednet"])
def test_the_rule_sees_an_error_of_a_ten_thousandth_in_any_result(name: str) -> None:
    member = BY_NAME[name]
    right = step(build(member, "cudnn"), member)
    assert_rule(right, member)
    for result in (next(iter(right)), "x", list(right)[len(right) // 2], list(right)[-1]):
        wrong = right | {result: right[result] * (1 + 1e-4) + 1e-7}
        with pytest.raises(AssertionError, match=f"^{result}: "):
            assert_rule(wrong, member)


def test_stochastic_depth_leaves_out_whole_samples_and_calls_none_either(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    block = InvertedBottleneck(2, StageShape(1, 3, 1, 2, 1), 2, 1, drop=0.5, scale=Scale(1, 1, 0), backend="triton")
    block, x = block.to(DEVICE), torch.randn(6, 2, 4, 4, device=DEVICE)
    with without_pytorchs(monkeypatch):
        y = block(x)
        block.drop = 0.0
        whole = block(x)
    left_out = (y == x).flatten(1).all(1)
    assert 0 < left_out.sum() < 6
    torch.testing.assert_close(y[~left_out], (x + 2 * (whole - x))[~left_out])


@pytest.mark.parametrize("member", CONVOLUTIONAL, ids=lambda member: member.name)
def test_the_watch_sees_pytorchs_calls(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(member, "cudnn")
    with pytest.raises(ForbiddenCallError), without_pytorchs(monkeypatch):
        step(network, member)
