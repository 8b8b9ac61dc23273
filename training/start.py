"""Where a run begins: afresh, at a checkpoint, or not at all because it has ended."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidepool.records import Row, read_rows
from tidepool.training.checkpoint import Progress, read_checkpoint
from tidepool.training.config import Config
from tidepool.training.recorder import check_measurements, rows_until
from tidepool.training.run_folder import (
    LAST_CHECKPOINT,
    RunFolder,
    RunFolderError,
    checkpoint_asked_for,
    run_of_checkpoint,
)


@dataclass(frozen=True)
class Start:
    """A fresh start, unless one of the fields says otherwise."""

    checkpoint: dict[str, Any] | None = None
    """What to resume from."""
    rows: list[Row] = field(default_factory=list)
    """The rows recorded up to the checkpoint."""
    run_id: str | None = None
    """The run that is resumed; None begins a new one, which may take up another's checkpoint."""
    ended: dict[str, Any] | None = None
    """The summary of a run with nothing left to do."""


def find_start(folder: RunFolder, config: Config) -> Start:
    """Decide between a fresh start, resuming, and nothing to do, without changing anything.

    Raises:
        RunFolderError: `resume=never` in a used folder, another run in the folder, other settings than the recorded
            ones, records or checkpoint that are missing or cannot be read.
    """
    recorded, summary = folder.recorded_config(), folder.recorded_summary()
    asked = Path(config.resume) if config.resume not in ("auto", "never") else None
    if recorded is None:
        return Start() if asked is None else _at_checkpoint(checkpoint_asked_for(config.resume), folder, config)
    if config.resume == "never":
        raise RunFolderError(f"run_dir {folder.path} holds a run and resume is never; expected a new run_dir")
    run = None if asked is None else run_of_checkpoint(asked)
    if run is not None and _same(run, folder.path):
        return _at_checkpoint(checkpoint_asked_for(config.resume), folder, config)  # one of this run's own
    if asked is not None and not _same(asked, folder.path) and recorded.get("resume") != config.resume:
        raise RunFolderError(f"run_dir {folder.path} holds another run than {asked}; give a new run_dir")
    _refuse_differences(folder.path, config, recorded)
    if summary is not None and summary.get("status") in ("finished", "diverged"):
        return Start(ended=summary)
    if (folder.path / LAST_CHECKPOINT).is_file():
        return _at_checkpoint(folder.path / LAST_CHECKPOINT, folder, config)
    return Start(run_id=summary.get("run_id") if summary else None)


def _at_checkpoint(path: Path, folder: RunFolder, config: Config) -> Start:
    content = read_checkpoint(path)
    _refuse_differences(path, config, content["config"])
    run = run_of_checkpoint(path)  # the records beside a checkpoint that was copied elsewhere are not its own
    where = path if run is None else f"{run / 'metrics.jsonl'} and {path}"
    try:
        progress = Progress(**content["progress"])
        check_measurements(content["measurements"])
        rows = [] if run is None else rows_until(read_rows(run / "metrics.jsonl"), progress)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{where} cannot be resumed from: {error}") from error
    in_place = run is not None and _same(run, folder.path)
    return Start(checkpoint=content, rows=rows, run_id=content["progress"]["run_id"] if in_place else None)


def _refuse_differences(where: Path, config: Config, recorded: dict[str, Any]) -> None:
    differences = config.differences(recorded)
    if differences:
        raise RunFolderError(f"{where} has a run with other settings ({'; '.join(differences)}); give a new run_dir")


def _same(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve()
