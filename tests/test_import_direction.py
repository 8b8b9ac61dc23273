"""The packages depend on one another in one direction: kernels -> models -> training; analysis reads records."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("kernels", "models", "data", "training", "benchmarking", "sweeping", "analysis")
MAY_IMPORT = {
    "kernels": set(),
    "models": {"kernels"},
    "data": set(),
    "training": {"kernels", "models", "data"},
    "benchmarking": {"kernels", "models", "training"},
    "analysis": set(),
    "sweeping": {"analysis"},
}
"""analysis reads what training wrote and imports nothing of it; a finished sweep prints analysis's comparison."""


def imported(file: Path) -> Iterator[str]:
    """First components of every absolute import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_stands_before_them(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        inside = {name for name in imported(file) if name in PACKAGES or name in ("train", "sweep", "bench")}
        wrong = inside - MAY_IMPORT[package] - {package}
        assert not wrong, f"{file.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_analysis_and_sweeping_do_without_torch() -> None:
    for package in ("analysis", "sweeping"):
        for file in sorted((ROOT / package).rglob("*.py")):
            assert not {"torch", "triton"} & set(imported(file)), f"{file.relative_to(ROOT)} imports torch"


def test_no_file_is_called_utils_helpers_or_common() -> None:
    names = {file.stem for package in PACKAGES for file in (ROOT / package).rglob("*.py")}
    assert not names & {"utils", "helpers", "common"}
