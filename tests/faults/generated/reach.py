"""Which tests of the detectors run which line of the kernels, and in what order they try a mutant of a line."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.faults.generated.mutants import Mutant

MADE_FOR_FAULTS = "tests/faults/"
"""Where the detectors lie whose tests all try a mutant that they reach."""
BUDGET_S = 30.0
"""CPU seconds of tests of the other detectors that try one mutant, as they took traced: about 10 untraced."""


@dataclass(frozen=True)
class Test:
    """A test of a detector, and the CPU seconds it took."""

    __test__ = False

    name: str
    seconds: float

    @property
    def suite(self) -> str:
        """Its module."""
        return self.name.partition("::")[0]


class Reach:
    """The tests that run each line of the kernels."""

    def __init__(self, notes: Iterable[dict[str, Any]]) -> None:
        self._tests: dict[tuple[str, int], list[Test]] = {}
        for note in notes:
            test = Test(note["test"], note["seconds"])
            for file, lines in note["lines"].items():
                for line in lines:
                    self._tests.setdefault((file, line), []).append(test)

    def tests(self, mutant: Mutant) -> list[str]:
        """The tests that run the mutant's statement, none where none does: all of the detectors made for faults, the
        quick ones first, and of the others what `BUDGET_S` holds, in turns.
        """
        first, last = mutant.lines
        found = {test for line in range(first, last + 1) for test in self._tests.get((mutant.file, line), [])}
        quick_first = sorted(found, key=lambda test: (test.seconds, test.name))
        made = [test for test in quick_first if test.suite.startswith(MADE_FOR_FAULTS)]
        others = [test for test in quick_first if not test.suite.startswith(MADE_FOR_FAULTS)]
        return [test.name for test in [*made, *_within_budget(_in_turns(others), at_least=0 if made else 1)]]


def _in_turns(tests: Iterable[Test]) -> list[Test]:
    """The first test of each module, the second of each, and so on."""
    seen: dict[str, int] = defaultdict(int)
    turns = []
    for test in tests:
        turns.append((seen[test.suite], test.suite, test))
        seen[test.suite] += 1
    return [test for _, _, test in sorted(turns, key=lambda turn: turn[:2])]


def _within_budget(tests: Iterable[Test], at_least: int) -> list[Test]:
    taken: list[Test] = []
    seconds = 0.0
    for test in tests:
        seconds += test.seconds
        if len(taken) >= at_least and seconds > BUDGET_S:
            break
        taken.append(test)
    return taken
