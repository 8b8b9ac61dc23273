"""environment.json: the code, the machine and the versions behind a run's numbers."""

import platform
import shlex
import sys
from datetime import UTC, datetime
from typing import Any

import torch

from tidepool.records import SOURCE, cpu_name, driver_version, git_state, package_version
from tidepool.training.config import Config
from tidepool.training.precision import precision_record


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
        "triton": package_version("triton"),
        "wandb": package_version("wandb"),
        "python": platform.python_version(),
        "precision": precision_record(config),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
