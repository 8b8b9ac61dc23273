"""Where a run begins: afresh, at a checkpoint, or not at all because it has ended."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tidepool.records import Row, checksum_path, read_rows
from tidepool.training.checkpoint import Progress, UnreadableError, read_checkpoint
from tidepool.training.checkpoint_files import BEST, candidates
from tidepool.training.config import Config
from tidepool.training.recorder import rows_until
from tidepool.training.run_folder import (
    CHECKPOINTS,
    RunFolder,
    RunFolderError,
    checkpoint_asked_for,
    run_of_checkpoint,
)
from tidepool.training.steps import check_measurements


@dataclass(frozen=True)
class Start:
    """A fresh start, unless one of the fields says otherwise."""

    checkpoint: dict[str, Any] | None = None
    """What to resume from."""
    rows: list[Row] = field(default_factory=list)
    """The rows recorded up to the checkpoint."""
    best: bytes | None = None
    """The file best.pt beside it, where that is whole."""
    run_id: str | None = None
    """The run that is resumed; None begins a new one, which may take up another's checkpoint."""
    ended: dict[str, Any] | None = None
    """The summary of a run with nothing left to do."""
    notes: tuple[str, ...] = ()
    """What people should know: checkpoints that are damaged and were passed over."""


def find_start(folder: RunFolder, config: Config) -> Start:
    """Decide between a fresh start, resuming, and nothing to do, without changing anything.

    Raises:
        RunFolderError: `resume=never` in a used folder, another run in the folder, other settings than the recorded
            ones, records or checkpoint that are missing or cannot be read.
    """
    recorded, summary = folder.recorded_config(), folder.recorded_summary()
    asked = Path(config.resume) if config.resume not in ("auto", "never") else None
    if recorded is None:
        return Start() if asked is None else _at_asked(asked, folder, config)
    if config.resume == "never":
        raise RunFolderError(f"run_dir {folder.path} holds a run and resume is never; expected a new run_dir")
    run = None if asked is None else run_of_checkpoint(asked)
    if asked is not None and run is not None and _same(run, folder.path):
        return _at_asked(asked, folder, config)  # one of this run's own
    if asked is not None and not _same(asked, folder.path) and recorded.get("resume") != config.resume:
        raise RunFolderError(f"run_dir {folder.path} holds another run than {asked}; give a new run_dir")
    _refuse_differences(folder.path, config, recorded)
    if summary is not None and summary.get("status") in ("finished", "diverged"):
        return Start(ended=summary)
    return _at_newest(folder.path / CHECKPOINTS, folder, config) or Start(
        run_id=summary.get("run_id") if summary else None
    )


def _at_asked(asked: Path, folder: RunFolder, config: Config) -> Start:
    """A start at the file that is asked for, or at the newest whole checkpoint of the run that is."""
    path = checkpoint_asked_for(config.resume)
    newest = _at_newest(path.parent, folder, config) if asked.is_dir() else None
    return newest or _at_checkpoint(path, folder, config)


def _at_newest(checkpoints: Path, folder: RunFolder, config: Config) -> Start | None:
    """A start at the first of a run's checkpoints that can be believed and read; None where there is none at all."""
    try:
        believed, damaged = candidates(checkpoints)
    except OSError as error:
        raise RunFolderError(f"{checkpoints}: {error.strerror or error}") from error
    problems = [f"{path} is damaged: it is not what {checksum_path(path).name} beside it says" for path in damaged]
    for path in believed:
        try:
            start = _at_checkpoint(path, folder, config)
        except UnreadableError as error:
            problems.append(str(error))
            continue
        return replace(start, notes=tuple(f"{problem}; the run resumes from {path.name}" for problem in problems))
    if problems:
        raise RunFolderError(f"{'; '.join(problems)}; expected a whole checkpoint, or a new run_dir")
    return None


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
    best = None if run is None else _best_of(run / CHECKPOINTS / BEST)
    return Start(checkpoint=content, rows=rows, best=best, run_id=content["progress"]["run_id"] if in_place else None)


def _best_of(path: Path) -> bytes | None:
    """The file, if it is a checkpoint that can be read."""
    try:
        read_checkpoint(path)
        return path.read_bytes()
    except (UnreadableError, OSError):
        return None


def _refuse_differences(where: Path, config: Config, recorded: dict[str, Any]) -> None:
    differences = config.differences(recorded)
    if differences:
        raise RunFolderError(f"{where} has a run with other settings ({'; '.join(differences)}); give a new run_dir")


def _same(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve()
