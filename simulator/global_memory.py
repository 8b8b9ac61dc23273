"""Global memory: the host's arrays, reached only through the views that a launch was given.

Every storage lies at an address of its own, gigabytes away from the next (a guard zone that any overrun falls into),
with the same alignment as on the host. Each access is checked byte by byte against the views: storage between the
elements of a view does not exist. Two programs of a launch are ordered by their atomics alone (program_order.py), so a
byte that one writes and another reads, or writes otherwise, is a race.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidepool.simulator.counters import SECTOR
from tidepool.simulator.faults import Fault
from tidepool.simulator.numbers import UNSIGNED, Array
from tidepool.simulator.program_order import Ordering, ProgramOrder, Traces

GUARD = 1 << 34
"""Bytes between storages, at least."""
_FIRST = 1 << 44
_TRACKED = 1 << 28
"""Bytes of the largest storage in which accesses of different programs are told apart."""


@dataclass(frozen=True, kw_only=True)
class View:
    """Elements of a storage that a launch may touch: a tensor's, by its offset, sizes and strides in bytes."""

    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    element: int
    name: str

    @property
    def extent(self) -> int:
        """Bytes from the first element to the end of the last; 0 without elements."""
        if 0 in self.sizes:
            return 0
        return self.element + sum((n - 1) * s for n, s in zip(self.sizes, self.strides, strict=True))

    def holds(self, offsets: Array, size: int) -> Array:
        """Whether `size` bytes from each offset (into the storage) are all bytes of elements."""
        if size > self.element:
            pieces = range(0, size, self.element)
            return np.logical_and.reduce([self.holds(offsets + piece, min(self.element, size)) for piece in pieces])
        rest = offsets - self.offset
        inside = (rest >= 0) & (rest < max(self.extent, 0))
        dims = [(s, n) for n, s in zip(self.sizes, self.strides, strict=True) if s > 0 and n > 1]
        for stride, count in sorted(dims, reverse=True):
            rest = rest - np.minimum(rest // stride, count - 1) * stride
        return inside & (rest + size <= self.element)


@dataclass(kw_only=True)
class Storage:
    """One allocation of the host: its bytes, the address it has in the simulated memory, and what may be touched."""

    data: Array
    start: int
    number: int
    views: list[View]
    traces: Traces | None = None
    granule: int = 1
    whole: bool = False
    touched: dict[str, Array] = field(default_factory=dict)
    typed: dict[int, Array] = field(default_factory=dict)

    def of_width(self, width: int) -> Array | None:
        """The bytes as unsigned integers of `width`; None where the storage is not aligned to them."""
        if width not in self.typed:
            if self.start % width:
                return None
            self.typed[width] = self.data[: len(self.data) // width * width].view(UNSIGNED[8 * width])
        return self.typed[width]


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a launch touched of a storage, however often: bytes read and written, and those of the sectors they are in.
    `number` is that of the first tensor of the launch that lies there."""

    number: int
    size: int
    read: int
    read_sectors: int
    written: int
    written_sectors: int


class GlobalMemory:
    """The storages of a launch."""

    def __init__(self) -> None:
        self.storages: list[Storage] = []
        self.boxes: dict[Any, tuple[int, int]] = {}
        self.order: ProgramOrder | None = None
        self._starts = np.zeros(0, np.int64)
        self._hosts: dict[int, Storage] = {}

    def add(self, host: int, data: Array, view: View, number: int = 0) -> None:
        """Map `data`, the bytes of the host's storage at address `host`, unless it is, and allow `view` of it, the
        launch's tensor `number`."""
        storage = self._hosts.get(host)
        if storage is None:
            last = self.storages[-1] if self.storages else None
            after = last.start + len(last.data) + GUARD if last else _FIRST
            start = -(-after // 4096) * 4096 + host % 4096
            storage = Storage(data=data, start=start, number=number, views=[])
            self.storages.append(storage)
            self._hosts[host] = storage
            self._starts = np.array([s.start for s in self.storages], np.int64)
        if view not in storage.views:
            storage.views.append(view)
            storage.whole = storage.whole or _covers(view, len(storage.data))

    def track(self, atomics: bool = False) -> None:
        """Forget who wrote what; from now on the accesses of different programs are told apart. `atomics`: whether the
        program has any, in global memory."""
        self.order = ProgramOrder() if atomics else None
        for storage in self.storages:
            if len(storage.data) <= _TRACKED:
                storage.granule = min([view.element for view in storage.views], default=1)
                storage.traces = Traces(-(-len(storage.data) // storage.granule), self.order)

    def record(self) -> None:
        """From now on note which bytes are touched."""
        for storage in self.storages:
            storage.granule = min([view.element for view in storage.views], default=1)
            count = -(-len(storage.data) // storage.granule)
            storage.touched = {verb: np.zeros(count, np.bool_) for verb in ("read", "write")}

    def touch(self, addresses: Array, size: int, verb: str) -> None:
        """Note `size` bytes from each address on as read or written ("write")."""
        if not len(addresses):
            return
        storage = self._one(addresses, size)
        if storage is not None:
            self._note_touched(storage, addresses - storage.start, size, verb)
            return
        numbers = np.searchsorted(self._starts, addresses, "right") - 1
        for number in np.unique(numbers):
            self.touch(addresses[numbers == number], size, verb)

    def _note_touched(self, storage: Storage, offsets: Array, size: int, verb: str) -> None:
        if storage.touched:
            storage.touched[verb][self._granules(storage, offsets, size)] = True

    def footprints(self) -> tuple[Footprint, ...]:
        """What was touched since `record`, of every storage."""
        return tuple(
            Footprint(number=storage.number, size=len(storage.data), **_touched(storage))
            for storage in self.storages if storage.touched
        )  # fmt: skip

    def address_of(self, host: int) -> int:
        """The simulated address of a host address. Raises Fault where no tensor of the launch has it."""
        for start, storage in self._hosts.items():
            if start <= host <= start + len(storage.data):
                return storage.start + host - start
        raise Fault("bounds", f"pointer {host:#x} belongs to no tensor of the launch")

    def load(self, addresses: Array, width: int, count: int, programs: Array, guess: bool = False) -> Array:
        """[lanes, count] unsigned integers of `width` bytes from each address on. `guess`: for a compare-and-swap."""
        storage = self._one(addresses, width * count)
        if storage is None:
            return self._each(addresses, width, count, programs, None, guess)
        offsets = self._checked(storage, addresses, width, count, "read")
        self._note_touched(storage, offsets, width * count, "read")
        self._note_read(storage, offsets, width * count, programs, guess)
        data = storage.of_width(width)
        if data is None:
            raw = storage.data[offsets[:, None] + np.arange(width * count)]
            return np.ascontiguousarray(raw).view(UNSIGNED[8 * width])
        return data[(offsets // width)[:, None] + np.arange(count)]

    def store(self, addresses: Array, width: int, values: Array, programs: Array) -> None:
        """Write [lanes, count] unsigned integers of `width` bytes from each address on."""
        count = values.shape[1]
        storage = self._one(addresses, width * count)
        if storage is None:
            self._each(addresses, width, count, programs, values)
            return
        offsets = self._checked(storage, addresses, width, count, "write")
        self._note_touched(storage, offsets, width * count, "write")
        raw = np.ascontiguousarray(values).view(np.uint8).reshape(len(offsets), -1)
        places = offsets[:, None] + np.arange(width * count)
        shared = self._note_written(storage, offsets, width * count, programs)
        if shared is not None and (storage.data[places] != raw)[shared].any():
            raise Fault("race", "global write of another value than another program of the launch writes there")
        data = storage.of_width(width)
        if data is None:
            storage.data[places] = raw
        else:
            data[(offsets // width)[:, None] + np.arange(count)] = values
        if shared is not None and (storage.data[places] != raw).any():
            raise Fault("race", "two values written to the same global memory at once")

    def cells(
        self, addresses: Array, width: int, programs: Array, ordering: Ordering
    ) -> Iterator[tuple[Array, Array, Array]]:
        """For atomics of `width` bytes at each address, by storage: which lanes, its bytes as unsigned integers, and
        the lanes' places among them. Raises Fault as `load` and `store` do."""
        numbers = np.searchsorted(self._starts, addresses, "right") - 1
        for number in np.unique(numbers):
            lanes = np.nonzero(numbers == number)[0]
            storage = self._inside(int(number), addresses[lanes], width, "atomic access")
            offsets = self._checked(storage, addresses[lanes], width, 1, "atomic access")
            for verb in ("read", "write"):
                self._note_touched(storage, offsets, width, verb)
            if storage.traces is not None:
                touched, mine = self._by_granule(storage, offsets, width, programs[lanes])
                storage.traces.note_atomic(touched, mine, ordering)
            shift = -storage.start % width
            count = (len(storage.data) - shift) // width
            data = storage.data[shift : shift + count * width].view(UNSIGNED[8 * width])
            yield lanes, data, (offsets - shift) // width

    def _one(self, addresses: Array, size: int) -> Storage | None:
        """The storage that all addresses are in; None where they are in several."""
        first = self._storage_of(int(addresses[0]))
        low, high = int(addresses.min()), int(addresses.max())
        inside = first is not None and first.start <= low and high + size <= first.start + len(first.data)
        return first if inside else None

    def _storage_of(self, address: int) -> Storage | None:
        number = int(np.searchsorted(self._starts, address, "right")) - 1
        return self.storages[number] if number >= 0 else None

    def _each(
        self, addresses: Array, width: int, count: int, programs: Array, values: Array | None, guess: bool = False
    ) -> Array:  # fmt: skip
        """`load`, or with values `store`, storage by storage."""
        numbers = np.searchsorted(self._starts, addresses, "right") - 1
        result = np.zeros((len(addresses), count), UNSIGNED[8 * width])
        for number in np.unique(numbers):
            lanes = numbers == number
            self._inside(int(number), addresses[lanes], width * count, "read" if values is None else "write")
            if values is None:
                result[lanes] = self.load(addresses[lanes], width, count, programs[lanes], guess)
            else:
                self.store(addresses[lanes], width, values[lanes], programs[lanes])
        return result

    def _inside(self, number: int, addresses: Array, size: int, verb: str) -> Storage:
        """The storage of a number, -1 for addresses before the first. Raises Fault where `size` bytes are not in it."""
        storage = self.storages[max(number, 0)]
        beyond = (addresses + size > storage.start + len(storage.data)) | (number < 0)
        if beyond.any():
            raise self._outside(storage, addresses[beyond], verb)
        return storage

    def _checked(self, storage: Storage, addresses: Array, width: int, count: int, verb: str) -> Array:
        size = width * count
        if (addresses & (size - 1)).any():
            raise Fault("alignment", f"global {verb} of {size} bytes at an address that is no multiple of {size}")
        offsets = addresses - storage.start
        if not storage.whole:
            held = np.logical_or.reduce([view.holds(offsets, size) for view in storage.views])
            if not held.all():
                raise self._outside(storage, addresses[~held], verb)
        return offsets

    @staticmethod
    def _outside(storage: Storage, addresses: Array, verb: str) -> Fault:
        names = ", ".join(view.name for view in storage.views)
        offset = int(addresses[0]) - storage.start
        message = f"global {verb} out of bounds by {len(addresses)} lanes: byte {offset} of a storage of "
        return Fault("bounds", f"{message}{len(storage.data)} bytes, of which the launch has {names}")

    @staticmethod
    def _granules(storage: Storage, offsets: Array, size: int) -> Array:
        count = max(size // storage.granule, 1)
        if count == 1:
            return offsets // storage.granule
        return ((offsets // storage.granule)[:, None] + np.arange(count)).reshape(-1)

    def _by_granule(self, storage: Storage, offsets: Array, size: int, programs: Array) -> tuple[Array, Array]:
        """Granules that are touched, and the program (its number plus one) that touches each."""
        touched = self._granules(storage, offsets, size)
        return touched, np.repeat(programs, len(touched) // len(offsets)).astype(np.int32) + 1

    def _note_read(self, storage: Storage, offsets: Array, size: int, programs: Array, guess: bool) -> None:
        if storage.traces is not None:
            note = storage.traces.note_guess if guess and self.order else storage.traces.note_read
            note(*self._by_granule(storage, offsets, size, programs))

    def _note_written(self, storage: Storage, offsets: Array, size: int, programs: Array) -> Array | None:
        """The lanes that write where another program has written; None where accesses are not told apart."""
        if storage.traces is None:
            return None
        clash = storage.traces.note_written(*self._by_granule(storage, offsets, size, programs))
        return np.asarray(clash.reshape(len(offsets), -1).any(1))


def _touched(storage: Storage) -> dict[str, int]:
    """The fields of a footprint."""
    found = {}
    for verb, name in (("read", "read"), ("write", "written")):
        places = np.nonzero(storage.touched[verb])[0] * storage.granule
        found[name] = min(len(places) * storage.granule, len(storage.data))
        found[f"{name}_sectors"] = SECTOR * len(np.unique((places + storage.start) // SECTOR))
    return found


def _covers(view: View, size: int) -> bool:
    """Whether a view has every byte of its storage."""
    reach = view.element
    for stride, count in sorted((s, n) for n, s in zip(view.sizes, view.strides, strict=True) if n > 1):
        if stride > reach:
            return False
        reach = max(reach, stride * (count - 1) + reach)
    return view.offset == 0 and view.extent == size and 0 not in view.sizes


def host_bytes(address: int, size: int) -> Any:
    """The host's memory from an address on, as bytes that can be written."""
    import ctypes

    return np.ctypeslib.as_array((ctypes.c_uint8 * max(size, 1)).from_address(address))[:size]


def view_of(offset: int, sizes: Sequence[int], strides: Sequence[int], element: int, name: str) -> View:
    """A view by sizes and strides in elements."""
    return View(
        offset=offset, sizes=tuple(sizes), strides=tuple(s * element for s in strides), element=element, name=name
    )
