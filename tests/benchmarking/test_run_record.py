"""The record of a bench.py run in a folder of its own, as sweep.py starts and reads it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarking.fake_device import CPU, FakeTimer, InProcess
from tidepool.benchmarking import suites
from tidepool.benchmarking.cases import LayerCase
from tidepool.benchmarking.command_line import UsageError, parse_options
from tidepool.benchmarking.program import run
from tidepool.benchmarking.run_record import FolderLock
from tidepool.sweeping.records import metric_value

HOME = Path(__file__).resolve().parents[2]
LINE = LayerCase("tiny_line", "tiny", "a test", (2, 2, 9), (3, 2, 3), {"pool": None}, input_gradient=False)


@pytest.fixture(autouse=True)
def tiny_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "SMOKE", (LINE,))


def bench(folder: Path, spawn: InProcess, *flags: str, budget_s: float | None = None) -> list[str]:
    given = ["--suite=smoke", "--dtype=fp32", "--backends=auto,cudnn", "--processes=1", f"--run_dir={folder}", *flags]
    return run(parse_options(given), spawn.said.append, device=CPU, spawn=spawn, budget=spawn.budget(budget_s))


def record(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).read_text())


def test_an_interrupted_run_goes_on_and_a_finished_one_is_left_alone(tmp_path: Path) -> None:
    spawn = InProcess(FakeTimer(cost_s=10.0))
    assert bench(tmp_path, spawn, "--passes=forward,train", budget_s=50.0) != []
    summary = record(tmp_path, "summary.json")
    assert (summary["kind"], summary["status"]) == ("bench", "interrupted")
    assert summary["exit_reason"].endswith("next tiny_line, train")
    assert bench(tmp_path, spawn, "--passes=forward,train", "--group=g", "--name=n") == []
    summary = record(tmp_path, "summary.json")
    assert (summary["status"], summary["exit_reason"]) == ("finished", None)
    # Made-up times are all alike.
    assert summary["speedup_train_auto_cudnn"] == pytest.approx(1.0)
    assert metric_value(tmp_path, "speedup/train/auto/cudnn") == pytest.approx(1.0)
    config = record(tmp_path, "config.json")
    assert (config["kind"], config["group"], config["name"]) == ("bench", "g", "n")
    assert record(tmp_path, "environment.json")["torch"]
    before = (tmp_path / "timings.csv").read_bytes()
    assert bench(tmp_path, spawn, "--passes=forward,train") == []
    assert spawn.said[-1].endswith("has finished already; nothing was changed")
    assert (tmp_path / "timings.csv").read_bytes() == before


def test_another_runs_folder_is_refused(tmp_path: Path) -> None:
    bench(tmp_path / "a", InProcess(), "--passes=forward")
    with pytest.raises(UsageError, match="was started with other passes; give a new folder"):
        bench(tmp_path / "a", InProcess(), "--passes=train")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text(json.dumps({"schema_version": 1, "model": "lenet5"}))
    with pytest.raises(UsageError, match="holds another program's run"):
        bench(tmp_path / "b", InProcess(), "--passes=forward")


def test_two_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(UsageError, match=r"another bench\.py is writing there"):
        bench(tmp_path, InProcess(), "--passes=forward")


@pytest.mark.full
def test_a_sweep_of_bench_runs_works_offline(tmp_path: Path) -> None:
    """One point of a sweep file with `program: bench.py`, through sweep.py's own process, report included."""
    (tmp_path / "bounds.yaml").write_text(
        "program: bench.py\nname: bounds\ndescription: Bounds of a layer.\nmethod: grid\n"
        "metric: {name: predicted/bytes_ratio/train, goal: minimize}\n"
        "parameters:\n  predict: {value: true}\n  cases: {value: vgg16_1_b64}\n  passes: {value: train}\n"
        "  dtype: {values: [bf16]}\n"
    )
    done = subprocess.run(
        [sys.executable, str(HOME / "sweep.py"), "bounds.yaml", "--workers", "1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "finished predicted/bytes_ratio/train 0.22" in done.stdout
    assert "predicted for H200, training step, bf16: fused kernels move 0.2" in done.stdout
    assert "Predicted, not measured" in (tmp_path / "runs" / "bounds" / "report" / "report.html").read_text()
