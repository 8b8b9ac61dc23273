"""One process of a comparison: every case checked, timed against its opponents, checked again, and written down.

Within a pass the backends take turns A B C, C B A, so that a card that warms up or slows down does so for all of them.
What a call has measured is in `timings.csv` before the next pass begins; a later session goes on behind it.
"""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarking import machine
from benchmarking.budget import Budget
from benchmarking.cases import Case, LayerCase
from benchmarking.ceilings import Ceilings
from benchmarking.correctness import NotJudgedError
from benchmarking.model_workload import MODEL_PASSES, ModelWorkload
from benchmarking.opponents import Backend, UnsupportedError
from benchmarking.precision import DTYPES, precision_record, set_precision
from benchmarking.records import SCHEMA_VERSION, checks, timings
from benchmarking.state import State
from benchmarking.workload import PASSES, LayerWorkload, Timed, Workload, plan_text
from kernels import plan_table
from kernels.timing import Timer, percentile

TIMED, WRONG, UNSUPPORTED, CRASHED = "timed", "wrong", "unsupported", "crashed"
OUT_OF_MEMORY, FAILED, RIGHT = "out of memory", "failed", "right"
IN_PROGRESS = "in_progress"


class DeviceLostError(RuntimeError):
    """The GPU answers this process no more: only a new one can go on."""


@dataclass(frozen=True)
class Comparison:
    """What to compare and how; `replicate` counts fresh processes from 0."""

    out: Path
    suite: str
    cases: tuple[Case, ...]
    backends: tuple[Backend, ...]
    dtype: str
    passes: tuple[str, ...]
    replicate: int = 0
    rounds: int = 1
    cuda_graph: bool = False
    seed: int = 0
    since: str = ""  # only rows measured at that time or later count as measured

    def passes_of(self, case: Case) -> tuple[str, ...]:
        """The asked passes that there are for a case."""
        existing = PASSES if isinstance(case, LayerCase) else MODEL_PASSES
        return tuple(pass_ for pass_ in self.passes if pass_ in existing)

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages whose code is timed."""
        return ("kernels", "models") if self.suite == "models" else ("kernels",)


Announce = Callable[[str], None]
Item = tuple[Case, str]


def remaining(comparison: Comparison, device: torch.device) -> list[Item]:
    """The cases and passes of a comparison that have not been measured yet with this code on this card."""
    found = measured(comparison, device)
    return [
        (case, pass_)
        for case in comparison.cases
        for pass_ in comparison.passes_of(case)
        if any((case.name, pass_, backend.name) not in found for backend in comparison.backends)
    ]


def measured(comparison: Comparison, device: torch.device) -> dict[tuple[str, str, str], str]:
    """Status by (case, pass, backend) of what this replicate need not measure again.

    A crash counts for every replicate: what ended one process would end the next. A time of `auto` counts while it
    would still run as it did.
    """
    identity = machine.identity(machine.machine_record(device, comparison.packages))
    wanted = {"dtype": comparison.dtype, "cuda_graph": comparison.cuda_graph, **identity}
    texts = {name: "" if value is None else str(value) for name, value in wanted.items()}
    rows, _ = timings(comparison.out).read()
    plans = _plans(comparison, device)
    return {
        (row["case"], row["pass"], row["backend"]): row["status"]
        for row in rows
        if all(row[name] == text for name, text in texts.items())
        and row["measured_at"] >= comparison.since
        and (row["replicate"] == str(comparison.replicate) or row["status"] == CRASHED)
        and row["plan"] in ("", plans.get(row["case"]))
    }


def _plans(comparison: Comparison, device: torch.device) -> dict[str, str]:
    """How `auto` would run each layer now, by its tables as they are on disk, on one line as records hold it."""
    set_precision(comparison.dtype)
    plan_table.forget()
    dtype = DTYPES[comparison.dtype]
    layers = [case for case in comparison.cases if isinstance(case, LayerCase)]
    return {case.name: " ".join(plan_text(case, dtype, device).split()) for case in layers}


def checked(comparison: Comparison, environment: dict[str, Any]) -> set[tuple[str, str]]:
    """(case, backend) of rows in correctness.csv of this dtype, code and card."""
    wanted = {"dtype": comparison.dtype, **machine.identity(environment)}
    texts = {name: "" if value is None else str(value) for name, value in wanted.items()}
    rows, _ = checks(comparison.out).read()
    return {(row["case"], row["backend"]) for row in rows if all(row[name] == text for name, text in texts.items())}


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
        self.dtype = DTYPES[comparison.dtype]
        self._measure_ceilings, self._ceilings = ceilings, None
        self.state.put(IN_PROGRESS, None)

    _ceilings: Ceilings | None
    _measured: dict[tuple[str, str, str], str]

    def run(self) -> None:
        """Measure what remains, as far as the budget goes. Raises DeviceLostError, RecordFileError."""
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
            self.state.put(IN_PROGRESS, None)
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
        self._mark(case, backend, "check")
        judged: dict[str, Any] = {}
        with _Attempt(self.device) as attempt:
            workload.build(backend)
            judged = workload.judged()
            reason = workload.wrong(backend)
            attempt.status, attempt.reason = (RIGHT, None) if reason is None else (WRONG, reason)
        row = {"suite": self.comparison.suite, "case": case.name, "backend": backend.name, **judged}
        row |= {"dtype": self.comparison.dtype, "status": attempt.status, "reason": attempt.reason}
        row |= {name: self.machine[name] for name in ("gpu", "torch", "triton", "commit", "source")}
        checks(self.comparison.out).append([{"schema_version": SCHEMA_VERSION, "measured_at": machine.now(), **row}])
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


def timing_row(
    comparison: Comparison,
    environment: dict[str, Any],
    process: str,
    case: Case,
    pass_: str,
    backend: Backend,
    status: str,
    reason: str | None,
) -> dict[str, Any]:
    """A row of timings.csv without its figures."""
    return {
        "schema_version": SCHEMA_VERSION,
        "measured_at": machine.now(),
        "process": process,
        "replicate": comparison.replicate,
        "suite": comparison.suite,
        "case": case.name,
        "family": case.family,
        "pass": pass_,
        "backend": backend.name,
        "dtype": comparison.dtype,
        "status": status,
        "reason": reason,
        "rounds": comparison.rounds,
        "cuda_graph": comparison.cuda_graph,
        "kernel_mode": machine.mode_of(backend.op),
        **precision_record(),
        **environment,
    }


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
