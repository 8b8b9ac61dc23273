"""What reaches the CUDA driver, without one: launches by Triton's own launcher into `recording_driver.c`.

    python -m tests.kernels.launches_recorded FOLDER CASE ...

compiles the driver into FOLDER, and the named layers of `kernels.compile_cases` and `norm_compile_cases` for sm_90, and
runs their launchers twice: the first launch of a kernel goes through Triton's look-up, later ones call what was kept
(`kernels.launch.launch_compiled`). Prints one JSON object a layer: the kernels launched, descriptors encoded, the
driver's first complaint, and every difference between the two rounds that is not an address. Tensors are the host's and
unwritten: nothing runs. TRITON_INTERPRET=0, and LD_LIBRARY_PATH and TRITON_LIBCUDA_PATH at FOLDER.
"""

import ctypes
import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}


class _Launch(ctypes.Structure):
    _fields_ = (
        ("kernel", ctypes.c_char * 128),
        ("grid", ctypes.c_uint * 3),
        ("threads", ctypes.c_uint),
        ("shared", ctypes.c_uint),
        ("parameters", ctypes.c_int),
        ("values", (ctypes.c_ubyte * 128) * 96),
    )


def build_driver(folder: Path) -> Path:
    """Compile the driver into `folder`. Raises subprocess.CalledProcessError."""
    import triton

    include = Path(triton.__file__).parent / "backends/nvidia/include"
    library = folder / "libcuda.so.1"
    source = Path(__file__).with_name("recording_driver.c")
    command = ["cc", "-shared", "-fPIC", "-O1", f"-I{include}", str(source), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


def parameter_bytes(ptx: str) -> list[int]:
    """Sizes of a kernel's parameters, as its PTX declares them."""
    entry = re.search(r"\.entry\s+\w+\(\s*(.*?)\)\s*$", ptx, re.DOTALL | re.MULTILINE)
    declared = re.findall(
        r"\.param\s+(?:\.align\s+\d+\s+)?\.[a-z](\d+)[^,\[\n]*(?:\[(\d+)\])?", entry[1] if entry else ""
    )
    return [_BYTES[bits] * int(count or 1) for bits, count in declared]


class Recording:
    """The driver, set up as Triton's active one in a process that has launched nothing."""

    def __init__(self, library: Path) -> None:
        self._driver = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        self._driver.recording_launch.restype = ctypes.POINTER(_Launch)
        self._driver.recording_complaint.restype = ctypes.c_char_p
        import torch

        torch.cuda.current_device = lambda: 0
        torch.cuda.get_device_capability = lambda *_: (9, 0)  # type: ignore[assignment]
        torch._C._cuda_getCurrentRawStream = lambda _: 0  # type: ignore[attr-defined]
        import triton
        from triton.backends.nvidia.driver import CudaDriver
        from triton.compiler.compiler import CompiledKernel

        triton.runtime.driver.set_active(CudaDriver())
        get_run: Callable[[Any], Any] = CompiledKernel.run.fget

        def run(kernel: Any) -> Any:
            launcher = get_run(kernel)
            sizes = self._sizes(kernel.asm["ptx"])
            self._driver.recording_expect(len(sizes), (ctypes.c_int * len(sizes))(*sizes))
            return launcher

        CompiledKernel.run = property(run)

    @staticmethod
    @functools.cache
    def _sizes(ptx: str) -> list[int]:
        return parameter_bytes(ptx)

    def of(self, work: Callable[[], None]) -> tuple[list[tuple[Any, ...]], int, str]:
        """The launches of `work` as (kernel, grid, threads, shared bytes, parameter values), the descriptors that were
        encoded for them, and the driver's first complaint, empty for none."""
        self._driver.recording_reset()
        work()
        launches = []
        for index in range(self._driver.recording_launched()):
            launch = self._driver.recording_launch(index).contents
            values = [bytes(launch.values[i]) for i in range(launch.parameters)]
            launches.append((launch.kernel.decode(), tuple(launch.grid), launch.threads, launch.shared, values))
        return launches, self._driver.recording_descriptors(), self._driver.recording_complaint().decode()


def _is_address(value: bytes) -> bool:
    """Whether 8 bytes look like an address of this process's heap or mappings, or are none."""
    number = int.from_bytes(value[:8], "little")
    return not any(value[8:]) and (number == 0 or 2**40 <= number < 2**48)


def differences(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> list[str]:
    """What two rounds of the same launches differ in, addresses left out."""
    if len(first) != len(second):
        return [f"{len(first)} launches, then {len(second)}"]
    found = []
    for (kernel, *one, values), (_, *other, again) in zip(first, second, strict=True):
        if one != other or len(values) != len(again):
            found.append(f"{kernel}: {one}, then {other}")
            continue
        for number, (a, b) in enumerate(zip(values, again, strict=True)):
            if a != b and not (_is_address(a) and _is_address(b)):
                found.append(f"{kernel}, parameter {number}: {a[:16].hex()}, then {b[:16].hex()}")
    return found


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    recording = Recording(build_driver(Path(arguments[0])))
    from kernels import cross_compile
    from kernels.compile_cases import CASES
    from kernels.norm_compile_cases import NORM_CASES, launch_norm_case

    dtypes = cross_compile._TORCH_DTYPES
    layers: dict[str, Callable[[], None]] = {}
    for case in CASES:
        tensors = functools.partial(cross_compile._tensors, case, case.dtypes[0])
        layers[case.name] = lambda case=case, tensors=tensors: cross_compile._launch_all(case, tensors())
    for norm in NORM_CASES:
        layers[norm.name] = functools.partial(launch_norm_case, norm, dtypes[norm.dtypes[0]])
    for name in arguments[1:]:
        first, descriptors, complaint = recording.of(layers[name])
        second, _, complaint_again = recording.of(layers[name])
        report = {
            "layer": name,
            "kernels": [launch[0] for launch in first],
            "parameters": [len(launch[4]) for launch in first],
            "descriptors": descriptors,
            "complaint": complaint or complaint_again,
            "differences": differences(first, second),
        }
        print(json.dumps(report), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
