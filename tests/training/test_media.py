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
    stages,
    write_confusion,
)
from tidepool.training.pictures import TITLE_HEIGHT, coloured, write_grid


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


@pytest.mark.parametrize("shape", [(6, 1, 5, 5), (1, 3, 4, 8), (100, 1, 60, 60), (1, 1, 64, 9)])
def test_a_grid_is_a_titled_picture_in_colour_of_at_least_600_pixels(tmp_path, shape):
    tiles = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    write_grid(tmp_path / "grid.png", tiles, "some title")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.mode == "RGB"
        assert 600 <= image.width < 1300
        assert image.height < 1300
        pixels = np.asarray(image)
    assert (pixels[:TITLE_HEIGHT] == 0).all(-1).any()  # letters
    assert len(np.unique(pixels[TITLE_HEIGHT::7, ::7] @ np.array([65536, 256, 1]))) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_each_tile_has_its_own_range_and_white_is_zero_where_signs_count():
    bright = coloured(torch.tensor([[[5.0, 6.0], [5.5, 5.0]]]), "bright")
    assert bright[0].tolist() == [[20, 10, 60], [250, 230, 40]]
    assert bright[1].tolist() == [[30, 140, 140], [20, 10, 60]]
    signed = coloured(torch.tensor([[[-2.0, 0.0, 1.0]]]), "signed")
    assert signed[0].tolist() == [[33, 60, 140], [247, 247, 247], [225, 130, 110]]
    assert coloured(torch.zeros(1, 1, 1), "signed").tolist() == [[[247, 247, 247]]]
    assert coloured(torch.tensor([[[0.0]], [[0.5]], [[1.0]]]), "bright").tolist() == [[[0, 128, 255]]]


def test_stages_begin_where_the_maps_sizes_change():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2), Fused(), nn.Conv2d(4, 2, 1)
    )
    model[3].conv = nn.Conv2d(4, 4, 3)
    assert stages(model, torch.randn(1, 8, 8)) == [model[0], model[3].conv]
    assert not any(module._forward_hooks for module in model.modules())


def test_the_worst_mistakes_are_listed_with_their_images(small, quietly, tmp_path):
    summary = quietly(small(model="lenet5", epochs=1)).summary
    media = tmp_path / "run" / "media"
    with (media / "mistakes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    assert all(row["true"] != row["predicted"] for row in rows)
    losses = [float(row["loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert max(losses) > summary["test_loss"]
    with Image.open(media / "mistakes.png") as image:
        assert image.width >= 600
