"""`python -m tidepool.benchmarking.worker <job> [--quiet]`: one fresh process of a benchmark, started by bench.py.

Exit codes: 0 done as far as the budget went, 70 the GPU stopped answering, 143 stopped by SIGTERM.
"""

import ctypes
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch

from tidepool.benchmarking import machine
from tidepool.benchmarking.budget import Budget
from tidepool.benchmarking.ceilings import Ceilings, measure_ceilings
from tidepool.benchmarking.jobs import Job, job_from_text
from tidepool.benchmarking.records import ceilings_table
from tidepool.benchmarking.session import Announce, DeviceLostError, Session
from tidepool.benchmarking.tuning import tune
from tidepool.kernels.runtime.timing import CudaTimer, Timer
from tidepool.program import run_process

EXIT_LOST = 70
_PR_SET_PDEATHSIG = 1
WARMUP_MS, BUDGET_MS = 10.0, 50.0
"""Of one turn of one backend; it has at least two turns."""

MeasureCeilings = Callable[[torch.dtype], Ceilings]


def run_job(
    job: Job, device: torch.device, timer: Timer, budget: Budget, announce: Announce, ceilings: MeasureCeilings
) -> None:
    """Do a job in this process. Raises DeviceLostError, RecordError."""
    session = Session(job.comparison, device, timer, budget, announce, ceilings)
    if job.kind == "time":
        session.run()
    elif job.kind == "check":
        session.check()
    elif job.kind == "ceilings":
        _record_ceilings(session)
        session.state.put(job.key, machine.identity(session.machine))
    elif tune(job.comparison, device, timer, budget, announce):
        session.state.put(job.key, machine.identity(session.machine))


def _record_ceilings(session: Session) -> None:
    found, dtype = session.ceilings(), session.comparison.dtype
    row = {"measured_at": machine.now(), "dtype": dtype, **vars(found)}
    row |= {name: session.machine[name] for name in ("gpu", "driver", "torch", "cuda", "commit")}
    ceilings_table(session.comparison.out).append([row | machine.card_state(session.device)])
    session.announce(
        f"ceilings: copy {found.copy_bytes_per_s / 1e12:.3g} TB/s, bf16 {found.bf16_matmul_tflops:.4g} TFLOP/s, "
        f"{dtype} {found.matmul_tflops:.4g} TFLOP/s"
    )


def main(arguments: Sequence[str], *, prog: str) -> int:
    """Run the job on the command line; return the exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # nobody would read what an orphan measures
    job = job_from_text(arguments[0])
    device = torch.device("cuda")
    timer = CudaTimer(warmup_ms=WARMUP_MS, budget_ms=BUDGET_MS, graph=job.comparison.cuda_graph)
    ceilings = partial(measure_ceilings, device, timer=CudaTimer())
    try:
        announce = (lambda line: None) if "--quiet" in arguments[1:] else partial(print, flush=True)
        run_job(job, device, timer, Budget(job.budget_s), announce, ceilings)
    except DeviceLostError as error:
        print(f"the GPU stopped answering: {error}", file=sys.stderr, flush=True)
        return EXIT_LOST
    return 0


if __name__ == "__main__":
    run_process(main, sys.argv[1:], prog="python -m tidepool.benchmarking.worker")
