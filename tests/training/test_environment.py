"""The environment's record."""

import json

import torch

from tidepool.training.config import Config
from tidepool.training.environment import environment_record


def test_it_names_code_machine_and_versions():
    record = environment_record(Config(), torch.device("cpu"))
    assert json.loads(json.dumps(record)) == record
    wanted = "commit dirty command cpu gpu driver cuda cudnn torch triton python precision date"
    assert set(wanted.split()) <= set(record)
    assert record["torch"] == torch.__version__
    assert record["gpu"] is None
    assert record["cpu"]
    assert record["date"].endswith("+00:00")


def test_it_works_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    record = environment_record(Config(), torch.device("cpu"))
    assert (record["commit"], record["dirty"]) == (None, None)
