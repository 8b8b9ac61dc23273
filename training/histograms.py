"""Histograms of weights and of gradients at an interval, in media/histograms.jsonl and to the other observers."""

import torch
from torch import Tensor

from tidepool.records import MetricsWriter, keep_rows, read_rows
from tidepool.training.checkpoint import Progress
from tidepool.training.job import Job
from tidepool.training.observer import Observer

BINS = 64


class Histograms(Observer):
    """Every so many steps, of each parameter that is trained and of its gradient, over all of its elements."""

    def __init__(self, others: Observer, every: int) -> None:
        self._others, self._every = others, every
        self._job: Job | None = None
        self._writer: MetricsWriter | None = None

    def began(self, job: Job, progress: Progress) -> None:
        """Open the file; rows after the checkpoint that is resumed from will come again."""
        path = job.run_dir / "media" / "histograms.jsonl"
        keep_rows(path, [row for row in read_rows(path) if row["step"] <= progress.step])
        self._job, self._writer = job, MetricsWriter(path)

    def step_ended(self, step: int) -> None:
        """Write and tell them where that is due. On a GPU the host waits for the step then."""
        if step % self._every or self._job is None or self._writer is None:
            return
        for name, parameter in self._job.trainee.model.named_parameters():
            for kind, tensor in (("weights", parameter.detach()), ("gradients", parameter.grad)):
                if tensor is None or not bool(tensor.isfinite().all()):
                    continue
                counts, edges = histogram(tensor)
                row = {"step": step, "name": f"{kind}/{name}", "counts": counts.tolist(), "edges": edges.tolist()}
                self._writer.write(row)
                self._others.histogram(f"{kind}/{name}", counts, edges, step)

    def closing(self) -> None:
        """Bring the rows to the disk."""
        if self._writer is not None:
            self._writer.close()


def histogram(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """(counts (64,) int64, edges (65,) float32) of a tensor's elements from its least to its greatest, on the CPU."""
    counts, edges = torch.histogram(tensor.float().cpu().flatten(), BINS)
    return counts.long(), edges
