"""Weights & Biases as a mirror of a run's records. Nothing is read back from it, and it never stops or holds up a run:
what it does not do within a limit counts as failed.

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
from typing import Any

import torch
import yaml
from torch import Tensor

from tidepool.training.bounded_calls import BoundedCalls, kill_services
from tidepool.training.checkpoint import Progress
from tidepool.training.checkpoint_files import BEST
from tidepool.training.config import Config, ConfigError
from tidepool.training.evaluation import Evaluation
from tidepool.training.job import Job
from tidepool.training.observer import Observer
from tidepool.training.run_folder import CHECKPOINTS

DEFAULT_PROJECT = "tidepool"
LOG_LIMIT_S, FINISH_LIMIT_S = 30.0, 300.0
"""Seconds after which W&B is given up: a call for a row, and the last one, which may have to upload."""
_AS_OFFLINE, _AS_OFF = ("offline", "dryrun"), ("disabled",)
"""Values of WANDB_MODE, older names among them."""


def tracking_mode(config: Config) -> str:
    """off, offline or online: `config.track`, but WANDB_MODE may ask for less, and a run that a W&B agent started is
    online unless it does.

    An agent's sweep gets its values from the server alone, so an offline run would leave it waiting for nothing.
    """
    asked = os.environ.get("WANDB_MODE", "")
    if config.track == "off" or asked in _AS_OFF:
        return "off"
    if asked in _AS_OFFLINE:
        return "offline"
    return "online" if os.environ.get("WANDB_SWEEP_ID") else config.track


def check_available(mode: str) -> None:
    """Import wandb if `mode` needs it, before anything is created on disk.

    Raises:
        ConfigError: it is not installed, or does not import.
    """
    if mode == "off":
        return
    try:
        if not hasattr(importlib.import_module("wandb"), "init"):  # a stray folder called wandb imports, too
            raise ImportError("no module named wandb")
    except ImportError as error:
        raise ConfigError(f"track={mode!r} needs wandb ({error}): pip install wandb, or give --track off") from error
    except Exception as error:  # of any kind: a broken installation, or one for another Python
        problem = f"{type(error).__name__}: {error}"
        raise ConfigError(f"track={mode!r}: wandb does not import ({problem}); mend it, or give --track off") from error


def check_agents_values(config: Config) -> None:
    """Compare a run that a W&B agent started with the values in its file: W&B records those as the run's.

    Raises:
        ConfigError: a field or option has another value here, or the file cannot be read.
    """
    path = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if not path or config.track == "off":
        return
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        values = {name: given["value"] for name, given in found.items() if isinstance(given, dict) and "value" in given}
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"WANDB_SWEEP_PARAM_PATH={path}: cannot be read as an agent's values ({reason})") from error
    defaults = {name: option.default for name, option in config.known_options().items()}
    here = defaults | config.as_record()
    for name, value in values.items():
        if name in here and here[name] != value and str(here[name]) != str(value):
            raise ConfigError(
                f"{name}: {value!r} in the agent's {path}, {here[name]!r} in the flags; W&B would record what was not "
                f"trained: expected the sweep's command to pass --{name}, as ${{args}} does"
            )


def start_tracker(config: Config, mode: str, run_dir: Path, run_id: str, extra_config: Mapping[str, Any]) -> Observer:
    """The tracker for `mode`. When W&B does not start, one warning is given and the run continues without it."""
    if mode == "off":
        return Observer()
    tracker = WandbTracker()
    tracker.start(config, mode, run_dir, run_id, extra_config)
    return tracker


def tags_of(config: Config) -> list[str]:
    """W&B's tags of a run; at most 64 letters each, which is W&B's limit."""
    own = [tag.strip() for tag in (config.tags or "").split(",") if tag.strip()]
    return list(dict.fromkeys(tag[-64:] for tag in (config.data, config.model, config.backend, *own)))


class WandbTracker(Observer):
    """A W&B run. The first call that fails, or does not end within its limit, is reported once and ends tracking."""

    def __init__(self) -> None:
        self._run: Any = None
        self._wandb: Any = None
        self._calls = BoundedCalls()
        self._job: Job | None = None

    def start(self, config: Config, mode: str, run_dir: Path, run_id: str, extra_config: Mapping[str, Any]) -> None:
        """Open the W&B run `run_id`, or resume it; `extra_config` is kept with the settings.

        Online, where the server is not to be reached or has no key, it is opened offline, for a later `wandb sync`.
        """

        def begin(mode: str) -> None:
            files = Path(os.environ.get("WANDB_DIR") or run_dir)
            folder = (files / "wandb").resolve()
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
                job_type="train",
                tags=tags_of(config),
                name=config.name or run_dir.resolve().name,
                id=run_id,
                resume="allow",
                mode=mode,
                dir=str(files),
                config={**config.as_record(), **extra_config},
                settings=settings,
            )
            self._run.define_metric("*", step_metric="step")
            for axis in ("step", "epoch", "time_s"):
                self._run.define_metric(axis, hidden=True)
            for metric, best in (("val/accuracy", "max"), ("val/loss", "min")):
                self._run.define_metric(metric, step_metric="step", summary=best)

        def online_or_offline() -> None:
            try:
                begin(mode)
            except Exception as error:
                if mode != "online":
                    raise
                begin("offline")
                reason = " ".join(str(error).split()) or type(error).__name__
                folder = Path(self._run.dir).parent if getattr(self._run, "dir", None) else run_dir / "wandb"
                print(f"warning: W&B is not reached ({reason}); tracked offline: wandb sync {folder}", file=sys.stderr)

        self._guarded(online_or_offline)

    def row(self, row: Mapping[str, Any]) -> None:
        """One row of metrics with its `step`."""
        if self._run is not None:
            self._within(LOG_LIMIT_S, lambda: self._run.log(dict(row)))

    def tested(self, result: Evaluation, step: int) -> None:
        """The confusion matrix as W&B's own chart, and the checkpoint as an artifact where that is asked for."""
        if self._run is not None and self._job is not None:
            names = list(self._job.data.class_names)
            true, predicted = (side.tolist() for side in result.confusion.nonzero(as_tuple=True))
            counts = result.confusion[true, predicted]
            answers = {
                "y_true": torch.tensor(true).repeat_interleave(counts).tolist(),
                "preds": torch.tensor(predicted).repeat_interleave(counts).tolist(),
            }
            chart = {"step": step}
            self._within(
                LOG_LIMIT_S,
                lambda: self._run.log(
                    chart | {"confusion_plot": self._wandb.plot.confusion_matrix(class_names=names, **answers)}
                ),
            )
        if self._run is not None and self._job is not None and self._job.config.artifact:
            self._within(FINISH_LIMIT_S, self._keep_best)

    def _keep_best(self) -> None:
        assert self._job is not None
        artifact = self._wandb.Artifact(f"{self._job.config.model}-{self._run.id}", type="model")
        artifact.add_file(str(self._job.run_dir / CHECKPOINTS / BEST))
        self._run.log_artifact(artifact, aliases=["best"])

    def began(self, job: Job, progress: Progress) -> None:
        """Remember the job."""
        self._job = job

    def histogram(self, name: str, counts: Tensor, edges: Tensor, step: int) -> None:
        """A histogram under `name`."""
        if self._run is not None:
            bins = counts.numpy(), edges.numpy()
            self._within(
                LOG_LIMIT_S, lambda: self._run.log({"step": step, name: self._wandb.Histogram(np_histogram=bins)})
            )

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """A table under `name`."""
        if self._run is not None:
            self._within(
                LOG_LIMIT_S,
                lambda: self._run.log(
                    {"step": step, name: self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])}
                ),
            )

    def image(self, name: str, path: Path, step: int) -> None:
        """The image in a file, under `name`."""
        if self._run is not None:
            self._within(LOG_LIMIT_S, lambda: self._run.log({"step": step, name: self._wandb.Image(str(path))}))

    def ended(self, summary: Mapping[str, Any], exit_code: int) -> None:
        """Write the summary and close the W&B run."""
        if self._run is not None:
            self._within(LOG_LIMIT_S, lambda: self._run.summary.update(dict(summary)))
        if self._run is not None:
            self._within(FINISH_LIMIT_S, lambda: self._run.finish(exit_code=exit_code))
        if self._run is None and self._wandb is not None:
            # W&B failed. Its own clean-up at interpreter exit would print a traceback when its service has died, and
            # wait for ever when it hangs.
            if self._calls.hang:
                kill_services()
            with contextlib.suppress(Exception):
                self._calls.run(lambda: self._wandb.teardown(exit_code), LOG_LIMIT_S)

    def _within(self, limit_s: float, call: Callable[[], None]) -> None:
        self._guarded(lambda: self._calls.run(call, limit_s))

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
