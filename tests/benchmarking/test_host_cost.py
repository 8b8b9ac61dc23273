"""The host-cost benchmark: both sides in turns, nothing launched on ours, one row a side."""

from pathlib import Path

import pytest

from tests.benchmarking.fake_device import CPU
from tidepool.benchmarking import host_cost
from tidepool.benchmarking.host_cost import HOST_COST_COLUMNS
from tidepool.kernels.runtime import launch
from tidepool.records import Table


def test_sides_take_turns_and_a_block_is_one_sample() -> None:
    ticks = iter(range(1_000))
    eager, ours = host_cost.host_cost(CPU, blocks=3, calls=2, clock=lambda: float(next(ticks)))
    # Every block takes one tick of one second over two calls.
    assert (eager.side, ours.side) == ("eager", "triton")
    assert eager.samples == ours.samples == (0.5e6,) * 6
    assert launch._launcher is None


def test_the_command_appends_a_row_a_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert host_cost.main(["--blocks=1", "--calls=1", f"--out={tmp_path}"]) == 0
    rows, damaged = Table(tmp_path / "host_cost.csv", HOST_COST_COLUMNS).read()
    assert ([row["side"] for row in rows], damaged) == (["eager", "triton"] * 2, 0)
    assert all(float(row["host_us_p50"]) > 0 for row in rows)
    assert "triton / eager:" in capsys.readouterr().out


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        host_cost.main(["--blocks=0"])
    assert refused.value.code == 2
    (tmp_path / "host_cost.csv").write_text("a,b\n")
    assert host_cost.main(["--blocks=1", "--calls=1", f"--out={tmp_path}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "another header" in lines[1]
