"""What is left out where a package of `pyproject.toml` is missing, as on a GPU machine one cannot install to: tests of
the parts that need it. With `pip install -e ".[test]"` nothing is."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

# Before torch is imported: several workers with a thread for each processor are slower than with one each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
_found = find_spec("tidepool")
_found_in = None if _found is None or _found.origin is None else Path(_found.origin).resolve().parent
if _found_in != ROOT / "src" / "tidepool":
    # Not pytest.exit, whose message a conftest's import is reported around.
    found = "is not installed" if _found_in is None else f"comes from {_found_in}"
    print(
        f"tidepool {found}, and these are the tests of {ROOT}: pip install -e {ROOT}, or set PYTHONPATH={ROOT / 'src'}",
        file=sys.stderr,
    )
    raise SystemExit(2)

NEEDS = {
    "optuna": ("sweeping", "benchmarking/test_run_record.py"),
    "tyro": ("training/test_command_line.py",),
}
_MISSING = [package for package in NEEDS if find_spec(package) is None]
collect_ignore = [path for package in _MISSING for path in NEEDS[package]]


def pytest_report_header() -> list[str]:
    """A line for every package that is missing."""
    return [f"{package} is not installed: not collected {', '.join(NEEDS[package])}" for package in _MISSING]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--on sm_90 --schedule late`: the kernels' tests on compiled code, simulated."""
    from tidepool.simulator import KINDS, TARGETS

    parser.addoption("--on", choices=[target.name for target in TARGETS], help="run compiled kernels, simulated")
    parser.addoption("--schedule", default="eager", help=f"of the simulated device: {', '.join(KINDS)}, seeded:<seed>")
    parser.addoption("--slow", type=float, metavar="SECONDS", help="write slow.txt (tests/tiers.py) from this run")
    parser.addoption("--record", type=Path, metavar="FILE.csv", help="append a row on the run")


def pytest_configure(config: pytest.Config) -> None:
    """Enter the simulated device, before any test module is imported; note what the default tier meets."""
    from tests.met import Recorder
    from tidepool import simulator

    if config.getoption("--on"):
        try:
            simulator.stay(config.getoption("--on"), config.getoption("--schedule"))
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
    if config.getoption("--on") or config.getoption("--record"):
        from tests.recorded_runs import RecordedRun

        config.pluginmanager.register(RecordedRun(config))
    if config.getoption("--slow"):
        from tests.tiers import SlowList

        config.pluginmanager.register(SlowList(config.getoption("--slow")))
    config.pluginmanager.register(Recorder())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests `full` before `-m` looks at their marks."""
    from tests.tiers import COLLECTED, mark_full

    config.stash[COLLECTED] = {item.nodeid for item in items}
    mark_full(items, Path(__file__).parent)
