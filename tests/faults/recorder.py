"""Pytest plugin of a child process: notes which test started and failed, line by line, so that a crash names its test.

Loaded with `-p tests.faults.recorder`; TIDEPOOL_FAULT_RECORD names the file of JSON lines it appends to, and
TIDEPOOL_FAULT_CPU_S the CPU seconds the process may take.
"""

import json
import os
import resource
from pathlib import Path

import pytest

RECORD = "TIDEPOOL_FAULT_RECORD"
CPU_LIMIT = "TIDEPOOL_FAULT_CPU_S"


def _note(**fields: str) -> None:
    with open(os.environ[RECORD], "a", encoding="utf-8") as record:
        record.write(json.dumps(fields) + "\n")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Limit the process's time, which others on the machine do not use up, and refuse to test other kernels than the
    copy's: a result about them would be void."""
    limit_s = int(os.environ[CPU_LIMIT])
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 30))
    from tidepool import kernels

    if not Path(str(kernels.__file__)).resolve().is_relative_to(Path.cwd().resolve()):
        pytest.exit(f"kernels were imported from {kernels.__file__}, not from the copy under test", returncode=3)


def pytest_runtest_logstart(nodeid: str) -> None:
    _note(event="started", test=nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    if report.failed and call.excinfo is not None:
        _note(event="failed", test=report.nodeid, failure=call.excinfo.typename)
    elif report.when == "teardown":
        _note(event="finished", test=report.nodeid)
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _note(event="not collected", test=report.nodeid)
