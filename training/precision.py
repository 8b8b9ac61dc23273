"""Numeric type, TF32 switches and determinism of a run: set in one place, recorded from the same place."""

import contextlib
import os
from typing import Any

import torch
from torch import Tensor

from tidepool import simulator
from tidepool.data import LabelledData
from tidepool.data.augmentation import normalise
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.training.config import Config, ConfigError

MEMORY_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Channels innermost, by the number of dimensions."""
_AUTOCAST = ("bf16", "fp16")


def choose_device(config: Config) -> torch.device:
    """The device that `config.device` means on this machine.

    Raises:
        ConfigError: a GPU is asked for, by `device` or by tf32, and there is none.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ConfigError("device='cuda' but no CUDA GPU is available; expected auto or cpu here")
    device = torch.device("cuda" if available and config.device in ("auto", "cuda") else "cpu")
    if config.dtype == "tf32" and device.type != "cuda":
        raise ConfigError("dtype='tf32' needs a CUDA GPU; expected fp32, bf16 or fp16 on a CPU")
    if config.dtype == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(f"dtype='bf16' is not supported by {torch.cuda.get_device_name()}; expected fp32 or fp16")
    return device


def simulating(config: Config) -> contextlib.AbstractContextManager[Any]:
    """Context for a run: the simulated GPU that `config.device` names, or nothing.

    Raises:
        ConfigError: a simulated GPU is asked for, and the backend is another one than triton.
    """
    if not config.device.startswith("sm_"):
        return contextlib.nullcontext()
    if config.backend != "triton":
        raise ConfigError(f"device={config.device!r} simulates backend='triton'; expected that, not {config.backend!r}")
    return simulator.device(config.device)


def set_numerics(config: Config) -> None:
    """Switch TF32, cuDNN's choice of algorithms and determinism for the whole process, as `config` says."""
    # Both spellings, the older first: the newer alone would make the older raise when others read it.
    torch.backends.cudnn.allow_tf32 = config.dtype == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = config.dtype == "tf32"
    fp32_precision = "tf32" if config.dtype == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = fp32_precision  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = fp32_precision
    torch.backends.cudnn.benchmark = not config.deterministic
    torch.backends.cudnn.deterministic = config.deterministic
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.use_deterministic_algorithms(config.deterministic)


def precision_record(config: Config) -> dict[str, Any]:
    """What `set_numerics` left behind, read back from PyTorch, for `environment.json`."""
    return {
        "dtype": config.dtype,
        "autocast": config.dtype in _AUTOCAST,
        "conv_fp32_precision": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        "matmul_fp32_precision": torch.backends.cuda.matmul.fp32_precision,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cublas_workspace_config": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def autocast(config: Config, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Context for forward passes: autocast to bf16 or fp16, or nothing for fp32 and tf32."""
    if config.dtype not in _AUTOCAST:
        return contextlib.nullcontext()
    # A graph holds the casts of weights, so that they must not be remembered from outside it.
    return torch.autocast(device.type, dtype=BY_NAME[config.dtype], cache_enabled=not config.cuda_graph)


def normalised(data: LabelledData, config: Config, inputs: Tensor) -> Tensor:
    """Inputs (N, C, *spatial) as the network takes them: float32, in the memory format that is asked for."""
    inputs = normalise(inputs, data.mean, data.std, torch.float32)
    if config.channels_last:
        inputs = inputs.contiguous(memory_format=MEMORY_FORMATS[inputs.dim()])
    return inputs


def make_scaler(config: Config, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling: at work for fp16 on a GPU, passes everything through otherwise."""
    return torch.amp.GradScaler(device.type, enabled=config.dtype == "fp16" and device.type == "cuda")
