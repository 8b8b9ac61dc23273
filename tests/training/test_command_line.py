"""Flags as people and W&B agents write them, and complaints on one line."""

from pathlib import Path

import pytest

from training.command_line import parse_arguments
from training.config import Config, ConfigError


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


def test_help_lists_every_flag_with_underscores_and_ends_well(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--help"])
    assert caught.value.code in (0, None)
    text = capsys.readouterr().out
    assert all(f"--{name} " in text for name in Config.__dataclass_fields__)
