"""What reaches the CUDA driver, without one: launches by Triton's own launcher into the simulator's, kept and not run.

`simulator/triton_device/driver.c` holds grids, threads and tensor maps to the limits that the CUDA driver API
documents, and hands over the very bytes of the parameters. Tensors are the host's and unwritten.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tidepool import simulator
from tidepool.kernels import clear_caches
from tidepool.simulator.ptx import Program
from tidepool.simulator.targets import target_named
from tidepool.simulator.triton_device.library import library, tensor_maps

TARGET = target_named("sm_90")


@dataclass(frozen=True)
class Recorded:
    """A launch: the values of its parameters are their bytes, of tensor maps in words; `maps` is how many those are."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    shared: int
    values: tuple[bytes, ...]
    maps: int = 0


@dataclass
class Recorder:
    """The launches of what was last run, and what the driver said against one, empty for nothing."""

    launches: list[Recorded] = field(default_factory=list)
    complaint: str = ""

    def of(self, work: Callable[[], None]) -> list[Recorded]:
        """The launches of `work`, as far as the driver takes them."""
        self.launches, self.complaint = [], ""
        try:
            work()
        except RuntimeError as error:
            self.complaint = str(error)
        return self.launches

    def take(self, program: Program, grid: tuple[int, int, int], threads: int, shared: int, parameters: bytes) -> None:
        """The simulator's place: keep a launch."""
        if shared > TARGET.shared_block:
            raise RuntimeError(f"shared memory: {shared}")
        # A map has an address inside, which may be another one in every round.
        maps = {at: repr(replace(one, address=0)).encode() for at, one in tensor_maps(program, parameters).items()}
        values = [
            maps.get(one.offset, parameters[one.offset : one.offset + one.size]) for one in program.parameters.values()
        ]
        self.launches.append(Recorded(program.name, grid, threads, shared, tuple(values), len(maps)))


@contextmanager
def recorder() -> Iterator[Recorder]:
    """Launches on CPU tensors are recorded in the block, as sm_90's; its first ones go through Triton's look-up."""
    clear_caches()
    one = Recorder()
    with simulator.device(TARGET.name):
        before, library().launcher = library().launcher, one.take
        try:
            yield one
        finally:
            library().launcher = before


def _is_address(value: bytes) -> bool:
    """Whether 8 bytes look like an address of this process's heap or mappings, or are none."""
    number = int.from_bytes(value[:8], "little")
    return not any(value[8:]) and (number == 0 or 2**40 <= number < 2**48)


def differences(first: list[Recorded], second: list[Recorded]) -> list[str]:
    """What two rounds of the same launches differ in, addresses left out."""
    if len(first) != len(second):
        return [f"{len(first)} launches, then {len(second)}"]
    found = []
    for one, other in zip(first, second, strict=True):
        shape, again = [(x.kernel, x.grid, x.threads, x.shared, len(x.values)) for x in (one, other)]
        if shape != again:
            found.append(f"{one.kernel}: {shape}, then {again}")
            continue
        for number, (a, b) in enumerate(zip(one.values, other.values, strict=True)):
            if a != b and not (_is_address(a) and _is_address(b)):
                found.append(f"{one.kernel}, parameter {number}: {a[:16].hex()}, then {b[:16].hex()}")
    return found
