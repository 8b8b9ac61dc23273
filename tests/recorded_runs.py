"""A run of the tests as a row of a table (`--record`), and what a simulated device did in it as a line at its end."""

import platform
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import triton

from tidepool import simulator
from tidepool.records import SOURCE, Table, cpu_name, git_state, package_version

COLUMNS = (
    "schema_version", "triton", "torch", "python", "target", "schedule", "tests", "passed", "failed", "skipped",
    "seconds", "launches", "warp_instructions", "warp_instructions_per_second", "processor", "date", "commit", "dirty",
)  # fmt: skip
"""`target`: what kernels were compiled for and simulated, or "interpreted"; `tests`: paths and marks; `seconds`: of the
whole run; the rate is that of one process in its launches. Of an interpreted run the last three are 0."""

INTERPRETED = "interpreted"


class RecordedRun:
    """Counts outcomes where they are reported, and what the device did in the process that ran the tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._config, self._began = config, time.monotonic()
        self._outcomes: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Each test once: where it failed or was skipped, or its call."""
        if report.failed or report.skipped or report.when == "call":
            self._outcomes[report.outcome] += 1

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add what a worker's device did."""
        self._totals.update(getattr(node, "workeroutput", {}).get("simulated", {}))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand over what was done to the process that started the workers, or keep it there."""
        device = simulator.current()
        done = asdict(device.totals) if device is not None else {}
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["simulated"] = done
        else:
            self._totals.update(done)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The line, and the row: of all workers, by the process that started them."""
        if hasattr(self._config, "workerinput"):
            return
        row = self._row()
        if row["target"] != INTERPRETED:
            terminalreporter.write_line(
                f"simulated {row['target']}, {row['schedule']}: {row['launches']:,} launches, "
                f"{row['warp_instructions']:,} warp instructions, {row['warp_instructions_per_second']:,} a second"
            )
        file: Path | None = self._config.getoption("--record")
        if file is not None:
            Table(file, COLUMNS).append([row])

    def _row(self) -> dict[str, Any]:
        commit, dirty = git_state(SOURCE)
        target = self._config.getoption("--on") or INTERPRETED
        instructions, seconds = self._totals["warp_instructions"], self._totals["seconds"]
        return {
            "triton": triton.__version__,
            "torch": package_version("torch"),
            "python": platform.python_version(),
            "target": target,
            "schedule": "" if target == INTERPRETED else self._config.getoption("--schedule"),
            "tests": " ".join([*self._config.args, f"-m {self._config.option.markexpr!r}"]),
            "passed": self._outcomes["passed"],
            "failed": self._outcomes["failed"],
            "skipped": self._outcomes["skipped"],
            "seconds": round(time.monotonic() - self._began),
            "launches": int(self._totals["launches"]),
            "warp_instructions": int(instructions),
            "warp_instructions_per_second": round(instructions / seconds) if seconds else 0,
            "processor": cpu_name(),
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit or "",
            "dirty": dirty,
        }
