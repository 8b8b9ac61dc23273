"""The machine, versions and code behind a row of measurements, and the card's state while it was made."""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from typing import Any

import torch

from tidepool.kernels import conv_library, kernel_mode
from tidepool.records import SOURCE, cpu_name, driver_version, git_state, package_version

COMMIT_VARIABLE = "TIDEPOOL_COMMIT"
"""Names the commit where the code is a copy without its git history."""
COMMAND_VARIABLE = "TIDEPOOL_BENCH_COMMAND"
"""What the user typed, for the processes that it starts."""
_QUERY = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")
STATE_COLUMNS = ("sm_clock_MHz", "memory_clock_MHz", "power_W", "temperature_C")


def machine_record(device: torch.device, packages: tuple[str, ...]) -> dict[str, Any]:
    """What stands in the environment columns of every row; what this machine does not have is None.

    `packages` are those whose code is timed: `source` changes when they do.
    """
    on_gpu = device.type == "cuda"
    commit, dirty = commit_and_dirty()
    return {
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "gpu_capability": ".".join(map(str, torch.cuda.get_device_capability(device))) if on_gpu else None,
        "gpu_memory_bytes": torch.cuda.get_device_properties(device).total_memory if on_gpu else None,
        "driver": driver_version() if on_gpu else None,
        "cuda": torch.version.cuda,
        "conv_library": conv_library("cudnn", device),
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "triton": package_version("triton"),
        "python": platform.python_version(),
        "commit": commit,
        "dirty": dirty,
        "source": source_digest(packages),
        "command": os.environ.get(COMMAND_VARIABLE) or command_line(),
    }


def command_line() -> str:
    """What this process was started with."""
    return shlex.join(["python", *sys.orig_argv[1:]])


@cache
def commit_and_dirty() -> tuple[str | None, bool | None]:
    """The commit of this code, and whether tracked files differ from it; None where that is not known."""
    commit, dirty = git_state(SOURCE)
    return commit or os.environ.get(COMMIT_VARIABLE) or None, dirty


def identity(machine: dict[str, Any]) -> dict[str, Any]:
    """What has to be equal for a row to count as measured already: the card, the versions and the code."""
    return {name: machine[name] for name in ("gpu", "torch", "triton", "source")}


@cache
def source_digest(packages: tuple[str, ...]) -> str:
    """Twelve digits of the SHA-256 of those packages' Python."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((SOURCE / package).rglob("*.py")):
            digest.update(str(path.relative_to(SOURCE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def mode_of(backend: str) -> str:
    """`interpreted` where the backend's times would say nothing, else `compiled`."""
    return kernel_mode(backend)


def card_state(device: torch.device) -> dict[str, float | None]:
    """Clocks, power and temperature of the GPU now; None for each that nvidia-smi does not say."""
    unknown: dict[str, float | None] = dict.fromkeys(STATE_COLUMNS)
    if device.type != "cuda":
        return unknown
    index = device.index if device.index is not None else torch.cuda.current_device()
    try:
        uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
        asked = ["nvidia-smi", f"--id={uuid}", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
        line = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError, AttributeError):
        return unknown
    return unknown | {name: _number(text) for name, text in zip(STATE_COLUMNS, line.split(","), strict=False)}


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # [N/A]
        return None
