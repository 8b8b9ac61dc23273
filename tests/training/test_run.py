"""Whole runs inside this process: records, resuming, and every way to end."""

import csv
import dataclasses
import json
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from tests.data.audio_files import write_audio_folder
from tidepool.data import DataError
from tidepool.kernels.runtime.mode import forget_modes
from tidepool.records import read_json, read_rows, write_checksum
from tidepool.training import loop, run
from tidepool.training.batch import Batch
from tidepool.training.checkpoint import read_checkpoint
from tidepool.training.config import ConfigError
from tidepool.training.run import train
from tidepool.training.run_folder import LAST_CHECKPOINT, RunFolderError

TIMES = {"time_s", "speed/step_ms", "speed/samples_per_second"}
SUMMARY_FIELDS = {
    "schema_version", "status", "exit_reason", "run_id", "group", "started_at", "data", "model", "backend",
    "conv_library", "kernel_mode", "dtype", "seed", "parameters", "epochs", "steps", "test_accuracy",
    "test_factor_accuracy", "test_loss", "train_seconds", "step_ms_p50", "samples_per_second", "peak_memory_bytes",
    "checkpoint", "val_accuracy", "val_loss", "best_epoch",
}  # fmt: skip


def metrics(run_dir: Path) -> list[dict]:
    """A run's rows without what the clock decides."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(run_dir / "metrics.jsonl")]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run_dir / LAST_CHECKPOINT)["model"]


def assert_same_weights(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Send this process a real signal while it works on `step`."""
    train_step = loop.train_step

    def interrupted(job, indices, done):
        if done + 1 == step:
            os.kill(os.getpid(), number)
        return train_step(job, indices, done)

    monkeypatch.setattr(loop, "train_step", interrupted)


def test_a_finished_run_leaves_complete_records(small, quietly, tmp_path):
    config = small(model="lenet5", group="g", seed=3)
    outcome = quietly(config)
    folder = tmp_path / "run"
    assert (outcome.exit_code, outcome.run_dir) == (0, folder)
    assert read_json(folder / "config.json") == {"schema_version": 1, **config.as_record()}
    assert read_json(folder / "environment.json")["precision"]["dtype"] == "fp32"
    summary = read_json(folder / "summary.json")
    assert summary == {"schema_version": 1, **outcome.summary}
    assert set(summary) == SUMMARY_FIELDS
    assert (summary["status"], summary["exit_reason"], summary["group"], summary["seed"]) == ("finished", None, "g", 3)
    assert (summary["steps"], summary["epochs"], summary["checkpoint"]) == (8, 2.0, "checkpoints/best.pt")
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 9))
    evaluations = {row["epoch"]: row["val/accuracy"] for row in rows if "val/loss" in row}
    assert list(evaluations) == [1.0, 2.0]
    assert summary["val_accuracy"] == max(evaluations.values()) == evaluations[summary["best_epoch"]]
    assert [row["step"] for row in rows if "test/loss" in row] == [8]
    assert rows[-1]["test/accuracy"] == summary["test_accuracy"]
    assert all(row["schema_version"] == 1 for row in rows)
    files = {"last.pt", "best.pt", "step-00000004.pt", "step-00000008.pt"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == files | {f"{name}.sha256" for name in files}
    media = {path.name for path in (folder / "media").iterdir()}
    tables = {"confusion.csv", "mistakes.csv", "mistakes.png"}
    assert media == tables | {"filters.png", "feature_maps.png", "feature_maps_2.png"}
    with (folder / "media" / "confusion.csv").open() as file:
        counts = list(csv.DictReader(file))
    assert sum(int(row["count"]) for row in counts) == 360
    right = sum(int(row["count"]) for row in counts if row["true"] == row["predicted"])
    assert right / 360 == summary["test_accuracy"]
    assert not (folder / "wandb").exists()


def test_the_same_settings_give_the_same_numbers_and_another_seed_others(small, quietly, tmp_path):
    fields = {"model": "lenet5", "augment": True, "deterministic": True}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        quietly(small(run_dir=tmp_path / name, seed=seed, **fields))
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert metrics(tmp_path / "a")[0]["train/loss"] != metrics(tmp_path / "c")[0]["train/loss"]


def test_backends_start_from_the_same_weights_and_see_the_same_batches(small, quietly, tmp_path, monkeypatch):
    seen: dict[str, list] = {}
    train_step = loop.train_step

    def watched(job, indices, step):
        record = seen.setdefault(job.config.backend, [])
        if step == 0:
            record.append({name: value.clone() for name, value in job.trainee.model.state_dict().items()})
        record.append(next(Batch(job, indices, step).parts()).inputs)
        return train_step(job, indices, step)

    monkeypatch.setattr(loop, "train_step", watched)
    for backend in ("cudnn", "triton"):
        quietly(
            small(
                model="lenet5", backend=backend, augment=True, batch_size=32, max_steps=10, run_dir=tmp_path / backend
            )
        )
    assert seen["cudnn"][0].keys() == seen["triton"][0].keys()
    assert all(torch.equal(value, seen["triton"][0][name]) for name, value in seen["cudnn"][0].items())
    assert len(seen["cudnn"]) == 11
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(seen["triton"][1:], seen["cudnn"][1:], strict=True))
    losses = {name: [row["train/loss"] for row in metrics(tmp_path / name) if "train/loss" in row] for name in seen}
    assert len(losses["triton"]) == 10
    assert losses["triton"] == pytest.approx(losses["cudnn"], rel=1e-4)
    summary = read_json(tmp_path / "triton" / "summary.json")
    assert summary["conv_library"] == "triton"


