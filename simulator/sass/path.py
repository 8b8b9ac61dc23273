"""The way of one warp through the code: which instructions it executes, and how often each stands for itself.

Loops are walked a few times, not as often as they run: their steady trips stand for the others by their weight. What
decides a branch is data that machine code does not hold, so that rules stand in where no counts are given:

- a backward branch is taken as often as the loop's trips say, a forward one out of a loop at its end or not at all;
- of two stretches of which a branch chooses one (the first ends in a jump over the second, or in EXIT), the one with
  tensor instructions is taken; where that does not tell, the longer;
- other conditional forward branches are not taken;
- but a long stretch without tensor instructions, skipped by a branch inside a loop with some, runs on the last trip: it
  is what follows the sum over the loop, or prepares the next (an epilogue, the place of the next tile).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from tidepool.simulator.sass.machine_code import Instruction

ASSUMED_TRIPS = 16
"""How often a loop runs of which nothing is known."""
_STEADY = 2
"""Trips in the middle of a loop that stand for the others, after the first and before the last."""
_WALKED = _STEADY + 2
_WALKED_AROUND = 3
"""Trips walked of a loop that holds another."""
_LONG = 30
_MOST = 200_000
_TURNS = ("BRA", "EXIT", "CALL", "RET")
_TENSOR = ("HGMMA", "IGMMA", "QGMMA", "HMMA", "IMMA", "DMMA")


class Visit(NamedTuple):
    """An instruction on the way, by its number in the code; `weight`: how many executions it stands for."""

    number: int
    weight: float


@dataclass(frozen=True)
class Loop:
    """Instructions `first` to `last`, a branch back to the first."""

    first: int
    last: int

    def holds(self, number: int) -> bool:
        return self.first <= number <= self.last


def loops_of(code: Sequence[Instruction]) -> list[Loop]:
    """The loops of a kernel, in the order of their first instructions' first mention; of two with one beginning the
    longer."""
    number_of = {instruction.address: number for number, instruction in enumerate(code)}
    found: dict[int, Loop] = {}
    for number, instruction in enumerate(code):
        first = number_of.get(instruction.target) if instruction.name == "BRA" else None
        if first is not None and first < number:
            found[first] = Loop(first, number)
    return list(found.values())


@dataclass
class _Round:
    """A loop that is being walked: trips begun, those to walk, those it has, the weight of the code around it."""

    loop: Loop
    walked: int
    trips: int
    around: float
    begun: int = 1

    @property
    def weight(self) -> float:
        """Of the trip that is being walked."""
        steady = self.walked - 2 if self.trips > self.walked else 0
        return self.around * ((self.trips - 2) / steady if steady and 1 < self.begun < self.walked else 1.0)

    @property
    def last(self) -> bool:
        return self.begun >= self.walked


@dataclass
class _Walk:
    """One walk through `code`; `trips`: of all loops, or by the address of a loop's first instruction."""

    code: Sequence[Instruction]
    trips: int | Mapping[int, int]
    counts: Mapping[int, float] | None
    rounds: list[_Round] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)

    @cached_property
    def number_of(self) -> dict[int, int]:
        return {instruction.address: number for number, instruction in enumerate(self.code)}

    @cached_property
    def loops(self) -> dict[int, Loop]:
        """By the number of the first instruction; of two with one beginning the longer."""
        return {loop.first: loop for loop in loops_of(self.code)}

    def _goes_to(self, branch: Instruction) -> int | None:
        return self.number_of.get(branch.target)

    def run(self) -> list[Visit]:
        at: int | None = 0
        turns = {number for number, instruction in enumerate(self.code) if instruction.name in _TURNS}
        while at is not None and at < len(self.code):
            if self.rounds or at in self.loops:
                self._begin_loop(at)
            self.visits.append(Visit(at, self._weight))
            if len(self.visits) > _MOST:
                raise ValueError(f"more than {_MOST} instructions on the way: loops in loops in loops")
            at = self._next(at) if at in turns else at + 1
        return self.visits

    @property
    def _weight(self) -> float:
        return self.rounds[-1].weight if self.rounds else 1.0

    def _begin_loop(self, at: int) -> None:
        while self.rounds and not self.rounds[-1].loop.holds(at) and not self.calls:
            self.rounds.pop()
        loop = self.loops.get(at)
        if loop is None or any(begun.loop is loop for begun in self.rounds):
            return
        trips = self._trips_of(loop)
        around = any(loop.first < other.first and other.last <= loop.last for other in self.loops.values())
        walked = min(trips, _WALKED_AROUND if around else _WALKED)
        self.rounds.append(_Round(loop, walked, trips, self._weight))

    def _trips_of(self, loop: Loop) -> int:
        if self.counts is not None:
            entered, begun = (self.counts.get(self.code[max(n, 0)].address, 0) for n in (loop.first - 1, loop.first))
            return max(1, round(begun / max(entered, 1)))
        if isinstance(self.trips, int):
            return self.trips
        return max(1, self.trips.get(self.code[loop.first].address, ASSUMED_TRIPS))

    def _next(self, at: int) -> int | None:
        instruction = self.code[at]
        if instruction.name == "EXIT" and not instruction.predicate:
            return None
        if instruction.name == "RET" and self.calls:
            return self.calls.pop()
        if instruction.name == "CALL" and not instruction.predicate:
            self.calls.append(at + 1)
            return self._goes_to(instruction)
        return self._after_branch(at) if instruction.name == "BRA" else at + 1

    def _after_branch(self, at: int) -> int | None:
        branch, goes_to = self.code[at], self._goes_to(self.code[at])
        if goes_to is None or goes_to == at:
            return None
        if goes_to < at:
            return self._after_trip(at, goes_to)
        if not _is_conditional(branch):
            return goes_to
        return goes_to if self._is_taken(at, goes_to) else at + 1

    def _after_trip(self, at: int, first: int) -> int | None:
        """After a branch backwards: another trip, or on."""
        round_ = next((begun for begun in reversed(self.rounds) if begun.loop.first == first), None)
        if round_ is None:  # back from code that was put out of the way
            return at + 1 if _is_conditional(self.code[at]) else first
        if at < round_.loop.last and _is_conditional(self.code[at]):  # `continue`, at another place than the end
            return at + 1
        if round_.last:
            return round_.loop.last + 1
        round_.begun += 1
        return first

    def _is_taken(self, at: int, goes_to: int) -> bool:
        """Whether a conditional branch forwards is."""
        innermost = self.rounds[-1] if self.rounds else None
        if innermost is not None and goes_to > innermost.loop.last:
            return innermost.last and not _is_conditional(self.code[innermost.loop.last])
        if self.counts is not None:
            return self._is_taken_by_count(at, innermost)
        other = self._other_way(goes_to)
        if other is not None:
            return self._preference(goes_to, other) > self._preference(at + 1, goes_to)
        if innermost is None or not self._is_epilogue(at + 1, goes_to, innermost.loop):
            return False
        return not innermost.last

    def _is_taken_by_count(self, at: int, innermost: _Round | None) -> bool:
        assert self.counts is not None
        through, here = (self.counts.get(self.code[number].address, 0) for number in (at + 1, at))
        seldom = innermost is not None and not innermost.last and 2 * through < here
        return through == 0 or seldom

    def _other_way(self, goes_to: int) -> int | None:
        """Where the second of two stretches ends, which begins at `goes_to`; None: the first runs into it."""
        last = self.code[goes_to - 1]
        if last.name == "EXIT" and not last.predicate:
            return len(self.code)
        if last.name != "BRA" or _is_conditional(last):
            return None
        end = self._goes_to(last)
        return end if end is not None and end > goes_to else None

    def _preference(self, first: int, end: int) -> tuple[bool, int]:
        return any(self.code[number].name in _TENSOR for number in range(first, end)), end - first

    def _is_epilogue(self, first: int, end: int, loop: Loop) -> bool:
        """Whether instructions `first` up to `end` are a long stretch without products, in a loop that has some."""
        if end - first <= _LONG or any(self.code[number].name in _TENSOR for number in range(first, end)):
            return False
        return any(self.code[number].name in _TENSOR for number in range(loop.first, loop.last + 1))


def _is_conditional(branch: Instruction) -> bool:
    """By a predicate, of its own or a uniform one among the operands."""
    return bool(branch.predicate) or ", " in branch.operands or branch.operands.startswith(("UP", "!UP"))


def walk(
    code: Sequence[Instruction],
    trips: int | Mapping[int, int] = ASSUMED_TRIPS,
    counts: Mapping[int, float] | None = None,
) -> list[Visit]:
    """The way of a warp through `code`.

    `trips` of every loop, or by the address of a loop's first instruction (others: ASSUMED_TRIPS). `counts`: how often
    a warp executes the instruction at an address (absent: never), where that is known; it decides branches and weights.
    """
    visits = _Walk(code, trips, counts).run()
    return visits if counts is None else _weighted(code, visits, counts)


def _weighted(code: Sequence[Instruction], visits: list[Visit], counts: Mapping[int, float]) -> list[Visit]:
    """The visits with weights that add up to the counts."""
    seen: dict[int, int] = {}
    for visit in visits:
        seen[visit.number] = seen.get(visit.number, 0) + 1
    return [Visit(v.number, counts.get(code[v.number].address, 0) / seen[v.number]) for v in visits]
