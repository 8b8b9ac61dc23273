"""bench.py from end to end: interpreted kernels, made-up times, a clock that tests set."""

import csv
import json
import time
from pathlib import Path

import pytest
import torch

from tests.benchmarking.fake_device import CPU, FakeTimer, InProcess
from tidepool.benchmarking import comparison, correctness, suites, tuning, workload
from tidepool.benchmarking.cases import LayerCase, ModelCase
from tidepool.benchmarking.command_line import parse_options
from tidepool.benchmarking.jobs import Job
from tidepool.benchmarking.opponents import Backend
from tidepool.benchmarking.program import run
from tidepool.benchmarking.records import timings
from tidepool.benchmarking.state import State
from tidepool.benchmarking.supervisor import STOPPED
from tidepool.benchmarking.workload import LayerWorkload
from tidepool.kernels.tune.tuner import Outcome
from tidepool.records import Table

POOL = LayerCase("tiny_pool", "tiny", "a test", (2, 3, 6, 5), (4, 3, 3, 3), {"padding": 1})
LINE = LayerCase("tiny_line", "tiny", "a test", (2, 2, 9), (3, 2, 3), {"pool": None}, input_gradient=False)
NETWORK = ModelCase("tiny_network", "tiny", "a test", "lenet5", 4, 1, (8, 8), 10)


@pytest.fixture(autouse=True)
def tiny_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "SMOKE", (POOL, LINE))
    monkeypatch.setattr(suites, "BLOCKS", (POOL, LINE))
    monkeypatch.setattr(suites, "MODELS", (NETWORK,))


def bench(out: Path, spawn: InProcess, *flags: str, budget_s: float | None = None) -> list[str]:
    options = parse_options(["--suite=smoke", "--dtype=fp32", "--processes=1", f"--out={out}", *flags])
    return run(options, spawn.said.append, device=CPU, spawn=spawn, budget=spawn.budget(budget_s))


