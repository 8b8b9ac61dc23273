"""The online side: W&B's own commands against a stand-in for its server, and every refusal before they are started."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

from tests.sweeping.conftest import starts
from tests.sweeping.fake_wandb import SWEEP_ID, FakeWandb
from tidepool.sweeping import online
from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.spec import read_sweep

KEY = "0" * 40


def test_the_commands_are_wandbs_own(read, tmp_path):
    sweep = read(project="p", entity="e")
    wandb = [sys.executable, "-m", "wandb"]
    assert online.sweep_argv(sweep, tmp_path / "s.yaml") == [
        *wandb, "sweep", "--project", "p", "--entity", "e", str(tmp_path / "s.yaml")
    ]  # fmt: skip
    assert online.agent_argv("e/p/id") == [*wandb, "agent", "--forward-signals", "e/p/id"]


def test_the_project_is_the_files_else_the_environments_else_tidepool(read, monkeypatch):
    assert online.project(read()) == "tidepool"
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    assert online.project(read()) == "mine"
    assert online.project(read(project="p")) == "p"


def test_a_missing_wandb_is_named(monkeypatch):
    monkeypatch.setattr(online.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SweepError, match=r"^--online: wandb is not installed: pip install wandb$"):
        online.check_login()


def test_a_missing_key_is_named_with_its_server(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(SweepError, match=r"^--online: no W&B key for wandb.example.org: run `wandb login`"):
        online.check_login()


def test_a_key_in_netrc_is_a_login_and_an_unreachable_server_is_named(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1\n  login user\n  password {KEY}\n")
    netrc.chmod(0o600)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(netrc))
    with pytest.raises(SweepError, match=r"^--online: http://127.0.0.1:9 cannot be reached"):
        online.check_login()


def test_a_server_address_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "wandb.example.org")
    with pytest.raises(SweepError, match=r"^--online: WANDB_BASE_URL is 'wandb.example.org'; expected an address"):
        online.check_login()


@pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="wandb is not installed")
def test_a_sweep_runs_through_wandbs_own_commands(write_sweep, run_sweep, monkeypatch, capsys):
    path = write_sweep(description="margin=1 points; q", parameters={"seed": {"values": [0, 1]}})
    with FakeWandb([{"seed": 0}, {"seed": 1}]) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
        assert run_sweep(path, "--online", "--workers", 2) == 0
        out = capsys.readouterr().out
        known = json.loads(Path("runs/try/online.json").read_text())
        assert known["sweep"] == f"me/tidepool/{SWEEP_ID}"
        given = yaml.safe_load(server.sweep_config)
        assert given["parameters"] == {"seed": {"values": [0, 1]}, "group": {"value": known["group"]}}
        assert {key: given[key] for key in ("method", "name", "program")} == {
            "method": "grid", "name": "try", "program": "fake_train.py"
        }  # fmt: skip
        assert sorted(starts(Path("runs"))) == ["run1", "run2"]
        assert "Sweep try, 2 points: 2 finished" in out
        again = online.register(read_sweep(path, home=Path(), online=True), Path("runs/try"))
        assert (again.path, again.group) == (known["sweep"], known["group"])
        assert server.operations.count("UpsertSweep") == 1
        assert json.loads(Path("runs/try/sweep.json").read_text())["margin_points"] == 1.0
