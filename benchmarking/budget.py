"""A budget of seconds that a session keeps to."""

import time
from collections.abc import Callable

Clock = Callable[[], float]


class Budget:
    """Counts down from `seconds` (None: without end) from the moment it is made.

    `steps` of the same kind tell it how long the next of that kind may take: one that would not end in time is not
    begun.
    """

    def __init__(self, seconds: float | None, clock: Clock = time.monotonic) -> None:
        self.seconds, self._clock, self._begun = seconds, clock, clock()
        self._longest: dict[str, float] = {}

    def spent(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._begun

    def left(self) -> float:
        """Seconds left; infinite without an end, never below 0."""
        return float("inf") if self.seconds is None else max(self.seconds - self.spent(), 0.0)

    def allows(self, kind: str) -> bool:
        """Whether a step of that kind, as long as the longest so far, would end in time."""
        return self.left() > self._longest.get(kind, 0.0)

    def took(self, kind: str, seconds: float) -> None:
        """Remember how long a step of that kind took."""
        self._longest[kind] = max(self._longest.get(kind, 0.0), seconds)

    def now(self) -> float:
        """The clock."""
        return self._clock()
