"""Waiting for a storage that does not answer: a database may be restarted while a sweep runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from tidepool.sweeping.storage import STORAGE_ERRORS, is_damage

WAITS_S = (0.5, 1, 2, 4, 8, 15, *[30] * 9)
"""Between attempts: five minutes in all."""

P = ParamSpec("P")
R = TypeVar("R")


class _Troubled(Protocol):
    @property
    def on_trouble(self) -> Callable[[Exception, float], None]: ...


S = TypeVar("S", bound=_Troubled)


def patient(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """`method` of an object with `on_trouble`, called again after growing waits where the storage does not answer.

    It may have been done in part each time. Raises the storage's error where it is damaged or has not answered after
    all of `WAITS_S`.
    """

    @wraps(method)
    def call(self: S, *arguments: Any, **named: Any) -> R:
        for wait in WAITS_S:
            try:
                return method(self, *arguments, **named)
            except STORAGE_ERRORS as error:
                if is_damage(error):
                    raise
                self.on_trouble(error, wait)
        return method(self, *arguments, **named)

    return call
