"""Calls that are waited for within a limit, and what to do about a service that does not answer: W&B's."""

import os
import queue
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any


class BoundedCalls:
    """Calls one after another in a thread of their own, each waited for within a limit; after one that has not ended
    `hang` is True, and the next begins in a thread of its own."""

    def __init__(self) -> None:
        self.hang = False
        self._waiting: queue.SimpleQueue[tuple[Callable[[], None], queue.SimpleQueue[Any]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[[], None], limit_s: float) -> None:
        """Raises what the call raises, or TimeoutError."""
        if self._thread is None or self.hang:
            self.hang = False
            self._waiting = queue.SimpleQueue()
            self._thread = threading.Thread(target=self._work, args=[self._waiting], name="wandb", daemon=True)
            self._thread.start()
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._waiting.put((call, answer))
        try:
            error = answer.get(timeout=limit_s)
        except queue.Empty:
            self.hang = True
            raise TimeoutError(f"no answer within {limit_s:g} s") from None
        if error is not None:
            raise error

    @staticmethod
    def _work(waiting: "queue.SimpleQueue[tuple[Callable[[], None], queue.SimpleQueue[Any]]]") -> None:
        while True:
            call, answer = waiting.get()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    call()
            except BaseException as error:
                answer.put(error)
            else:
                answer.put(None)


def kill_services() -> None:
    """Kill this process's children that are W&B's service: stopped ones would be waited for at the process's end."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            if int(rest.split()[1]) == os.getpid() and "wandb" in name:
                os.kill(int(folder.name), signal.SIGKILL)
        except (OSError, ValueError, IndexError):
            continue