def rows(out: Path, name: str = "timings.csv") -> list[dict[str, str]]:
    with (out / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_backend_is_checked_timed_and_written_down_once(tmp_path: Path) -> None:
    spawn = InProcess()
    asked = ("--backends=auto,cudnn_channels_last,cudnn_conv_relu", "--passes=forward,train")
    assert bench(tmp_path, spawn, *asked) == []
    found = rows(tmp_path)
    assert {(r["case"], r["pass"], r["backend"], r["status"]) for r in found} == {
        (case, pass_, backend, "unsupported" if backend == "cudnn_conv_relu" else "timed")
        for case in ("tiny_pool", "tiny_line")
        for pass_ in ("forward", "train")
        for backend in ("auto", "cudnn_channels_last", "cudnn_conv_relu")
    }
    assert len(found) == 12
    timed = [r for r in found if r["status"] == "timed"]
    # Two turns of three samples each, of 2.0, 2.2 and 2.4 ms.
    assert {(r["time_ms_p50"], r["samples"]) for r in timed} == {("2.2", "6")}
    pool = next(r for r in timed if r["case"] == "tiny_pool" and r["pass"] == "forward")
    assert int(pool["flops"]) == 2 * 2 * 30 * 4 * 27
    # x, weight, bias and y's gradient in float32.
    assert int(pool["inputs_bytes"]) == 4 * (2 * 3 * 30 + 4 * 27 + 4 + 2 * 4 * 3 * 2)
    assert float(pool["roofline_share"]) == pytest.approx(float(pool["roofline_ms"]) / 2.2, rel=1e-5)
    assert {(r["case"], r["backend"], r["status"]) for r in rows(tmp_path, "correctness.csv")} >= {
        ("tiny_pool", "auto", "right"),
        ("tiny_line", "cudnn_conv_relu", "unsupported"),
    }
    assert [r["case"] for r in rows(tmp_path, "cases.csv")] == ["tiny_pool", "tiny_line"]
    before = (tmp_path / "timings.csv").read_bytes()
    assert bench(tmp_path, spawn, *asked) == []
    assert (tmp_path / "timings.csv").read_bytes() == before
    assert spawn.kinds == ["time smoke forward+train 0"]
    assert bench(tmp_path, spawn, *asked, "--processes=2") == []
    assert [r["replicate"] for r in rows(tmp_path)] == ["0"] * 12 + ["1"] * 12
    assert len({r["process"] for r in rows(tmp_path)}) == 2


def test_interpreted_kernels_are_checked_and_their_times_marked(tmp_path: Path) -> None:
    bench(tmp_path, InProcess(), "--backends=triton,cudnn", "--passes=train", "--cases=tiny_pool")
    found = {r["backend"]: (r["status"], r["kernel_mode"]) for r in rows(tmp_path)}
    assert found == {"triton": ("timed", "interpreted"), "cudnn": ("timed", "compiled")}


def test_a_budget_stops_between_passes_and_the_next_call_goes_on(tmp_path: Path) -> None:
    asked = ("--backends=cudnn,cudnn_channels_last", "--passes=forward,train")
    spawn = InProcess(FakeTimer(cost_s=10.0))  # four measurements a pass
    left = bench(tmp_path, spawn, *asked, budget_s=70.0)
    assert left == ["process 0, fp32: 3 cases and passes left, next tiny_pool, train"]
    assert {(r["case"], r["pass"]) for r in rows(tmp_path)} == {("tiny_pool", "forward")}
    assert bench(tmp_path, spawn, *asked, budget_s=500.0) == []
    found = [(r["case"], r["pass"], r["backend"]) for r in rows(tmp_path)]
    assert len(found) == len(set(found)) == 8


def test_what_is_wrong_is_recorded_and_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(backend: Backend, case: LayerCase) -> correctness.Layer:
        layer = build(backend, case)
        return (lambda x, w, b: 2 * layer(x, w, b)) if backend.name == "cudnn_channels_last" else layer

    build = workload.build_layer
    monkeypatch.setattr(workload, "build_layer", doubled)
    spawn = InProcess()
    assert bench(tmp_path, spawn, "--backends=cudnn,cudnn_channels_last", "--passes=train", "--cases=tiny_pool") == []
    by_backend = {r["backend"]: r for r in rows(tmp_path)}
    assert by_backend["cudnn"]["status"] == "timed"
    wrong = by_backend["cudnn_channels_last"]
    assert (wrong["status"], wrong["time_ms_p50"]) == ("wrong", "")
    assert wrong["reason"].startswith("tiny_pool, normal inputs, y: largest error")
    assert spawn.timer.measured == 2
    assert [r["status"] for r in rows(tmp_path, "correctness.csv")] == ["right", "wrong"]


def test_wrong_after_timing_is_not_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([None, "tiny_pool, y: changed"])
    monkeypatch.setattr(LayerWorkload, "wrong", lambda self, backend: next(asked))
    bench(tmp_path, InProcess(), "--backends=cudnn", "--passes=forward", "--cases=tiny_pool")
    (found,) = rows(tmp_path)
    assert (found["status"], found["reason"]) == ("wrong", "after timing: tiny_pool, y: changed")
    assert found["time_ms_p50"] == ""


def test_a_lost_device_costs_one_backend_of_one_case(tmp_path: Path) -> None:
    spawn = InProcess(FakeTimer(fail_at=2))  # the second backend's first turn
    assert bench(tmp_path, spawn, "--backends=cudnn,cudnn_channels_last", "--passes=forward") == []
    assert len(spawn.jobs) == 2
    found = {(r["case"], r["backend"]): r for r in rows(tmp_path)}
    assert found["tiny_pool", "cudnn_channels_last"]["status"] == "crashed"
    assert found["tiny_pool", "cudnn_channels_last"]["reason"].endswith("exit code 70 during: forward")
    assert {found[key]["status"] for key in found if key != ("tiny_pool", "cudnn_channels_last")} == {"timed"}
    # Another process does not try it again.
    bench(tmp_path, spawn, "--backends=cudnn,cudnn_channels_last", "--passes=forward", "--processes=2")
    second = {(r["case"], r["backend"]) for r in rows(tmp_path) if r["replicate"] == "1"}
    assert second == set(found) - {("tiny_pool", "cudnn_channels_last")}


def test_a_row_that_a_kill_cut_short_is_measured_again(tmp_path: Path) -> None:
    asked = ("--backends=cudnn", "--passes=forward")
    bench(tmp_path, InProcess(), *asked)
    path = tmp_path / "timings.csv"
    path.write_bytes(path.read_bytes()[:-40])
    kept, damaged = timings(tmp_path).read()
    assert ([r["case"] for r in kept], damaged) == (["tiny_pool"], 1)
    bench(tmp_path, InProcess(), *asked)
    kept, damaged = timings(tmp_path).read()
    assert ([r["case"] for r in kept], damaged) == (["tiny_pool", "tiny_line"], 1)


def test_resume_never_measures_again_and_keeps_the_old_rows(tmp_path: Path) -> None:
    asked = ("--backends=cudnn", "--passes=forward", "--cases=tiny_line")
    bench(tmp_path, InProcess(), *asked)
    table = timings(tmp_path)
    old = [{**row, "measured_at": "2026-01-01T00:00:00+00:00"} for row in table.read()[0]]
    table.path.unlink()
    Table(table.path, table.columns).append(old)
    bench(tmp_path, InProcess(), *asked, "--resume=auto")
    assert len(rows(tmp_path)) == 1
    bench(tmp_path, InProcess(), *asked, "--resume=never")
    assert len(rows(tmp_path)) == 2


def test_a_visit_goes_through_its_stages_in_order_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three backends: torch.compile's C++ compiler takes longer than all tests of this file together."""
    tuned: list[str] = []

    def fake_tuner(layers, dtype, device, *, timer, report, table_path, budget_s, compiler, clock):
        outcome = Outcome(left=[layer.name for layer in layers if layer.name in tuned])
        fresh = next((layer.name for layer in layers if layer.name not in tuned), None)
        if fresh:
            tuned.append(fresh)
        outcome.left = [layer.name for layer in layers if layer.name not in tuned]
        return outcome

    monkeypatch.setattr(tuning, "tune_layers", fake_tuner)
    monkeypatch.setenv("TIDEPOOL_TUNED", str(tmp_path / "tables"))
    spawn = InProcess(FakeTimer(cost_s=10.0))
    three = "--backends=auto,cudnn,cudnn_channels_last"
    options = parse_options(["--visit", "--dtype=fp32", "--processes=2", three, f"--out={tmp_path}"])

    def go(budget_s: float | None) -> list[str]:
        return run(options, spawn.said.append, device=CPU, spawn=spawn, budget=spawn.budget(budget_s))

    left = go(100.0)
    assert spawn.kinds == ["check", "ceilings", "tune"]
    assert left[0] == "tune in fp32: 1 left"
    assert len(left) == 7
    assert {(r["case"], r["status"]) for r in rows(tmp_path, "correctness.csv")} == {
        ("tiny_pool", "right"),
        ("tiny_line", "right"),
    }
    assert go(None) == []
    assert spawn.kinds[3:] == [
        "tune",
        "time blocks forward+train 0",
        "time models train 0",
        "time blocks forward_training+backward 0",
        "time blocks forward+train 1",
        "time models train 1",
        "time blocks forward_training+backward 1",
    ]
    found = rows(tmp_path)
    assert {r["status"] for r in found} == {"timed"}
    assert len(found) == 2 * 3 * (2 * 4 + 1)
    assert {r["plan"][:7] for r in found if r["backend"] == "auto" and r["suite"] == "blocks"} == {"assumed"}
    assert go(None) == []
    assert len(spawn.kinds) == 10


def test_a_visit_tunes_with_the_tuner_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "BLOCKS", (LINE,))
    monkeypatch.setattr(suites, "MODELS", ())
    monkeypatch.setenv("TIDEPOOL_TUNED", str(tmp_path / "tables"))
    spawn = InProcess()
    options = parse_options(["--visit", "--dtype=fp32", "--processes=1", "--backends=auto", f"--out={tmp_path}"])
    assert run(options, spawn.said.append, device=CPU, spawn=spawn, budget=spawn.budget(None)) == []
    (entry,) = json.loads((tmp_path / "tables" / "cpu.json").read_text())["entries"]
    assert (entry["name"], entry["complete"]) == ("tiny_line", True)
    assert "tuned 1 layers, 0 were, 0 left" in spawn.said
    assert run(options, spawn.said.append, device=CPU, spawn=spawn, budget=spawn.budget(None)) == []


