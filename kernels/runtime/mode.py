"""How kernels run, asked where they are made ready and launched: interpreted, compiled for a GPU, or compiled and
simulated.

A call runs where its tensors are: compiled on a GPU, in Triton's interpreter on a CPU. `TRITON_INTERPRET=1` in the
environment has everything interpreted, another value nothing; it is read when first asked for. While a simulated device
is entered (`tidepool.simulator.device`, or TIDEPOOL_DEVICE in the environment) calls on CPU tensors run there. Whoever
keeps what was decided for a mode keeps `forced` in the key, besides the device.
"""

import functools
import os
from dataclasses import dataclass

import torch

from tidepool import simulator
from tidepool.kernels.runtime.caches import cleared_by
from tidepool.kernels.runtime.errors import ArgumentError
from tidepool.kernels.runtime.targets import INTERPRETER, Target, target_named, target_of_device
from tidepool.kernels.runtime.versions import warn_if_untested


@dataclass(frozen=True)
class Mode:
    """How kernels run, and what their tiles are chosen for."""

    target: Target
    interpreted: bool
    simulated: bool = False

    @property
    def name(self) -> str:
        """As records have it."""
        return "interpreted" if self.interpreted else "simulated" if self.simulated else "compiled"


INTERPRETED = Mode(INTERPRETER, interpreted=True)

forced: Mode | None = None
"""The mode of every call, whatever its device, where `force` was called."""
compiled_on: set[int] = set()
"""Devices, by `Tensor.get_device()`, that kernels are known to be compiled for."""
_known: dict[torch.device, Mode] = {}


def mode_of(device: torch.device) -> Mode:
    """How kernels run on tensors of `device`. Raises ArgumentError or UnsupportedTarget where they do not."""
    return forced or _known.get(device) or _decide(device)


def force(mode: Mode | None) -> None:
    """Have every call of the process in that mode, backward passes in PyTorch's own threads too; None: by its device.

    For what stands in for a GPU: Triton has to be told the target besides.
    """
    global forced, compiled_on
    forced = mode
    if mode is not None:
        compiled_on = set() if mode.interpreted else {-1}
    else:
        compiled_on = {device.index for device, known in _known.items() if not known.interpreted}


@functools.cache
def interpreting_asked() -> bool | None:
    """What TRITON_INTERPRET says, as Triton reads it: interpret everything, or nothing; None where it is not set."""
    setting = os.environ.get("TRITON_INTERPRET", "").lower()
    return setting in ("1", "true", "on", "y", "yes") if setting else None


def _follow(device: simulator.Device | None) -> None:
    """Run on the simulated device from now on; None: where the tensors are."""
    if device is not None:
        force(Mode(target_named(device.name), interpreted=False, simulated=True))
    elif forced is not None and forced.simulated:
        force(None)


def is_interpreted(device: torch.device) -> bool:
    """Whether kernels on tensors of `device` are interpreted; False as well where they do not run."""
    known = forced or _known.get(device)
    if known is None and device.type == "cpu" and simulator.asked() is not None:
        known = forced
    if known is not None:
        return known.interpreted
    asked = interpreting_asked()
    return device.type == "cpu" if asked is None else asked and device.type in ("cpu", "cuda")


def _decide(device: torch.device) -> Mode:
    if device.type == "cuda" and device.index is None:
        return mode_of(torch.device("cuda", torch.cuda.current_device()))
    if device.type == "cpu" and simulator.asked() is not None and forced is not None:
        return forced
    if is_interpreted(device):
        mode = INTERPRETED
    elif device.type == "cuda":
        mode = Mode(target_of_device(device), interpreted=False)
    elif device.type == "cpu":
        raise ArgumentError(
            "backend='triton' takes CUDA tensors where TRITON_INTERPRET is off, but x is on cpu: move it to a GPU, or "
            "unset TRITON_INTERPRET to run the kernels in Triton's interpreter"
        )
    else:
        raise ArgumentError(f"backend='triton' takes CUDA and CPU tensors, but x is on {device}")
    warn_if_untested()
    _known[device] = mode
    if not mode.interpreted:
        compiled_on.add(device.index)
    return mode


def forget_modes() -> None:
    """Read the environment again at the next call. What was forced stays."""
    interpreting_asked.cache_clear()
    _known.clear()
    force(forced)


def _device(device: torch.device | str | None) -> torch.device:
    """None: the GPU if there is one."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def kernel_mode(backend: str, device: torch.device | str | None = None) -> str:
    """`"interpreted"` when `backend` runs interpreted Triton kernels on `device` (None: the GPU if there is one),
    `"simulated"` on a simulated one, else `"compiled"`."""
    if backend != "triton":
        return "compiled"
    if is_interpreted(_device(device)):
        return "interpreted"
    return "simulated" if forced is not None and forced.simulated else "compiled"


def conv_library(backend: str, device: torch.device | str | None = None) -> str:
    """What convolves under `backend` on `device` (None: the GPU if there is one): triton, cudnn 9.x, onednn; under
    `auto` on a GPU, where a plan mixes them, triton + cudnn 9.x."""
    if backend == "triton":
        return "triton"
    if _device(device).type == "cuda":
        version = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
        if version is None:
            return "native"
        cudnn = f"cudnn {version // 10000}.{version // 100 % 100}.{version % 100}"
        return f"triton + {cudnn}" if backend == "auto" and not is_interpreted(_device(device)) else cudnn
    return "onednn" if torch.backends.mkldnn.is_available() else "native"


simulator.follow(_follow)
cleared_by(forget_modes)
