"""Runs a sweep's points in parallel processes until every one has a lasting outcome."""

from __future__ import annotations

import shlex
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tidepool.sweeping import children, records
from tidepool.sweeping.command import build_argv, write_args_file
from tidepool.sweeping.early_stopping import EarlyStopping
from tidepool.sweeping.ledger import HEARTBEAT_S, Claim, Ledger, Result
from tidepool.sweeping.machine import run_environment
from tidepool.sweeping.points import Point
from tidepool.sweeping.progress import Progress
from tidepool.sweeping.spec import Sweep
from tidepool.sweeping.storage import STORAGE_ERRORS, storage_reason
from tidepool.sweeping.words import counted, duration

STOP_GRACE_S = 30.0  # for a run to save a checkpoint
FIRST_REFUSED = 10  # so many refused before anything else has happened, and the sweep is what is wrong
_DIVERGED, _REFUSED = 3, 2
_POLL_S = 0.1
_LOOK_S = 1.0  # between looks at the database while nothing happens here
_JUDGE_S = 1.0  # between looks at the runs' metrics for early stopping


@dataclass(frozen=True)
class Limits:
    """When to stop: `retries` of a run that fails, `max_failures` of points, `budget_s` for the sweep by this process,
    `run_limit_s` for one run; None for no limit."""

    retries: int = 1
    max_failures: int | None = None
    budget_s: float | None = None
    run_limit_s: float | None = None


@dataclass
class _Running:
    claim: Claim
    child: children.Child
    run_dir: Path
    worker: int
    stopped_early: bool = False
    over_limit: bool = False


@dataclass
class Ending:
    """How `Runner.run` ended. `signal`: the signal that stopped it; `gave_up`: why it stopped before every point had
    been tried; `over_budget`: because its time was up."""

    results: list[Result]
    signal: int | None = None
    gave_up: str | None = None
    over_budget: bool = False
    target_reached: bool = False


