"""Runs a sweep's points in parallel processes until every one has a lasting outcome."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tidepool.sweeping import children, records
from tidepool.sweeping.command import build_argv, write_args_file
from tidepool.sweeping.hyperband import runs_to_stop
from tidepool.sweeping.ledger import HEARTBEAT_S, LASTING, Claim, Ledger, Result
from tidepool.sweeping.machine import run_environment
from tidepool.sweeping.points import Point
from tidepool.sweeping.progress import Progress
from tidepool.sweeping.spec import Sweep

STOP_GRACE_S = 30.0  # for a run to save a checkpoint
_DIVERGED, _REFUSED = 3, 2
_ATTEMPTS = 2
_POLL_S = 0.1
_LOOK_S = 1.0  # between looks at the database while nothing happens here
_JUDGE_S = 1.0  # between looks at the runs' metrics for early stopping


@dataclass
class _Running:
    claim: Claim
    child: children.Child
    run_dir: Path
    worker: int
    stopped_early: bool = False


@dataclass
class Ending:
    """How `Runner.run` ended. `signal`: the signal that stopped it; `refusal`: a run's own complaint about its
    arguments, which would be every run's."""

    results: list[Result]
    signal: int | None = None
    refusal: str | None = None
    target_reached: bool = False


@dataclass
class Runner:
    """Runs what is left of a sweep with `workers` processes at a time, each with one of `gpus` where there are any."""

    sweep: Sweep
    ledger: Ledger
    directory: Path
    points: list[Point]
    workers: int
    gpus: list[str]
    progress: Progress
    grace_s: float = STOP_GRACE_S
    _running: list[_Running] = field(default_factory=list)
    _signals: list[int] = field(default_factory=list)
    _refusal: str | None = None
    _target_reached: bool = False

    def run(self) -> Ending:
        """Run until every point has a lasting outcome, a signal comes, or a run refuses its arguments.

        The first SIGINT, SIGTERM or SIGHUP asks the runs to save and end, the second kills them.
        """
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            self._loop()
        finally:
            for running in self._running:
                running.child.kill()
            for number, handler in before.items():
                signal.signal(number, handler)
        stopped_by = self._signals[0] if self._signals else None
        return Ending(self.ledger.results(self.points), stopped_by, self._refusal, self._target_reached)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    @property
    def _stopping(self) -> bool:
        return bool(self._signals) or self._refusal is not None

    def _loop(self) -> None:
        results = self.ledger.results(self.points)
        self.progress.begin(results)
        self._check_target(results)
        look, beat, judge = _Every(_LOOK_S), _Every(HEARTBEAT_S), _Every(_JUDGE_S)
        while True:
            if self._stopping:
                self._stop_children()
            if self._settle_ended():
                look.at_once()
            if not self._running and (self._stopping or self._target_reached):
                return
            if look.due() and not self._stopping:
                self.ledger.recover()
                self._fill_workers()
                results = self.ledger.results(self.points)
                self.progress.seen(results, running_here=len(self._running))
                if not self._running and all(result.outcome in LASTING for result in results):
                    return
            if beat.due():
                self.ledger.beat([running.claim for running in self._running])
            if self.sweep.early_terminate and judge.due():
                self._stop_early()
            time.sleep(_POLL_S)

    def _stop_children(self) -> None:
        for running in self._running:
            if len(self._signals) > 1:
                running.child.kill()
            else:
                running.child.stop(self.grace_s)

    def _fill_workers(self) -> None:
        allowed = {point.key for point in self.points}
        while len(self._running) < self.workers and not (self._stopping or self._target_reached):
            claim = self.ledger.claim(allowed)
            if claim is None:
                return
            self._start(claim)

    def _start(self, claim: Claim) -> None:
        run_dir = self._run_dir(claim)
        run_dir.mkdir(parents=True, exist_ok=True)
        status = records.read_summary(run_dir).get("status")
        if status in ("finished", "diverged"):  # ended, but its sweep was killed before it could say so
            self._record(claim, run_dir, str(status), reason=None, seconds=None)
            return
        params = self.sweep.run_params(claim.point.params or {}, run_dir)
        write_args_file(self.sweep.command, params, run_dir)
        argv = build_argv(self.sweep.command, program=self.sweep.program, params=params, run_dir=run_dir)
        worker = min(set(range(self.workers)) - {running.worker for running in self._running})
        environment = run_environment(worker, self.workers, self.gpus, entity=self.sweep.entity)
        try:
            child = children.start(argv, run_dir / children.LOG, environment)
        except OSError as error:
            self._refusal = f"{argv[0]}: cannot be started ({error.strerror})"
            self.ledger.put_back(claim, "refused", attempt=claim.attempt)
            return
        self._running.append(_Running(claim, child, run_dir, worker))
        self.ledger.record_child(claim, child.identity)
        self.progress.started(claim.point, len(self._running))

    def _run_dir(self, claim: Claim) -> Path:
        assert claim.point.folder is not None  # a claimed point is drawn
        return self.directory / claim.point.folder

    def _settle_ended(self) -> bool:
        any_ended = False
        for running in list(self._running):
            code = running.child.poll()
            if code is None:
                running.child.enforce()
                continue
            self._running.remove(running)
            self._settle(running, code)
            any_ended = True
        return any_ended

    def _settle(self, running: _Running, code: int) -> None:
        claim, run_dir = running.claim, running.run_dir
        seconds = time.monotonic() - running.child.started_at
        status = records.read_summary(run_dir).get("status")
        last_line = records.last_line(run_dir / children.LOG)
        if code == 0 and status in ("finished", "diverged"):
            self._record(claim, run_dir, str(status), reason=None, seconds=seconds)
        elif code == _DIVERGED or status == "diverged":
            self._record(claim, run_dir, "diverged", reason=last_line or "diverged", seconds=seconds)
        elif running.stopped_early:
            self._record(claim, run_dir, "stopped", reason="stopped early by hyperband", seconds=seconds)
        elif self._stopping:
            self.ledger.put_back(claim, "interrupted", attempt=claim.attempt)
        elif code == _REFUSED:
            self._refusal = last_line or f"{claim.point.folder}: exit code 2 without a word"
            self.ledger.put_back(claim, "refused", attempt=claim.attempt)
        elif claim.attempt < _ATTEMPTS:
            self.ledger.put_back(claim, "retried", attempt=claim.attempt + 1)
            self.progress.retried(claim.point, _exit_words(code), last_line)
        else:
            reason = f"{_exit_words(code)}: {last_line}" if last_line else _exit_words(code)
            self._record(claim, run_dir, "failed", reason=reason, seconds=seconds)

    def _record(self, claim: Claim, run_dir: Path, outcome: str, *, reason: str | None, seconds: float | None) -> None:
        metric, value = self.sweep.metric, None
        if metric is not None and outcome == "finished":
            value = records.metric_value(run_dir, metric.name)
            if value is None:
                reason = f"finished without a value of {metric.name}"
                if self.sweep.method == "bayes":  # the search has nothing to learn from such a run
                    outcome = "failed"
        if outcome == "failed":
            params = self.sweep.run_params(claim.point.params or {}, run_dir)
            records.write_failure(run_dir, params, reason or "failed")
        self.ledger.finish(claim, outcome, value=value, reason=reason)
        self.progress.ended(claim.point, outcome, records.read_summary(run_dir), value, reason, seconds)
        self._check_target([Result(claim.point.key, outcome, claim.point.folder, value)])

    def _check_target(self, results: list[Result]) -> None:
        metric = self.sweep.metric
        if metric is None or metric.target is None:
            return
        for result in results:
            if result.value is not None and (
                result.value >= metric.target if metric.maximize else result.value <= metric.target
            ):
                self._target_reached = True

    def _stop_early(self) -> None:
        rule, metric = self.sweep.early_terminate, self.sweep.metric
        assert rule is not None
        assert metric is not None  # read_sweep refuses early_terminate without one
        folders = [result.folder for result in self.ledger.results(self.points) if result.folder]
        histories = {folder: records.metric_history(self.directory / folder, metric.name) for folder in folders}
        running = {item.run_dir.name: item for item in self._running if item.child.stop_at is None}
        for name in runs_to_stop(histories, list(running), rule, maximize=metric.maximize):
            running[name].stopped_early = True
            running[name].child.stop(self.grace_s)


def _exit_words(code: int) -> str:
    if code == 0:
        return "exit code 0 but no record of a finished run"
    if code <= 128:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(code - 128).name}"
    except ValueError:
        return f"exit code {code}"


class _Every:
    """True once every `seconds`, the first time at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._next = seconds, 0.0

    def at_once(self) -> None:
        self._next = 0.0

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
