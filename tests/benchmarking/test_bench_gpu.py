"""bench.py on a GPU: real processes, real times of tiny layers; no time is asserted, only that there is one."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.exact import DEVICE

HOME = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE != "cuda", reason="no NVIDIA GPU here"),
]


def bench(out: Path, *flags: str) -> list[dict[str, str]]:
    """Run the command into `out`; the rows of its timings."""
    command = [sys.executable, str(HOME / "bench.py"), f"--out={out}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    with (out / "timings.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("dtype", ["bf16", "tf32"])
def test_small_layers_are_timed_on_every_eager_backend(tmp_path: Path, dtype: str) -> None:
    eager = "--backends=triton,auto,cudnn,cudnn_channels_last,cudnn_conv_relu"
    rows = bench(tmp_path, "--suite=smoke", "--processes=1", f"--dtype={dtype}", eager)
    for row in rows:
        where = f"{row['case']}, {row['pass']}, {row['backend']}: {row['status']} ({row['reason']})"
        if row["backend"] == "cudnn_conv_relu":
            assert row["status"] in ("timed", "unsupported", "failed"), where
            continue
        assert row["status"] == "timed", where
        assert float(row["time_ms_p20"]) <= float(row["time_ms_p50"]) <= float(row["time_ms_p80"]), where
        assert int(row["peak_above_inputs_bytes"]) > 0, where
        assert 0 < float(row["roofline_share"]) < 1, where
        assert row["gpu"], where
        assert float(row["sm_clock_MHz"]) > 0, where


def test_compiled_opponents_and_cuda_graphs(tmp_path: Path) -> None:
    common = ("--suite=smoke", "--cases=smoke_pool2", "--processes=1")
    rows = bench(tmp_path, *common, "--backends=triton,compile,compile_max_autotune")
    assert {(row["backend"], row["status"]) for row in rows} == {
        (name, "timed") for name in ("triton", "compile", "compile_max_autotune")
    }
    rows = bench(tmp_path, *common, "--backends=triton,cudnn_channels_last", "--cuda_graph", "--passes=forward,train")
    captured = [row for row in rows if row["cuda_graph"] == "True"]
    assert len(captured) == 4
    assert {row["status"] for row in captured} == {"timed"}


def test_a_short_visit_stops_in_time_and_says_what_is_left(tmp_path: Path) -> None:
    command = [sys.executable, str(HOME / "bench.py"), "--visit", "--budget_s=60", f"--out={tmp_path}"]
    narrow = ["--cases=lenet_2_b64", "--backends=triton,auto,cudnn_channels_last", "--processes=1"]
    done = subprocess.run([*command, *narrow], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "visit: correctness of the blocks suite in bf16" in done.stdout
    assert "left: " in done.stdout or "done: " in done.stdout