@dataclass
class Runner:
    """Runs what is left of a sweep with `workers` processes at a time, each with one of `gpus` where there are any."""

    sweep: Sweep
    ledger: Ledger
    directory: Path
    workers: int
    gpus: list[str]
    progress: Progress
    limits: Limits = field(default_factory=Limits)
    grace_s: float = STOP_GRACE_S
    _running: list[_Running] = field(default_factory=list)
    _signals: list[int] = field(default_factory=list)
    _ended: dict[str, str] = field(default_factory=dict)
    _refusal: str = ""
    _gave_up: str | None = None
    _over_budget: bool = False
    _target_reached: bool = False

    def run(self) -> Ending:
        """Run until every point has a lasting outcome, a signal comes, or a limit is met.

        The first SIGINT, SIGTERM or SIGHUP asks the runs to save and end, the second kills them. Where the storage
        does not come back the runs are asked to save and end, and the storage's error is raised.
        """
        self._ends_at = time.monotonic() + (self.limits.budget_s or float("inf"))
        self._early = EarlyStopping(self.sweep, self.ledger, self.directory)
        self.ledger.on_trouble = self._wait_for_storage
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            self._loop()
        except STORAGE_ERRORS:
            if not self._signals:
                raise
        finally:
            self._end_gently()
            for number, handler in before.items():
                signal.signal(number, handler)
        stopped_by = self._signals[0] if self._signals else None
        return Ending(self.ledger.results(), stopped_by, self._gave_up, self._over_budget, self._target_reached)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    @property
    def _stopping(self) -> bool:
        return bool(self._signals) or self._gave_up is not None or self._over_budget

    def _loop(self) -> None:
        self._take_news()
        self.progress.begin(len(self._ended))
        look, beat, judge = _Every(_LOOK_S), _Every(HEARTBEAT_S), _Every(_JUDGE_S)
        while True:
            self._check_limits()
            if self._stopping:
                self._stop_children()
            if self._settle_ended():
                look.at_once()
            if not self._running and (self._stopping or self._target_reached):
                return
            if look.due() and not self._stopping:
                self.ledger.recover()
                self._fill_workers()
                self._see()
                if not self._running and len(self._ended) == self.ledger.total:
                    return
            if beat.due():
                self.ledger.beat([running.claim for running in self._running])
            if self.sweep.early_terminate and judge.due():
                self._stop_early()
            time.sleep(_POLL_S)

    def _take_news(self) -> None:
        """Count the points that have ended since the last look, here or elsewhere."""
        for result in self.ledger.news():
            self._ended[result.key] = result.outcome
            if result.outcome == "refused":
                self._refusal = result.reason or "no reason given"
            self._check_target(result)

    def _see(self) -> None:
        self._take_news()
        elsewhere = len(self.ledger.running()) - len(self._running)
        waiting = self.ledger.total - len(self._ended) - len(self._running) - elsewhere
        self.progress.seen(len(self._ended), waiting=waiting, elsewhere=elsewhere, here=len(self._running))

    def _check_limits(self) -> None:
        now = time.monotonic()
        self._over_budget = self._over_budget or now > self._ends_at
        if self.limits.max_failures is not None or len(self._ended) <= FIRST_REFUSED:
            self._check_outcomes(Counter(self._ended.values()))
        for running in self._running:
            limit = self.limits.run_limit_s
            if limit is not None and now > running.child.started_at + limit and not running.over_limit:
                running.over_limit = True
                running.child.stop(self.grace_s)

    def _check_outcomes(self, outcomes: Counter[str]) -> None:
        bad = outcomes["failed"] + outcomes["diverged"] + outcomes["refused"]
        if self.limits.max_failures is not None and bad >= self.limits.max_failures:
            self._gave_up = f"{counted(bad, 'point')} failed, diverged or were refused, and --max_failures is reached"
        if outcomes["refused"] == len(self._ended) >= min(FIRST_REFUSED, self.ledger.total):
            self._gave_up = f"the first {counted(len(self._ended), 'run')} refused their arguments: {self._refusal}"

    def _stop_children(self) -> None:
        for running in self._running:
            if len(self._signals) > 1:
                running.child.kill()
            else:
                running.child.stop(self.grace_s)

    def _end_gently(self) -> None:
        """Ask what still runs to save and end, and wait for it; only a second signal kills."""
        deadline = time.monotonic() + self.grace_s
        while self._running and time.monotonic() < deadline:
            self._stop_children()
            self._running = [running for running in self._running if running.child.poll() is None]
            time.sleep(_POLL_S if self._running else 0)
        for running in self._running:
            self.progress.say(f"still running: {running.run_dir} (process {running.child.process.pid})")

    def _wait_for_storage(self, error: Exception, seconds: float) -> None:
        """Wait before the storage is tried again; raises `error` where the sweep was told to stop."""
        self.progress.say(f"the storage does not answer ({storage_reason(error)}); trying again in {duration(seconds)}")
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if self._signals:
                raise error
            time.sleep(_POLL_S)

    def _fill_workers(self) -> None:
        while len(self._running) < self.workers:
            self._take_news()
            self._check_limits()
            claim = None if self._stopping or self._target_reached else self.ledger.claim()
            if claim is None:
                return
            self._start(claim)

    def _start(self, claim: Claim) -> None:
        run_dir = self._run_dir(claim.point)
        run_dir.mkdir(parents=True, exist_ok=True)
        status = records.read_summary(run_dir).get("status")
        if status in ("finished", "diverged"):  # ended, but its sweep was killed before it could say so
            self._record(claim, run_dir, str(status), reason=None, seconds=None)
            return
        swept = dict(claim.point.params or {})
        params = self.sweep.run_params(swept, run_dir)
        records.write_point(run_dir, swept, shlex.join(self.sweep.repeating_argv(swept)))
        write_args_file(self.sweep.command, params, run_dir)
        argv = build_argv(self.sweep.command, program=self.sweep.program, params=params, run_dir=run_dir)
        worker = min(set(range(self.workers)) - {running.worker for running in self._running})
        environment = run_environment(worker, self.workers, self.gpus, entity=self.sweep.entity)
        try:
            child = children.start(argv, run_dir / children.LOG, environment)
        except OSError as error:
            reason = f"{argv[0]}: cannot be started ({error.strerror})"
            self._record(claim, run_dir, "refused", reason=reason, seconds=None)
            return
        self._running.append(_Running(claim, child, run_dir, worker))
        self.ledger.record_child(claim, child.identity)
        self.progress.started(claim.point, len(self._running))

    def _run_dir(self, point: Point) -> Path:
        assert point.folder is not None  # a claimed point is drawn
        return self.directory / point.folder

    def _settle_ended(self) -> bool:
        any_ended = False
        for running in list(self._running):
            code = running.child.poll()
            if code is None:
                running.child.enforce()
                continue
            self._settle(running, code)
            self._running.remove(running)
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
        elif running.over_limit:
            reason = f"took longer than --run_limit_s, {duration(self.limits.run_limit_s or 0)}"
            self._record(claim, run_dir, "failed", reason=reason, seconds=seconds)
        elif self._stopping:
            self.ledger.put_back(claim, "interrupted", attempt=claim.attempt)
        elif code == _REFUSED:
            reason = last_line or "exit code 2 without a word"
            self._record(claim, run_dir, "refused", reason=reason, seconds=seconds)
        elif claim.attempt <= self.limits.retries:
            self.ledger.put_back(claim, "retried", attempt=claim.attempt + 1)
            self.progress.retried(claim.point, _exit_words(code), last_line)
        else:
            reason = f"{_exit_words(code)}: {last_line}" if last_line else _exit_words(code)
            self._record(claim, run_dir, "failed", reason=reason, seconds=seconds)

    def _record(self, claim: Claim, run_dir: Path, outcome: str, *, reason: str | None, seconds: float | None) -> None:
        values: tuple[float, ...] = ()
        if outcome == "finished":
            values = records.metric_values(run_dir, self.sweep.metrics)
            if self.sweep.metrics and not values:
                missing = [m.name for m in self.sweep.metrics if records.metric_value(run_dir, m.name) is None]
                reason = f"finished without a value of {', '.join(missing)}"
                if self.sweep.method == "bayes":  # the search has nothing to learn from such a run
                    outcome = "failed"
        if outcome in ("failed", "refused"):
            params = self.sweep.run_params(claim.point.params or {}, run_dir)
            records.write_failure(run_dir, params, f"refused: {reason}" if outcome == "refused" else reason or "failed")
        self._early.last_look(run_dir, claim)
        self.ledger.finish(claim, outcome, values=values, reason=reason)
        self.progress.ended(claim.point, outcome, records.read_summary(run_dir), values, reason, seconds)
        self.ledger.recover()
        self._take_news()

    def _check_target(self, result: Result) -> None:
        metric = self.sweep.metric
        if metric is None or metric.target is None or not result.values:
            return
        value = result.values[0]
        if value >= metric.target if metric.maximize else value <= metric.target:
            self._target_reached = True

    def _stop_early(self) -> None:
        mine = {item.run_dir: item for item in self._running if item.child.stop_at is None}
        for run_dir in self._early.runs_to_stop({run_dir: item.claim for run_dir, item in mine.items()}):
            mine[run_dir].stopped_early = True
            mine[run_dir].child.stop(self.grace_s)


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
