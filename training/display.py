"""What a person sees of a run: a progress bar or a line an epoch on stderr, and the summary at the end."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tidepool.training.checkpoint import Progress
from tidepool.training.job import Job
from tidepool.training.measurement import peak_memory_bytes
from tidepool.training.observer import Observer

_SPLITS = {"val": "validation", "test": "test"}


class Display(Observer):
    """A bar with loss, accuracy and samples a second when `bar` is asked for and stderr is a terminal; otherwise one
    line at each evaluation.
    """

    def __init__(self, *, bar: bool, total_steps: int, done: int) -> None:
        self._total = total_steps
        self._step = done
        self._train: tuple[float, float, float | None] | None = None
        self._device: torch.device | None = None
        self._bar = None
        if bar and sys.stderr.isatty():
            self._bar = tqdm(total=total_steps, initial=done, unit="step", dynamic_ncols=True, file=sys.stderr)

    def began(self, job: Job, progress: Progress) -> None:
        """Remember whose memory is shown."""
        self._device = job.device

    def row(self, row: Mapping[str, Any]) -> None:
        """Show the latest steps' figures, or an evaluation's."""
        if "train/loss" in row:
            self._train = row["train/loss"], row["train/accuracy"], row.get("speed/samples_per_second")
            if self._bar is not None:
                self._bar.set_postfix_str(self._figures(), refresh=False)
                self._bar.update(row["step"] - self._step)
            self._step = row["step"]
        for split, name in _SPLITS.items():
            if f"{split}/loss" in row:
                self._evaluation(
                    row["epoch"], f"{name} loss {row[f'{split}/loss']:.4f} accuracy {row[f'{split}/accuracy']:.4f}"
                )

    def _evaluation(self, epoch: float, figures: str) -> None:
        line = f"epoch {epoch:.4g}: step {self._step}/{self._total}"
        if self._train is not None:
            line += f"  {self._figures()}"
        line += f"  {figures}"
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def closing(self) -> None:
        """Leave the terminal tidy."""
        if self._bar is not None:
            self._bar.close()

    def _figures(self) -> str:
        assert self._train is not None
        loss, accuracy, speed = self._train
        text = f"loss {loss:.4f} accuracy {accuracy:.4f}" + (f" {speed:,.0f} samples/s" if speed else "")
        return text if self._device is None else f"{text} {peak_memory_bytes(self._device) / 1e6:,.0f} MB"


def offline_folders(run_dir: str, summary: dict[str, Any]) -> list[Path]:
    """Where W&B has kept the run for a later upload, one folder for each process that worked on it."""
    files = Path(os.environ.get("WANDB_DIR") or run_dir)
    return sorted(files.glob(f"wandb/offline-run-*-{summary.get('run_id')}"))


def summary_text(run_dir: str, summary: dict[str, Any]) -> str:
    """A run's summary as one screen of text."""

    def number(name: str, pattern: str, missing: str = "not measured") -> str:
        value = summary.get(name)
        return pattern.format(float(value)) if value is not None else missing

    mode = summary["kernel_mode"]
    untimed = "" if mode == "compiled" else f" ({mode}: not a speed measurement)"
    lines = [
        ("status", summary["status"] + (f": {summary['exit_reason']}" if summary["exit_reason"] else "")),
        ("trained", f"{summary['model']} on {summary['data']}, {summary['parameters']:,} parameters"),
        ("backend", f"{summary['backend']}: convolutions by {summary['conv_library']}, {summary['dtype']}"),
        ("steps", f"{summary['steps']} ({summary['epochs']:.4g} epochs), seed {summary['seed']}"),
        ("validation", number("val_accuracy", "{:.4f}") + number("best_epoch", " at epoch {:.4g}", missing="")),
        ("test accuracy", number("test_accuracy", "{:.4f}")),
        ("test loss", number("test_loss", "{:.4f}")),
        ("training took", number("train_seconds", "{:.2f} s")),
        ("median step", number("step_ms_p50", "{:.3f} ms") + untimed),
        ("throughput", number("samples_per_second", "{:,.0f} samples/s") + untimed),
        ("peak memory", number("peak_memory_bytes", "{:,.0f} bytes")),
        ("records", run_dir),
        ("look at it by", f"tidepool report {run_dir} --out {run_dir}-report"),
        *(("upload it by", f"wandb sync {folder}") for folder in offline_folders(run_dir, summary)),
    ]
    return "\n".join(f"{name:<14} {value}" for name, value in lines)
