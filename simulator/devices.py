"""A simulated GPU as a context: within it Triton compiles for it, and launches on CPU tensors run here.

    with tidepool.simulator.device("sm_90"):
        y = conv_relu_pool(x, w, backend="triton")

`TIDEPOOL_DEVICE=sm_90` in the environment is the same for a whole process (`asked`). Loads Triton when first entered.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tidepool.simulator.chunk import Launch
from tidepool.simulator.global_memory import GlobalMemory, host_bytes, view_of
from tidepool.simulator.known import forget_known
from tidepool.simulator.launch import Report, run
from tidepool.simulator.ptx import Program, parse
from tidepool.simulator.schedule import Schedule, schedule_named
from tidepool.simulator.targets import Target, target_named

ENVIRONMENT = "TIDEPOOL_DEVICE"
_KEPT = 10_000


@dataclasses.dataclass
class Totals:
    """What a device has done since it was made; `seconds` of simulating, which are no GPU's."""

    launches: int = 0
    warp_instructions: int = 0
    seconds: float = 0.0


class Device:
    """A simulated GPU. `reports` has what the latest launches did, oldest first, `totals` what all did."""

    def __init__(self, target: Target, schedule: Schedule) -> None:
        self.target, self.schedule = target, schedule
        self.reports: list[Report] = []
        self.totals = Totals()

    @property
    def name(self) -> str:
        """sm_80, sm_90."""
        return self.target.name

    def launch(
        self, program: Program, grid: tuple[int, int, int], threads: int, shared: int, parameters: bytes
    ) -> None:
        """Run what the driver was given, on the tensors of the launch. Raises Fault or UnknownCode."""
        from tidepool.simulator.triton_device.library import tensor_maps

        memory = GlobalMemory()
        for number, tensor in enumerate(_launching):
            _add(memory, tensor, number)
        raw = bytearray(parameters)
        for parameter in program.parameters.values():
            if parameter.pointer and parameter.size == 8:
                place = slice(parameter.offset, parameter.offset + 8)
                host = int.from_bytes(raw[place], "little")
                raw[place] = (memory.address_of(host) if host else 0).to_bytes(8, "little")
        maps = {
            place: dataclasses.replace(one, address=memory.address_of(one.address))
            for place, one in tensor_maps(program, parameters).items()
        }
        launch = Launch(
            program=program, grid=grid, threads=threads, shared_bytes=shared, parameters=bytes(raw), maps=maps,
            memory=memory,
        )  # fmt: skip
        report = run(launch, self.schedule)
        self.reports.append(report)
        del self.reports[:-_KEPT]
        self.totals.launches += 1
        self.totals.warp_instructions += report.warp_instructions
        self.totals.seconds += report.seconds


def _tensors_of(arguments: Any) -> Iterator[Any]:
    """The tensors among a launch's arguments, those of tensor descriptors and in tuples too."""
    for argument in arguments:
        if isinstance(argument, tuple | list):
            yield from _tensors_of(argument)
        elif hasattr(argument, "base") and hasattr(argument, "block_shape"):
            yield argument.base
        elif hasattr(argument, "untyped_storage"):
            yield argument


def _add(memory: GlobalMemory, tensor: Any, number: int) -> None:
    storage = tensor.untyped_storage()
    size = tensor.element_size()
    name = f"argument {number} {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
    view = view_of(tensor.storage_offset() * size, tensor.shape, tensor.stride(), size, name)
    memory.add(storage.data_ptr(), host_bytes(storage.data_ptr(), storage.nbytes()), view, number)


_launching: list[Any] = []
"""The tensors of the launch that is about to happen."""


def _see(arguments: tuple[Any, ...]) -> None:
    _launching[:] = _tensors_of(arguments)


@functools.cache
def _driver_of(target: Target) -> Any:
    from tidepool.simulator.triton_device.driver import SimulatedDriver

    return SimulatedDriver(target, _see)


_current: list[Device] = []
_followers: list[Callable[[Device | None], None]] = []
_devices: dict[tuple[Target, Schedule], Device] = {}


def clear_caches() -> None:
    """Forget parsed programs and every device that is not entered, with its reports. What is loaded into the process, a
    library and Triton's driver over it, stays."""
    parse.cache_clear()
    forget_known()
    for key in [key for key, one in _devices.items() if one not in _current]:
        del _devices[key]


def current() -> Device | None:
    """The simulated device that launches go to; None where there is none."""
    return _current[-1] if _current else None


def follow(changed: Callable[[Device | None], None]) -> None:
    """Have `changed` called with the current device now, and whenever it is another one."""
    _followers.append(changed)
    changed(current())


@contextmanager
def device(name: str, schedule: str | Schedule = "eager") -> Iterator[Device]:
    """Run compiled kernels of `name` ("sm_80", "sm_90") on CPU tensors, in the block.

    `schedule`: "eager", "late", "seeded", "seeded:7", or a `Schedule`. Raises ValueError for an unknown name or
    schedule; in the block launches raise `Fault` for what no correct kernel does.
    """
    target = target_named(name)
    schedule = schedule_named(schedule) if isinstance(schedule, str) else schedule
    one = _devices.get((target, schedule))
    if one is None:
        one = _devices[target, schedule] = Device(target, schedule)
    with _in_place(one):
        yield one


@contextmanager
def _in_place(one: Device) -> Iterator[None]:
    from tidepool.simulator.triton_device.driver import active
    from tidepool.simulator.triton_device.library import library

    before = library().launcher
    library().launcher = one.launch
    _current.append(one)
    with ExitStack() as stack:
        stack.enter_context(active(_driver_of(one.target)))
        _tell()
        try:
            yield
        finally:
            _current.pop()
            library().launcher = before
            _tell()


def _tell() -> None:
    for changed in _followers:
        changed(current())


_for_good = ExitStack()


def asked() -> Device | None:
    """The current device, or the one that the environment asks for, which then stays. Raises ValueError for a name
    that there is not."""
    name = os.environ.get(ENVIRONMENT, "")
    if not _current and name:
        return _for_good.enter_context(device(name))
    return current()


def stay(name: str, schedule: str | Schedule = "eager") -> Device:
    """Enter a device for the rest of the process, as a program's --device does."""
    return _for_good.enter_context(device(name, schedule))
