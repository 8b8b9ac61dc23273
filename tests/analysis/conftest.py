"""Recorded runs shared by the tests of analysis."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.runs.run_writer import write_sweep
from tidepool.analysis.report import write_report


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder runs/ in a fresh working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def quickstart(runs: Path) -> Path:
    """runs/quickstart: triton (interpreted) and cudnn on a machine without a GPU, three seeds each."""
    return write_sweep(runs / "quickstart", media=True)


@pytest.fixture(scope="session")
def quickstart_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on the runs of ``quickstart``, written once; for tests that only look at it."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return write_report([write_sweep(folder / "runs" / "quickstart", media=True)], folder / "out").parent
