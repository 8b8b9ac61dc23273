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

from tidepool.data.augmentation import normalise
from tidepool.records import replacing, write_atomically
from tidepool.training.checkpoint import Progress
from tidepool.training.evaluation import Evaluation
from tidepool.training.job import Job
from tidepool.training.observer import Observer

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
    """The first module with a convolution's weight (K, C, *kernel), 1-, 2- or 3-D, or None in a network without one."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() >= 3:
            return module
    return None


def has_convolution(model: nn.Module) -> bool:
    """Whether any module has the weight of a 1-, 2- or 3-D convolution."""
    return first_convolution(model) is not None


def filter_tiles(weight: Tensor) -> Tensor:
    """(K, C, *kernel) -> tiles of `write_grid`, the mean over input channels.

    (K, C, kh, kw) gives (K, 1, kh, kw), in colour (K, 3, kh, kw) where there are three input channels; of 3-D filters
    the frames stand side by side; 1-D filters are the rows of one tile (1, 1, K, kernel).
    """
    weight = weight.detach().float().cpu()
    if weight.dim() == 4 and weight.shape[1] == 3:
        return weight
    return _tiles(reduce(weight, "k c ... -> k ...", "mean"))


@torch.no_grad()
def feature_tiles(model: nn.Module, layer: nn.Module, sample: Tensor) -> Tensor | None:
    """What `layer` gives for one normalised input (C, *spatial), as tiles of `write_grid` on the CPU: a map a channel,
    of a video its frames side by side; of a waveform all channels as rows of one tile.

    Where `layer` only holds the weights of a fused op, it is what the innermost module about it gives that is called;
    None where that is no feature map.
    """
    seen: list[Tensor] = []  # a module ends before those about it, so the innermost comes first
    about = [module for module in model.modules() if any(inner is layer for inner in module.modules())]
    hooks = [module.register_forward_hook(lambda module, inputs, output: seen.append(output)) for module in about]
    was_training = model.training
    model.eval()
    try:
        model(rearrange(sample, "... -> 1 ..."))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return _tiles(seen[0][0].float().cpu()) if seen[0].dim() == sample.dim() + 1 else None


def _tiles(maps: Tensor) -> Tensor:
    """(K, *spatial), 1-, 2- or 3-D -> (tiles, 1, h, w)."""
    if maps.dim() == 2:
        return rearrange(maps, "k s -> 1 1 k s")
    if maps.dim() == 4:
        return rearrange(maps, "k t h w -> k 1 h (t w)")
    return rearrange(maps, "k h w -> k 1 h w")


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
    image = Image.fromarray(grid.numpy() if grid.shape[2] == 3 else grid[..., 0].numpy())
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


class Media(Observer):
    """Confusion table, first-layer filters and feature maps of a run that is trained, in media/ and to the others."""

    def __init__(self, others: Observer) -> None:
        self._others = others
        self._job: Job | None = None

    def began(self, job: Job, progress: Progress) -> None:
        """Remember the job."""
        self._job = job

    def tested(self, result: Evaluation, step: int) -> None:
        """Write and tell them."""
        assert self._job is not None
        data, model, folder = self._job.data, self._job.trainee.model, self._job.run_dir / "media"
        rows = confusion_rows(result.confusion, data.class_names)
        write_confusion(folder / "confusion.csv", rows)
        self._others.table("confusion", ("true", "predicted", "count"), rows, step)
        layer = first_convolution(model)
        if layer is None:
            return
        sample = normalise(data.test.inputs[:1], data.mean, data.std, torch.float32)[0]
        tiles = {
            "filters": filter_tiles(layer.weight),  # type: ignore[arg-type]
            "feature_maps": feature_tiles(model, layer, sample),
        }
        for name, images in tiles.items():
            if images is not None:
                write_grid(folder / f"{name}.png", images)
                self._others.image(name, folder / f"{name}.png", step)
