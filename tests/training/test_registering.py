"""A data set and a network that this file alone knows, each with an option of its own, trained by `train.py`."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tidepool import data, models
from tidepool.data.dataset import ArraySplit, LabelledData, assemble
from tidepool.records import read_json

TRAIN = Path(__file__).resolve().parents[2] / "train.py"


def stripes(request: data.Request, *, shades: int = 2) -> LabelledData:
    """`shades`: how many shades of grey there are to tell apart."""
    labels = np.arange(60) % shades
    pixels = np.broadcast_to((labels * 255 // (shades - 1)).astype(np.uint8)[:, None, None, None], (60, 1, 4, 4)).copy()
    names = tuple(str(shade) for shade in range(shades))
    return assemble(request.name, ArraySplit(pixels, labels), ArraySplit(pixels, labels), names, request.device)


class Brightness(nn.Module):
    """The mean over pixels through `layers` linear layers: (N, C, H, W) -> (N, num_classes)."""

    def __init__(self, in_channels: int, num_classes: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(in_channels, in_channels) for _ in range(layers - 1)))
        self.head = nn.Linear(in_channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x.mean((2, 3))))


def brightness(inputs: models.ModelInputs, *, layers: int = 1) -> Brightness:
    """`layers`: linear layers, the last one included."""
    return Brightness(inputs.in_channels, inputs.num_classes, layers)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are known while the test lasts."""
    for registry in (data.registry, models.registry):
        monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    data.register("stripes", holds="images")(stripes)
    models.register("brightness")(brightness)


def run(monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    """The exit code of train.py."""
    monkeypatch.setattr(sys, "argv", [str(TRAIN), "--data=stripes", "--model=brightness", "--track=off", *flags])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TRAIN), run_name="__main__")
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_they_train_with_their_options_and_the_record_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (f"--run_dir={tmp_path / 'run'}", "--shades=3", "--layers=2", "--epochs=2", "--batch_size=18")
    assert run(monkeypatch, *flags) == 0
    config, summary = (read_json(tmp_path / "run" / f"{name}.json") for name in ("config", "summary"))
    assert config is not None
    assert summary is not None
    assert (config["shades"], config["layers"]) == (3, 2)
    assert (summary["status"], summary["steps"]) == ("finished", 6)
    assert summary["parameters"] == 2 + 3 * 2  # a layer of 1 to 1 and a head of 1 to 3, each with its bias
    assert run(monkeypatch, *flags) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert run(monkeypatch, *flags[:2], "--layers=3", *flags[3:]) == 2
    assert "layers: 2 there, 3 asked" in capsys.readouterr().err


def test_what_they_do_not_have_is_refused_with_what_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, f"--run_dir={tmp_path / 'run'}", "--shuffle_frames=True") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--shuffle_frames=True; data 'stripes' has the options: shades; model 'brightness': layers" in line
    assert not (tmp_path / "run").exists()


def test_an_option_that_both_have_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def striped(inputs: models.ModelInputs, *, shades: int = 1) -> nn.Module:
        raise AssertionError

    models.register("striped")(striped)
    assert run(monkeypatch, "--model=striped") == 2
    assert "shades: more than one of data 'stripes', model 'striped' and train.py" in capsys.readouterr().err
