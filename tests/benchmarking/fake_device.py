"""A benchmark without a GPU: interpreted kernels on tiny cases, times that are made up, a clock that tests set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from tidepool.benchmarking.budget import Budget
from tidepool.benchmarking.ceilings import Ceilings
from tidepool.benchmarking.jobs import Job, job_from_text
from tidepool.benchmarking.session import DeviceLostError
from tidepool.benchmarking.supervisor import STOPPED
from tidepool.benchmarking.worker import EXIT_LOST, run_job
from tidepool.kernels.runtime.timing import Arguments

CPU = torch.device("cpu")
CEILINGS = Ceilings(copy_bytes_per_s=4e12, matmul_tflops=700.0, bf16_matmul_tflops=700.0)


@dataclass
class FakeClock:
    """Seconds that pass only when told to."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class FakeTimer:
    """Calls what it is given and says that each call took `ms`; every measurement costs `cost_s` on the clock."""

    clock: FakeClock = field(default_factory=FakeClock)
    cost_s: float = 1.0
    ms: float = 2.0
    measured: int = 0
    fail_at: int | None = None

    def measure(self, function: Callable[..., object], *, rotate: Sequence[Arguments] = ((),)) -> list[float]:
        function(*rotate[self.measured % len(rotate)])
        self.measured += 1
        if self.measured == self.fail_at:
            raise DeviceLostError("CUDA error: an illegal memory access was encountered")
        self.clock.seconds += self.cost_s
        return [self.ms, self.ms * 1.1, self.ms * 1.2]


@dataclass
class InProcess:
    """Starts jobs here instead of in processes of their own, on the fake clock; keeps them and what they said."""

    timer: FakeTimer = field(default_factory=FakeTimer)
    jobs: list[Job] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __call__(self, job: Job) -> int:
        job = job_from_text(job.text())
        self.jobs.append(job)
        budget = Budget(job.budget_s, self.timer.clock)
        try:
            run_job(job, CPU, self.timer, budget, self.said.append, lambda dtype: CEILINGS)
        except DeviceLostError:
            return EXIT_LOST
        except KeyboardInterrupt:
            return STOPPED
        return 0

    @property
    def kinds(self) -> list[str]:
        """What was started, one word each: the job's kind and for times the suite and process."""
        return [
            f"{job.kind} {job.comparison.suite} {'+'.join(job.comparison.passes)} {job.comparison.replicate}"
            if job.kind == "time"
            else job.kind
            for job in self.jobs
        ]

    def budget(self, seconds: float | None) -> Budget:
        """A budget on the same clock."""
        return Budget(seconds, self.timer.clock)
