"""What this machine offers a sweep (cores, GPUs), and whether a process that owned a run is still there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidepool.installation import child_environment

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NVIDIA_PROC = Path("/proc/driver/nvidia/gpus")
# What names one run to W&B, or one process of several to torchrun: left in the environment of a sweep, every run would
# take it for its own.
_ONE_RUNS_VARIABLES = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RESUME", "WANDB_RUN_GROUP", "WANDB_NAME",
    "WANDB_JOB_TYPE", "WANDB_NOTES", "WANDB_RUN_DIR", "WANDB_SERVICE", "WANDB__SERVICE",
)  # fmt: skip
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class ProcessId:
    """A process that can be told from a later one with the same number: where it runs, pid, start in clock ticks."""

    machine: str
    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process `pid` of this machine; `started` is 0 where it is already gone."""
        return cls(machine_id(), pid, _start_ticks(pid) or 0)

    def to_json(self) -> list[Any]:
        return [self.machine, self.pid, self.started]

    @classmethod
    def from_json(cls, value: list[Any]) -> ProcessId:
        return cls(str(value[0]), int(value[1]), int(value[2]))

    def is_here(self) -> bool:
        """Whether this machine can see the process, so that `is_alive` is an answer."""
        return self.machine == machine_id()

    def is_alive(self) -> bool:
        """Whether the process still runs; only meaningful where `is_here`. A zombie does not run."""
        return self.started != 0 and _start_ticks(self.pid) == self.started

    def kill_group(self) -> None:
        """Kill the process and its group at once, if it is the one that was recorded."""
        if self.is_here() and self.is_alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def machine_id() -> str:
    """Host, boot and process namespace: process numbers mean the same wherever this is equal."""
    try:
        boot = _BOOT_ID.read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = namespace = "unknown"
    return f"{platform.node()} {boot} {namespace}"


def _start_ticks(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def is_locked(run_dir: Path) -> bool:
    """Whether a run is writing `run_dir`: train.py holds a lock on the file ``.lock`` in it."""
    try:
        with (run_dir / ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def core_count() -> int:
    """The CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def gpu_ids() -> list[str]:
    """The NVIDIA GPUs a run may be given, as `CUDA_VISIBLE_DEVICES` names them; empty without any.

    Asks the driver, not PyTorch: the sweep's own process never starts CUDA.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        ids = [part.strip() for part in visible.split(",")]
        end = next((index for index, part in enumerate(ids) if part in ("", "-1", "NoDevFiles")), len(ids))
        return ids[:end]
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
        count = sum(line.startswith("GPU ") for line in listing.splitlines())
    except (OSError, subprocess.SubprocessError):
        count = len(list(_NVIDIA_PROC.iterdir())) if _NVIDIA_PROC.is_dir() else 0
    return [str(index) for index in range(count)]


def run_environment(worker: int, workers: int, gpus: list[str], *, entity: str | None = None) -> dict[str, str]:
    """The environment of a run in place `worker` of `workers`: one GPU of its own, or its share of the cores; without
    what names another run to W&B or torchrun."""
    environment = child_environment()
    for variable in _ONE_RUNS_VARIABLES:
        environment.pop(variable, None)
    threads = str(max(1, core_count() // workers))
    for variable in _THREAD_VARIABLES:
        environment.setdefault(variable, threads)
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[worker % len(gpus)]
    if entity is not None:
        environment["WANDB_ENTITY"] = entity
    return environment
