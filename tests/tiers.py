"""Which tests plain `pytest` runs: all but those marked `full`, which `pytest -m ""` and CI run as well.

A test is `full` by its own mark, by structure, or by its time. By structure: of a test of the kernels or the networks
with several parameters, plain `pytest` runs a diagonal. Its longest parameter takes every value once, and each other
parameter goes through its values meanwhile: 33 layers x 3 dtypes are 33 tests, 11 of each dtype. By its time: what is
in `slow.txt`, which `pytest -m "" --slow SECONDS` writes anew, but for tests marked `default`.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import pytest

SLOW = Path(__file__).with_name("slow.txt")
COLLECTED: pytest.StashKey[set[str]] = pytest.StashKey()
"""Names of all tests that were collected, before `-m` left some out."""

CUT = ("kernels", "models")
"""Folders of tests that a diagonal is taken of. Elsewhere a parameter costs little, and all of its values run."""


def mark_full(items: Iterable[pytest.Item], tests: Path) -> None:
    """Mark what is slow or lies off the diagonals `full`; `tests` is the folder of all tests."""
    groups, slow = defaultdict(list), slow_tests()
    for item in items:
        if item.nodeid in slow and item.get_closest_marker("default") is None:
            item.add_marker(pytest.mark.full)
        if hasattr(item, "callspec") and any(item.path.is_relative_to(tests / folder) for folder in CUT):
            groups[item.path, getattr(item, "cls", None), item.originalname].append(item)  # type: ignore[attr-defined]
    for group in groups.values():
        for item, stays in zip(group, diagonal([_values(item) for item in group]), strict=True):
            if not stays:
                item.add_marker(pytest.mark.full)


def _values(item: pytest.Item) -> tuple[Hashable, ...]:
    """What tells apart the values of each parameter: arguments of one `parametrize` are one parameter."""
    params: dict[str, object] = dict(item.callspec.params)  # type: ignore[attr-defined]
    together = [mark.args[0] for mark in item.iter_markers("parametrize")]
    names = [[name.strip() for name in given.split(",")] if isinstance(given, str) else given for given in together]
    values = [tuple(id(params.pop(name)) for name in group if name in params) for group in names]
    return (*values, *[id(value) for value in params.values()])  # what is left are parameters of fixtures


def diagonal(combinations: Sequence[tuple[Hashable, ...]]) -> list[bool]:
    """Whether each combination of parameters' values stays.

    Every value that occurs is kept in at least one combination, also where combinations are missing from the grid.
    """
    places: list[dict[Hashable, int]] = [{} for _ in combinations[0]]
    indices = [
        [place.setdefault(value, len(place)) for place, value in zip(places, one, strict=True)] for one in combinations
    ]
    longest = max(range(len(places)), key=lambda parameter: len(places[parameter]))
    stays = [
        all(index == one[longest] % len(place) for index, place in zip(one, places, strict=True)) for one in indices
    ]
    met = {pair for one, stay in zip(indices, stays, strict=True) if stay for pair in enumerate(one)}
    for at, one in enumerate(indices):
        if not met.issuperset(enumerate(one)):
            stays[at] = True
            met.update(enumerate(one))
    return stays


def slow_tests() -> set[str]:
    """The names in slow.txt."""
    lines = SLOW.read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


class SlowList:
    """Writes slow.txt: the tests of this run that took longer than so many seconds, setup and teardown included."""

    def __init__(self, seconds: float) -> None:
        self._limit = seconds
        self._seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a part of a test."""
        self._seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the list, by the process that started the workers."""
        if not hasattr(session.config, "workerinput"):
            head = f'# Over {self._limit:g} s each; written by: pytest -m "" --slow {self._limit:g}'
            names = sorted(name for name, seconds in self._seconds.items() if seconds > self._limit)
            SLOW.write_text("\n".join([head, *names]) + "\n", encoding="utf-8")
