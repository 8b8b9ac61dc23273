"""How the process of a command begins and ends: its name in messages, Ctrl-C, and a reader that has gone. No torch."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn, Protocol, TextIO

CLOSED_PIPE = 128 + signal.SIGPIPE
STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}
"""The signals that ask a command to stop, and what its process ends with; schedulers send SIGUSR1 before they take a
machine away."""


class Main(Protocol):
    """A command: reads its arguments and returns the exit code; `prog` is how it was called."""

    def __call__(self, arguments: Sequence[str], *, prog: str) -> int: ...


def run_process(main: Main, arguments: Sequence[str], *, prog: str) -> NoReturn:
    """Run a command as this process, and end the process with its exit code.

    Where the reader of its output goes away (`| head`), the command is stopped as by SIGTERM if it handles that, and
    ends with exit code 141 if not; either way without a traceback.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    for stream in streams:
        _stop_when_closed(stream)
    try:
        code = main(arguments, prog=prog)
    except KeyboardInterrupt:
        print(f"{prog}: stopped by SIGINT", file=sys.stderr)
        code = STOPPED[signal.SIGINT]
    finally:
        for stream in streams:
            stream.flush()
    sys.exit(code)


@contextmanager
def stopped_at_once(prog: str) -> Iterator[None]:
    """In the block, which imports things, SIGINT, SIGTERM and SIGUSR1 end the process with one line, unless they are
    handled or ignored already: an exception in the middle of somebody's import may be lost, or end in another."""

    def stop(number: int, _: Any) -> None:
        os.write(2, f"{prog}: stopped by {signal.Signals(number).name}\n".encode())
        os._exit(STOPPED[signal.Signals(number)])

    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in STOPPED}
    taken = [number for number, handler in before.items() if handler in usual]
    if threading.current_thread() is not threading.main_thread():
        taken = []
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def _stop_when_closed(stream: TextIO) -> None:
    for name in ("write", "flush"):
        setattr(stream, name, _stopping(getattr(stream, name), stream))


def _stopping(method: Callable[..., Any], stream: TextIO) -> Callable[..., Any]:
    """`method` of a stream, which stops the command when nobody reads the stream any longer."""

    @wraps(method)
    def call(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())  # for what is still buffered, and what is said while ending
            os.close(nowhere)
            if not callable(signal.getsignal(signal.SIGTERM)):
                raise SystemExit(CLOSED_PIPE) from None
            signal.raise_signal(signal.SIGTERM)

    return call
