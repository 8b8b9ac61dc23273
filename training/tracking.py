"""Weights & Biases as a mirror of a run's records. Nothing is read back from it, and it never stops a run.

Its files lie in <run_dir>/wandb, its cache and staging area too. Rows are logged against our own `step`, because
W&B's counter starts again at 0 in each process that resumes a run offline.
"""

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tidepool.training.config import Config, ConfigError

DEFAULT_PROJECT = "tidepool"


class Tracker(Protocol):
    """Where rows, tables, images and the summary go besides the run folder."""

    def log(self, row: Mapping[str, Any]) -> None:
        """One row of metrics with its `step`."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """A table under `name`."""

    def image(self, name: str, path: Path, step: int) -> None:
        """The image in a file, under `name`."""

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> None:
        """Final figures; nothing may follow."""


class NoTracker:
    """`--track off`: W&B is not even imported."""

    def log(self, row: Mapping[str, Any]) -> None: ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None: ...

    def image(self, name: str, path: Path, step: int) -> None: ...

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> None: ...


def tracking_mode(config: Config) -> str:
    """off, offline or online: `config.track`, but a run that a W&B agent started is online unless WANDB_MODE says no.

    An agent's sweep gets its values from the server alone, so an offline run would leave it waiting for nothing.
    """
    if config.track == "offline" and os.environ.get("WANDB_SWEEP_ID"):
        return "offline" if os.environ.get("WANDB_MODE", "online") in ("offline", "disabled", "dryrun") else "online"
    return config.track


def check_available(mode: str) -> None:
    """Import wandb if `mode` needs it, before anything is created on disk.

    Raises:
        ConfigError: it is not installed.
    """
    if mode == "off":
        return
    try:
        if not hasattr(importlib.import_module("wandb"), "init"):  # a stray folder called wandb imports, too
            raise ImportError("no module named wandb")
    except ImportError as error:
        raise ConfigError(f"track={mode!r} needs wandb ({error}): pip install wandb, or give --track off") from error


def start_tracker(config: Config, mode: str, run_dir: Path, run_id: str, extra_config: Mapping[str, Any]) -> Tracker:
    """The tracker for `mode`. When W&B does not start, one warning is given and the run continues without it."""
    if mode == "off":
        return NoTracker()
    tracker = WandbTracker()
    tracker.start(config, mode, run_dir, run_id, extra_config)
    return tracker


class WandbTracker:
    """A W&B run. The first call that fails is reported once and ends tracking."""

    def __init__(self) -> None:
        self._run: Any = None
        self._wandb: Any = None

    def start(self, config: Config, mode: str, run_dir: Path, run_id: str, extra_config: Mapping[str, Any]) -> None:
        """Open the W&B run `run_id`, or resume it; `extra_config` is kept with the settings."""

        def begin() -> None:
            folder = (run_dir / "wandb").resolve()
            folder.mkdir(parents=True, exist_ok=True)
            for variable, sub in (("WANDB_CACHE_DIR", "cache"), ("WANDB_DATA_DIR", "staging")):
                os.environ.setdefault(variable, str(folder / sub))
            project = config.project or os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT
            if os.environ.get("WANDB_SWEEP_ID"):
                os.environ["WANDB_PROJECT"] = project  # W&B ignores init(project=...) inside a sweep
            wandb = self._wandb = importlib.import_module("wandb")
            settings = wandb.Settings(
                silent=True,
                console="off",
                init_timeout=30,
                x_transaction_log_flush_interval=1.0,  # the default of 15 s is what kill -9 would cost
            )
            self._run = wandb.init(
                project=project,
                group=config.group,
                name=config.name or run_dir.resolve().name,
                id=run_id,
                resume="allow",
                mode=mode,
                dir=str(run_dir),
                config={**config.as_record(), **extra_config},
                settings=settings,
            )
            self._run.define_metric("*", step_metric="step")

        self._guarded(begin)

    def log(self, row: Mapping[str, Any]) -> None:
        """One row of metrics with its `step`."""
        if self._run is not None:
            self._guarded(lambda: self._run.log(dict(row)))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """A table under `name`."""
        if self._run is not None:
            self._guarded(
                lambda: self._run.log(
                    {"step": step, name: self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])}
                )
            )

    def image(self, name: str, path: Path, step: int) -> None:
        """The image in a file, under `name`."""
        if self._run is not None:
            self._guarded(lambda: self._run.log({"step": step, name: self._wandb.Image(str(path))}))

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> None:
        """Write the summary and close the W&B run."""
        if self._run is not None:
            self._guarded(lambda: self._run.summary.update(dict(summary)))
        if self._run is not None:
            self._guarded(lambda: self._run.finish(exit_code=exit_code))
        if self._run is None and self._wandb is not None:
            # W&B failed. Its own clean-up at interpreter exit would print a traceback when its service has died.
            with contextlib.suppress(Exception):
                self._wandb.teardown(exit_code)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # W&B's advice on offline runs; failures are exceptions
                call()
        except Exception as error:  # whatever goes wrong in W&B, the run's own records are complete without it
            self._run = None
            reason = " ".join(str(error).split()) or "no reason given"
            print(
                f"warning: W&B stopped ({type(error).__name__}: {reason}); training continues, "
                "and the records in the run folder are complete",
                file=sys.stderr,
            )
