"""How the process of a command begins and ends: its name in messages, Ctrl-C, and a reader that has gone. No torch."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NoReturn, Protocol, TextIO

CLOSED_PIPE = 128 + signal.SIGPIPE


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
        code = 128 + signal.SIGINT
    finally:
        for stream in streams:
            stream.flush()
    sys.exit(code)


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
