"""The host-cost benchmark: both sides in turns, nothing launched on ours, one row a side."""

import functools
from pathlib import Path

import pytest

from tests.benchmarking.fake_device import CPU
from tidepool.benchmarking import host_cost
from tidepool.benchmarking.host_cost import HOST_COST_COLUMNS
from tidepool.kernels.runtime import launch
from tidepool.records import Table


def test_sides_take_turns_and_a_block_is_one_sample() -> None:
    ticks, turns = iter(range(1_000)), []
    steps = {"step": {side: functools.partial(turns.append, side) for side in ("eager", "triton", "other")}}
    costs = host_cost.host_costs(steps, blocks=3, calls=2, clock=lambda: float(next(ticks)))
    assert [(cost.what, cost.side) for cost in costs] == [("step", side) for side in ("eager", "triton", "other")]
    # Every block takes one tick of one second over two calls.
    assert all(cost.samples == (0.5e6,) * 6 for cost in costs)
    assert turns[6:18:2] == ["eager", "triton", "other", "other", "triton", "eager"]
    assert launch._launcher is None


def test_what_is_timed_runs_every_side_and_launches_nothing() -> None:
    launched: list[object] = []
    launch.replace_launcher(lambda *arguments, **_: launched.append(arguments))
    try:
        steps = host_cost.steps_on(CPU)
        ours = {what: [side for side in sides if "triton" in side] for what, sides in steps.items()}
        for what, sides in steps.items():
            for side, step in sides.items():
                launched.clear()
                step()
                assert bool(launched) == (side in ours[what]), (what, side)
    finally:
        launch.replace_launcher(None)
    assert all(len(sides) == 1 for sides in ours.values())


def test_the_command_appends_a_row_a_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert host_cost.main(["--blocks=1", "--calls=1", f"--out={tmp_path}"]) == 0
    rows, damaged = Table(tmp_path / "host_cost.csv", HOST_COST_COLUMNS).read()
    sides = ["eager", "triton", "eager", "triton", "eager", "dynamo", "fuse cudnn", "fuse triton"]
    assert ([row["side"] for row in rows], damaged) == (sides * 2, 0)
    assert all(float(row["host_us_p50"]) > 0 for row in rows)
    assert "of eager (p20" in capsys.readouterr().out


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        host_cost.main(["--blocks=0"])
    assert refused.value.code == 2
    (tmp_path / "host_cost.csv").write_text("a,b\n")
    assert host_cost.main(["--blocks=1", "--calls=1", f"--out={tmp_path}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "another header" in lines[1]
