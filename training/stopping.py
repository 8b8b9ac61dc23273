"""SIGTERM, SIGUSR1 (what schedulers send before they take a machine away) and Ctrl-C: finish the step, save, say so."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from tidepool.program import STOPPED


class Interrupted(Exception):  # noqa: N818  a request, no error
    """Training stopped between two steps because the process was asked to."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = STOPPED[signal.Signals(signal_number)]


class StopRequest:
    """While the `with` block lasts, the first of STOPPED's signals is remembered instead of ending the process.

    A second one acts as it would have before the block. Only the main thread can receive signals: in another thread
    the block changes nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        """The signal that has come."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in STOPPED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def raise_if_received(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
