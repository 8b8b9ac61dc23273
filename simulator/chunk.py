"""Programs that run at a time, and the lanes of them that run in step.

A `Chunk` is some programs (CTAs) of a grid. Its lanes lie warp by warp: lane (warp * ctas + cta) * 32 + thread % 32, so
that the same warp of all programs is one slice. A `Context` is lanes that run in step: a slice, and a stack of levels,
as SIMT hardware has it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidepool.simulator.counters import Counters
from tidepool.simulator.global_memory import GlobalMemory
from tidepool.simulator.numbers import Array
from tidepool.simulator.order import Order
from tidepool.simulator.ptx import Program
from tidepool.simulator.registers import LANES, Registers
from tidepool.simulator.schedule import Schedule
from tidepool.simulator.shared_memory import SharedMemory, granule_of
from tidepool.simulator.tensor_map import TensorMap
from tidepool.simulator.waiting import Wait


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What the driver is given: a program, its grid and threads, parameter bytes, and the memory it may touch."""

    program: Program
    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int
    parameters: bytes
    maps: dict[int, TensorMap]
    memory: GlobalMemory


class Chunk:
    """The programs `numbers` (linear in the grid, x first) of a launch."""

    def __init__(self, launch: Launch, numbers: Array, schedule: Schedule, counters: Counters) -> None:
        self.launch, self.schedule, self.counters = launch, schedule, counters
        self.program = launch.program
        self.memory = launch.memory
        self.ctas = len(numbers)
        self.warps = -(-launch.threads // LANES)
        self.per_warp = self.ctas * LANES
        self.lanes = self.warps * self.per_warp
        self.random = np.random.default_rng(schedule.seed)
        lane = np.arange(self.lanes)
        self.cta_of = lane // LANES % self.ctas
        self.warp_of = lane // self.per_warp
        self.number_of = numbers[self.cta_of]
        self.registers = Registers(launch.program, self.lanes)
        self.order = Order(self.ctas, self.warps)
        size = launch.program.shared_bytes + launch.shared_bytes
        self.shared = SharedMemory(size, self.order, granule_of(launch.program), schedule.checks)
        self.specials = self._specials(numbers)
        self.ended = np.zeros((self.ctas, self.warps), np.bool_)
        self.parts: dict[str, Any] = {}

    def _specials(self, numbers: Array) -> dict[str, Array]:
        """Special registers by name (section 10)."""
        lane = np.arange(self.lanes, dtype=np.uint32)
        thread = (self.warp_of * LANES + lane % LANES).astype(np.uint32)
        found = {"%tid.x": thread, "%laneid": lane % np.uint32(LANES), "%warpid": self.warp_of.astype(np.uint32)}
        x, y, _ = self.launch.grid
        for axis, index in zip("xyz", (numbers % x, numbers // x % y, numbers // (x * y)), strict=True):
            found[f"%ctaid.{axis}"] = index[self.cta_of].astype(np.uint32) if self.ctas > 1 else index.astype(np.uint32)
        sizes = zip("xyz", self.launch.grid, (self.launch.threads, 1, 1), strict=True)
        for axis, programs, threads in sizes:
            found[f"%nctaid.{axis}"] = np.array([programs], np.uint32)
            found[f"%ntid.{axis}"] = np.array([threads], np.uint32)
        zero = np.zeros(1, np.uint32)
        return found | dict.fromkeys(("%tid.y", "%tid.z", "%cluster_ctarank", "%smid"), zero)

    def part(self, kind: Any) -> Any:
        """The chunk's one object of a class, made when first asked for: copies under way, mbarriers, queues."""
        name = kind.__name__
        if name not in self.parts:
            self.parts[name] = kind(self)
        return self.parts[name]


@dataclass
class Level:
    """One level of a context's stack: runs from `at` until `join`, for the lanes of `mask` (None: all of the slice)."""

    at: int
    join: int
    mask: Array | None
    warps: int


@dataclass(eq=False)
class Context:
    """The lanes low to high of a chunk, in step. `waits`: what for, None where they can go on; `rested`: they have let
    others go first at the instruction they are at."""

    chunk: Chunk
    low: int
    high: int
    stack: list[Level] = field(default_factory=list)
    waits: Wait | None = None
    rested: bool = False

    def __post_init__(self) -> None:
        self.registers = self.chunk.registers
        self.size = self.high - self.low

    def read(self, number: int) -> Array:
        """A register's values in the slice, or its one value."""
        return self.registers.read(number, self.low, self.high)

    def spread(self, values: Array) -> Array:
        """One value a lane."""
        return values if values.shape[0] == self.size else np.broadcast_to(values, (self.size, *values.shape[1:]))

    def write(self, number: int, value: Array, mask: Array | None) -> None:
        """Set a register where `mask` holds."""
        self.registers.write(number, value, self.low, self.high, mask)

    def special(self, name: str) -> Array:
        """A special register's values in the slice, or its one value."""
        value = self.chunk.specials[name]
        return value if value.shape[0] == 1 else value[self.low : self.high]

    def chosen(self, mask: Array | None) -> Array:
        """Numbers, within the slice, of the lanes that `mask` holds for."""
        return np.arange(self.size) if mask is None else np.nonzero(mask)[0]

    def ctas_and_warps(self, lanes: Array) -> tuple[Array, Array]:
        """Program (of the chunk) and warp of lanes of the slice."""
        return self.chunk.cta_of[lanes + self.low], self.chunk.warp_of[lanes + self.low]

    def warps_of(self, mask: Array | None) -> Array:
        """[warps of the slice, ctas]: whether a warp of a program takes part, with any lane."""
        shape = (self.size // self.chunk.per_warp, self.chunk.ctas)
        if mask is None:
            return np.ones(shape, np.bool_)
        return np.asarray(mask.reshape(*shape, LANES).any(-1))

    def warps_whole(self, mask: Array | None) -> bool:
        """Whether each warp takes part with all of its lanes or with none."""
        if mask is None:
            return True
        lanes = mask.reshape(-1, LANES)
        return bool((lanes.any(-1) == lanes.all(-1)).all())

    def warp_pairs(self, mask: Array | None) -> Iterator[tuple[int, int]]:
        """(program of the chunk, warp) for every warp that takes part."""
        first = self.low // self.chunk.per_warp
        for warp, cta in zip(*np.nonzero(self.warps_of(mask)), strict=True):
            yield int(cta), int(warp) + first
