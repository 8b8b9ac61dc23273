"""What is left out where a package of `pyproject.toml` is missing, as on a GPU machine one cannot install to: tests of
the parts that need it. With `pip install -e ".[test]"` nothing is."""

from importlib.util import find_spec

NEEDS = {
    "optuna": ("sweeping", "benchmarking/test_run_record.py"),
    "tyro": ("training/test_command_line.py",),
}
_MISSING = [package for package in NEEDS if find_spec(package) is None]
collect_ignore = [path for package in _MISSING for path in NEEDS[package]]


def pytest_report_header() -> list[str]:
    """A line for every package that is missing."""
    return [f"{package} is not installed: not collected {', '.join(NEEDS[package])}" for package in _MISSING]
