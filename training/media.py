"""Images and tables of a run for reports: confusion counts, worst mistakes, filters, feature maps at every stage."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from tidepool.data.augmentation import normalise
from tidepool.records import write_atomically
from tidepool.training.checkpoint import Progress
from tidepool.training.evaluation import Evaluation
from tidepool.training.job import Job
from tidepool.training.observer import Observer
from tidepool.training.pictures import Colours, write_grid

MOST_MISTAKES = 25


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
    write_table(path, ("true", "predicted", "count"), rows)


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write `rows` as a CSV file under a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
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
    """(K, C, *kernel) -> tiles of `pictures.write_grid`, the mean over input channels.

    (K, C, kh, kw) gives (K, 1, kh, kw), in colour (K, 3, kh, kw) where there are three input channels; of 3-D filters
    the frames stand side by side; 1-D filters are the rows of one tile (1, 1, K, kernel).
    """
    weight = weight.detach().float().cpu()
    if weight.dim() == 4 and weight.shape[1] == 3:
        return weight
    return _tiles(reduce(weight, "k c ... -> k ...", "mean"))


@torch.no_grad()
def feature_tiles(model: nn.Module, layer: nn.Module, sample: Tensor) -> Tensor | None:
    """What `layer` gives for one normalised input (C, *spatial), as tiles of `pictures.write_grid` on the CPU: a map a
    channel, of a video its frames side by side; of a waveform all channels as rows of one tile.

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


@torch.no_grad()
def stages(model: nn.Module, sample: Tensor) -> list[nn.Module]:
    """The first convolution of each stage: those whose maps of `sample` (C, *spatial) are of other sizes than the maps
    before, in the network's order; at most six. Of one that only holds weights, the module about it is looked at."""
    sizes: dict[nn.Module, torch.Size] = {}

    def look(module: nn.Module, given: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.setdefault(module, output.shape)

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    was_training = model.training
    model.eval()
    try:
        model(rearrange(sample, "... -> 1 ..."))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    about = {child: parent for parent in model.modules() for child in parent.children()}
    found: dict[torch.Size, nn.Module] = {}
    for layer in model.modules():
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() < 3:
            continue
        called = layer
        while called not in sizes and called in about:
            called = about[called]
        if called in sizes and len(sizes[called]) == sample.dim() + 1:
            found.setdefault(sizes[called][2:], layer)
    return list(found.values())[:6]


class Media(Observer):
    """Confusion table, worst mistakes, filters and feature maps of a trained run, in media/ and to the others."""

    def __init__(self, others: Observer) -> None:
        self._others = others
        self._job: Job | None = None

    def began(self, job: Job, progress: Progress) -> None:
        """Remember the job."""
        self._job = job

    def tested(self, result: Evaluation, step: int) -> None:
        """Write and tell them."""
        assert self._job is not None
        data, model, folder = self._job.data, self._job.trainee.evaluated, self._job.run_dir / "media"
        rows = confusion_rows(result.confusion, data.class_names)
        write_confusion(folder / "confusion.csv", rows)
        self._others.table("confusion", ("true", "predicted", "count"), rows, step)
        self._mistakes(result, step)
        layer = first_convolution(model)
        if layer is None:
            return
        sample = normalise(data.test.inputs[:1], data.mean, data.std, torch.float32)[0]
        self._picture("filters", filter_tiles(layer.weight), "filters of the first layer", step, "signed")  # type: ignore[arg-type]
        for number, stage in enumerate(stages(model, sample), 1):
            maps = feature_tiles(model, stage, sample)
            if maps is not None:
                name = "feature_maps" if number == 1 else f"feature_maps_{number}"
                self._picture(name, maps, f"feature maps of stage {number}, first test sample", step, "bright")

    def _picture(self, name: str, tiles: Tensor, title: str, step: int, colours: Colours) -> None:
        assert self._job is not None
        path = self._job.run_dir / "media" / f"{name}.png"
        shown = f"{len(tiles)} {title}" if len(tiles) > 1 else title
        write_grid(path, tiles, f"{self._job.config.model}: {shown}", colours=colours)
        self._others.image(name, path, step)

    def _mistakes(self, result: Evaluation, step: int) -> None:
        """The test samples that were called something else with the highest losses: as a table, images as a picture."""
        assert self._job is not None
        if result.losses is None or result.predicted is None:
            return
        data, folder = self._job.data, self._job.run_dir / "media"
        labels = data.test.labels.cpu()
        wrong = (result.predicted != labels).nonzero().flatten()
        worst = wrong[result.losses[wrong].argsort(descending=True, stable=True)][:MOST_MISTAKES]
        names = data.class_names
        rows = [
            (int(place), names[int(labels[place])], names[int(result.predicted[place])], float(result.losses[place]))
            for place in worst
        ]
        header = ("sample", "true", "predicted", "loss")
        write_table(folder / "mistakes.csv", header, rows)
        self._others.table("mistakes", header, rows, step)
        inputs = data.test.inputs[worst.to(data.test.inputs.device)]
        if not len(worst) or inputs.dim() != 4 or inputs.shape[1] not in (1, 3):
            return
        captions = [f"{true}: {predicted}" for _, true, predicted, _ in rows]
        title = f"{self._job.config.model}: {len(worst)} worst of {len(wrong)} mistakes (true: predicted)"
        write_grid(folder / "mistakes.png", inputs, title, captions=captions)
        self._others.image("mistakes", folder / "mistakes.png", step)
