"""The parts of a step that may be asked for: each does what it says, and a run that is stopped resumes to the bit."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.training.test_run import assert_same_weights, metrics, stop_after
from tidepool.models import build_model
from tidepool.training.average import WeightAverage
from tidepool.training.batch import Batch
from tidepool.training.checkpoint import read_checkpoint
from tidepool.training.config import Config, ConfigError
from tidepool.training.job import Job
from tidepool.training.optimization import MuonAndAdamW, make_optimizer, make_schedule
from tidepool.training.prepare import check_machine, prepare
from tidepool.training.step import train_step

CPU = torch.device("cpu")
LAST = "checkpoints/last.pt"


@pytest.fixture
def job_of(small, tmp_path):
    return lambda **fields: prepare(small(**fields), CPU, tmp_path)


def gradients(job: Job) -> list[torch.Tensor]:
    return [p.grad.clone() for p in job.trainee.model.parameters() if p.grad is not None]


INDICES = torch.arange(0, 640, 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "lenet5", "ema": True, "optimizer": "muon", "schedule": "cosine"},
        {"model": "lenet5", "channels_last": True, "dtype": "bf16", "optimizer": "adamw", "schedule": "step"},
        {"mixup": 0.4, "cutmix": 1.0, "cutout": 3, "augment": True, "accumulate": 3, "clip_norm": 0.5},
        {"model": "searchable", "width": 2, "depth": 1, "ema": True, "ema_decay": 0.9, "optimizer": "muon"},
    ],
    ids=["ema muon", "channels_last bf16", "mixing accumulated clipped", "ema of norms"],
)
def test_a_stopped_run_resumes_to_the_bit(small, quietly, tmp_path, monkeypatch, fields: dict[str, Any]) -> None:
    quietly(small(run_dir=tmp_path / "whole", **fields))
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        quietly(small(**fields))
    assert quietly(small(**fields)).exit_code == 0
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert_same_weights(tmp_path / "run", tmp_path / "whole")
    one, other = (read_checkpoint(tmp_path / name / LAST) for name in ("run", "whole"))
    assert one["trained"].keys() == other["trained"].keys()
    assert all(torch.equal(one["trained"][name], other["trained"][name]) for name in one["trained"])


def test_a_batch_in_parts_has_the_gradient_of_the_whole(job_of) -> None:
    whole, parts = job_of(), job_of(accumulate=7)
    first, second = (train_step(job, INDICES, 0) for job in (whole, parts))
    assert float(second.loss) == pytest.approx(float(first.loss), rel=1e-6)
    assert second.correct == first.correct
    for mine, theirs in zip(gradients(parts), gradients(whole), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_clipping_scales_the_gradient_down_to_the_norm_and_no_further(job_of) -> None:
    plain, clipped, loose = job_of(), job_of(clip_norm=0.25), job_of(clip_norm=1e6)
    norms = [float(train_step(job, INDICES, 0).norm) for job in (plain, clipped, loose)]
    assert norms[0] == norms[1] == norms[2] > 0.25  # as it was before
    assert math.sqrt(sum(float(g.square().sum()) for g in gradients(clipped))) == pytest.approx(0.25, rel=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(gradients(plain), gradients(loose), strict=True))


def test_the_average_follows_the_weights_and_is_what_is_evaluated_and_saved(small, quietly, tmp_path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1))
    average = WeightAverage(model, 0.5)
    expected = model[0].weight.detach().clone()
    for step in range(20):
        with torch.no_grad():
            model[0].weight.add_(1.0)
            model[1].num_batches_tracked.add_(1)
        average.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    torch.testing.assert_close(average.model[0].weight, expected)
    assert average.model[1].num_batches_tracked == 20

    summary = quietly(small(ema=True)).summary
    saved = read_checkpoint(tmp_path / "run" / LAST)
    assert saved["model"].keys() == saved["trained"].keys()
    assert any(not torch.equal(saved["model"][name], saved["trained"][name]) for name in saved["model"])
    plain = quietly(small(run_dir=tmp_path / "plain")).summary
    trained = read_checkpoint(tmp_path / "plain" / LAST)["model"]
    assert all(torch.equal(saved["trained"][name], trained[name]) for name in trained)  # training is not changed by it
    assert summary["val_loss"] != plain["val_loss"]


def test_muon_steps_filters_as_matrices_and_the_rest_by_adamw() -> None:
    torch.manual_seed(0)
    config = Config(optimizer="muon", lr=0.1, weight_decay=0.0, momentum=0.5)
    model = build_model("lenet5", num_classes=10, in_channels=1, image_size=(8, 8), backend="cudnn")
    made = make_optimizer(model, config)
    assert isinstance(made, MuonAndAdamW)
    parameters = dict(model.named_parameters())
    inner = [name for name, parameter in parameters.items() if parameter.dim() >= 2][:-1]
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    F.cross_entropy(model(torch.randn(4, 1, 8, 8)), torch.arange(4)).backward()
    grads = {name: parameter.grad.clone() for name, parameter in parameters.items() if parameter.grad is not None}
    made.step()
    for name, value in before.items():
        own = torch.nn.Parameter(value.flatten(1) if name in inner else value.clone())
        own.grad = grads[name].flatten(1) if name in inner else grads[name]
        if name in inner:
            settings: dict[str, Any] = {"momentum": 0.5, "adjust_lr_fn": "match_rms_adamw"}
            alone: torch.optim.Optimizer = torch.optim.Muon([own], lr=0.1, weight_decay=0.0, **settings)
        else:
            alone = torch.optim.AdamW([own], lr=0.1, weight_decay=0.0, betas=(0.5, 0.999))
        alone.step()
        torch.testing.assert_close(parameters[name].detach(), own.detach().view_as(value), rtol=0, atol=0)
    made.zero_grad()
    assert all(parameter.grad is None for parameter in parameters.values())
    schedule = make_schedule(made, config, 10)
    schedule.step()
    assert {group["lr"] for one in made.inner.values() for group in one.param_groups} == {schedule.get_last_lr()[0]}


def test_muon_in_channels_last_is_the_same_step(job_of) -> None:
    jobs = [job_of(model="lenet5", optimizer="muon", channels_last=layout) for layout in (False, True)]
    for job in jobs:
        train_step(job, INDICES, 0)
    one, other = (job.trainee.model.state_dict() for job in jobs)
    assert any(v.dim() == 4 and v.is_contiguous(memory_format=torch.channels_last) for v in other.values())
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=2e-3)  # Newton-Schulz runs in bfloat16


def parts_of(job: Job, step: int = 0) -> Any:
    (part,) = Batch(job, INDICES, step).parts()
    return part


def test_mixup_mixes_inputs_and_labels_by_one_share(job_of) -> None:
    plain, part = parts_of(job_of()), parts_of(job_of(mixup=0.5))
    assert 0.5 <= part.share < 1
    assert torch.equal(part.labels, plain.labels)
    assert torch.equal(part.partners.sort().values, plain.labels.sort().values)
    row = int((part.partners != part.labels).nonzero()[0])
    sources = torch.lerp(plain.inputs, plain.inputs[row], part.share)
    assert any(torch.allclose(source, part.inputs[row]) for source in sources)
    shares = {parts_of(job_of(mixup=0.5), step).share for step in range(5)}
    assert len(shares) == 5


def test_cutmix_takes_a_rectangle_whose_share_is_the_labels(job_of) -> None:
    job = job_of(cutmix=1.0)
    plain = parts_of(job_of())
    for step in range(6):
        part = parts_of(job, step)
        changed = (part.inputs != plain.inputs).any(0)[0]  # [H, W]
        assert changed.sum() <= round((1 - part.share) * 64)
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        if len(rows):
            area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
            assert int(area) <= round((1 - part.share) * 64)


def test_the_loss_of_mixed_inputs_is_that_of_both_labels(job_of, monkeypatch) -> None:
    from tidepool.training.batch import Part
    from tidepool.training.step import loss_of

    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    part = Part(torch.empty(5), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 1, 0, 0, 2]), 0.75)
    assert part.partners is not None
    soft = 0.75 * F.one_hot(part.labels, 3) + 0.25 * F.one_hot(part.partners, 3)
    torch.testing.assert_close(loss_of(Config(), logits, part), F.cross_entropy(logits, soft))
    smooth = Config(label_smoothing=0.2)
    torch.testing.assert_close(loss_of(smooth, logits, part), F.cross_entropy(logits, soft, label_smoothing=0.2))


def test_cutout_blanks_a_square_in_each_input(job_of) -> None:
    plain, part = parts_of(job_of()), parts_of(job_of(cutout=3))
    blank = (part.inputs == 0) & (plain.inputs != 0)
    counts = blank.flatten(1).sum(1)
    assert counts.max() == 9
    assert counts.min() >= 4 - int((plain.inputs == 0).flatten(1).sum(1).max())
    assert torch.equal(part.inputs[~blank], plain.inputs[~blank])
    assert len({tuple(rows) for rows in blank.flatten(1).tolist()}) > 20


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_schedules_after_the_warm_up(schedule: Any) -> None:
    config = Config(schedule=schedule, lr=0.5, warmup=0.1)
    optimizer = make_optimizer(torch.nn.Linear(2, 2), config)
    made, rates = make_schedule(optimizer, config, 40), []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    assert rates[:5] == pytest.approx([0.5 * (1 / 25 + 24 / 25 * step / 4) for step in range(5)])
    if schedule == "step":
        assert rates[4:] == pytest.approx([0.5] * 16 + [0.05] * 10 + [0.005] * 10)
    else:
        assert rates[4:] == pytest.approx([0.25 * (1 + math.cos(math.pi * step / 36)) for step in range(36)])


def test_what_cannot_be_here_is_refused_in_one_line(small, tmp_path) -> None:
    with pytest.raises(ConfigError, match="cuda_graph=True needs a CUDA GPU, and there is none here; expected False"):
        check_machine(small(cuda_graph=True))
    from tests.data.audio_files import write_audio_folder

    audio = {"data": "spoken_digits", "data_dir": write_audio_folder(tmp_path / "tones"), "batch_size": 4}
    with pytest.raises(ConfigError, match="channels_last=True: conv1d_audio takes waveforms"):
        prepare(small(model="conv1d_audio", channels_last=True, **audio), CPU, tmp_path)


def test_fine_tuning_takes_all_but_a_classifier_of_other_classes(small, quietly, tmp_path) -> None:
    quietly(small(model="lenet5", max_steps=2))
    weights = read_checkpoint(tmp_path / "run" / LAST)["model"]
    path, lines = tmp_path / "run" / LAST, []
    job = prepare(small(model="lenet5", init_from=path, seed=9), CPU, tmp_path, say=lines.append)
    assert lines == [f"lenet5 starts from the weights in {path}"]
    assert all(torch.equal(value, weights[name]) for name, value in job.trainee.model.state_dict().items())

    names = list(weights)
    other = {name: value[:7] if name in names[-2:] else value for name, value in weights.items()}
    torch.save(other, tmp_path / "seven.pt")
    job = prepare(small(model="lenet5", init_from=tmp_path / "seven.pt", seed=9), CPU, tmp_path, say=lines.append)
    assert lines[1].endswith(f"but for its classifier ({', '.join(names[-2:])}), drawn anew")
    fresh = prepare(small(model="lenet5", seed=9), CPU, tmp_path).trainee.model.state_dict()
    for name, value in job.trainee.model.state_dict().items():
        assert torch.equal(value, (fresh if name in names[-2:] else weights)[name])
    torch.save({name: value[..., :1] for name, value in weights.items()}, tmp_path / "odd.pt")
    with pytest.raises(ConfigError, match=r"init_from: .*odd.pt does not fit the .*: of another shape"):
        prepare(small(model="lenet5", init_from=tmp_path / "odd.pt"), CPU, tmp_path)
    with pytest.raises(ConfigError, match=r"init_from: .*nowhere: no such file"):
        prepare(small(model="lenet5", init_from=tmp_path / "nowhere"), CPU, tmp_path)


@pytest.mark.full
def test_the_whole_network_compiled_follows_the_eager_one(small, quietly, tmp_path) -> None:
    for backend in ("compile", "cudnn"):
        quietly(small(model="lenet5", backend=backend, max_steps=3, run_dir=tmp_path / backend))
    losses = [[row.get("train/loss") for row in metrics(tmp_path / name)] for name in ("compile", "cudnn")]
    for mine, theirs in zip(*losses, strict=True):
        assert mine == (theirs if theirs is None else pytest.approx(theirs, rel=1e-4))
