"""What a person sees."""

import io
import re
import sys
import types

import torch

from tidepool.training.display import Display, offline_folders, summary_text

TRAINED = {"epoch": 1.0, "train/loss": 0.25, "train/accuracy": 0.875, "speed/samples_per_second": 1234.4}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_there_is_one_line_an_evaluation(capsys):
    display = Display(bar=True, total_steps=10, done=0)
    display.row({"step": 4, "epoch": 0.8, "train/loss": 0.5, "train/accuracy": 0.75})
    display.row(TRAINED | {"step": 5})
    display.row({"step": 5, "epoch": 1.0, "val/loss": 0.5, "val/accuracy": 0.9})
    display.closing()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "epoch 1: step 5/10  loss 0.2500 accuracy 0.8750 1,234 samples/s  validation loss 0.5000 accuracy 0.9000\n"
    )


def test_on_a_terminal_there_is_a_bar_with_loss_accuracy_and_speed(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    display = Display(bar=True, total_steps=10, done=2)
    display.row(TRAINED | {"step": 10})
    display.closing()
    assert "10/10" in terminal.getvalue()
    assert "loss 0.2500 accuracy 0.8750 1,234 samples/s" in terminal.getvalue()


def test_memory_is_shown_and_where_a_run_waits_to_be_uploaded(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_DIR", raising=False)
    display = Display(bar=False, total_steps=10, done=0)
    display.began(types.SimpleNamespace(device=torch.device("cpu")), None)
    display.row(TRAINED | {"step": 10, "val/loss": 0.5, "val/accuracy": 0.9})
    display.closing()
    assert re.search(r"1,234 samples/s [\d,]+ MB  validation loss 0.5000", capsys.readouterr().err)
    mine, other = (tmp_path / "wandb" / f"offline-run-20260101_000000-{name}" for name in ("id7", "id8"))
    for folder in (mine, other):
        folder.mkdir(parents=True)
    assert offline_folders(str(tmp_path), {"run_id": "id7"}) == [mine]


def test_on_a_terminal_no_bar_is_drawn_unless_asked_for(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    display = Display(bar=False, total_steps=10, done=0)
    display.row(TRAINED | {"step": 10})
    display.closing()
    assert terminal.getvalue() == ""


def test_the_summary_marks_interpreted_times_and_says_what_was_not_measured():
    summary = {
        "status": "diverged", "exit_reason": "the loss was nan at step 3", "model": "lenet5", "data": "digits",
        "parameters": 12345, "backend": "triton", "conv_library": "triton", "kernel_mode": "interpreted",
        "dtype": "fp32", "steps": 3, "epochs": 0.5, "seed": 0, "test_accuracy": None, "test_loss": "NaN",
        "train_seconds": 1.0, "step_ms_p50": 2.0, "samples_per_second": None, "peak_memory_bytes": 1,
    }  # fmt: skip
    text = summary_text("runs/a", summary)
    assert "diverged: the loss was nan at step 3" in text
    assert "test accuracy  not measured" in text
    assert "test loss      nan" in text
    assert "2.000 ms (interpreted: not a speed measurement)" in text
    assert "tidepool report runs/a --out runs/a-report" in text
    assert "wandb sync" not in text
    assert "interpreted" not in summary_text("runs/a", {**summary, "kernel_mode": "compiled"})
