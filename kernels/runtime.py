"""Where kernels run: compiled on a GPU, or in Triton's interpreter when there is none.

Import this module before triton. Whether a kernel is compiled or interpreted is settled the moment
`triton.jit` decorates it, so the choice has to stand before any kernel module is read.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import torch


def _settle_interpreting() -> bool:
    """Set `TRITON_INTERPRET=1` when no GPU is found and the variable is unset; return whether kernels are interpreted.

    Raises RuntimeError when triton was imported earlier with interpreting off and no GPU can run its kernels.
    """
    if "TRITON_INTERPRET" not in os.environ and not torch.cuda.is_available():
        standard = sys.modules.get("triton.language.standard")
        if standard is not None and type(standard.cdiv).__name__ == "JITFunction":
            raise RuntimeError(
                "triton was imported before kernels, with interpreting off, and no GPU was found: "
                "import kernels first, or set TRITON_INTERPRET=1 in the environment"
            )
        os.environ["TRITON_INTERPRET"] = "1"
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "y", "yes")


INTERPRETED = _settle_interpreting()
"""True when Triton kernels run in the interpreter: right, slow, and never a measurement of speed."""


def kernel_mode(backend: str) -> str:
    """`"interpreted"` when `backend` runs interpreted Triton kernels here, else `"compiled"`."""
    return "interpreted" if backend == "triton" and INTERPRETED else "compiled"


def conv_library(backend: str, device: torch.device | str | None = None) -> str:
    """What convolves under `backend` on `device` (None: the GPU if there is one): triton, cudnn 9.x, onednn; under
    `auto` on a GPU, where a plan mixes them, triton + cudnn 9.x."""
    if backend == "triton":
        return "triton"
    on_gpu = torch.cuda.is_available() if device is None else torch.device(device).type == "cuda"
    if on_gpu:
        version = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
        if version is None:
            return "native"
        cudnn = f"cudnn {version // 10000}.{version // 100 % 100}.{version % 100}"
        return f"triton + {cudnn}" if backend == "auto" and not INTERPRETED else cudnn
    return "onednn" if torch.backends.mkldnn.is_available() else "native"


def device_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that kernels call: `triton.jit` when compiled, plain Python when interpreted.

    Triton's interpreter patches all of `triton.language` anew at every call of a jitted function (3.7: 2 ms a call, a
    third of a small kernel's time); inside a running kernel the patches already stand, and plain Python runs the same
    source.
    """
    if INTERPRETED:
        return function
    import triton

    return triton.jit(function)
