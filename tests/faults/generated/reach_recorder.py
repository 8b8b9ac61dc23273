"""Pytest plugin of a run of the unchanged tree: notes which lines of kernels and device functions each test runs.

Loaded with `-p tests.faults.generated.reach_recorder`; TIDEPOOL_FAULT_REACH names the file of JSON lines, one a test:
its node id, the CPU seconds it took, whether it passed, and the lines it ran of each file of `kernels/`.
"""

import functools
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

REACH = "TIDEPOOL_FAULT_REACH"
Tracer = Callable[[FrameType, str, Any], Any]
_FOLDER = str(Path.cwd() / "kernels") + os.sep
_lines: dict[str, set[int]] = defaultdict(set)
_tracers: dict[int, tuple[CodeType, Tracer | None]] = {}
"""By the number of a code object, which is kept with it: to hash the object itself takes longer than most calls."""
_passed: dict[str, bool] = {}


def _trace(frame: FrameType, event: str, _: Any) -> Any:
    """For a call of what the kernels' files hold, what notes its lines."""
    if event != "call":
        return None
    code = frame.f_code
    known = _tracers.get(id(code))
    if known is None:
        path = os.path.realpath(code.co_filename)
        known = code, _tracer(os.path.relpath(path)) if path.startswith(_FOLDER) else None
        _tracers[id(code)] = known
    return known[1]


@functools.cache
def _tracer(file: str) -> Tracer:
    """Notes the lines of one file, which is given from the working directory on."""

    def trace_lines(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            _lines[file].add(frame.f_lineno)
        return trace_lines

    return trace_lines


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """Trace a test with its fixtures, and note what it ran."""
    _lines.clear()
    began = time.process_time()
    threading.settrace(_trace)
    sys.settrace(_trace)
    try:
        result = yield
    finally:
        sys.settrace(None)
        threading.settrace(None)
    note = {
        "test": item.nodeid,
        "seconds": round(time.process_time() - began, 3),
        "passed": _passed.get(item.nodeid, False),
        "lines": {file: sorted(lines) for file, lines in _lines.items()},
    }
    with open(os.environ[REACH], "a", encoding="utf-8") as record:
        record.write(json.dumps(note) + "\n")
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A skipped test is one that ran no kernel: it counts as passed."""
    _passed[report.nodeid] = _passed.get(report.nodeid, True) and not report.failed
