"""W&B as a mirror that never stops a run. A stand-in module is wandb here; test_train.py uses the real one."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_run import stop_after
from tidepool.records import read_rows
from tidepool.training import tracking
from tidepool.training.bounded_calls import kill_services
from tidepool.training.config import Config, ConfigError
from tidepool.training.observer import Observer
from tidepool.training.tracking import check_available, start_tracker, tracking_mode


class StandInRun:
    """Remembers what it was given; the call named by `fails` raises as wandb does when its service has died."""

    def __init__(self, fails: str | None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.fails = fails
        self.summary = types.SimpleNamespace(update=lambda values: self._call("summary", values))

    def _call(self, name: str, value: Any) -> None:
        self.calls.append((name, value))
        if name == self.fails:
            raise ConnectionResetError("Connection lost")

    def define_metric(self, name: str, **settings: Any) -> None:
        self._call("define_metric", (name, settings))

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self._call("artifact", (artifact.name, artifact.files, aliases))

    def log(self, values: dict[str, Any]) -> None:
        self._call("log", values)

    def finish(self, exit_code: int) -> None:
        self._call("finish", exit_code)


class StandInArtifact:
    def __init__(self, name: str, type: str) -> None:
        self.name, self.files = name, []
        assert type == "model"

    def add_file(self, path: str) -> None:
        self.files.append(path)


class StandInWandb(types.ModuleType):
    def __init__(self, fails: str | None = None) -> None:
        super().__init__("wandb")
        self.run, self.started, self.torn_down = StandInRun(fails), {}, False
        self.Settings = dict
        self.Table = lambda columns, data: ("table", columns, data)
        self.Image = lambda path: ("image", path)
        self.Histogram = lambda np_histogram: ("histogram", [side.tolist() for side in np_histogram])
        self.Artifact = StandInArtifact
        self.plot = types.SimpleNamespace(confusion_matrix=lambda **given: ("confusion", given))

    def teardown(self, exit_code: int) -> None:
        self.torn_down = True
        raise ConnectionResetError("Connection lost")

    def init(self, **arguments: Any) -> StandInRun:
        self.started = arguments
        if self.run.fails == "init":
            raise RuntimeError("no API key\nconfigured")
        return self.run


@pytest.fixture
def stand_in(monkeypatch):
    def put(fails: str | None = None) -> StandInWandb:
        module = StandInWandb(fails)
        monkeypatch.setitem(sys.modules, "wandb", module)
        for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_PROJECT"):  # set while tracking, undone here
            monkeypatch.setenv(variable, "before")
            monkeypatch.delenv(variable)
        return module

    return put


def test_a_run_is_mirrored_against_our_own_step(stand_in, tmp_path):
    wandb = stand_in()
    config = Config(group="g", lr=0.25, run_dir=tmp_path / "run")
    tracker = start_tracker(config, "offline", tmp_path / "run", "id7", {"environment": {"gpu": None}})
    tracker.row({"step": 1, "train/loss": 0.5})
    tracker.table("confusion", ("true", "count"), [("a", 1)], 8)
    tracker.image("filters", Path("f.png"), 8)
    tracker.histogram("weights/a", torch.tensor([1, 2]), torch.tensor([0.0, 0.5, 1.0]), 8)
    tracker.ended({"test_accuracy": 0.75}, 3)
    started = wandb.started
    assert (started["project"], started["group"], started["name"], started["id"]) == ("tidepool", "g", "run", "id7")
    assert (started["job_type"], started["tags"]) == ("train", ["digits", "lenet5", "auto"])
    assert (started["mode"], started["dir"]) == ("offline", str(tmp_path / "run"))
    assert started["config"] == {**config.as_record(), "environment": {"gpu": None}}
    assert started["settings"]["x_transaction_log_flush_interval"] == 1
    assert wandb.run.calls == [
        ("define_metric", ("*", {"step_metric": "step"})),
        *(("define_metric", (axis, {"hidden": True})) for axis in ("step", "epoch", "time_s")),
        ("define_metric", ("val/accuracy", {"step_metric": "step", "summary": "max"})),
        ("define_metric", ("val/loss", {"step_metric": "step", "summary": "min"})),
        ("log", {"step": 1, "train/loss": 0.5}),
        ("log", {"step": 8, "confusion": ("table", ["true", "count"], [["a", 1]])}),
        ("log", {"step": 8, "filters": ("image", "f.png")}),
        ("log", {"step": 8, "weights/a": ("histogram", [[1, 2], [0.0, 0.5, 1.0]])}),
        ("summary", {"test_accuracy": 0.75}),
        ("finish", 3),
    ]
    assert os.environ["WANDB_CACHE_DIR"].startswith(str(tmp_path / "run" / "wandb"))
    assert os.environ["WANDB_DATA_DIR"].startswith(str(tmp_path / "run" / "wandb"))


def test_a_trained_run_leaves_its_confusion_histograms_and_checkpoint(stand_in, quietly, small, tmp_path):
    wandb = stand_in()
    wandb.run.id = "id7"
    outcome = quietly(small(track="offline", artifact=True, histogram_every=4, tags="a, b,a"))
    assert wandb.started["tags"] == ["digits", "mlp", "cudnn", "a", "b"]
    logged = {name: value for kind, row in wandb.run.calls if kind == "log" for name, value in row.items()}
    _, plot = logged["confusion_plot"]
    right = sum(true == said for true, said in zip(plot["y_true"], plot["preds"], strict=True))
    assert (len(plot["y_true"]), right / 360) == (360, outcome.summary["test_accuracy"])
    assert plot["class_names"] == [str(digit) for digit in range(10)]
    (kept,) = [given for kind, given in wandb.run.calls if kind == "artifact"]
    assert kept == ("mlp-id7", [str(tmp_path / "run" / "checkpoints" / "best.pt")], ["best"])
    assert {"mistakes", "speed/step_ms", "speed/samples_per_second"} <= logged.keys()
    rows = read_rows(tmp_path / "run" / "media" / "histograms.jsonl")
    assert {row["step"] for row in rows} == {4, 8}
    assert {row["name"] for row in rows} == {name for name in logged if name.startswith(("weights/", "gradients/"))}
    assert all(len(row["edges"]) == len(row["counts"]) + 1 and sum(row["counts"]) > 0 for row in rows)


@pytest.mark.parametrize("fails", ["init", "define_metric", "log", "summary", "finish"])
def test_a_failure_of_wandb_is_one_warning_and_nothing_more(stand_in, quietly, small, capsys, tmp_path, fails):
    wandb = stand_in(fails)
    outcome = quietly(small(track="offline"))
    assert (outcome.exit_code, outcome.summary["status"]) == (0, "finished")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert "W&B stopped" in warnings[0]
    assert wandb.run.calls == [] or wandb.run.calls[-1][0] == fails
    assert wandb.torn_down


@pytest.mark.parametrize(
    ("project", "environment", "expected"),
    [
        (None, {}, "tidepool"),
        (None, {"WANDB_PROJECT": "mine"}, "mine"),
        ("given", {"WANDB_PROJECT": "mine"}, "given"),
        ("given", {"WANDB_SWEEP_ID": "s"}, "given"),
    ],
)
def test_the_project_is_the_flag_then_the_environment(stand_in, monkeypatch, tmp_path, project, environment, expected):
    wandb = stand_in()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    start_tracker(Config(project=project), "online", tmp_path, "id", {})
    assert wandb.started["project"] == expected
    if "WANDB_SWEEP_ID" in environment:
        assert os.environ["WANDB_PROJECT"] == expected


@pytest.mark.parametrize(
    ("track", "environment", "expected"),
    [
        ("off", {"WANDB_SWEEP_ID": "s"}, "off"),
        ("offline", {}, "offline"),
        ("offline", {"WANDB_SWEEP_ID": "s"}, "online"),
        ("offline", {"WANDB_SWEEP_ID": "s", "WANDB_MODE": "offline"}, "offline"),
        ("online", {}, "online"),
        ("online", {"WANDB_MODE": "offline"}, "offline"),
        ("online", {"WANDB_MODE": "disabled"}, "off"),
        ("offline", {"WANDB_MODE": "disabled"}, "off"),
        ("offline", {"WANDB_SWEEP_ID": "s", "WANDB_MODE": "disabled"}, "off"),
        ("off", {"WANDB_MODE": "online"}, "off"),
    ],
)
def test_a_run_of_a_wandb_agent_is_online(monkeypatch, track, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tracking_mode(Config(track=track)) == expected


def test_an_agents_run_keeps_the_id_the_agent_gave(stand_in, monkeypatch, quietly, small):
    wandb = stand_in()
    monkeypatch.setenv("WANDB_RUN_ID", "fromagent")
    assert quietly(small(track="offline", max_steps=1)).summary["run_id"] == "fromagent"
    assert wandb.started["id"] == "fromagent"


def test_tracking_without_wandb_is_refused_before_anything_is_created(monkeypatch, quietly, small, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"track='offline' needs wandb .* --track off"):
        quietly(small(track="offline"))
    assert list(tmp_path.iterdir()) == []


def test_a_stray_folder_called_wandb_is_not_wandb(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    with pytest.raises(ConfigError, match="pip install wandb"):
        check_available("online")


def test_off_imports_nothing(monkeypatch, tmp_path):
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} was imported")

    monkeypatch.setattr(tracking.importlib, "import_module", refuse)
    check_available("off")
    assert type(start_tracker(Config(), "off", tmp_path, "id", {})) is Observer


def test_files_go_where_wandb_dir_says(stand_in, monkeypatch, tmp_path):
    wandb = stand_in()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    start_tracker(Config(), "offline", tmp_path / "run", "id", {})
    assert wandb.started["dir"] == str(tmp_path / "elsewhere")
    assert os.environ["WANDB_DATA_DIR"].startswith(str(tmp_path / "elsewhere" / "wandb"))


@pytest.mark.parametrize("error", [RuntimeError("built for\nanother Python"), ValueError(""), OSError("no such lib")])
def test_a_wandb_that_does_not_import_is_one_line(monkeypatch, error):
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(tracking.importlib, "import_module", fail)
    with pytest.raises(ConfigError, match=r"track='offline': wandb does not import \(.*Error.*--track off") as refused:
        check_available("offline")
    assert "\n" not in str(refused.value)


def test_online_without_a_server_is_offline_and_says_so_in_one_line(stand_in, monkeypatch, tmp_path, capsys):
    wandb = stand_in()
    begin = wandb.init

    def offline_only(**arguments: Any) -> StandInRun:
        if arguments["mode"] == "online":
            raise RuntimeError("no API key\nconfigured")
        return begin(**arguments)

    monkeypatch.setattr(wandb, "init", offline_only)
    tracker = start_tracker(Config(), "online", tmp_path / "run", "id7", {})
    tracker.row({"step": 1})
    assert (wandb.started["mode"], wandb.started["id"]) == ("offline", "id7")
    assert ("log", {"step": 1}) in wandb.run.calls
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: W&B is not reached (no API key configured); tracked offline: wandb sync ")


@pytest.mark.parametrize("hangs", ["log", "summary", "finish"])
def test_a_wandb_that_does_not_answer_holds_up_no_run(stand_in, monkeypatch, quietly, small, capsys, hangs):
    wandb = stand_in()
    monkeypatch.setattr(tracking, "LOG_LIMIT_S", 0.3)
    monkeypatch.setattr(tracking, "FINISH_LIMIT_S", 0.3)
    forever, call = threading.Event(), wandb.run._call

    def hang(name: str, value: Any) -> None:
        call(name, value)
        if name == hangs:
            forever.wait()

    monkeypatch.setattr(wandb.run, "_call", hang)
    outcome = quietly(small(track="offline"))
    forever.set()
    assert (outcome.exit_code, outcome.summary["status"]) == (0, "finished")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert "W&B stopped (TimeoutError: no answer within 0.3 s)" in line
    assert [name for name, _ in wandb.run.calls].count(hangs) == 1


def test_only_children_that_are_wandbs_service_are_killed(tmp_path):
    sleep = shutil.which("sleep")
    assert sleep is not None
    shutil.copy(sleep, tmp_path / "wandb-core")
    service = subprocess.Popen([str(tmp_path / "wandb-core"), "60"])
    other = subprocess.Popen([sleep, "60"])
    try:
        service.send_signal(signal.SIGSTOP)
        while (Path("/proc") / str(service.pid) / "stat").read_text().partition("(")[2].startswith("python"):
            time.sleep(0.01)  # not yet the program that it is to be
        kill_services()
        assert service.wait(timeout=30) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (service, other):
            process.kill()
            process.wait()


def test_a_run_started_again_under_an_id_resumes_in_its_folder(stand_in, monkeypatch, quietly, small, tmp_path):
    """As an agent does with a run that was preempted."""
    stand_in()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "abc/12")
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        first = quietly(small(run_dir=None))
    again = quietly(small(run_dir=None))
    assert first.run_dir == again.run_dir == Path("runs/abc_12")
    assert (first.summary["status"], again.summary["status"]) == ("interrupted", "finished")
    assert again.summary["run_id"] == first.summary["run_id"] == "abc/12"
    assert [row["step"] for row in read_rows(again.run_dir / "metrics.jsonl") if "train/loss" in row] == [*range(1, 9)]


@pytest.mark.parametrize("run_id", ["", "  "])
def test_an_empty_id_is_none(stand_in, monkeypatch, quietly, small, tmp_path, run_id):
    stand_in()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", run_id)
    outcome = quietly(small(run_dir=None, max_steps=1))
    assert "-mlp-cudnn-seed0-" in outcome.run_dir.name
    assert outcome.summary["run_id"].strip()


@pytest.mark.parametrize(
    ("values", "refusal"),
    [
        ("lr: {value: 0.03}\nwandb_version: 1\n", ""),
        ("lr: {value: 0.5}\n", "lr: 0.5 in the agent's .*, 0.03 in the flags.* --lr"),
        ("width: {value: 3}\n", "width: 3 in the agent's"),
        ("augment: {value: 'False'}\nfoo: {value: 1}\n", ""),
        ("lr: {value: [", "cannot be read as an agent's values"),
        (None, "cannot be read as an agent's values"),
    ],
)
def test_what_the_agent_says_is_what_is_trained(stand_in, monkeypatch, quietly, small, tmp_path, values, refusal):
    stand_in()
    path = tmp_path / "config-defaults.yaml"
    if values is not None:
        path.write_text(values)
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(path))
    config = small(model="convnet", width=4, track="offline", max_steps=1)
    if not refusal:
        assert quietly(config).exit_code == 0
        return
    with pytest.raises(ConfigError, match=refusal) as refused:
        quietly(config)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()
