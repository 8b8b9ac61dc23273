"""Which programs of a launch touched each piece of global memory, and what their atomics order.

Programs are not ordered by themselves: a plain access to what another program writes is a race, as is a plain one
beside an atomic. Atomics order them (memory consistency model, PTX ISA 8.7 section 8): what a program did before it
released is known to one that acquires at the same place later. Time is counted in atomic instructions. A program counts
as one: whether its own warps met before one of them released is not looked at. And who acquires at a place is taken to
know of all releases until the last one there, elsewhere too. Both leave races out, and make none up.
"""

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from tidepool.simulator.faults import Fault
from tidepool.simulator.numbers import Array

MANY = -1
"""In place of a program: several."""
_NARROW = "atomic of scope .cta on what another program of the launch changes too"


@dataclass(frozen=True)
class Ordering:
    """Whether an atomic releases and acquires, and whether its scope is more than a program (section 9.7.13.5)."""

    releases: bool = False
    acquires: bool = False
    between_programs: bool = True


class ProgramOrder:
    """When programs (their numbers plus one) released, and up to when they know of others' releases."""

    def __init__(self) -> None:
        self.tick = 0
        self._released: defaultdict[int, list[int]] = defaultdict(list)
        self._knows: defaultdict[int, int] = defaultdict(int)
        self._seen: defaultdict[int, int] = defaultdict(int)
        self._fenced: set[int] = set()

    def known(self, by: Array, at: Array, mine: Array) -> Array:
        """Whether programs `mine` know that accesses at ticks `at` of programs `by` (or MANY) are over."""
        kinds, inverse = np.unique(np.stack([by, at, mine], 1), axis=0, return_inverse=True)
        return np.array([self._is_known(*kind) for kind in kinds.tolist()])[inverse.reshape(-1)]

    def _is_known(self, by: int, at: int, mine: int) -> bool:
        if by == MANY:
            return at < self._knows[mine]
        released = self._released[by]
        after = bisect_right(released, at)
        return after < len(released) and released[after] <= self._knows[mine]

    def atomic(self, synced: Array, mine: Array, ordering: Ordering) -> Array:
        """Programs `mine` are at an atomic, at places last released at ticks `synced`; returns these ticks after it.
        A relaxed one after a fence releases, and what it saw is known after the next (section 8.8, patterns)."""
        programs, place = np.unique(mine, return_inverse=True)
        releases = np.array([ordering.releases or program in self._fenced for program in programs.tolist()])
        synced = np.where(releases[place], self.tick, synced)
        latest = np.zeros(len(programs), synced.dtype)
        np.maximum.at(latest, place, synced)
        sees = self._knows if ordering.acquires else self._seen
        for program, tick, released in zip(programs.tolist(), latest.tolist(), releases.tolist(), strict=True):
            sees[program] = max(sees[program], tick)
            if released:
                self._released[program].append(self.tick)
        return synced

    def fence(self, programs: Array) -> None:
        """Programs (their numbers) are at a fence that orders what other programs see."""
        for program in (np.unique(programs) + 1).tolist():
            self._fenced.add(program)
            self._knows[program] = max(self._knows[program], self._seen[program])


class Traces:
    """Who wrote and read each piece of a storage, and who changed it atomically; with an order also when."""

    def __init__(self, pieces: int, order: ProgramOrder | None) -> None:
        self.order = order
        kinds = ("write", "read", "atomic") if order else ("write", "read")
        self._by = {kind: np.zeros(pieces, np.int32) for kind in kinds}
        self._at = {kind: np.zeros(pieces, np.int32) for kind in kinds} if order else {}
        self._synced = np.zeros(pieces if order else 0, np.int32)

    def note_read(self, pieces: Array, mine: Array) -> None:
        """Programs `mine` (numbers plus one) read. Raises Fault for a race."""
        self._refuse("write", pieces, mine, "global read of what another program of the launch writes")
        self._refuse("atomic", pieces, mine, "global read of what another program of the launch changes by an atomic")
        self._mark("read", pieces, mine)

    def note_written(self, pieces: Array, mine: Array) -> Array:
        """Programs write; returns where another one has, with no order between. Raises Fault for other races."""
        self._refuse("read", pieces, mine, "global write to what another program of the launch reads")
        self._refuse("atomic", pieces, mine, "global write to what another program of the launch changes by an atomic")
        clash = self._unordered("write", pieces, mine)
        self._by["write"][pieces] = mine
        self._stamp("write", pieces)
        return clash

    def note_guess(self, pieces: Array, mine: Array) -> None:
        """Programs read what they are about to compare and swap: a value that is not right costs another round, so that
        others' atomics are no race beside it."""
        self._refuse("write", pieces, mine, "global read of what another program of the launch writes")
        self._mark("atomic", pieces, mine)

    def note_atomic(self, pieces: Array, mine: Array, ordering: Ordering) -> None:
        """Programs change pieces by an atomic. Raises Fault for plain accesses of others beside it."""
        assert self.order is not None
        self._refuse("write", pieces, mine, "atomic access to what another program of the launch writes")
        self._refuse("read", pieces, mine, "atomic access to what another program of the launch reads")
        if not ordering.between_programs:
            self._refuse("atomic", pieces, mine, _NARROW)
        self._mark("atomic", pieces, mine)
        if not ordering.between_programs and (self._by["atomic"][pieces] == MANY).any():
            raise Fault("race", _NARROW)
        self.order.tick += 1
        ticks = self.order.atomic(self._synced[pieces], mine, ordering)
        np.maximum.at(self._synced, pieces, ticks)

    def _mark(self, kind: str, pieces: Array, mine: Array) -> None:
        by = self._by[kind]
        values = np.where(self._unordered(kind, pieces, mine), MANY, mine)
        by[pieces] = values
        others = by[pieces] != values  # several programs in one instruction
        if others.any():
            by[pieces[others]] = MANY
        self._stamp(kind, pieces)

    def _stamp(self, kind: str, pieces: Array) -> None:
        if self.order is not None:
            self._at[kind][pieces] = self.order.tick

    def _refuse(self, kind: str, pieces: Array, mine: Array, message: str) -> None:
        if kind in self._by and self._unordered(kind, pieces, mine).any():
            raise Fault("race", message)

    def _unordered(self, kind: str, pieces: Array, mine: Array) -> Array:
        """Where another program had such an access, and these programs do not know that it is over."""
        by = self._by[kind][pieces]
        clash = (by != 0) & (by != mine)
        if self.order is not None and clash.any():
            clash[clash] = ~self.order.known(by[clash], self._at[kind][pieces[clash]], mine[clash])
        return clash
