"""The check before a time: right layers pass it on every dtype, wrong ones fail it wherever the fault lies."""

import dataclasses

import pytest
import torch
from torch import Tensor

from tests.benchmarking.fake_device import CPU
from tidepool.benchmarking import correctness
from tidepool.benchmarking.cases import LayerCase
from tidepool.benchmarking.correctness import NotJudgedError, Question, ask
from tidepool.benchmarking.opponents import backends, build_layer
from tidepool.kernels.layer.pooling import MaxPool
from tidepool.kernels.oracle.reference import conv_act_pool_reference

CASE = LayerCase("pool", "test", "a test", (6, 3, 9, 7), (4, 3, 3, 3), {"padding": 1})
(EAGER,) = backends(["cudnn"])


@pytest.fixture
def some_samples(monkeypatch: pytest.MonkeyPatch) -> Question:
    """Three of the six samples judged: 0, 2 or 3, and 5."""
    monkeypatch.setattr(correctness, "MOST_CONV_ELEMENTS", 3 * 4 * 9 * 7)
    question = ask(CASE, torch.float32, CPU, seed=0, tf32=False)
    assert len(question.samples) == 3
    assert {0, 5} <= set(question.samples.tolist())
    return question


def _eager(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return conv_act_pool_reference(x, weight, bias, padding=1)


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_eager_pytorch_is_right(dtype: torch.dtype, tf32: bool) -> None:
    question = ask(CASE, dtype, CPU, seed=0, tf32=tf32)
    assert question.draw == ("integer" if tf32 else "normal")
    assert question.check(build_layer(EAGER, CASE), channels_last=True) is None


def test_a_part_of_the_batch_is_judged_as_the_whole(some_samples: Question) -> None:
    assert some_samples.check(_eager, channels_last=False) is None
    assert some_samples.check(_eager, channels_last=True, inference_only=True) is None


def test_a_fault_in_a_judged_sample_is_found(some_samples: Question) -> None:
    def wrong(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = _eager(x, weight, bias)
        return torch.cat([y[:-1], 1.01 * y[-1:]])

    assert "pool, normal inputs, y: largest error" in str(some_samples.check(wrong, channels_last=False))


def test_a_nan_in_a_sample_beside_them_is_found(some_samples: Question) -> None:
    def wrong(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = _eager(x, weight, bias)
        return torch.cat([y[:1], y[1:2] * torch.nan, y[2:]])

    assert "y: not finite in a sample besides those compared" in str(some_samples.check(wrong, channels_last=False))


def test_a_gradient_that_leaks_into_another_sample_is_found(some_samples: Question) -> None:
    def wrong(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _eager(x + (x.roll(1, 0) - x.roll(1, 0).detach()), weight, bias)

    found = some_samples.check(wrong, channels_last=False)
    assert "dx: not 0 in samples that got no gradient" in str(found)


def test_a_wrong_bias_gradient_is_found(some_samples: Question) -> None:
    def wrong(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert bias is not None
        return _eager(x, weight, bias + 0.05 * (bias - bias.detach()))

    assert "dbias: largest error" in str(some_samples.check(wrong, channels_last=False))


def test_where_too_many_winners_are_undecided_integers_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correctness, "UNDECIDED_LIMIT", 0.01)
    long = dataclasses.replace(CASE, x=(1, 512, 4, 4), weight=(16, 512, 3, 3))
    question = ask(long, torch.bfloat16, CPU, seed=0, tf32=False)
    assert (question.draw, question.undecided_share) == ("integer", 0.0)
    assert question.check(build_layer(EAGER, long), channels_last=True) is None


def test_tf32_winners_after_a_smooth_activation_are_not_judged() -> None:
    smooth = dataclasses.replace(CASE, options={"activation": "silu", "pool": MaxPool(2)})
    with pytest.raises(NotJudgedError, match="which of two values is larger after silu, TF32 cannot tell"):
        ask(smooth, torch.float32, CPU, seed=0, tf32=True)
