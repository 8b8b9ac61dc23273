"""Compiling without a GPU: Triton's driver replaced by one that only names the target, and launches that are collected.

What is compiled is what would be launched: the real launchers run on CPU tensors, and every launch is written down.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget

from tidepool import simulator
from tidepool.kernels.compile_check.layer_work import layer_work
from tidepool.kernels.compile_check.machine_code import (
    MachineCode,
    occupancy_percent,
    problems_of,
    read_machine_code,
    resident_programs,
)
from tidepool.kernels.compile_check.modelled import Compiled
from tidepool.kernels.compile_check.rows import Row
from tidepool.kernels.runtime import launch
from tidepool.kernels.runtime.mode import Mode, force
from tidepool.kernels.runtime.targets import Target
from tidepool.simulator import sass

SIMULATED = tuple(target.name for target in simulator.TARGETS)
"""The targets whose code the simulator runs, and therefore has to know."""


def dtypes_on(target: Target, dtypes: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `dtypes` that the target multiplies in."""
    return tuple(dtype for dtype in dtypes if target.tf32 or dtype != "tf32")


@dataclass(frozen=True)
class _NamedTarget:
    """Stands in for Triton's driver: says what to compile for, and has no device behind it."""

    target: GPUTarget

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def compile_for(gpu: GPUTarget, target: Target) -> None:
    """Have Triton compile for `gpu`, by the tiles of `target`, from now on in this process, where nothing was compiled
    before."""
    triton.runtime.driver.set_active(_NamedTarget(gpu))
    force(Mode(target, interpreted=False))


def gpu_of(target: Target) -> GPUTarget:
    """The target as Triton names it."""
    return GPUTarget(target.backend, target.arch, target.warp)


@dataclass(frozen=True)
class Launch:
    """One launch that was asked for: a kernel with its grid and its arguments, positional and by keyword."""

    kernel: Any = field(repr=False)
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.kernel.__name__)

    @property
    def key(self) -> str:
        """What compiling depends on, as Triton tells arguments apart: two launches of one key are one kernel."""
        return repr((self.name, _kinds(self.arguments), sorted((k, _kinds(v)) for k, v in self.keywords.items())))

    @property
    def named(self) -> dict[str, Any]:
        """Every argument by its name, in the order of the kernel's signature."""
        parameters = self.kernel.signature.parameters
        given = dict(zip(parameters, self.arguments, strict=False)) | self.keywords
        return {name: given.get(name, parameter.default) for name, parameter in parameters.items()}

    @property
    def tile(self) -> str:
        """The blocks and warps, in short."""
        names = [k for k in self.keywords if k.startswith("BLOCK") or k in ("JOINT", "FLAT", "PERSISTENT")]
        return "x".join(str(int(self.keywords[name])) for name in names) + f" w{self.warps}"

    @property
    def warps(self) -> int:
        return int(self.keywords.get("num_warps", 4))


def _kinds(value: Any) -> Any:
    """Tensors by dtype and alignment, numbers as Triton specialises on them (1, multiples of 16, others; 64 bits)."""
    if isinstance(value, Tensor):
        return str(value.dtype), value.data_ptr() % 16 == 0
    if isinstance(value, tuple | list):
        return [_kinds(v) for v in value]
    if hasattr(value, "block_shape"):  # a tensor descriptor
        return "descriptor", _kinds(value.base), value.block_shape
    if isinstance(value, int) and not isinstance(value, bool):
        return 1 if value == 1 else ("i64" if abs(value) >= 2**31 else "i32", value % 16 == 0)
    return repr(value)


@contextmanager
def collecting(dtype: str) -> Iterator[list[Launch]]:
    """Launches in the block are put on the list instead, in order; float32 multiplies as `dtype` says."""
    asked: list[Launch] = []

    def collect(kernel: Any, grid: tuple[int, ...], *arguments: Any, **keywords: Any) -> None:
        asked.append(Launch(kernel, grid, arguments, keywords))

    with float32_as(dtype):
        launch.replace_launcher(collect)
        try:
            yield asked
        finally:
            launch.replace_launcher(None)


@contextmanager
def float32_as(dtype: str) -> Iterator[None]:
    """In the block, float32 convolutions multiply as `dtype` ("tf32" or another) says."""
    conv = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before, conv.fp32_precision = conv.fp32_precision, "tf32" if dtype == "tf32" else "ieee"
    try:
        yield
    finally:
        conv.fp32_precision = before


def compiled_row(target: Target, case: str, dtype: str, asked: Launch, ordered: bool) -> Compiled:
    """Compile a launch for `target`, this process's, and read what came out; `ordered`: as `problems_of`'s.

    A kernel that does not compile is a row with that problem.
    """
    given: dict[str, Any] = {
        "target": target.name, "case": case, "dtype": dtype, "kernel": asked.name, "tile": asked.tile,
    }  # fmt: skip
    nothing: dict[str, Any] = dict.fromkeys(
        ("registers", "spills", "shared_bytes", "tensor", "shuffles", "occupancy_percent"), 0
    )
    try:
        compiled = asked.kernel.warmup(*asked.arguments, grid=(1,), **asked.keywords)
    except Exception as error:  # the compiler's own, of any kind: the row tells it, and the check goes on
        message = " ".join(str(error).split())[-160:]
        return Compiled(Row(**given, **nothing, problem=f"does not compile: {type(error).__name__}: {message}"))
    assert compiled.metadata.target == triton.runtime.driver.active.get_current_target()
    code, shared = read_machine_code(target, compiled), compiled.metadata.shared
    problems = list(problems_of(target, asked.name, dtype, code, compiled, asked.keywords, ordered))
    if target.name in SIMULATED and (unknown := simulator.unknown_code(compiled.asm["ptx"])):
        problems.append(f"not simulated: {unknown}")
    row = Row(
        **given,
        registers=code.registers,
        spills=code.spills,
        shared_bytes=shared,
        tensor=code.tensor,
        shuffles=code.shuffles,
        occupancy_percent=occupancy_percent(target, code.registers, shared, asked.warps),
        problem=", ".join(problems),
    )
    return Compiled(row, compiled.asm.get("cubin"), _launch_facts(target, code, shared, asked))


def _launch_facts(target: Target, code: MachineCode, shared: int, asked: Launch) -> sass.Launch:
    """What the cycle model is told; a program that is too large for the target is modelled as if alone it fitted."""
    work = layer_work(asked.name, asked.grid, asked.named, target)
    return sass.Launch(
        threads=asked.warps * target.warp,
        shared=shared,
        resident=max(resident_programs(target, code.registers, shared, asked.warps), 1),
        programs=max(work.programs, 1),
        memory_bytes=work.memory_bytes,
        products=work.products if code.tensor else None,
        around=work.around,
    )
