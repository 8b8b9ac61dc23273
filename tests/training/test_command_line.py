"""Flags as people and W&B agents write them, and complaints on one line."""

import dataclasses
import io
import re
import sys
from pathlib import Path

import pytest

from tidepool.models import available_models
from tidepool.training.command_line import parse_arguments
from tidepool.training.config import Config, ConfigError
from tidepool.training.flag_groups import GROUPS
from tidepool.training.options import data_options, network_options


def test_no_flags_give_the_defaults():
    assert parse_arguments([]) == Config()


def test_flags_parse_as_a_wandb_agent_writes_them():
    values = {"deterministic": "True", "augment": "False", "lr": "0.001", "max_steps": "12", "weight_decay": "1e-05"}
    values |= {"backend": "triton", "group": "sweep/one", "run_dir": "runs/a.b/c", "seed": "3"}
    config = parse_arguments([f"--{name}={value}" for name, value in values.items()])
    assert config.deterministic is True
    assert config.augment is False
    assert (config.lr, config.max_steps, config.weight_decay) == (0.001, 12, 1e-5)
    assert (config.backend, config.group, config.run_dir, config.seed) == ("triton", "sweep/one", Path("runs/a.b/c"), 3)


def test_flags_parse_with_a_space_and_none_is_none():
    assert parse_arguments(["--max_steps", "None", "--progress", "False"]) == Config(progress=False)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--dtype", "fp8"], ["fp8", "--dtype", "'bf16'"]),
        (["--lr", "abc"], ["--lr", "abc"]),
        (["--lr"], ["--lr", "Missing value"]),
        (["--deterministic"], ["--deterministic", "Missing value"]),
        (["--deterministic=yes"], ["yes", "'True', 'False'"]),
        (["--batch_size=3.5"], ["--batch_size", "3.5"]),
        (["--opt.lr=0.1"], ["Unrecognized", "--opt.lr=0.1"]),
        (["stray"], ["Unrecognized", "stray"]),
        (["--lr=nan"], ["lr=nan", "finite"]),
        (["--data"], ["--data", "Missing value"]),
        (["--held_out_speaker=george"], ["--held_out_speaker=george", "data 'digits' has the options: none"]),
        (["--data=moving_digits", "--width=1"], ["--width=1", "options: shuffle_frames; model 'lenet5': none"]),
        (["--data=moving_digits", "--shuffle_frames=1"], ["--shuffle_frames", "'True', 'False'"]),
        (["--model=searchable", "--width=2.5"], ["--width", "2.5"]),
    ],
)
def test_a_complaint_is_one_plain_line(arguments, parts, capsys):
    with pytest.raises(ConfigError) as caught:
        parse_arguments(arguments)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message
    assert not any(glyph in message for glyph in "╭│╰─")
    assert capsys.readouterr() == ("", "")


def test_a_complaint_is_as_plain_where_stdout_is_ascii(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with pytest.raises(ConfigError, match=r"^Unrecognized options: --learning=3; data 'digits' has the options: none;"):
        parse_arguments(["--learning=3"])


def test_help_lists_every_flag_with_underscores_and_ends_well(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--help"])
    assert caught.value.code in (0, None)
    text = capsys.readouterr().out
    assert all(f"--{name} " in text for name in Config.__dataclass_fields__ if name != "options")
    assert "--options" not in text
    assert "shuffle_frames" not in text


def test_options_of_the_data_set_and_the_network_are_flags_and_those_given_are_kept(capsys):
    chosen = ["--data=moving_digits", "--model", "searchable"]
    given = ["--shuffle_frames=False", "--width=8", "--kernel-size", "5"]
    config = parse_arguments([*chosen, *given])
    assert config.options == {"shuffle_frames": False, "width": 8, "kernel_size": 5}
    assert parse_arguments(chosen).options == {}
    assert parse_arguments(["--model=mlp", "--hidden", "64", "32"]).options == {"hidden": [64, 32]}
    assert parse_arguments(["--data=spoken_digits", "--held_out_speaker=george"]).options == {
        "held_out_speaker": "george"
    }
    with pytest.raises(SystemExit):
        parse_arguments([*chosen, "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--shuffle_frames {True,False} Of moving_digits: put each clip's frames" in text
    assert "--width INT Of searchable: channels of the first. (default: 32)" in text


@pytest.mark.parametrize("name", available_models())
def test_every_option_of_a_network_is_explained(name):
    assert all(option.help for option in network_options(name).values())


@pytest.mark.parametrize("name", ["digits", "cifar10", "moving_digits", "spoken_digits", "/some/folder", "owner/name"])
def test_every_option_of_a_data_set_is_explained(name):
    assert all(option.help for option in data_options(name).values())


def test_every_flag_stands_in_one_group_of_the_help(capsys):
    grouped = [name for names in GROUPS.values() for name in names.split()]
    assert sorted(grouped) == sorted({field.name for field in dataclasses.fields(Config)} - {"options"})
    with pytest.raises(SystemExit):
        parse_arguments(["--model=vggish", "--help"])
    out = capsys.readouterr().out
    assert {*GROUPS, "own"} <= set(re.findall(r"(\w+) options\W", out))
    assert "the validation accuracy did not rise" in " ".join(out.replace("│", " ").split())
