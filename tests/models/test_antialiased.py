"""BlurPool and adaptive polyphase sampling: what they compute, and what shifts do to them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tidepool.models.antialiased import AdaptivePolyphase, BlurPool
from tidepool.models.locally_connected import LocallyConnected


@pytest.mark.parametrize("backend", ["cudnn", "triton"])
def test_blur_pool_is_a_binomial_filter_and_every_second_pixel(backend: str) -> None:
    x = torch.randn(2, 3, 6, 5)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    line = torch.tensor([0.25, 0.5, 0.25])
    rows = sum(line[i] * padded[:, :, i : i + 6] for i in range(3))
    wanted = sum(line[i] * rows[:, :, :, i : i + 5] for i in range(3))[:, :, ::2, ::2]
    torch.testing.assert_close(BlurPool(backend=backend)(x), wanted)


def test_blur_pool_keeps_a_constant_and_has_no_parameters() -> None:
    layer = BlurPool(circular=True)
    assert torch.equal(layer(torch.full((1, 2, 4, 4), 3.0)), torch.full((1, 2, 2, 2), 3.0))
    assert not list(layer.parameters())
    assert not layer.state_dict()


def test_polyphase_gives_the_same_grid_for_every_circular_shift() -> None:
    x, layer = torch.randn(3, 2, 8, 8), AdaptivePolyphase()
    wanted = layer(x)
    for down in range(4):
        for right in range(4):
            y = layer(torch.roll(x, (down, right), (2, 3)))
            assert torch.equal(y.flatten(2).sort().values, wanted.flatten(2).sort().values)


def test_polyphase_takes_the_grid_of_the_greatest_norm_image_by_image() -> None:
    x = torch.zeros(2, 1, 4, 4)
    x[0, 0, 1::2, ::2], x[1, 0, ::2, 1::2] = 1, 2
    assert AdaptivePolyphase()(x).amax((1, 2, 3)).tolist() == [1, 2]
    with pytest.raises(ValueError, match="x is 5x4; expected even sizes"):
        AdaptivePolyphase()(torch.zeros(1, 1, 5, 4))


def test_polyphase_passes_its_gradient_to_the_grid_it_took() -> None:
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    AdaptivePolyphase()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.count_nonzero() == 4


def test_a_locally_connected_layer_with_equal_weights_is_a_convolution() -> None:
    layer, conv = LocallyConnected(2, 3, 3, (5, 6), padding=1), nn.Conv2d(2, 3, 3, padding=1)
    assert conv.bias is not None
    with torch.no_grad():
        layer.weight.copy_(conv.weight.flatten(1).expand_as(layer.weight))
        layer.bias.copy_(conv.bias.expand_as(layer.bias))
    x = torch.randn(2, 2, 5, 6)
    torch.testing.assert_close(layer(x), conv(x))
    assert sum(p.numel() for p in layer.parameters()) == 30 * sum(p.numel() for p in conv.parameters())


def test_a_locally_connected_layer_refuses_other_sizes() -> None:
    with pytest.raises(ValueError, match=r"image_size=\(2, 6\); expected at least kernel_size=3"):
        LocallyConnected(1, 1, 3, (2, 6))
    with pytest.raises(ValueError, match="x is 5x5; expected images of the size"):
        LocallyConnected(1, 1, 3, (6, 6))(torch.zeros(1, 1, 5, 5))
