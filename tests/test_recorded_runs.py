"""A run of the tests is a row of a table, and what a simulated device did is in it."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = "tests/kernels/conv/test_few_channels.py::test_equals_pytorch_on_small_integers[lenet]"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", SMALL, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.full
@pytest.mark.parametrize("workers", ["2"])
def test_each_run_appends_its_row(workers: str, tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    for _ in range(2):
        done = run("-n", workers, "-m", "", "--on", "sm_90", "--schedule", "late", "--record", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
    rows = list(csv.DictReader(file.open(newline="")))
    assert len(rows) == 2
    assert rows[0]["launches"] == rows[1]["launches"] != "0"
    assert f"{int(rows[1]['warp_instructions']):,} warp instructions" in done.stdout
    for row in rows:
        assert (row["target"], row["schedule"], row["tests"]) == ("sm_90", "late", f"{SMALL} -m ''")
        assert (row["passed"], row["failed"], row["skipped"]) == ("1", "0", "0")
        assert int(row["warp_instructions"]) > int(row["launches"])


@pytest.mark.full
def test_an_interpreted_run_is_a_row_too(tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    done = run("-n", "0", "-m", "", "--record", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "simulated" not in done.stdout
    (row,) = csv.DictReader(file.open(newline=""))
    assert (row["target"], row["schedule"], row["passed"], row["launches"]) == ("interpreted", "", "1", "0")
