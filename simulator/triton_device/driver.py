"""Triton's NVIDIA driver over the simulated library: its own launcher, argument packing and tensor maps.

Private parts of Triton (3.6 to 3.9) used here, because there is no public way to have a device of one's own:

- `backends/nvidia/driver.py` is loaded a second time, under another name, so that a real GPU's driver stays as it is;
  in that copy `compile_module_from_src` and `_from_file` link to the simulated library in place of `libcuda.so.1`
- `knobs.runtime.add_stages_inspection_hook`: the last stage hands over PTX in place of machine code
- `driver.active`, exchanged while a simulated device is the current one
"""

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import build, driver

from tidepool.simulator.targets import Target
from tidepool.simulator.triton_device.library import NAME, Library, library

_COPY = "tidepool.simulator.triton_device._nvidia_driver"
_FIRST_DEVICE = 1000
"""Simulated devices are numbered from here on by their capability: no card has such a number."""
_MAX_SHARED, _SHARED_OF_MULTIPROCESSOR, _REGISTERS, _MULTIPROCESSORS, _WARP = 97, 81, 12, 16, 10
_MAJOR, _MINOR = 75, 76
"""CUdevice_attribute's numbers."""


@functools.cache
def nvidia_driver() -> ModuleType:
    """A second copy of Triton's NVIDIA driver, linked to the simulated library."""
    path = Path(triton.__file__).parent / "backends/nvidia/driver.py"
    spec = importlib.util.spec_from_file_location(_COPY, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_COPY] = module
    spec.loader.exec_module(module)
    module.__dict__["compile_module_from_src"] = functools.partial(_linked, library())
    module.__dict__["compile_module_from_file"] = _linked_file  # Triton 3.8 and later
    module.__dict__["library_dirs"] = lambda: [str(library().path.parent)]
    return module


def _linked(simulated: Library, src: str, name: str, **keywords: Any) -> Any:
    keywords["libraries"] = [NAME]
    keywords["library_dirs"] = [str(simulated.path.parent)]
    flags = sys.getdlopenflags()
    # The library's functions before those of a libcuda that the process may have loaded.
    sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        # Triton 3.6's launchers look for the type of a tensor map in the driver's module.
        src = src.replace("libcuda.so.1", str(simulated.path)).replace("triton.backends.nvidia.driver", _COPY)
        return build.compile_module_from_src(src, name, **keywords)
    finally:
        sys.setdlopenflags(flags)


def _linked_file(src_path: str, name: str, **keywords: Any) -> Any:
    return _linked(library(), Path(src_path).read_text(encoding="utf-8"), name, **keywords)


@functools.cache
def _utils() -> Any:
    """Its utilities, made once: each time they are made, tensor maps become a type that earlier launchers refuse."""
    return nvidia_driver().CudaUtils()


class SimulatedDriver:
    """What Triton asks its active driver for, one for each target: Triton keeps a compiled kernel and its launcher by
    the device's number. `launching` is told the arguments of each launch before it happens."""

    def __init__(self, target: Target, launching: Callable[[tuple[Any, ...]], None]) -> None:
        self.target = target
        self.device = _FIRST_DEVICE + target.capability
        library().attributes[self.device] = self._attribute
        module = nvidia_driver()
        self.utils = _utils()
        original = module.CudaLauncher

        class Launcher(original):  # type: ignore[misc, valid-type]
            """Triton's, which lets the simulator see the tensors, and raises what went wrong there as it was."""

            def __call__(self, *arguments: Any) -> Any:
                launching(arguments[9:])
                try:
                    return super().__call__(*arguments)
                except RuntimeError:
                    library().raise_error()
                    raise

        self.launcher_cls = Launcher

    def _attribute(self, attribute: int) -> int:
        target = self.target
        values = {
            _MAX_SHARED: target.shared_block,
            _SHARED_OF_MULTIPROCESSOR: target.shared,
            _REGISTERS: target.registers,
            _MULTIPROCESSORS: target.multiprocessors,
            _WARP: 32,
            _MAJOR: target.capability // 10,
            _MINOR: target.capability % 10,
        }
        return values.get(attribute, 1)

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.target.capability, 32)

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_device_capability(self, device: int = 0) -> tuple[int, int]:
        return divmod(self.target.capability, 10)

    def set_current_device(self, device: int) -> None:
        """There is one."""

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cpu")

    def map_python_to_cpp_type(self, name: str) -> Any:
        return nvidia_driver().ty_to_cpp(name)


def _stages(backend: Any = None, stages: Any = None, *_others: Any) -> tuple[str, str] | None:
    """Triton's hook: without arguments, what cached kernels depend on; with a backend's stages, changes them."""
    if stages is None:
        return "tidepool simulator, PTX", "tidepool simulator, PTX"
    if "cubin" in stages:
        stages["cubin"] = lambda ptx, metadata: ptx.encode()
    return None


@contextmanager
def active(simulated: SimulatedDriver) -> Iterator[None]:
    """Triton compiles for and launches on the simulated device."""
    before = driver._active
    with knobs.runtime.scope(), knobs.cache.scope():
        driver.set_active(simulated)
        knobs.runtime.add_stages_inspection_hook = _stages
        # Triton 3.6 does not tell kernels of other stages apart in its cache.
        knobs.cache.dir = str(Path(knobs.cache.dir) / "tidepool_simulator")
        try:
            yield
        finally:
            driver._active = before