def test_what_ran_by_another_plan_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("--backends=auto,cudnn", "--passes=forward", "--cases=tiny_pool")
    bench(tmp_path, InProcess(), *asked)
    bench(tmp_path, InProcess(), *asked)
    assert len(rows(tmp_path)) == 2
    for module in (comparison, workload):
        monkeypatch.setattr(module, "plan_text", lambda case, dtype, device: "measured: by a newer table")
    bench(tmp_path, InProcess(), *asked)
    assert [r["plan"] for r in rows(tmp_path) if r["backend"] == "auto"][1:] == ["measured: by a newer table"]
    assert len(rows(tmp_path)) == 4


def test_what_hangs_twice_is_put_down_as_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that its budget ended in the same long step of the same backend, on two calls."""
    asked = ("--backends=cudnn", "--passes=forward", "--cases=tiny_line")

    def hangs(job: Job) -> int:
        doing = {"suite": "smoke", "case": "tiny_line", "backend": "cudnn", "step": "forward", "dtype": "fp32"}
        State(tmp_path).put("in_progress", {**doing, "replicate": 0, "begun_s": time.time() - 500})
        return STOPPED

    spawn = InProcess()
    options = parse_options(["--suite=smoke", "--dtype=fp32", "--processes=1", f"--out={tmp_path}", *asked])
    for _ in range(2):
        run(options, spawn.said.append, device=CPU, spawn=hangs, budget=spawn.budget(100.0))
    assert [(r["case"], r["status"]) for r in rows(tmp_path)] == [("tiny_line", "crashed")]
    assert run(options, spawn.said.append, device=CPU, spawn=spawn, budget=spawn.budget(100.0)) == []
    assert spawn.jobs == []


def test_interpreted_networks_are_held_to_float64(tmp_path: Path) -> None:
    bench(tmp_path, InProcess(), "--suite=models", "--backends=triton,cudnn")
    found = {r["backend"]: r for r in rows(tmp_path)}
    assert (found["triton"]["status"], found["cudnn"]["status"]) == ("timed", "timed")
    assert found["cudnn"]["roofline_ms"] == ""


def test_precision_is_the_same_on_both_sides_and_recorded(tmp_path: Path) -> None:
    bench(tmp_path, InProcess(), "--backends=cudnn", "--passes=forward", "--dtype=tf32", "--cases=tiny_line")
    (found,) = rows(tmp_path)
    assert (found["conv_fp32_precision"], found["matmul_fp32_precision"]) == ("tf32", "tf32")
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"
