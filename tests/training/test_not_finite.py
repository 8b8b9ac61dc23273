"""What is not finite ends a run as diverged before it reaches the weights, and is never saved."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.training.test_run import metrics
from tidepool.records import read_json
from tidepool.training import loop, precision
from tidepool.training.checkpoint import read_checkpoint
from tidepool.training.checkpoint_files import by_step
from tidepool.training.config import Config
from tidepool.training.optimization import make_optimizer
from tidepool.training.step import gradient_norm

STEPS = 8
"""Of the runs here, in two epochs of four."""
PLACES = [1, 3, 4, 5, STEPS]
"""Steps at which something is planted: the first, one within an epoch, the last of one, the first of the next, the
last."""


class Planted(torch.autograd.Function):
    """The value itself, and a gradient of `what` in one of its places."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, what: float) -> Tensor:  # type: ignore[override]
        ctx.what = what
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        grad = grads[0].clone()
        grad.view(-1)[0] = ctx.what
        return grad, None


def plant(monkeypatch: pytest.MonkeyPatch, where: str, what: float, at: int) -> None:
    """Make the batch, the loss or the gradient of one step not finite."""
    step, cross_entropy, normalise = [0], functional.cross_entropy, precision.normalise

    def batch(*given: Any) -> Tensor:
        inputs = normalise(*given)
        if torch.is_grad_enabled():  # evaluation normalises too
            step[0] += 1
            if where == "batch" and step[0] == at:
                inputs.view(-1)[7] = what
        return inputs

    def loss(logits: Tensor, *rest: Any, **named: Any) -> Tensor:
        if step[0] == at and where == "gradient":
            logits = Planted.apply(logits, what)  # type: ignore[no-untyped-call]
        value = cross_entropy(logits, *rest, **named)
        return value * what if step[0] == at and where == "loss" else value

    monkeypatch.setattr(precision, "normalise", batch)
    monkeypatch.setattr(functional, "cross_entropy", loss)


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("what", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["batch", "loss", "gradient"])
def test_the_run_ends_there_and_nothing_of_it_is_saved(
    where: str, what: float, at: int, small, quietly, tmp_path, monkeypatch
) -> None:
    plant(monkeypatch, where, what, at)
    outcome = quietly(small(log_every=100, checkpoint_every_steps=1))
    assert outcome.exit_code == 3
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary is not None
    assert (summary["status"], summary["steps"]) == ("diverged", at)
    kind = "the gradient's norm was" if where == "gradient" else "the loss was"
    assert summary["exit_reason"].startswith(kind)
    assert summary["exit_reason"].endswith(f"at step {at}")
    assert len(set(summary["diverged_samples"])) == 320
    assert [row["step"] for row in metrics(tmp_path / "run") if "train/loss" in row] == list(range(1, at + 1))
    saved = by_step(tmp_path / "run" / "checkpoints")
    assert [read_checkpoint(path)["progress"]["step"] for path in saved] == [at - 1, at - 2][: min(at - 1, 2)]
    for path in saved:
        assert all(bool(tensor.isfinite().all()) for tensor in read_checkpoint(path)["model"].values())


def test_weights_are_those_of_the_step_before(small, quietly, tmp_path, monkeypatch) -> None:
    seen: list[dict[str, Tensor]] = []
    step = loop.train_step

    def watched(job: loop.Job, *rest: Any) -> Any:
        seen.append({name: value.clone() for name, value in job.trainee.model.state_dict().items()})
        taken = step(job, *rest)
        seen.append({name: value.clone() for name, value in job.trainee.model.state_dict().items()})
        return taken

    with monkeypatch.context() as patch:
        plant(patch, "gradient", math.inf, 3)
        patch.setattr(loop, "train_step", watched)
        quietly(small())
    before, after = seen[-2:]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_step_before_the_record_is_due_is_told_at_once(small, quietly, monkeypatch) -> None:
    """Rows are due every 10 steps after the first hundred."""
    plant(monkeypatch, "loss", math.nan, 103)
    outcome = quietly(small(epochs=40))
    assert (outcome.exit_code, outcome.summary["steps"]) == (3, 103)


def test_an_evaluation_that_is_not_finite_is_no_end_of_a_finished_run(small, quietly, tmp_path, monkeypatch) -> None:
    evaluate = loop.evaluate

    def overflowing(*given: Any) -> Any:
        result = evaluate(*given)
        return type(result)(**{**vars(result), "loss": math.nan})

    monkeypatch.setattr(loop, "evaluate", overflowing)
    outcome = quietly(small())
    assert (outcome.exit_code, outcome.summary["status"]) == (3, "diverged")
    assert outcome.summary["exit_reason"] == "the loss on the validation split was nan at step 4"
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize("spoiled", ["weight", "momentum"])
def test_weights_and_optimizer_states_that_are_not_finite_are_not_saved(
    spoiled: str, small, quietly, tmp_path, monkeypatch
) -> None:
    step, steps = loop.train_step, [0]

    def spoiling(job: loop.Job, *rest: Any) -> Any:
        taken = step(job, *rest)
        steps[0] += 1
        if steps[0] == STEPS:
            parameter = next(job.trainee.model.parameters())
            tensor = (
                parameter.data if spoiled == "weight" else job.trainee.optimizer.state[parameter]["momentum_buffer"]
            )
            tensor.view(-1)[0] = math.inf
        return taken

    monkeypatch.setattr(loop, "train_step", spoiling)
    outcome = quietly(small(eval_every=100))
    assert outcome.exit_code == 3
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]["step"] == 4


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_fused_optimizers_leave_a_step_out_on_the_devices_word(optimizer: str) -> None:
    """What a GPU's run rests on: PyTorch's fused kernels read `found_inf`, on a CPU too."""
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    made = make_optimizer(model, Config(optimizer=optimizer))
    made.defaults["fused"] = True
    for group in made.param_groups:
        group["fused"] = True
    for finite in (True, False, True):
        model.zero_grad()
        (model(torch.randn(4, 3)).square().mean() * (1.0 if finite else math.inf)).backward()
        before = [parameter.clone() for parameter in model.parameters()]
        vars(made)["found_inf"] = (~gradient_norm(made).isfinite()).float()
        made.step()
        moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
        assert moved == [finite, finite]
