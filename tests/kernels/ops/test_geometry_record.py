"""The record of a long run says what pytest's output said."""

import io
import json
from pathlib import Path

import pytest

from tests.kernels.ops import geometry_record

OUTPUT = """
============================ Hypothesis Statistics =============================
tests/kernels/ops/test_random_geometry.py::test_waveforms_equal_pytorch_to_the_bit:

  - during generate phase (7.03 seconds):
    - Typical runtimes: ~ 724-6308 ms, of which ~ 23-36 ms in data generation
    - 12 passing, 1 failing, and 2 invalid test cases

tests/kernels/ops/test_random_geometry.py::test_what_pytorch_refuses_is_refused:

  - during generate phase (3.73 seconds):
    - 100 passing, 0 failing, and 3 invalid test cases
"""


def test_counts_and_times_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(OUTPUT))
    assert geometry_record.main(["--out", str(tmp_path / "record")]) == 0
    assert (tmp_path / "record" / "geometries.csv").read_text().splitlines() == [
        "schema_version,test,passed,failed,invalid,seconds",
        "1,test_waveforms_equal_pytorch_to_the_bit,12,1,2,7.03",
        "1,test_what_pytorch_refuses_is_refused,100,0,3,3.73",
    ]
    environment = json.loads((tmp_path / "record" / "environment.json").read_text())
    assert environment["command"].startswith("TIDEPOOL_GEOMETRIES=13 pytest")


@pytest.mark.parametrize("output", ["", OUTPUT.replace("passing", "")])
def test_an_output_without_statistics_is_refused(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(output))
    assert geometry_record.main(["--out", str(tmp_path / "record")]) == 2
    assert "expected" in capsys.readouterr().err
    assert not (tmp_path / "record").exists()
