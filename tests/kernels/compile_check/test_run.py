"""`tidepool check --run`: compiled code executed, and every way to be wrong a row with its problem."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tidepool.kernels.compile_check import check, run
from tidepool.kernels.compile_check.check import main
from tidepool.kernels.compile_check.conv_cases import CASES, Case
from tidepool.kernels.compile_check.conv_launches import ShippedTile, Tensors, shipped_tiles
from tidepool.kernels.compile_check.record import RUN_COLUMNS, append_runs
from tidepool.kernels.compile_check.rows import Ran
from tidepool.kernels.compile_check.run import Run, carried_out, run_names, runs_on, small
from tidepool.kernels.layer.pooling import MaxPool
from tidepool.kernels.runtime.targets import SM_80, SM_90
from tidepool.kernels.tiles.dense import DgradTile, ForwardTile, WgradTile

LAYER = Case("layer", (2, 16, 10, 10), (32, 16, 3, 3), options={"padding": 1, "pool": MaxPool(2)})
TILES = {
    "forward": ForwardTile(32, 16, 16, 4, False, warps=8),
    "dgrad": DgradTile(32, 16, 16, False, warps=8),
    "wgrad": WgradTile(32, 16, 16, 2, warps=8),
}


def problem_of(one: Run, target: Any = SM_80) -> str:
    (row,) = carried_out(target, "late", [one])
    return row.problem


def tile_run(launcher: str) -> Run:
    tile = ShippedTile(LAYER, "bf16", launcher, TILES[launcher])
    return Run("layer", "bf16", "tile", lambda: run._check_tile(tile))


def test_every_layer_and_every_shipped_tile_is_run() -> None:
    for target in (SM_80, SM_90):
        runs = list(runs_on(target))
        assert {one.case for one in runs if not one.tile} == set(run_names())
        tiles = {(t.case.name, t.launcher, str(t.tile)) for t in shipped_tiles(target)}
        ran = {(*one.case.split(), one.tile) for one in runs if one.tile}
        # Of what depends on the layer's size, splits and the boxes' shape, there is one of each where there were more.
        assert len(ran) >= 0.9 * len(tiles)
        assert {(name, launcher) for name, launcher, _ in ran} == {(name, launcher) for name, launcher, _ in tiles}


def test_a_small_layer_is_the_same_kind_of_layer_and_as_large_as_its_windows_ask_for() -> None:
    for case in CASES:
        made = small(case)
        assert replace(made, x=case.x) == case
        assert made.x[1] == case.x[1]
        assert all(few <= many for few, many in zip(made.x, case.x, strict=True))
    assert max(small(case).x[0] * small(case).x[-1] for case in CASES if case.name != "audio_1d") <= 72


@pytest.mark.parametrize("launcher", TILES)
def test_a_tile_of_eight_warps_is_right_and_as_its_twin_of_four(launcher: str) -> None:
    assert problem_of(tile_run(launcher)) == ""


@pytest.mark.parametrize(("launcher", "name"), [("forward", "y"), ("dgrad", "dx"), ("wgrad", "dweight")])
def test_bits_that_depend_on_the_warps_are_a_problem(launcher: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = run._launched

    def with_a_last_bit_changed(t: Tensors, launcher: str, tile: Any, grad: torch.Tensor) -> dict[str, torch.Tensor]:
        found = launched(t, launcher, tile, grad)
        if tile.warps == 4:
            found[name] = found[name].contiguous()
            found[name].view(-1)[3:4].view(torch.int16).bitwise_xor_(1)
        return found

    monkeypatch.setattr(run, "_launched", with_a_last_bit_changed)
    assert problem_of(tile_run(launcher)) == f"RuleBrokenError: {name}: 8 warps give other bits than 4"


def test_a_wrong_element_and_one_that_was_not_written_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = run._launched

    def damaged(*given: Any) -> dict[str, torch.Tensor]:
        y = launched(*given)["y"].contiguous()
        y.view(-1)[3] += 1
        y.view(-1)[5] = torch.nan
        return {"y": y}

    monkeypatch.setattr(run, "_launched", damaged)
    assert problem_of(tile_run("forward")).startswith("RuleBrokenError: y: 2 of 1600 elements differ")


def test_a_fault_is_a_problem_and_the_next_run_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    # A tile made for other layers: the launch's own y is too short for it.
    short = ShippedTile(LAYER, "bf16", "forward", TILES["forward"])

    def out_of_bounds() -> None:
        t = run._integers(run.tensors_of(short.case, short.dtype))
        replace(t, y=t.y[:1]).forward(short.tile)

    rows = list(carried_out(SM_90, "eager", [Run("short", "bf16", "", out_of_bounds), tile_run("forward")]))
    assert rows[0].problem.startswith("Fault: bounds")
    assert rows[1].problem == ""
    assert rows[1].warp_instructions > 1000


@pytest.mark.full
def test_command_runs_what_is_named_and_records_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "runs.csv"
    status = main(
        ["--run", "--targets", "sm_90", "--cases", "squeeze_excite", "--schedule", "late", "--record", str(file)]
    )
    assert status == 0
    assert "3 runs on simulated sm_90, schedule late: 0 with problems" in capsys.readouterr().out
    with file.open(newline="") as table:
        lines = list(csv.DictReader(table))
    assert tuple(lines[0]) == RUN_COLUMNS
    assert [line["dtype"] for line in lines] == ["bf16", "fp16", "fp32"]
    assert all(int(line["warp_instructions"]) > 0 and line["schedule"] == "late" for line in lines)


def test_record_is_in_the_order_of_names_in_whatever_order_runs_end(tmp_path: Path) -> None:
    rows = [
        Ran(
            target=target, schedule="late", case=case, dtype=dtype, tile="", programs=1, warp_instructions=9, problem=""
        )
        for target in ("sm_80", "sm_90")
        for case in ("a", "b")
        for dtype in ("bf16", "fp16")
    ]
    for file, ended in (("one.csv", rows), ("other.csv", rows[::-1])):
        append_runs(tmp_path / file, ended)
    written = (tmp_path / "one.csv").read_text()
    assert written == (tmp_path / "other.csv").read_text()
    lines = csv.DictReader(written.splitlines())
    assert [(line["target"], line["case"], line["dtype"]) for line in lines] == [
        (row.target, row.case, row.dtype) for row in rows
    ]


def test_exit_status_of_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = Ran(target="sm_90", schedule="eager", case="c", dtype="bf16", tile="", programs=1, warp_instructions=9,
              problem="Fault: race")  # fmt: skip
    monkeypatch.setattr(check.Check, "rows", lambda _: iter([row]))
    assert main(["--run"]) == 1
    assert "1 runs on simulated sm_80, sm_90, schedule eager: 1 with problems" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "--targets", "sm_100"], "--run takes the simulated targets sm_80, sm_90, but got sm_100"),
        (["--run", "--schedule", "never"], "schedule"),
        (["--run", "--cases", "nope"], "unknown case 'nope'"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
