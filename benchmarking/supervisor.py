"""Fresh processes, one after another: each replicate is one, and a crash costs the backend that caused it, no more."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from tidepool.benchmarking import machine
from tidepool.benchmarking.budget import Budget
from tidepool.benchmarking.cases import Case
from tidepool.benchmarking.comparison import (
    CRASHED,
    Comparison,
    check_row,
    checked,
    remaining,
    timing_row,
    unchecked,
)
from tidepool.benchmarking.jobs import Job
from tidepool.benchmarking.records import checks, timings
from tidepool.benchmarking.session import IN_PROGRESS, Announce
from tidepool.benchmarking.state import State
from tidepool.installation import AS_MODULE, child_environment

Spawn = Callable[[Job], int]
"""Starts a job in a process of its own and returns its exit code."""

WORKER = (*AS_MODULE, "tidepool.benchmarking.worker")
LEAST_S = 5.0
"""A process is not started for less: importing PyTorch takes most of that."""
GRACE_S = 15.0
STOPPED = 128 + signal.SIGTERM
HANG_S = 120.0
"""One step of one backend, compilation included, that takes longer and is still not done has hung."""
MOST_CRASHES = 20
STOPPED_IN = "stopped_in"
_RUNNING: set["subprocess.Popen[bytes]"] = set()


class WorkerError(RuntimeError):
    """A process ended in a way that another attempt would repeat. The message is one line."""


def spawn_worker(job: Job, *, quiet: bool = False) -> int:
    """Run a job as `benchmarking.worker`; stop it when its budget is over and it does not end by itself."""
    environment = child_environment()
    environment[machine.COMMAND_VARIABLE] = machine.command_line()
    command = [sys.executable, *WORKER, job.text(), *(["--quiet"] if quiet else [])]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    _RUNNING.add(process)
    try:
        return _exit_code(process.wait(None if job.budget_s is None else job.budget_s))
    except subprocess.TimeoutExpired:
        return STOPPED
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            process.kill()
            process.wait()
        _RUNNING.discard(process)


def run_replicate(
    comparison: Comparison, device: torch.device, budget: Budget, spawn: Spawn, announce: Announce
) -> bool:
    """Measure a comparison in a process of its own, and in another one after a crash; whether nothing remains.

    Raises WorkerError where a process fails without having begun anything.
    """
    crashes = 0
    while remaining(comparison, device):
        if budget.left() < LEAST_S:
            return False
        code = spawn(Job("time", comparison, _seconds(budget)))
        if code == STOPPED:
            _note_stop(comparison, device, announce)
            return False
        if code == 0:
            break
        crashes += 1
        if not _blame(comparison, device, code, announce) or crashes > MOST_CRASHES:
            raise WorkerError(f"a benchmark process ended with exit code {code} before it had begun to measure")
    return not remaining(comparison, device)


def run_checks(
    comparison: Comparison, device: torch.device, budget: Budget, spawn: Spawn, announce: Announce, *, at_once: int
) -> bool:
    """Check what is unchecked, `at_once` processes side by side: nothing is timed, and each compiles its share.

    What a process that failed has left is checked a case a process; a case that fails alone is put down as crashed.
    Returns whether nothing is left.
    """
    if budget.left() < LEAST_S:
        return False
    cases = unchecked(comparison, device)
    shares = [share for index in range(at_once) if (share := cases[index::at_once])]
    jobs = [Job("check", replace(comparison, cases=share), _seconds(budget)) for share in shares]
    codes = _side_by_side(spawn, jobs)
    left = unchecked(comparison, device)
    for share, code in zip(shares, codes, strict=True):
        for case in share if code not in (0, STOPPED) else ():
            if case not in left:
                continue
            if budget.left() < LEAST_S:
                return False
            code_alone = spawn(Job("check", replace(comparison, cases=(case,)), _seconds(budget)))
            if code_alone not in (0, STOPPED):
                _check_crashed(comparison, device, case, code_alone)
                announce(f"{case.name}: the process that checked it ended with exit code {code_alone}")
    return not unchecked(comparison, device)


def _side_by_side(spawn: Spawn, jobs: Sequence[Job]) -> list[int]:
    """Exit codes of jobs run at the same time. Whatever stops this process, Ctrl-C or SIGTERM, ends them first."""
    with ThreadPoolExecutor(max_workers=max(len(jobs), 1)) as threads:
        futures = [threads.submit(spawn, job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for process in tuple(_RUNNING):
                process.terminate()
            raise


def _check_crashed(comparison: Comparison, device: torch.device, case: Case, code: int) -> None:
    environment = machine.machine_record(device, comparison.packages)
    found = checked(comparison, environment)
    reason = f"the process ended with exit code {code}"
    rows = [
        check_row(comparison, environment, case, backend, CRASHED, reason)
        for backend in comparison.backends
        if (case.name, backend.name) not in found
    ]
    checks(comparison.out).append(rows)


def run_once(kind: str, comparison: Comparison, budget: Budget, spawn: Spawn) -> bool:
    """Run a job that records its own progress; whether it came to its end within the budget. Raises WorkerError."""
    if budget.left() < LEAST_S:
        return False
    code = spawn(Job(kind, comparison, _seconds(budget)))
    if code not in (0, STOPPED):
        raise WorkerError(f"the process for {kind!r} ended with exit code {code}")
    return code == 0


def _blame(comparison: Comparison, device: torch.device, code: int, announce: Announce) -> bool:
    """Record as crashed what was in progress when a process ended with `code`; False where nothing was."""
    state = State(comparison.out)
    found = state.get(IN_PROGRESS)
    if not found:
        return False
    state.put(IN_PROGRESS, None)
    case = next((case for case in comparison.cases if case.name == found.get("case")), None)
    backend = next((backend for backend in comparison.backends if backend.name == found.get("backend")), None)
    if case is None or backend is None:
        return False
    reason = f"the process ended with exit code {code} during: {found.get('step')}"
    record = machine.machine_record(device, comparison.packages)
    rows = [
        timing_row(comparison, record, f"crashed-{machine.now()}", case, pass_, backend, CRASHED, reason)
        for pass_ in comparison.passes_of(case)
    ]
    timings(comparison.out).append(rows)
    announce(f"{case.name}: {backend.name} is not timed: {reason}")
    return True


def _note_stop(comparison: Comparison, device: torch.device, announce: Announce) -> None:
    """Remember what a process that outlived its budget was doing, if for long; the second time, call it a crash."""
    state = State(comparison.out)
    found = state.get(IN_PROGRESS)
    if not found or time.time() - found["begun_s"] < HANG_S:
        return
    what = {name: value for name, value in found.items() if name != "begun_s"}
    if what == state.get(STOPPED_IN):
        _blame(comparison, device, STOPPED, announce)
    state.put(STOPPED_IN, what)


def _seconds(budget: Budget) -> float | None:
    return None if budget.seconds is None else budget.left()


def _exit_code(code: int) -> int:
    """The code as a shell has it: 128 + signal where one ended the process."""
    return code if code >= 0 else 128 - code
