"""A process that has imported torch, Triton and pytest, and forks a child of itself for every run of tests.

Started as a script, outside the package: a child imports the kernels and the tests of the tree it is told, which no
import before may have shut out. Each line read is a JSON object: `tree`, `tests`, `plugin`, `environment`, `patience_s`
and `output`, a file for what the child prints. Each line written is the exit status, a negative signal, or null for a
child that had to be ended.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn


def main() -> None:
    """Serve until there is nothing to read."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if path and Path(path).resolve() != here]
    for name in ("pytest", "torch", "triton", "triton.language", "triton.runtime.interpreter", "numpy"):
        __import__(name)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _test(job)
        print(json.dumps(_waited(child, job["patience_s"])), flush=True)


def _waited(child: int, patience_s: float) -> int | None:
    """The child's exit status; it is killed, and the status null, after that many seconds."""
    until = time.monotonic() + patience_s
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.02)


def _test(job: dict[str, Any]) -> NoReturn:
    import pytest

    status = 3
    try:
        with open(os.devnull) as nothing, open(job["output"], "w") as output:
            os.dup2(nothing.fileno(), 0)
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
        os.chdir(job["tree"])
        os.environ.update(job["environment"])
        sys.path[:0] = [os.path.join(job["tree"], "src"), job["tree"]]
        # The project's own options would share the tests out among workers, where "first" has no meaning. How long a
        # test may take is the plugin's business: by the clock, a loaded machine's would be counted.
        options = ["-x", "-q", "-o", "addopts=", "-o", "timeout=0", "-p", "no:cacheprovider", "-p", job["plugin"]]
        status = int(pytest.main([*options, *job["tests"]]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
