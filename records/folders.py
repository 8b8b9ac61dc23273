"""Folders of runs and of records, found on disk. A run folder is what train.py or bench.py writes: config.json,
environment.json, metrics.jsonl, summary.json and media/.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tidepool.records.schema import RecordError
from tidepool.records.values import writable

BENCH_KIND = "bench"
"""What config.json and summary.json of a bench.py run say of themselves."""
STATUSES = ("finished", "diverged", "failed", "interrupted", "unfinished")
"""What may become of a run; a run without a summary is unfinished."""
LATER_FIELDS = {
    "shuffle_frames": False,
    "keep_checkpoints": 2,
    "accumulate": 1,
    "ema": False,
    "ema_decay": 0.999,
    "mixup": 0.0,
    "cutmix": 0.0,
    "channels_last": False,
    "cuda_graph": False,
    "artifact": False,
    "profile": False,
}
"""Fields that config.json lacks in records older than they are, with what those runs did; None is not listed."""
FIRST_DEFAULTS = {
    "epochs": 8, "batch_size": 64, "lr": 0.03, "optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-4,
    "schedule": "onecycle", "warmup": 0.25, "label_smoothing": 0.0, "augment": False, "deterministic": False,
    "eval_every": 1, "log_every": 10, "checkpoint_every": 1,
}  # fmt: skip
"""What train.py did, from its first version on, where a setting was not given: what a config.json without it means."""
_INSIDE_A_RUN = frozenset({"checkpoints", "media", "wandb"})


def find_folders(paths: Iterable[Path | str], *, skip: Path | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Each folder at or under ``paths`` and the names of its files, once, in sorted order of the walk.

    Links are followed, loops are not; hidden folders, the insides of runs and ``skip`` are left out. Raises
    RecordError if a path does not exist or is no folder.
    """
    seen: set[str] = set()
    skipped = None if skip is None else os.path.realpath(skip)
    for path in map(Path, paths):
        if not path.exists():
            raise RecordError(f"{path}: no such folder (expected a run folder or a folder of runs)")
        if not path.is_dir():
            raise RecordError(f"{path}: a file, where a run folder or a folder of runs was expected")
        for folder, children, files in os.walk(path, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen or real == skipped:
                children.clear()
                continue
            seen.add(real)
            inner = _INSIDE_A_RUN if is_run(files) else frozenset()
            children[:] = sorted(child for child in children if not child.startswith(".") and child not in inner)
            yield Path(folder), sorted(files)


def is_run(files: Iterable[str]) -> bool:
    """Whether a folder with these files is that of a run."""
    return not {"config.json", "summary.json"}.isdisjoint(files)


def shown_path(path: Path) -> str:
    """``path`` relative to the working directory where it lies below it, so that reports do not name the machine."""
    absolute = Path(os.path.abspath(path))
    here = Path.cwd()
    below = absolute.is_relative_to(here) and absolute != here
    return writable(str(absolute.relative_to(here) if below else path))
