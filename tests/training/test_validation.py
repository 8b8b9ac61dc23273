"""Validation chooses the weights; the test split is read once, at the end, by those."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from tests.training.test_run import assert_same_weights, metrics, stop_after
from tidepool.training import loop
from tidepool.training.checkpoint import read_checkpoint
from tidepool.training.evaluation import Evaluation, evaluate
from tidepool.training.job import Job
from tidepool.training.loop import Session
from tidepool.training.run_folder import RunFolderError


@pytest.fixture
def accuracies(monkeypatch):
    """Make the validation accuracies those given, one an evaluation; returns what splits were evaluated."""

    def plant(values: list[float]) -> list[str]:
        seen: list[str] = []

        def evaluated(session: Session, split: Any) -> Evaluation:
            job: Job = session.job
            is_test = split is job.data.test
            result = evaluate(job.trainee.model, split, job.data, job.config, lambda: None)
            seen.append("test" if is_test else "val")
            epoch = session.progress.step // job.steps_per_epoch
            return result if is_test else dataclasses.replace(result, accuracy=values[epoch - 1])

        monkeypatch.setattr(loop, "evaluate_on", evaluated)
        return seen

    return plant


def test_the_test_split_is_read_once_by_the_weights_that_validated_best(small, quietly, tmp_path, accuracies) -> None:
    seen = accuracies([0.2, 0.9, 0.9, 0.5])
    summary = quietly(small(epochs=4)).summary
    assert seen == ["val"] * 4 + ["test"]
    best = read_checkpoint(tmp_path / "run" / summary["checkpoint"])
    assert (summary["checkpoint"], best["progress"]["step"]) == ("checkpoints/best.pt", 8)
    assert (summary["val_accuracy"], summary["best_epoch"]) == (0.9, 2.0)
    assert summary["val_loss"] == best["progress"]["val_loss"]
    (last,) = [row for row in metrics(tmp_path / "run") if "test/loss" in row]
    assert last["step"] == 16
    quietly(small(epochs=4, max_steps=8, run_dir=tmp_path / "other"))
    monitored = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert any(not torch.equal(value, best["model"][name]) for name, value in monitored["model"].items())


def test_the_figures_of_the_test_are_those_of_the_weights_saved(small, quietly, tmp_path) -> None:
    from tidepool.training.prepare import prepare

    config = small(epochs=3)
    summary = quietly(config).summary
    job = prepare(config, torch.device("cpu"), tmp_path)
    job.trainee.model.load_state_dict(read_checkpoint(tmp_path / "run" / summary["checkpoint"])["model"])
    result = evaluate(job.trainee.model, job.data.test, job.data, config, lambda: None)
    assert (result.loss, result.accuracy) == (summary["test_loss"], summary["test_accuracy"])


def test_patience_ends_a_run_that_stops_rising(small, quietly, tmp_path, accuracies) -> None:
    accuracies([0.5, 0.4, 0.6, 0.6, 0.1, 0.9])
    summary = quietly(small(epochs=6, patience=2, checkpoint_every=100)).summary
    assert (summary["status"], summary["steps"], summary["best_epoch"]) == ("finished", 20, 3.0)
    assert summary["exit_reason"] == "stopped early: the validation accuracy had not risen for 2 evaluations"
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]["step"] == 20


def test_a_run_stopped_while_it_is_tested_keeps_its_last_weights(small, quietly, tmp_path, monkeypatch) -> None:
    import os
    import signal

    on = loop.evaluate_on

    def interrupted(session: Session, split: Any) -> Evaluation:
        if split is session.job.data.test:
            os.kill(os.getpid(), signal.SIGTERM)
        return on(session, split)

    quietly(small(run_dir=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate_on", interrupted)
        outcome = quietly(small())
    assert (outcome.exit_code, outcome.summary["checkpoint"]) == (143, "checkpoints/last.pt")
    assert outcome.summary["test_accuracy"] is None
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
    assert quietly(small()).exit_code == 0
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["deleted", "damaged"])
def test_a_best_checkpoint_that_is_lost_is_replaced_by_the_next(small, quietly, tmp_path, monkeypatch, lost) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        quietly(small())
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    best.unlink() if lost == "deleted" else best.write_bytes(best.read_bytes()[:-9])
    summary = quietly(small()).summary
    assert (summary["status"], summary["best_epoch"]) == ("finished", 2.0)
    assert read_checkpoint(best)["progress"]["step"] == 8


def test_a_branch_takes_the_best_weights_along(small, quietly, tmp_path, monkeypatch, accuracies) -> None:
    accuracies([0.9, 0.1])
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        quietly(small())
    branch = quietly(small(run_dir=tmp_path / "branch", resume=str(tmp_path / "run")))
    assert (branch.summary["best_epoch"], branch.summary["val_accuracy"]) == (1.0, 0.9)
    assert read_checkpoint(tmp_path / "branch" / "checkpoints" / "best.pt")["progress"]["step"] == 4


def test_a_checkpoint_of_other_data_is_refused(small, quietly, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        quietly(small())
    from tidepool.training import prepare

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "with_validation", lambda data: dataclasses.replace(data, validation=data.test))
        with pytest.raises(RunFolderError, match="a run on 1294 samples, and there are 1437 to train on here"):
            quietly(small())
    assert math.isclose(quietly(small()).summary["epochs"], 2.0)
