"""A network's prediction is the sum of its layers'."""

from pathlib import Path

import pytest

from tidepool.benchmarking.cases import ModelCase
from tidepool.benchmarking.command_line import parse_options
from tidepool.benchmarking.predict import named_device, predictions_table
from tidepool.benchmarking.predict_model import predict_model
from tidepool.benchmarking.program import run
from tidepool.benchmarking.suites import suite


def test_lenet_by_hand() -> None:
    case = ModelCase("lenet", "test", "by hand", "lenet5", 64, 1, (28, 28), 10)
    found = predict_model(case, "fp32", named_device("H200"))
    # Forward and weight gradient of the first convolution, both gradients of the second.
    conv1, conv2 = 64 * 28 * 28 * 6 * 25, 64 * 14 * 14 * 16 * 25 * 6
    linear = 64 * (16 * 49 * 120 + 120 * 84 + 84 * 10)
    assert found.flops == 2 * (2 * conv1 + 3 * conv2 + 3 * linear)
    assert 0 < found.fused_bytes < found.eager_bytes
    assert found.bytes_ratio == found.fused_bytes / found.eager_bytes
    assert found.bound_ratio >= 1


def test_every_network_is_predicted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidepool.benchmarking.machine.commit_and_dirty", lambda: ("0" * 40, False))
    lines: list[str] = []
    run(parse_options(["--predict", "--suite=models", f"--out={tmp_path}", "--predict_on=H200"]), lines.append)
    rows, damaged = predictions_table(tmp_path).read()
    assert not damaged
    assert [(row["case"], row["pass"]) for row in rows] == [(case.name, "train") for case in suite("models")]
    assert all(case.name in lines[0] for case in suite("models"))
