"""What `simulator/sass` says of compiled kernels: modelled cycles of one program, microseconds of its layer's launch,
and what binds them. Not measured, uncalibrated."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tidepool.kernels.compile_check.machine_code import tool
from tidepool.kernels.compile_check.rows import Row
from tidepool.kernels.runtime.targets import Target
from tidepool.simulator import sass

_TOGETHER = 64
"""Kernels disassembled at once: starting the disassembler takes 0.3 s, a kernel 0.01 s."""


LAYERS, ASSUMED = "layer", str(sass.ASSUMED_TRIPS)
"""Whose loops are modelled: the layer's, as its products have it; or as many trips as the model assumes of all."""


@dataclass(frozen=True)
class Compiled:
    """A row, and what its cycles are modelled from; None where the kernel did not compile or is no NVIDIA one."""

    row: Row
    cubin: bytes | None = None
    launch: sass.Launch | None = None


def has_model(target: Target) -> bool:
    """Whether there is a cycle model of the target."""
    return any(machine.target == target.name for machine in sass.MACHINES)


def with_cycles(target: Target, compiled: Iterable[Compiled]) -> Iterator[Row]:
    """The rows in their order, those of targets that have a model with cycles and what binds."""
    if not has_model(target):
        yield from (one.row for one in compiled)
        return
    waiting: list[Compiled] = []
    for one in compiled:
        waiting.append(one)
        if len(waiting) == _TOGETHER:
            yield from _modelled(target, waiting)
            waiting = []
    yield from _modelled(target, waiting)


def _modelled(target: Target, compiled: Sequence[Compiled]) -> Iterator[Row]:
    codes = iter(
        sass.disassemble([one.cubin for one in compiled if one.cubin is not None], target.name, tool("nvdisasm"))
    )
    for one in compiled:
        yield one.row if one.launch is None else _row(target, one.row, next(codes), one.launch)


def _row(target: Target, row: Row, code: Sequence[sass.Instruction], launch: sass.Launch) -> Row:
    try:
        found = sass.model(code, launch, sass.machine_named(target.name))
    except sass.UnknownOpcode as error:
        return replace(row, binds=str(error))
    us = None if found.waves is None else round(found.waves.seconds * 1e6, 1)
    binds = found.binds if found.waves is None else found.waves.binds
    return replace(row, cycles=round(found.cycles), us=us, loops=LAYERS if launch.products else ASSUMED, binds=binds)
