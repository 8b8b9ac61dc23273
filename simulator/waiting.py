"""What a context waits for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tidepool.simulator.numbers import Array


@dataclass(frozen=True, eq=False)
class Wait:
    """`ready()` says for every lane of the context's slice whether it may go on; `again`: by running the instruction
    once more, else behind it. `kind` and `on`, what is waited for, are for the scheduler and for messages."""

    kind: str
    ready: Callable[[], Array]
    again: bool
    on: Any = None
