"""Everything that is kept between calls, cleared at once. `kernels/CACHES.md` says what that is, and under which key.

A function with a cache of `functools` is found by looking through the modules; what is kept otherwise is handed to
`cleared_by` where it is defined. A test finds both in the sources and holds them against the page.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tidepool import simulator
from tidepool.kernels.runtime.interpreting import Kernel

T = TypeVar("T")
_PACKAGE = "tidepool.kernels."
_CACHE = type(functools.cache(lambda: None))
_clears: list[Callable[[], None]] = []


def cleared_by(clear: Callable[[], None]) -> None:
    """Have `clear_caches` call this as well."""
    _clears.append(clear)


class Remembered(dict[Any, T]):
    """What was worked out before, by a key of everything it depends on. Full, it forgets all of it."""

    MOST = 4096

    def __init__(self) -> None:
        super().__init__()
        cleared_by(self.clear)

    def remember(self, key: Any, value: T) -> T:
        """Keep the value, and return it."""
        if len(self) >= self.MOST:
            self.clear()
        self[key] = value
        return value


def function_caches() -> dict[tuple[str, str], Any]:
    """Every function of a loaded module that has a cache, by file within `kernels/` and name."""
    return {_place(module, name): value for module, name, value in _defined() if isinstance(value, _CACHE)}


def clear_caches() -> None:
    """Forget what this package has worked out, looked up, decided or compiled in this process.

    Afterwards the environment, GPUs, tuning tables and tiles are looked at anew, and kernels are taken from Triton's
    cache on disk or compiled again. What was set by hand stays: a plan in force, a simulated device that is entered.
    """
    for clear in _clears:
        clear()
    for cache in function_caches().values():
        cache.cache_clear()
    for _, _, value in _defined():
        if isinstance(value, Kernel):
            value.forget()
    simulator.clear_caches()


def _defined() -> Iterator[tuple[str, str, Any]]:
    """(module, name, value) of what loaded modules of this package define."""
    for module in [name for name in sys.modules if name.startswith(_PACKAGE)]:
        for name, value in list(vars(sys.modules[module]).items()):
            if getattr(value, "__module__", None) == module:
                yield module, name, value


def _place(module: str, name: str) -> tuple[str, str]:
    return module.removeprefix(_PACKAGE).replace(".", "/") + ".py", name
