"""Checkpoints hold all of a run's state in tensors and plain types."""

import pytest
import torch
from torch import nn

from tidepool.training.checkpoint import Progress, Trainee, read_checkpoint, restore, save_checkpoint
from tidepool.training.checkpoint_files import LAST
from tidepool.training.config import Config
from tidepool.training.optimization import make_optimizer, make_schedule
from tidepool.training.precision import make_scaler
from tidepool.training.run_folder import RunFolderError

FILES = ("last.pt", "last.pt.sha256")


def make_trainee(config: Config, width: int = 4) -> Trainee:
    model = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 2))
    optimizer = make_optimizer(model, config)
    return Trainee(model, optimizer, make_schedule(optimizer, config, 10), make_scaler(config, torch.device("cpu")))


def take_steps(trainee: Trainee, steps: int) -> None:
    for _ in range(steps):
        trainee.optimizer.zero_grad()
        trainee.model(torch.randn(8, 3)).square().mean().backward()
        trainee.optimizer.step()
        trainee.schedule.step()


@pytest.mark.parametrize("fields", [{}, {"optimizer": "adamw"}, {"schedule": "constant"}])
def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, fields):
    config, path = Config(**fields), tmp_path / "last.pt"
    torch.manual_seed(1)
    first = make_trainee(config)
    take_steps(first, 3)
    progress = Progress(run_id="a", started_at="2000-01-01T00:00:00+00:00", step=3, test_accuracy=0.5)
    save_checkpoint(tmp_path, first, progress, config, {"window": [[0.1, 2, 8]]}, names=[LAST])
    take_steps(first, 4)

    torch.manual_seed(2)
    second, content = make_trainee(config), read_checkpoint(path)
    assert restore(content, second) == progress
    assert content["config"] == config.as_record()
    assert content["measurements"] == {"window": [[0.1, 2, 8]]}
    take_steps(second, 4)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert first.optimizer.param_groups[0]["lr"] == second.optimizer.param_groups[0]["lr"]
    assert {entry.name for entry in tmp_path.iterdir()} == {*FILES, "step-00000003.pt", "step-00000003.pt.sha256"}


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, content):
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"last\.pt cannot be read as a checkpoint") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_somebody_elses_weights_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(RunFolderError, match=r"other\.pt is not a checkpoint of train\.py"):
        read_checkpoint(tmp_path / "other.pt")


def test_a_forged_checkpoint_is_one_line_that_names_what_it_lacks(tmp_path):
    path = tmp_path / "forged.pt"
    torch.save({"schema_version": 1}, path)
    with pytest.raises(RunFolderError, match=r"forged\.pt is not a whole checkpoint.*damaged: config, progress, "):
        read_checkpoint(path)
    save_checkpoint(tmp_path, make_trainee(Config()), Progress("a", "now"), Config(), {}, names=[LAST])
    torch.save({**read_checkpoint(tmp_path / LAST), "progress": 3}, path)
    with pytest.raises(RunFolderError, match=r"damaged: progress$"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("optimizer", {}),
        ("optimizer", {"state": {}, "param_groups": []}),
        ("schedule", {1: 2}),
        ("rng_cpu", torch.zeros(3)),
        ("progress", {}),
    ],
)
def test_a_state_that_does_not_fit_is_refused(tmp_path, part, value):
    config, path = Config(), tmp_path / "last.pt"
    save_checkpoint(tmp_path, make_trainee(config), Progress("a", "now"), config, {}, names=[LAST])
    with pytest.raises(RunFolderError, match="optimizer, schedule or random state does not fit: ") as caught:
        restore(read_checkpoint(path) | {part: value}, make_trainee(config))
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_are_refused(tmp_path):
    config, path = Config(), tmp_path / "last.pt"
    save_checkpoint(tmp_path, make_trainee(config), Progress("a", "now"), config, {}, names=[LAST])
    with pytest.raises(RunFolderError, match="do not fit"):
        restore(read_checkpoint(path), make_trainee(config, width=5))


def test_a_failed_save_leaves_the_previous_checkpoint(tmp_path):
    config, path = Config(), tmp_path / "last.pt"
    trainee = make_trainee(config)
    save_checkpoint(tmp_path, trainee, Progress("a", "now", step=1), config, {}, names=[LAST])
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(tmp_path, trainee, Progress("a", "now", step=2), config, {"bad": lambda: None}, names=[LAST])
    assert read_checkpoint(path)["progress"]["step"] == 1
    assert {entry.name for entry in tmp_path.iterdir()} == {*FILES, "step-00000001.pt", "step-00000001.pt.sha256"}
