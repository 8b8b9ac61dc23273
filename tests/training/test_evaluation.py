"""Loss, accuracy and confusion on a split."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tidepool.data import LabelledData, Split
from tidepool.data.dataset import Factor
from tidepool.training.config import Config
from tidepool.training.evaluation import evaluate


def two_pixel_data(labels: list[int]) -> LabelledData:
    images = torch.tensor([[0, 255], [255, 0], [0, 255], [255, 255], [0, 0]], dtype=torch.uint8).view(5, 1, 1, 2)
    split = Split(images, torch.tensor(labels))
    return LabelledData("pixels", split, split, ("a", "b"), torch.zeros(1), torch.ones(1))


class Pixels(nn.Module):
    """The two pixels are the logits; dropout would change them in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(x.flatten(1))


def test_figures_are_over_the_whole_split_whatever_the_batch_size():
    data = two_pixel_data([1, 0, 0, 0, 1])
    logits = torch.tensor([[0.0, 1], [1, 0], [0, 1], [1, 1], [0, 0]])
    for batch_size in (1, 2, 100):
        result = evaluate(Pixels(), data.test, data, Config(batch_size=batch_size), lambda: None)
        assert result.confusion.tolist() == [[2, 1], [1, 1]]
        assert result.accuracy == 3 / 5
        assert result.loss == pytest.approx(F.cross_entropy(logits, data.test.labels).item(), rel=1e-6)


def test_label_smoothing_is_no_part_of_the_test_loss():
    data = two_pixel_data([1, 0, 0, 0, 1])
    plain = evaluate(Pixels(), data.test, data, Config(), lambda: None)
    assert evaluate(Pixels(), data.test, data, Config(label_smoothing=0.5), lambda: None).loss == plain.loss


def test_the_mode_is_put_back_even_when_it_is_broken_off():
    data, model = two_pixel_data([1, 0, 0, 0, 1]), Pixels().train()

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluate(model, data.test, data, Config(), stop)
    assert model.training


def test_a_broken_network_gives_nan_not_an_error():
    class Broken(Pixels):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) * torch.nan

    data = two_pixel_data([1, 0, 0, 0, 1])
    result = evaluate(Broken(), data.test, data, Config(), lambda: None)
    assert result.loss != result.loss
    assert result.confusion.sum() == 5


def test_parts_of_the_label_are_counted_apart():
    """Four classes of two digits and two directions; the network names the right direction and always digit 1."""

    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.one_hot(2 + (x.flatten(1)[:, 0] > 0.5).long(), 4).float()

    images = torch.tensor([0, 255, 0, 255, 255], dtype=torch.uint8).view(5, 1, 1, 1)
    split = Split(images, torch.tensor([0, 1, 2, 3, 3]))
    factors = (Factor("digit", ("0", "1"), (0, 0, 1, 1)), Factor("direction", ("left", "right"), (0, 1, 0, 1)))
    data = LabelledData("moving", split, split, tuple("abcd"), torch.zeros(1), torch.ones(1), factors=factors)
    result = evaluate(Fixed(), split, data, Config(batch_size=1), lambda: None)
    assert result.accuracy == 3 / 5
    assert result.factor_accuracy == {"digit": 3 / 5, "direction": 1.0}
    assert evaluate(Fixed(), split, dataclasses.replace(data, factors=()), Config(), lambda: None).factor_accuracy == {}
