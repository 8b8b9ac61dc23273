"""What one step trains on: inputs and labels of a batch, changed by draws that are a function of seed and step alone.

Everything is drawn for the whole batch and then looked up by a sample's place in it, so that a batch divided among
processes or into parts is the batch that one process would make.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tidepool.data.augmentation import Draws, augment, cut_out, draw
from tidepool.data.batches import AUGMENTATION_STREAM, CUTOUT_STREAM, MIXING_STREAM, epoch_generator
from tidepool.training.job import Job
from tidepool.training.precision import normalised


@dataclass(frozen=True)
class Mixing:
    """mixup (Zhang et al., 2018) or cutmix (Yun et al., 2019): each sample with a partner of its batch."""

    partner: Tensor
    """(N,) places in the batch, on the CPU."""
    share: float
    """Of the sample's own label, at least a half."""
    box: tuple[slice, ...] | None
    """Of cutmix: the part of the last dimensions that the partner's input fills; None mixes the inputs whole."""


@dataclass(frozen=True)
class Part:
    """A part of a batch, on the training device: normalised inputs (n, C, *spatial), labels (n,), and where inputs are
    mixed the partners' labels and the share of the own ones."""

    inputs: Tensor
    labels: Tensor
    partners: Tensor | None = None
    share: float = 1.0


class Batch:
    """The batch of samples at `indices` that step number `step` + 1 takes."""

    def __init__(self, job: Job, indices: Tensor, step: int) -> None:
        self._job, self._indices = job, indices
        config, count = job.config, len(indices)
        self._draws: Draws | None = None
        self._centres: Tensor | None = None
        # A stream for each step, not for each epoch: a run resumed in mid-epoch draws what it would have drawn.
        if config.augment:
            generator = epoch_generator(seed=config.seed, epoch=step, stream=AUGMENTATION_STREAM)
            self._draws = draw(count, job.data.augmentation, generator)
        if config.cutout is not None:
            generator = epoch_generator(seed=config.seed, epoch=step, stream=CUTOUT_STREAM)
            self._centres = torch.rand((count, 2), generator=generator)
        self._mixing = mixing(job, count, step)

    def parts(self) -> Iterator[Part]:
        """This process's share of the batch, in as many parts as gradients are accumulated over."""
        job = self._job
        mine = torch.arange(len(self._indices)).tensor_split(job.ranks.size)[job.ranks.rank]
        for rows in mine.tensor_split(min(job.config.accumulate, len(mine))):
            yield self._part(rows)

    def _part(self, rows: Tensor) -> Part:
        inputs, labels = self._inputs(rows), self._labels(rows)
        if self._mixing is None:
            return Part(inputs, labels)
        others = self._mixing.partner[rows]
        theirs, share = self._inputs(others), self._mixing.share
        if self._mixing.box is None:
            inputs = torch.lerp(theirs, inputs, share)
        else:
            place = (slice(None),) * (inputs.dim() - len(self._mixing.box)) + self._mixing.box
            inputs[place] = theirs[place]
        return Part(inputs, labels, self._labels(others), share)

    def _labels(self, rows: Tensor) -> Tensor:
        return self._job.data.train.labels[self._indices[rows.to(self._indices.device)]]

    def _inputs(self, rows: Tensor) -> Tensor:
        job = self._job
        inputs = job.data.train.inputs[self._indices[rows.to(self._indices.device)]]
        if self._draws is not None:
            inputs = augment(inputs, job.data.augmentation, self._draws.at(rows))
        inputs = normalised(job.data, job.config, inputs)
        if self._centres is not None and job.config.cutout is not None:
            inputs = cut_out(inputs, job.config.cutout, self._centres[rows])
        return inputs


def mixing(job: Job, count: int, step: int) -> Mixing | None:
    """What is mixed with what in a step, or None; with both mixup and cutmix, either with probability a half."""
    config = job.config
    kinds = [name for name in ("mixup", "cutmix") if getattr(config, name) > 0]
    if not kinds:
        return None
    generator = np.random.default_rng(np.random.SeedSequence((config.seed, step, MIXING_STREAM)))
    kind = kinds[int(generator.integers(len(kinds)))]
    drawn = generator.beta(getattr(config, kind), getattr(config, kind))
    share = float(max(drawn, 1 - drawn))
    partner = torch.from_numpy(generator.permutation(count))
    if kind == "mixup":
        return Mixing(partner, share, None)
    sizes = job.data.input_size[-2:]
    box = tuple(_cut(size, (1 - share) ** (1 / len(sizes)), generator) for size in sizes)
    kept = 1.0
    for part, size in zip(box, sizes, strict=True):
        kept *= (part.stop - part.start) / size
    return Mixing(partner, 1 - kept, box)


def _cut(size: int, fraction: float, generator: np.random.Generator) -> slice:
    """A stretch of about that fraction of `size` positions, about a random one, clipped at the edges."""
    length, centre = round(size * fraction), int(generator.integers(size))
    first = centre - length // 2
    return slice(max(0, first), max(0, min(size, first + length)))