@pytest.mark.parametrize(
    ("step", "number", "code"), [(3, signal.SIGTERM, 143), (5, signal.SIGUSR1, 143), (4, signal.SIGINT, 130)]
)
def test_a_stopped_run_resumes_as_if_it_had_never_stopped(small, quietly, tmp_path, monkeypatch, step, number, code):
    """Step 3 is in mid-epoch, step 4 the last of an epoch, before its evaluation."""
    fields = {"augment": True, "label_smoothing": 0.1}
    quietly(small(run_dir=tmp_path / "whole", **fields))
    config = small(**fields)
    with monkeypatch.context() as patch:
        stop_after(patch, step, number)
        outcome = quietly(config)
    summary = read_json(tmp_path / "run" / "summary.json")
    assert outcome.exit_code == code
    assert (summary["status"], summary["steps"], summary["checkpoint"]) == ("interrupted", step, str(LAST_CHECKPOINT))
    assert summary["exit_reason"] == f"stopped by {signal.Signals(number).name}"
    outcome = quietly(dataclasses.replace(config, progress=False))
    assert (outcome.exit_code, outcome.summary["run_id"]) == (0, summary["run_id"])
    assert outcome.summary["started_at"] == summary["started_at"]
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_rows_after_the_checkpoint_are_not_there_twice(small, quietly, tmp_path, monkeypatch):
    """As after kill -9 in the second epoch: rows to step 7, a cut line, a checkpoint of step 4, no word of an end."""
    config, folder = small(), tmp_path / "run"
    quietly(small(run_dir=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        quietly(config)
    shutil.copy(folder / "checkpoints" / "best.pt", folder / LAST_CHECKPOINT)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"schema_version":1,"step":6,"train/loss":1}\n{"schema_version":1,"step":7,"tra')
    assert quietly(config).exit_code == 0
    assert metrics(folder) == metrics(tmp_path / "whole")
    assert_same_weights(folder, tmp_path / "whole")


def test_a_finished_run_is_left_as_it_is(small, quietly, tmp_path):
    quietly(small())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    for resume in ("auto", str(tmp_path / "run")):
        outcome = quietly(small(resume=resume))
        assert (outcome.exit_code, outcome.had_ended_before) == (0, True)
        assert outcome.summary["status"] == "finished"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_other_settings_are_refused_by_name(small, quietly):
    quietly(small(max_steps=1))
    with pytest.raises(RunFolderError, match=r"epochs: 2 there, 3 asked; max_steps: 1 there, 2 asked") as caught:
        quietly(small(epochs=3, max_steps=2))
    assert "\n" not in str(caught.value)


def test_resume_never_refuses_a_used_folder(small, quietly):
    quietly(small(max_steps=1))
    with pytest.raises(RunFolderError, match="holds a run and resume is never"):
        quietly(small(max_steps=1, resume="never"))


def test_a_checkpoint_can_be_taken_up_in_a_new_folder(small, quietly, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        first = quietly(small())
    second = quietly(small(run_dir=tmp_path / "branch", resume=str(tmp_path / "run")))
    assert second.summary["status"] == "finished"
    assert second.summary["run_id"] != first.summary["run_id"]
    quietly(small(run_dir=tmp_path / "whole"))
    assert metrics(tmp_path / "branch") == metrics(tmp_path / "whole")
    assert_same_weights(tmp_path / "branch", tmp_path / "whole")
    assert quietly(small(run_dir=tmp_path / "branch", resume=str(tmp_path / "run"))).had_ended_before
    with pytest.raises(RunFolderError, match="holds another run"):
        quietly(small(run_dir=tmp_path / "whole", resume=str(tmp_path / "run")))


def test_a_copied_checkpoint_leaves_the_records_beside_it_alone(small, quietly, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        first = quietly(small())
    copied = tmp_path / "kept" / "copies" / "last.pt"
    copied.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "run" / LAST_CHECKPOINT, copied)
    (tmp_path / "kept" / "metrics.jsonl").write_text('{"schema_version":1,"step":1,"train/loss":777.0}\n')
    second = quietly(small(run_dir=tmp_path / "branch", resume=str(copied)))
    assert second.summary["run_id"] != first.summary["run_id"]
    quietly(small(run_dir=tmp_path / "whole"))
    assert metrics(tmp_path / "branch") == [row for row in metrics(tmp_path / "whole") if row["step"] > 3]
    assert_same_weights(tmp_path / "branch", tmp_path / "whole")


@pytest.mark.parametrize("measurements", [{}, {"window": [[1.0]], "times": {}}])
def test_a_checkpoint_with_damaged_measurements_is_refused_and_creates_nothing(
    small, quietly, tmp_path, monkeypatch, measurements
):
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        quietly(small())
    path = tmp_path / "run" / LAST_CHECKPOINT
    torch.save({**read_checkpoint(path), "measurements": measurements}, path)
    write_checksum(path, path.read_bytes())
    with pytest.raises(RunFolderError, match=r"last\.pt cannot be resumed from: measurements"):
        quietly(small(run_dir=tmp_path / "branch", resume=str(tmp_path / "run")))
    assert not (tmp_path / "branch").exists()


def test_a_run_killed_before_its_first_checkpoint_starts_over(small, quietly, tmp_path):
    config, folder = small(max_steps=3), tmp_path / "run"
    first = quietly(config)
    shutil.rmtree(folder / "checkpoints")
    (folder / "summary.json").write_text(json.dumps({**first.summary, "status": "interrupted"}))
    again = quietly(config)
    assert (again.summary["status"], again.summary["run_id"]) == ("finished", first.summary["run_id"])
    assert [row["step"] for row in metrics(folder) if "train/loss" in row] == [1, 2, 3]


def test_a_diverged_run_says_so_counts_its_steps_and_stays_diverged(small, quietly, tmp_path):
    config = small(lr=1e30, schedule="constant", warmup=0.0)
    outcome = quietly(config)
    summary = read_json(tmp_path / "run" / "summary.json")
    assert (outcome.exit_code, summary["status"]) == (3, "diverged")
    last = metrics(tmp_path / "run")[-1]
    assert 0 < summary["steps"] == last["step"] < 8
    assert not math.isfinite(float(last["train/loss"]))
    assert f"at step {summary['steps']}" in summary["exit_reason"]
    again = quietly(config)
    assert (again.exit_code, again.had_ended_before) == (3, True)


def test_a_failure_is_recorded_and_raised_and_the_run_can_go_on(small, quietly, tmp_path, monkeypatch):
    original = loop.train_step

    def fails_at_six(job, indices, step):
        if step == 5:
            raise RuntimeError("out of\nluck")
        return original(job, indices, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", fails_at_six)
        with pytest.raises(RuntimeError, match="luck"):
            quietly(small())
    summary = read_json(tmp_path / "run" / "summary.json")
    assert (summary["status"], summary["exit_reason"]) == ("failed", "RuntimeError: out of luck")
    assert quietly(small()).summary["status"] == "finished"


def test_max_steps_ends_the_run_and_its_schedule(small, quietly, tmp_path):
    summary = quietly(small(max_steps=6)).summary
    assert (summary["status"], summary["steps"], summary["epochs"]) == ("finished", 6, 1.5)
    rows = metrics(tmp_path / "run")
    assert rows[-1]["step"] == 6
    assert rows[-3]["train/lr"] == pytest.approx(0.03 / 25 / 1e4)


def test_evaluations_and_checkpoints_come_as_often_as_asked_and_at_the_end(small, quietly, tmp_path, monkeypatch):
    saved = []
    save_checkpoint = loop.save_checkpoint
    monkeypatch.setattr(
        loop,
        "save_checkpoint",
        lambda *given, names: (saved.append((names, given[2].step)), save_checkpoint(*given, names=names)),
    )
    quietly(small(epochs=5, eval_every=2, checkpoint_every=3))
    assert [row["step"] for row in metrics(tmp_path / "run") if "val/loss" in row] == [8, 16, 20]
    assert [step for names, step in saved if "last.pt" in names] == [12, 20]


def test_a_network_without_convolutions_says_that_nothing_convolved(small, quietly, tmp_path):
    summary = quietly(small(max_steps=1, backend="triton")).summary
    assert (summary["conv_library"], summary["kernel_mode"]) == ("none", "compiled")
    names = {path.name for path in (tmp_path / "run" / "media").iterdir()}
    assert names == {"confusion.csv", "mistakes.csv", "mistakes.png"}


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_low_precision_trains_with_fp32_weights(small, quietly, tmp_path, dtype):
    summary = quietly(small(model="lenet5", dtype=dtype, max_steps=2)).summary
    assert (summary["status"], summary["dtype"]) == ("finished", dtype)
    assert all(value.dtype == torch.float32 for value in weights(tmp_path / "run").values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "nope"}, "model='nope'; expected one of: .*lenet5"),
        ({"data": "nope"}, "nope"),
        ({"lr": math.nan}, "lr=nan"),
        (
            {"model": "convnet", "batch_size": 1},
            "batch_size=1: convnet cannot learn from one sample a step.*at least 2",
        ),
        ({"resume": "/nowhere/last.pt"}, "no checkpoint at /nowhere/last.pt"),
    ],
)
def test_bad_settings_create_nothing(small, quietly, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        quietly(small(**fields))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_opening_line_says_what_is_about_to_happen(small):
    lines: list[str] = []
    train(small(max_steps=3), announce=lines.append)
    (line,) = lines
    assert "training mlp on digits (1294 train, 143 validation, 360 test) for 3 steps of 320" in line
    assert "W&B off" in line


@pytest.fixture
def interpreting_off(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    forget_modes()
    yield
    monkeypatch.undo()
    forget_modes()


def test_triton_on_the_cpu_with_interpreting_off_is_refused_in_one_true_line(small, interpreting_off):
    with pytest.raises(ConfigError) as refused:
        run.check_machine(small(backend="triton", device="cpu"))
    assert str(refused.value) == (
        "backend='triton' with device='cpu' needs Triton's interpreter, and TRITON_INTERPRET=0 turns it off: unset it"
    )


def test_audio_trains_networks_on_spectrograms_and_on_waveforms(small, quietly, tmp_path):
    folder = write_audio_folder(tmp_path / "tones")
    for model, options in (("vggish", "width=1"), ("conv1d_audio", None), ("mlp", "hidden=(4,)")):
        run_dir = tmp_path / model
        fields = {"data": "spoken_digits", "data_dir": folder, "batch_size": 5, "max_steps": 3, "augment": True}
        outcome = quietly(small(model=model, model_options=options, run_dir=run_dir, **fields))
        assert (outcome.summary["status"], outcome.summary["steps"]) == ("finished", 3)
        assert outcome.summary["test_factor_accuracy"] == {}
        images = set() if model == "mlp" else {"filters.png", "feature_maps.png"}
        assert {path.name for path in (run_dir / "media").iterdir()} >= images | {"confusion.csv", "mistakes.csv"}
    held_out = small(
        model="vggish", model_options="width=1", held_out_speaker="bob", run_dir=tmp_path / "bob", **fields
    )
    assert quietly(held_out).summary["status"] == "finished"
    with (tmp_path / "bob" / "media" / "confusion.csv").open() as file:
        assert sum(int(row["count"]) for row in csv.DictReader(file)) == 6  # four of theirs in train, two in test


def test_videos_report_digit_and_direction_apart_and_the_control_runs(small, quietly, tmp_path):
    for shuffled in (False, True):
        run_dir = tmp_path / str(shuffled)
        fields = {"data": "moving_digits", "batch_size": 8, "max_steps": 2, "augment": True}
        options = {"model": "c3d", "model_options": "width=1", "shuffle_frames": shuffled}
        summary = quietly(small(run_dir=run_dir, **fields, **options)).summary
        assert (summary["status"], summary["steps"]) == ("finished", 2)
        factors = summary["test_factor_accuracy"]
        assert factors.keys() == {"digit", "direction"}
        assert all(summary["test_accuracy"] <= factors[name] <= 1 for name in factors)
        last = read_rows(run_dir / "metrics.jsonl")[-1]
        assert {"digit": last["test/digit_accuracy"], "direction": last["test/direction_accuracy"]} == factors
        assert read_json(run_dir / "config.json")["shuffle_frames"] is shuffled


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": "c3d"}, "data 'digits' holds images, but the model takes videos; expected a model for images"),
        ({"data": "moving_digits"}, "data 'moving_digits' holds videos, but the model takes images or spectrograms"),
        ({"shuffle_frames": True}, "shuffle_frames=True: no such option; data 'digits' has the options: none; model"),
        ({"model_options": "depth=1"}, "model_options='depth=1': mlp has no option 'depth'; it has: hidden"),
        ({"model_options": "num_classes=1"}, "mlp has no option 'num_classes'"),
        ({"model_options": "hidden=3"}, "hidden=3; expected a sequence of layer sizes"),
    ],
)
def test_data_and_network_that_do_not_go_together_are_refused_in_one_line(small, quietly, tmp_path, fields, expected):
    with pytest.raises((ConfigError, DataError)) as caught:
        quietly(small(**fields))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "config.json").exists()
