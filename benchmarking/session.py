"""One process of a comparison: every case checked, timed against its opponents, checked again, and written down.

Within a pass the backends take turns A B C, C B A, so that a card that warms up or slows down does so for all of them.
What a call has measured is in `timings.csv` before the next pass begins; a later session appends to it.
"""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from tidepool.benchmarking import machine
from tidepool.benchmarking.budget import Budget
from tidepool.benchmarking.cases import Case, LayerCase
from tidepool.benchmarking.ceilings import Ceilings
from tidepool.benchmarking.comparison import (
    CRASHED,
    FAILED,
    OUT_OF_MEMORY,
    RIGHT,
    TIMED,
    UNSUPPORTED,
    WRONG,
    Comparison,
    check_row,
    checked,
    measured,
    remaining,
    timing_row,
)
from tidepool.benchmarking.correctness import NotJudgedError
from tidepool.benchmarking.model_workload import ModelWorkload
from tidepool.benchmarking.opponents import Backend, UnsupportedError
from tidepool.benchmarking.precision import set_precision
from tidepool.benchmarking.records import checks, timings
from tidepool.benchmarking.state import State
from tidepool.benchmarking.workload import LayerWorkload, Timed, Workload
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.kernels.runtime.timing import Timer, percentile

IN_PROGRESS = "in_progress"
Announce = Callable[[str], None]


class DeviceLostError(RuntimeError):
    """The GPU answers this process no more: only a new one can continue."""


