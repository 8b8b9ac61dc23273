"""The library that stands in for the CUDA driver: compiled once, loaded once, connected to the simulator.

Triton's launcher calls it as it would call `libcuda.so.1`; modules it loads are PTX text, launches come back here with
the very bytes that a GPU would have got.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import triton
from triton.runtime.cache import get_cache_manager

from tidepool.simulator.faults import UnknownCode
from tidepool.simulator.ptx import Program, parse
from tidepool.simulator.tensor_map import Im2colMap, TensorMap

NAME = "libtidepool_simulated_cuda.so"
INCLUDE = Path(triton.__file__).parent / "backends/nvidia/include"
MAP_BYTES = 128

_Load = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_ulonglong))
_LaunchKernel = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_ulonglong,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_uint,
    ctypes.c_uint,
    ctypes.POINTER(ctypes.c_void_p),
)
_Attribute = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)

Launcher = Callable[[Program, tuple[int, int, int], int, int, bytes], None]
"""Takes a program, grid, threads, bytes of shared memory and parameter bytes."""


class _Functions(ctypes.Structure):
    _fields_ = (("load", _Load), ("launch", _LaunchKernel), ("attribute", _Attribute))


def library_path() -> Path:
    """The compiled library, in Triton's cache. Raises RuntimeError where there is no C compiler."""
    source = Path(__file__).with_name("driver.c")
    key = hashlib.sha256(source.read_bytes() + (INCLUDE / "cuda.h").read_bytes()).hexdigest()
    cache = get_cache_manager(key)
    known = cache.get_file(NAME)
    return Path(known or cache.put(_compiled(source), NAME, binary=True))


def _compiled(source: Path) -> bytes:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("a simulated device needs a C compiler, as Triton itself does: none was found (CC, cc, gcc)")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / NAME
        command = [
            compiler,
            "-shared",
            "-fPIC",
            "-O1",
            f"-Wl,-soname,{NAME}",
            f"-I{INCLUDE}",
            str(source),
            "-o",
            str(made),
        ]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return made.read_bytes()


class Library:
    """The loaded library. Errors of the Python side are kept and raised by whoever called into Triton's launcher."""

    def __init__(self) -> None:
        self.path = library_path()
        self.programs: dict[int, Program] = {}
        self.launcher: Launcher | None = None
        self.attributes: dict[int, Callable[[int], int]] = {}
        self.error: BaseException | None = None
        self._library = ctypes.CDLL(str(self.path), mode=ctypes.RTLD_GLOBAL)
        self._functions = _Functions(_Load(self._load), _LaunchKernel(self._launch), _Attribute(self._attribute))
        self._library.simulator_connect(ctypes.byref(self._functions))

    def raise_error(self) -> None:
        """Raise what went wrong in a call back from the library, once."""
        error, self.error = self.error, None
        if error is not None:
            raise error

    def _load(self, image: bytes, handle: Any) -> int:
        return self._kept(functools.partial(self._take, image, handle))

    def _take(self, image: bytes, handle: Any) -> None:
        program = parse(image.decode())
        self.programs[len(self.programs) + 1] = program
        handle[0] = len(self.programs)

    def _launch(self, handle: int, grid: Any, threads: int, shared: int, values: Any) -> int:
        program = self.programs[handle]
        return self._kept(functools.partial(self._run, program, (grid[0], grid[1], grid[2]), threads, shared, values))

    def _run(self, program: Program, grid: tuple[int, int, int], threads: int, shared: int, values: Any) -> None:
        raw = bytearray(program.parameter_bytes)
        for number, parameter in enumerate(program.parameters.values()):
            raw[parameter.offset : parameter.offset + parameter.size] = ctypes.string_at(values[number], parameter.size)
        if self.launcher is None:
            raise RuntimeError("a simulated kernel was launched while no simulated device was there")
        self.launcher(program, grid, threads, shared, bytes(raw))

    def _attribute(self, device: int, attribute: int) -> int:
        return self.attributes[device](attribute) if device in self.attributes else 0

    def _kept(self, work: Callable[[], None]) -> int:
        try:
            work()
        except BaseException as error:
            self.error = error
            return 1
        return 0


@functools.cache
def library() -> Library:
    """The process's one library."""
    return Library()


def tensor_maps(program: Program, parameters: bytes) -> dict[int, TensorMap]:
    """The tensor maps among the parameters, by their places; addresses are the host's."""
    found = {}
    for parameter in program.parameters.values():
        if parameter.size == MAP_BYTES:
            found[parameter.offset] = _decoded(parameters[parameter.offset : parameter.offset + MAP_BYTES])
    return found


def _decoded(raw: bytes) -> TensorMap:
    words = struct.unpack(f"<{MAP_BYTES // 8}Q", raw)
    rank, swizzle, element, fill = ((words[0] >> shift) & 0xFF for shift in (0, 8, 16, 24))
    if not 1 <= rank <= 5:
        raise UnknownCode(f"tensor map of rank {rank} among the parameters")
    fields: dict[str, Any] = {"address": words[14], "element": element, "swizzle": swizzle, "fill_nan": bool(fill)}
    fields |= {"sizes": tuple(words[2 : 2 + rank]), "strides": (element, *words[7 : 7 + rank - 1])}
    if words[0] >> 32:
        lower, upper = (struct.unpack_from(f"<{rank - 2}h", raw, at) for at in (96, 102))
        return Im2colMap(
            **fields, box=struct.unpack_from("<2I", raw, 88), lower=lower, upper=upper,
            steps=struct.unpack_from(f"<{rank - 2}B", raw, 108),
        )  # fmt: skip
    return TensorMap(**fields, box=struct.unpack_from(f"<{rank}I", raw, 88))
