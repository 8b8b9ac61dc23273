"""environment.json: the code, the machine and the versions behind a run's numbers."""

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from training.config import Config
from training.precision import precision_record

SOURCE = Path(__file__).resolve().parents[1]


def environment_record(config: Config, device: torch.device) -> dict[str, Any]:
    """The content of environment.json, without schema_version; what this machine does not have is None.

    `commit` and `dirty` are those of this project's source, whatever the working directory, and None when the source
    is not a git checkout or git is not installed.
    """
    on_gpu = device.type == "cuda"
    commit, dirty = git_state(SOURCE)
    return {
        "commit": commit,
        "dirty": dirty,
        "command": shlex.join(sys.orig_argv),
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_threads": torch.get_num_threads(),
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "gpu_capability": ".".join(map(str, torch.cuda.get_device_capability(device))) if on_gpu else None,
        "gpu_memory_bytes": torch.cuda.get_device_properties(device).total_memory if on_gpu else None,
        "driver": driver_version() if on_gpu else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "torch": torch.__version__,
        "triton": _version("triton"),
        "wandb": _version("wandb"),
        "python": platform.python_version(),
        "precision": precision_record(config),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_state(source: Path) -> tuple[str | None, bool | None]:
    """(commit, whether tracked files differ from it) of the checkout whose root is `source`; (None, None) otherwise."""
    root = _git(source, "rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() != source.resolve():
        return None, None  # an installed copy inside somebody else's checkout is not that checkout
    commit = _git(source, "rev-parse", "HEAD")
    changes = _git(source, "status", "--porcelain", "--untracked-files=no")
    return commit, None if commit is None or changes is None else bool(changes)


def _git(source: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(source), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def cpu_name() -> str:
    """The processor's name as Linux gives it, else what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def driver_version() -> str | None:
    """The NVIDIA driver's version, or None where nvidia-smi does not say."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split("\n")[0].strip() or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