class Session:
    """One process that measures `comparison` on `device`; `process` names it in its rows."""

    def __init__(
        self,
        comparison: Comparison,
        device: torch.device,
        timer: Timer,
        budget: Budget,
        announce: Announce,
        ceilings: Callable[[torch.dtype], Ceilings],
    ) -> None:
        self.comparison, self.device, self.timer = comparison, device, timer
        self.budget, self.announce = budget, announce
        self.state = State(comparison.out)
        self.machine = machine.machine_record(device, comparison.packages)
        self.process = f"{time.time_ns():x}-{os.getpid()}"
        set_precision(comparison.dtype)
        self.dtype = BY_NAME[comparison.dtype]
        self._measure_ceilings, self._ceilings = ceilings, None

    _ceilings: Ceilings | None
    _measured: dict[tuple[str, str, str], str]

    def run(self) -> None:
        """Measure what remains, as far as the budget goes. Raises DeviceLostError, RecordError."""
        self.state.put(IN_PROGRESS, None)
        self._measured = measured(self.comparison, self.device)
        left = remaining(self.comparison, self.device)
        for case in dict.fromkeys(case for case, _ in left):
            passes = [pass_ for other, pass_ in left if other is case]
            if not self.budget.allows("case"):
                return
            begun = self.budget.now()
            ended = self._case(case, passes)
            _free(self.device)
            if not ended:
                return
            self.budget.took("case", self.budget.now() - begun)

    def check(self) -> None:
        """Hold every case to the error rule on every backend, as far as the budget goes, and time nothing."""
        found = checked(self.comparison, self.machine)
        for case in self.comparison.cases:
            left = [backend for backend in self.comparison.backends if (case.name, backend.name) not in found]
            if not left:
                continue
            if not self.budget.allows("check"):
                return
            begun = self.budget.now()
            workload = self._workload(case)
            words = [f"{backend.name} {self._checked(case, workload, backend)[0]}" for backend in left]
            self.announce(f"{case.name}, {self.comparison.dtype}: {', '.join(words)}")
            self.budget.took("check", self.budget.now() - begun)
            _free(self.device)

    def _case(self, case: Case, passes: Sequence[str]) -> bool:
        """Check, time and check again; whether there was time for all of it."""
        workload = self._workload(case)
        right: list[Backend] = []
        crashed = {name for (of, _, name), status in self._measured.items() if of == case.name and status == CRASHED}
        for backend in self.comparison.backends:
            if backend.name in crashed:
                continue
            self._mark(case, backend, "check")
            status, reason = self._checked(case, workload, backend)
            if status == RIGHT:
                right.append(backend)
            else:
                self._write([self._row(case, pass_, backend, status, reason) for pass_ in passes])
        for pass_ in passes if right else []:
            if not self.budget.allows(f"pass {case.name}"):
                return False
            begun = self.budget.now()
            self._pass(case, workload, pass_, right)
            self.budget.took(f"pass {case.name}", self.budget.now() - begun)
        self.state.put(IN_PROGRESS, None)
        return True

    def _workload(self, case: Case) -> Workload:
        seed = self.comparison.seed + 1000 * self.comparison.replicate
        if isinstance(case, LayerCase):
            tf32 = self.comparison.dtype == "tf32"
            return LayerWorkload(case, self.dtype, self.device, tf32=tf32, seed=seed)
        return ModelWorkload(case, self.dtype, self.device, seed=seed)

    def _checked(self, case: Case, workload: Workload, backend: Backend) -> tuple[str, str | None]:
        """Status and reason of a backend on a case, written to correctness.csv."""
        judged: dict[str, Any] = {}
        with _Attempt(self.device) as attempt:
            workload.build(backend)
            judged = workload.judged()
            reason = workload.wrong(backend)
            attempt.status, attempt.reason = (RIGHT, None) if reason is None else (WRONG, reason)
        row = check_row(self.comparison, self.machine, case, backend, attempt.status, attempt.reason, judged)
        checks(self.comparison.out).append([row])
        if attempt.status != RIGHT:
            self.announce(f"{case.name}: {backend.name} is not timed: {attempt.status} ({attempt.reason})")
        return attempt.status, attempt.reason

    def _pass(self, case: Case, workload: Workload, pass_: str, right: Sequence[Backend]) -> None:
        rows, timed, memory = [], {}, {}
        for backend in right:
            self._mark(case, backend, pass_)
            with _Attempt(self.device) as attempt:
                timed[backend] = workload.timed(backend, pass_, graph=self.comparison.cuda_graph)
                memory[backend] = self._peak_memory(timed[backend])
                attempt.status = TIMED
            if attempt.status != TIMED:
                timed.pop(backend, None)
                rows.append(self._row(case, pass_, backend, attempt.status, attempt.reason))
        samples: dict[Backend, list[float]] = {backend: [] for backend in timed}
        failed: dict[Backend, tuple[str, str | None]] = {}
        for backend in _turns(tuple(timed), self.comparison.rounds):
            self._mark(case, backend, pass_)
            with _Attempt(self.device) as attempt:
                if backend not in failed:
                    samples[backend] += self._measure(timed[backend])
                attempt.status = TIMED
            if attempt.status != TIMED:
                failed[backend] = attempt.status, attempt.reason
        card = machine.card_state(self.device)
        timed.clear()
        for backend, taken in samples.items():
            status, reason = failed.get(backend, (TIMED, None))
            if status == TIMED:
                status, reason = self._still_right(case, workload, backend)
            row = self._row(case, pass_, backend, status, reason) | card
            if status == TIMED:
                row |= self._figures(workload, pass_, taken)
                row |= {"peak_above_inputs_bytes": memory[backend], "plan": workload.plan(backend)}
            rows.append(row)
        self._write(rows)
        shown = [f"{r['backend']} {r['time_ms_p50']:.4g}" for r in rows if r["status"] == TIMED]
        left = "" if self.budget.seconds is None else f"; {self.budget.left():.0f} s left"
        self.announce(f"{case.name}, {pass_}, ms: {', '.join(shown) or 'nothing was timed'}{left}")

    def _still_right(self, case: Case, workload: Workload, backend: Backend) -> tuple[str, str | None]:
        self._mark(case, backend, "check after timing")
        with _Attempt(self.device) as attempt:
            reason = workload.wrong(backend)
            attempt.status, attempt.reason = (TIMED, None) if reason is None else (WRONG, f"after timing: {reason}")
        return attempt.status, attempt.reason

    def _measure(self, timed: Timed) -> list[float]:
        with torch.set_grad_enabled(timed.grad):
            return self.timer.measure(timed.function, rotate=timed.rotate)

    def _peak_memory(self, timed: Timed) -> int | None:
        """Most bytes PyTorch had allocated during a call, above what stood before it: inputs, weights, other sets."""
        with torch.set_grad_enabled(timed.grad):
            timed.function(*timed.rotate[0])  # what is compiled, chosen or cached stays out of it
            if self.device.type != "cuda":
                return None
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            timed.function(*timed.rotate[0])
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_allocated(self.device) - before

    def _figures(self, workload: Workload, pass_: str, samples: list[float]) -> dict[str, Any]:
        ceilings = self.ceilings()
        bounds = workload.bounds(pass_, ceilings.as_device(self.device, self.dtype))
        middle = percentile(samples, 0.5)
        return {
            "time_ms_p50": middle,
            "time_ms_p20": percentile(samples, 0.2),
            "time_ms_p80": percentile(samples, 0.8),
            "samples": len(samples),
            "inputs_bytes": workload.inputs_bytes(),
            "flops": bounds.flops,
            "fused_bytes": bounds.fused_bytes,
            "eager_bytes": bounds.eager_bytes,
            "roofline_ms": bounds.roofline_ms,
            "roofline_share": None if bounds.roofline_ms is None else bounds.roofline_ms / middle,
            "copy_bytes_per_s": ceilings.copy_bytes_per_s,
            "matmul_tflops": ceilings.matmul_tflops,
            "bf16_matmul_tflops": ceilings.bf16_matmul_tflops,
        }

    def ceilings(self) -> Ceilings:
        """The card's limits, measured once a process."""
        if self._ceilings is None:
            self._ceilings = self._measure_ceilings(self.dtype)
        return self._ceilings

    def _row(self, case: Case, pass_: str, backend: Backend, status: str, reason: str | None) -> dict[str, Any]:
        return timing_row(self.comparison, self.machine, self.process, case, pass_, backend, status, reason)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        timings(self.comparison.out).append(rows)

    def _mark(self, case: Case, backend: Backend, step: str) -> None:
        """Say what is about to run: what a crash of this process will be put down to."""
        comparison = self.comparison
        what: dict[str, Any] = {"suite": comparison.suite, "case": case.name, "backend": backend.name, "step": step}
        what |= {"dtype": comparison.dtype, "replicate": comparison.replicate, "begun_s": time.time()}
        self.state.put(IN_PROGRESS, what)


class _Attempt:
    """A block whose exceptions become a status and a reason; only a lost device and a stop get out."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.status: str = FAILED
        self.reason: str | None = None

    def __enter__(self) -> "_Attempt":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, Exception) or isinstance(error, DeviceLostError):
            return False
        self.reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        if isinstance(error, (UnsupportedError, NotJudgedError)):
            self.status, self.reason = UNSUPPORTED, " ".join(str(error).split())
        elif isinstance(error, torch.OutOfMemoryError):
            self.status = OUT_OF_MEMORY
            error.__traceback__ = None
            _free(self.device)
        else:
            self.status = FAILED
        _refuse_lost(self.device, self.reason)
        return True


def _refuse_lost(device: torch.device, reason: str | None) -> None:
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise DeviceLostError(reason or str(error)) from error


def _turns(backends: tuple[Backend, ...], rounds: int) -> Iterator[Backend]:
    """A B C, C B A, as many times as there are rounds."""
    for _ in range(rounds):
        yield from backends
        yield from reversed(backends)


def _free(device: torch.device) -> None:
    """Give back what the last case held."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
