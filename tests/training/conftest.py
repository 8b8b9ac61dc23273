"""Runs small enough for tests, and the process's numeric switches put back after each."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tidepool.training.config import Config
from tidepool.training.precision import set_numerics
from tidepool.training.run import Outcome, train


@pytest.fixture(autouse=True)
def _untouched_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No W&B variable of the caller's reaches a test, and no numeric switch outlives one."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, cudnn.benchmark
    yield
    set_numerics(Config())
    cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, cudnn.benchmark = before


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Config]:
    """Make the settings of a run of eight steps in two epochs, untracked, in tmp_path/run; keywords replace fields,
    or are options of the data set or network."""

    def make(**fields: Any) -> Config:
        settings: dict[str, Any] = {
            "model": "mlp",
            "backend": "cudnn",
            "epochs": 2,
            "batch_size": 320,
            "track": "off",
            "run_dir": tmp_path / "run",
        }
        settings |= fields
        options = {name: settings.pop(name) for name in list(settings) if name not in Config.__dataclass_fields__}
        return Config(**settings, options=options)

    return make


@pytest.fixture
def quietly() -> Callable[[Config], Outcome]:
    """`train` without its line for people."""
    return lambda config: train(config, announce=lambda line: None)
