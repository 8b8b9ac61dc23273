"""Images and tables for reports."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tidepool.training.media import (
    confusion_rows,
    feature_tiles,
    filter_tiles,
    first_convolution,
    has_convolution,
    write_confusion,
    write_grid,
)


def test_confusion_lists_what_occurred_and_every_class_with_itself(tmp_path):
    rows = confusion_rows(torch.tensor([[3, 2, 0], [0, 0, 0], [0, 0, 7]]), ("a", "b, c", "d"))
    assert rows == [("a", "a", 3), ("a", "b, c", 2), ("b, c", "b, c", 0), ("d", "d", 7)]
    write_confusion(tmp_path / "confusion.csv", rows)
    with (tmp_path / "confusion.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["true"], row["predicted"], int(row["count"])) for row in read] == rows


def test_the_first_convolution_is_found_and_a_network_without_one_has_none():
    convolution = nn.Conv2d(1, 2, 3)
    model = nn.Sequential(nn.BatchNorm2d(1), convolution, nn.Conv2d(2, 2, 3))
    assert first_convolution(model) is convolution
    assert has_convolution(model)
    assert has_convolution(nn.Conv1d(1, 2, 3))
    for other in (nn.Conv1d(1, 2, 3), nn.Conv3d(1, 2, 3)):
        assert first_convolution(nn.Sequential(nn.Linear(2, 2), other)) is other
    assert first_convolution(nn.Linear(2, 2)) is None
    assert not has_convolution(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


def test_filters_are_colour_for_three_channels_and_the_mean_otherwise():
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filter_tiles(weight), weight)
    assert torch.equal(filter_tiles(weight[:, :2]), weight[:, :2].mean(1, keepdim=True))


def test_filters_of_waveforms_are_rows_and_those_of_videos_frames_side_by_side():
    weight = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filter_tiles(weight), weight.mean(1)[None, None])
    weight = torch.randn(5, 3, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filter_tiles(weight), torch.cat([weight.mean(1)[:, 0], weight.mean(1)[:, 1]], 2)[:, None])


def test_feature_maps_of_waveforms_and_videos():
    wave = nn.Conv1d(1, 4, 3)
    sample = torch.randn(1, 9)
    assert torch.equal(feature_tiles(wave, wave, sample), wave(sample[None]).detach()[None])
    video = nn.Conv3d(1, 4, 3, padding=1)
    sample = torch.randn(1, 2, 6, 5)
    maps = video(sample[None])[0].detach()
    assert torch.equal(feature_tiles(video, video, sample), torch.cat([maps[:, 0], maps[:, 1]], 2)[:, None])


class Fused(nn.Module):
    """Takes the weights of a module that it does not call, as the fused ops do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x):
        return nn.functional.conv2d(x, self.conv.weight, self.conv.bias).relu()


def test_feature_maps_of_a_layer_that_is_not_called_are_those_of_the_module_about_it():
    fused, sample = Fused(), torch.randn(1, 6, 5)
    model = nn.Sequential(nn.Sequential(fused), nn.Conv2d(4, 2, 3))
    assert first_convolution(model) is fused.conv
    assert torch.equal(feature_tiles(model, fused.conv, sample), fused(sample[None])[0, :, None].detach())
    assert not any(module._forward_hooks for module in model.modules())


def test_there_are_no_feature_maps_where_the_network_gives_none():
    class Whole(Fused):
        def forward(self, x):
            return super().forward(x).mean((2, 3))

    model = Whole()
    assert feature_tiles(model, model.conv, torch.randn(1, 6, 5)) is None


def test_feature_maps_are_the_layers_output_in_eval_mode():
    convolution = nn.Conv2d(1, 4, 3, padding=1)
    model = nn.Sequential(nn.Dropout(0.9), convolution, nn.ReLU()).train()
    image = torch.randn(1, 6, 5, generator=torch.Generator().manual_seed(0))
    tiles = feature_tiles(model, convolution, image)
    assert tiles.shape == (4, 1, 6, 5)
    assert torch.equal(tiles[:, 0], convolution(image[None])[0].detach())
    assert model.training
    assert not convolution._forward_hooks


@pytest.mark.parametrize(
    ("shape", "mode", "size"),
    [
        ((6, 1, 5, 5), "L", (3 * 47 - 2, 2 * 47 - 2)),
        ((1, 3, 4, 8), "RGB", (48, 24)),
        ((100, 1, 60, 60), "L", (494, 494)),
    ],
)
def test_a_grid_is_a_picture_of_all_tiles(tmp_path, shape, mode, size):
    write_grid(tmp_path / "grid.png", torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    with Image.open(tmp_path / "grid.png") as image:
        assert (image.mode, image.size) == (mode, size)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_each_tile_is_stretched_to_the_full_range_and_a_flat_one_is_black(tmp_path):
    tiles = torch.stack([torch.tensor([[[5.0, 6.0]]]), torch.tensor([[[3.0, 3.0]]])])
    write_grid(tmp_path / "grid.png", tiles)
    with Image.open(tmp_path / "grid.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (24, 98)
    assert [pixels[0, column] for column in (0, 23, 24, 47, 48, 49, 50, 97)] == [0, 0, 255, 255, 255, 255, 0, 0]
