from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tidepool.sweeping.command import DEFAULT_COMMAND, build_argv, check_command, write_args_file
from tidepool.sweeping.errors import SweepError

PARAMS = {"lr": 0.001, "ema": True, "flip": False, "opt.name": "a b;touch X", "none": None}


def argv(*command):
    return build_argv(command, program=("train.py",), params=PARAMS, run_dir=Path("runs/x/y"))


def test_the_default_command_is_wandbs():
    assert argv(*DEFAULT_COMMAND) == [
        "/usr/bin/env", sys.executable, "train.py",
        "--lr=0.001", "--ema=True", "--flip=False", "--opt.name=a b;touch X", "--none=None",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("macro", "words"),
    [
        ("${args_no_hyphens}", ["lr=0.001", "ema=True", "flip=False", "opt.name=a b;touch X", "none=None"]),
        ("${args_no_boolean_flags}", ["--lr=0.001", "--ema", "--opt.name=a b;touch X", "--none=None"]),
        ("${args_append_hydra}", ["+lr=0.001", "+ema=True", "+flip=False", "+opt.name=a b;touch X", "+none=None"]),
        (
            "${args_override_hydra}",
            ["++lr=0.001", "++ema=True", "++flip=False", "++opt.name=a b;touch X", "++none=None"],
        ),
        ("${args_json_file}", ["runs/x/y.args.json"]),
    ],
)
def test_args_macros(macro, words):
    assert argv(macro) == words


def test_args_without_equals_signs_come_in_pairs():
    assert argv("${args_no_equals}")[:4] == ["--lr", "0.001", "--ema", "True"]


def test_args_as_json():
    assert json.loads(argv("${args_json}")[0]) == PARAMS


def test_the_args_file_is_written_only_where_it_is_asked_for(tmp_path):
    run_dir = tmp_path / "y"
    write_args_file(DEFAULT_COMMAND, PARAMS, run_dir)
    assert list(tmp_path.iterdir()) == []
    write_args_file(["${program}", "${args_json_file}"], PARAMS, run_dir)
    assert json.loads((tmp_path / "y.args.json").read_text()) == PARAMS


def test_environment_variables_are_filled_in_inside_a_word(monkeypatch):
    monkeypatch.setenv("SCRATCH", "/fast")
    command = ["nice", "${program}", "--data_dir=${envvar:SCRATCH}/data", "${args_json}"]
    check_command(command)
    assert argv(*command)[:3] == ["nice", "train.py", "--data_dir=/fast/data"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["${prog}", "${args}"], "command[0]: unknown macro ${prog}; expected one of ${env}, ${interpreter}"),
        (["--x=${program}", "${args}"], "command[0]: '--x=${program}': ${program} has to be an entry of its own"),
        (["${program}"], "command: has no ${args} (or another ${args_…}), so no parameter would reach the program"),
        (["${envvar:TIDEPOOL_UNSET}", "${args}"], "command[0]: ${envvar:TIDEPOOL_UNSET}: the environment"),
    ],
)  # fmt: skip
def test_commands_that_would_not_be_filled_in_are_refused(command, message):
    with pytest.raises(SweepError) as caught:
        check_command(command)
    assert str(caught.value).startswith(message)


def test_an_unset_variable_is_refused_with_what_it_should_hold(monkeypatch):
    monkeypatch.delenv("TIDEPOOL_UNSET", raising=False)
    command = ["${program}", "--data_dir=${envvar:TIDEPOOL_UNSET}/cifar10", "${args}"]
    with pytest.raises(SweepError) as caught:
        check_command(command, "q. TIDEPOOL_UNSET names the folder of the data. Held: all.")
    assert str(caught.value) == (
        "command[1]: ${envvar:TIDEPOOL_UNSET}: the environment variable is not set; it should hold what stands as "
        "<TIDEPOOL_UNSET> in --data_dir=<TIDEPOOL_UNSET>/cifar10; the description says: "
        "TIDEPOOL_UNSET names the folder of the data."
    )
