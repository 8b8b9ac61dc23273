"""Pictures and tables of a run for reports: confusion counts, first-layer filters, feature maps."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange, reduce, repeat
from PIL import Image
from torch import Tensor, nn

from training.records import replacing, write_atomically

TILE_PIXELS = 48  # filters and maps are small: each is enlarged to about this many pixels a side
MOST_TILES = 64


def confusion_rows(confusion: Tensor, class_names: Sequence[str]) -> list[tuple[str, str, int]]:
    """(true, predicted, count) for each pair that occurred and for each class with itself, so that none is missing."""
    return [
        (true, predicted, int(confusion[row, column]))
        for row, true in enumerate(class_names)
        for column, predicted in enumerate(class_names)
        if row == column or confusion[row, column] > 0
    ]


def write_confusion(path: Path, rows: Sequence[tuple[str, str, int]]) -> None:
    """Write `rows` as a CSV file with the header true,predicted,count."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("true", "predicted", "count"))
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def first_convolution(model: nn.Module) -> nn.Module | None:
    """The first module with a 2-D convolution's weight (K, C, kh, kw), or None in a network that has none."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() == 4:
            return module
    return None


def has_convolution(model: nn.Module) -> bool:
    """Whether any module has the weight of a 1-, 2- or 3-D convolution."""
    weights = (getattr(module, "weight", None) for module in model.modules())
    return any(isinstance(weight, Tensor) and weight.dim() >= 3 for weight in weights)


def filter_tiles(weight: Tensor) -> Tensor:
    """(K, C, kh, kw) -> (K, 1 or 3, kh, kw): colour for three input channels, otherwise the mean over them."""
    weight = weight.detach().float().cpu()
    return weight if weight.shape[1] == 3 else reduce(weight, "k c h w -> k 1 h w", "mean")


@torch.no_grad()
def feature_tiles(model: nn.Module, layer: nn.Module, image: Tensor) -> Tensor:
    """What `layer` gives for one normalised image (C, H, W), as (channels, 1, H', W') on the CPU."""
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    was_training = model.training
    model.eval()
    try:
        model(rearrange(image, "c h w -> 1 c h w"))
    finally:
        hook.remove()
        model.train(was_training)
    return rearrange(seen[0].float().cpu(), "1 k h w -> k 1 h w")


def write_grid(path: Path, tiles: Tensor) -> None:
    """Write up to 64 tiles (K, 1 or 3, h, w) as one PNG, each stretched to the full range from its least to its
    greatest value and enlarged in whole pixels, with a gap of two between them.
    """
    tiles = tiles[:MOST_TILES]
    low, high = tiles.amin(dim=(1, 2, 3), keepdim=True), tiles.amax(dim=(1, 2, 3), keepdim=True)
    tiles = torch.nan_to_num((tiles - low) / (high - low), nan=0.0).mul(255).round().to(torch.uint8)
    scale = max(1, TILE_PIXELS // max(tiles.shape[2:]))
    tiles = repeat(tiles, "k c h w -> k c (h sh) (w sw)", sh=scale, sw=scale)
    columns = math.ceil(math.sqrt(len(tiles)))
    missing = -len(tiles) % columns
    tiles = torch.nn.functional.pad(tiles, (0, 2, 0, 2, 0, 0, 0, missing), value=255)
    grid = rearrange(tiles, "(rows columns) c h w -> (rows h) (columns w) c", columns=columns)[:-2, :-2]
    picture = Image.fromarray(grid.numpy() if grid.shape[2] == 3 else grid[..., 0].numpy())
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")
