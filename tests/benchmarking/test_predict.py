"""Predictions: the bound that the kernels are built for, and records that are not written twice."""

from pathlib import Path

import pytest

from tidepool.benchmarking.command_line import parse_options
from tidepool.benchmarking.predict import named_device, predict, predictions_table
from tidepool.benchmarking.program import run
from tidepool.benchmarking.suites import BLOCKS, chosen


@pytest.mark.parametrize("name", ["vgg16_1_b64", "vgg16_2_b64", "vgg16_3_b64"])
@pytest.mark.parametrize("batch", [64, 128, 512])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_fused_training_step_moves_under_half_of_eagers_bytes(name: str, batch: int, dtype: str) -> None:
    """At most 0.45, workspaces counted, on the first three pooled layers of VGG-16."""
    (case,) = chosen(BLOCKS, [name])
    found = predict(case.at_batch(batch), dtype, "train", named_device("H200"))
    assert found.workspace_bytes > 0
    assert found.fused_bytes <= 0.45 * found.eager_bytes


def test_bytes_of_a_forward_pass_by_hand() -> None:
    """Inference of VGG's last layer of block 1 in bf16: x, weight and bias in, a quarter of the outputs out."""
    (case,) = chosen(BLOCKS, ["vgg16_1_b64"])
    found = predict(case, "bf16", "forward", named_device("H200"))
    pixels, parameters = 64 * 224 * 224, 64 * 64 * 9 + 64
    assert found.fused_bytes == 2 * (64 * pixels + parameters + 64 * pixels // 4)
    assert found.flops == 2 * pixels * 64 * 64 * 9
    # A convolution that reads x and writes y, bias in place, ReLU out of place, pool with int64 indices.
    full, quarter = 2 * 64 * pixels, 2 * 64 * pixels // 4
    assert found.eager_bytes == (full + full) + 2 * full + 2 * full + (full + quarter + 4 * quarter) + 2 * parameters


def test_every_case_and_pass_is_predicted_printed_and_written_once(tmp_path: Path) -> None:
    said: list[str] = []
    options = parse_options(["--predict", f"--out={tmp_path}", "--predict_on=H200,A100"])
    assert run(options, said.append) == []
    rows, damaged = predictions_table(tmp_path).read()
    assert (len(rows), damaged) == (2 * 4 * len(BLOCKS), 0)
    assert "assumed 989 TFLOP/s and 4.8 TB/s (data sheet, dense): bounds, not measurements" in said[0]
    assert all(case.name in said[0] for case in BLOCKS)
    run(options, said.append)
    assert said[-1].startswith("0 rows ->")
    assert len(predictions_table(tmp_path).read()[0]) == len(rows)


def test_predictions_are_only_printed_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(parse_options(["--predict", "--cases=lenet_1_b64"]), lambda line: None)
    assert list(tmp_path.iterdir()) == []
