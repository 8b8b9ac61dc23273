"""One run from settings to records: prepare everything, train, and leave a folder that says what happened."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidepool.records import write_json
from tidepool.training.checkpoint import Progress
from tidepool.training.config import Config
from tidepool.training.distributed import Ranks, joined_ranks
from tidepool.training.job import Job
from tidepool.training.loop import Session, fit, save, stops_early
from tidepool.training.measurement import StepTimes
from tidepool.training.observer import Observers
from tidepool.training.observing import observers_of
from tidepool.training.precision import set_numerics, simulating
from tidepool.training.prepare import begin_progress, check_machine, prepare, write_opening_records
from tidepool.training.run_folder import RunFolder, give_back_reserve, run_dir_of
from tidepool.training.start import Start, find_start
from tidepool.training.steps import Diverged, StepLog
from tidepool.training.stopping import Interrupted, StopRequest
from tidepool.training.summary import End, in_one_line, notes_on, opening_line, summary_of
from tidepool.training.tracking import check_agents_values, check_available, tracking_mode

EXIT_FINISHED, EXIT_FAILED, EXIT_DIVERGED = 0, 1, 3
UNENDED = "did not end: it is still running, or was killed"


@dataclass(frozen=True)
class Outcome:
    """What became of a run: its summary as in summary.json, and the exit code train.py ends with."""

    run_dir: Path
    summary: dict[str, Any]
    exit_code: int
    had_ended_before: bool = False


def train(config: Config, announce: Callable[[str], None]) -> Outcome:
    """Do the run that `config` describes, or what is left of it; `announce` gets lines for people to read.

    Raises:
        ConfigError, RunFolderError, data.DataError: settings, folder or data cannot be used. Nothing was created.
        Exception: whatever ended the training; summary.json then says status "failed" and why.
    """
    config.validate()
    with simulating(config), joined_ranks(config.device) as ranks, contextlib.ExitStack() as held:
        return _train(config, announce if ranks.writes else _say_nothing, ranks, held)


def _say_nothing(line: str) -> None:
    """What processes but the first announce."""


def _train(config: Config, announce: Callable[[str], None], ranks: Ranks, held: contextlib.ExitStack) -> Outcome:
    device, mode = check_machine(config), tracking_mode(config)
    folders: list[RunFolder] = []  # of the process that writes

    def begin() -> tuple[Path, Start]:
        folders.append(held.enter_context(RunFolder(run_dir_of(config))))
        start = find_start(folders[0], config)
        if start.ended is None:
            check_available(mode)
            check_agents_values(config)
        return folders[0].path, start

    path, start = ranks.first_says(begin)
    if start.ended is not None:
        code = EXIT_FINISHED if start.ended["status"] == "finished" else EXIT_DIVERGED
        return Outcome(path, start.ended, code, had_ended_before=True)
    set_numerics(config)
    job = prepare(config, device, path, ranks=ranks, say=announce, resumes=start.checkpoint is not None)
    progress = begin_progress(job, start)

    def open_records() -> Any:
        folders[0].create()
        return write_opening_records(job, start, progress)

    environment = ranks.first_says(open_records)
    for note in (*start.notes, *notes_on(job)):
        announce(note)
    announce(opening_line(job, progress, mode))
    return conduct(job, start, progress, observers_of(job, progress, mode, environment))


def conduct(job: Job, start: Start, progress: Progress, observers: Observers) -> Outcome:
    """Train, and record how it ended, however it ends."""
    session = Session(job, progress, StepLog(job, progress, StepTimes(job.device), observers), observers, StopRequest())
    if start.checkpoint is not None:
        session.log.restore(start.checkpoint["measurements"])
    status, reason, code = "failed", None, EXIT_FAILED
    samples: Sequence[int] = ()
    try:
        if job.ranks.writes:
            write_json(job.run_dir / "summary.json", summary_of(session, End("interrupted", UNENDED, 0)))
        observers.began(job, progress)
        with session.stop:
            try:
                fit(session)
                status, reason, code = "finished", early_end(session), EXIT_FINISHED
            except Interrupted as interrupted:
                status, reason, code = "interrupted", str(interrupted), interrupted.exit_code
                save(session)
    except Diverged as diverged:
        status, reason, code = "diverged", str(diverged), EXIT_DIVERGED
        samples = diverged.samples
    except OSError as error:  # the disk, or what the data lie on
        status, reason, code = "failed", in_one_line(error), EXIT_FAILED
    except KeyboardInterrupt:
        status, reason = "interrupted", "stopped at once by a second Ctrl-C, without a checkpoint of this moment"
        raise
    except BaseException as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise
    finally:
        summary, code = end(session, End(status, reason, code, samples))
        observers.ended(summary, code)
    return Outcome(job.run_dir, summary, code)


def early_end(session: Session) -> str | None:
    """Why a finished run has fewer steps than it might have had."""
    if not stops_early(session) or session.progress.step == session.job.total_steps:
        return None
    patience = session.job.config.patience
    return f"stopped early: the validation accuracy had not risen for {patience} evaluations"


def end(session: Session, how: End) -> tuple[dict[str, Any], int]:
    """Close the records and write the summary, on a full disk into the room kept for it; returns it and the exit code,
    of a failure where the rows could not be brought to the disk."""
    try:
        session.observers.closing()
    except OSError as error:
        if how.status in ("finished", "interrupted"):
            how = how._replace(status="failed", reason=in_one_line(error), code=EXIT_FAILED)
    if not session.job.ranks.writes:
        return summary_of(session, how), how.code
    with contextlib.suppress(OSError):
        give_back_reserve(session.job.run_dir)
    summary = summary_of(session, how)
    try:
        write_json(session.job.run_dir / "summary.json", summary)
    except OSError as error:
        reason = f"{how.reason + '; ' if how.reason else ''}{in_one_line(error)}"
        return {**summary, "status": "failed", "exit_reason": reason}, EXIT_FAILED
    return summary, how.code
