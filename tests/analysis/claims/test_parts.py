"""Parts of experiments, each against a case whose answer is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tidepool.analysis.claims.parts.cost import step_cost
from tidepool.analysis.claims.parts.exciting import most_exciting_images, most_exciting_input
from tidepool.analysis.claims.parts.gabor import gabor_parts, gabor_r2
from tidepool.analysis.claims.parts.occlusion import occlusion_map
from tidepool.analysis.claims.parts.places import patches_at_two_places
from tidepool.analysis.claims.parts.positions import gradient_terms
from tidepool.analysis.claims.parts.probe import probe_accuracy
from tidepool.analysis.claims.parts.receptive_fields import diameter, effective_field
from tidepool.analysis.claims.parts.shifts import broken_share, shifted


def test_a_gabor_function_fits_itself_and_noise_does_not() -> None:
    shape = np.array([0.3, -0.2, 0.7, math.log(1.8), 0.0, math.log(4.0)])
    cosine, sine = gabor_parts(7, shape)
    noise = np.random.default_rng(0).normal(size=(7, 7))
    assert gabor_r2(2 * cosine - sine + 0.5) > 0.99
    assert gabor_r2(noise) < 0.8
    assert gabor_r2(np.ones((7, 7))) == 0


def test_a_probe_reads_what_is_linear() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=generator)
    labels = (x[:, 1] > 0).long()
    assert probe_accuracy(x[:150], labels[:150], x[150:], labels[150:]) > 0.9
    assert probe_accuracy(x[:150, :1], labels[:150], x[150:, :1], labels[150:]) < 0.7


def test_the_field_of_one_filter_is_the_filter() -> None:
    layer = nn.Conv2d(1, 1, 3, bias=False)
    weight = -(2.0 ** torch.arange(9)).view(1, 1, 3, 3)  # whatever the field is divided by, their ratios stay exact
    layer.weight = nn.Parameter(weight)
    field = effective_field(layer, torch.randn(1, 1, 3, 3))
    assert torch.equal(field / field.max(), weight[0, 0].abs() / 256)
    flat = torch.ones(9, 9)
    assert diameter(flat) == pytest.approx(4 * math.sqrt((81 - 1) / 12))


def test_occlusion_falls_where_the_class_is_read() -> None:
    class Corner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x[:, 0, :2, :2].sum((1, 2)), torch.zeros(len(x))], 1)

    change = occlusion_map(Corner(), torch.ones(1, 8, 8), 0, square=2, step=2)
    assert change.shape == (4, 4)
    assert change[0, 0] > 0.4
    assert change.flatten()[1:].abs().max() == 0


def test_ascent_raises_the_response_and_images_are_ranked_by_it() -> None:
    layer = nn.Conv2d(1, 2, 3)
    with torch.no_grad():  # the second filter answers to an upright edge
        layer.weight[1] = torch.tensor([-1.0, 0.0, 1.0]).expand(1, 3, 3)
    before = most_exciting_input(layer, [1], (1, 8, 8), 0, steps=0)
    after = most_exciting_input(layer, [1], (1, 8, 8), 0, steps=20)
    assert layer(after)[0, 1].mean() > layer(before)[0, 1].mean() + 0.1
    images = torch.stack([layer.weight[1].detach() * scale for scale in (0.0, 2.0, 1.0)])
    assert most_exciting_images(layer, images, 1, 2).tolist() == [1, 2]


def test_terms_of_positions_add_up_to_the_filter_gradient() -> None:
    x, weight, dy = (torch.randint(-3, 4, shape).float() for shape in ((2, 2, 5, 5), (3, 2, 3, 3), (2, 3, 3, 3)))
    terms, whole = gradient_terms(x, weight, dy, backend="cudnn")
    assert len(terms) == 9
    assert torch.equal(sum(terms, torch.zeros_like(whole)), whole)


def test_equivariance_is_counted_as_broken_where_it_is() -> None:
    x = torch.randint(0, 5, (2, 1, 8, 8)).float()
    assert broken_share(lambda x: x.square(), x, 3) == (0, 0)
    assert broken_share(lambda x: x[:, :, ::2, ::2], x, 2) == (0, 0)
    assert broken_share(lambda x: x[:, :, ::2, ::2], x, 1)[0] > 0.3
    assert torch.equal(shifted(shifted(x, 3, 1), -3, -1), x)


def test_the_patch_is_the_same_at_both_places() -> None:
    images, labels = patches_at_two_places(2, 0)
    assert labels.tolist() == [0, 1, 0, 1]
    assert torch.equal(images[0, 0, :5, :5], images[1, 0, -5:, -5:])
    assert images[0].count_nonzero() == 25


def test_a_dense_step_holds_weights_and_gradients() -> None:
    cost = step_cost(nn.Linear(100, 50), torch.randn(1, 100))
    assert cost.parameters == 5050
    assert 2 * 4 * 5050 <= cost.held_bytes <= 2 * 4 * 5050 + 4 * (100 + 4 * 50)
