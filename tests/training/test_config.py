"""Every field of Config is checked, and a resumed run may change only what does not matter."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from training.config import FREE_ON_RESUME, Config, ConfigError, parse_model_options


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("data", " ", "some text"),
        ("data_dir", "data", "Path or None"),
        ("model", "", "some text"),
        ("image_size", 0, "at least 1"),
        ("held_out_speaker", " ", "some text"),
        ("shuffle_frames", 1, "bool"),
        ("model_options", "width", "as width=32,depth=1"),
        ("width", 0.5, "int or None"),
        ("depth", True, "int or None"),
        ("kernel_size", "3", "int or None"),
        ("skips", 1, "bool or None"),
        ("backend", "cuda", "auto, triton, cudnn, compile"),
        ("dtype", "fp8", "fp32, tf32, bf16, fp16"),
        ("epochs", 0, "at least 1"),
        ("epochs", 1.5, "int"),
        ("epochs", True, "int"),
        ("max_steps", 0, "at least 1"),
        ("batch_size", -1, "at least 1"),
        ("batch_size", 2**63 - 1, "at most 2147483647"),
        ("max_steps", 10**400, "at most 2147483647"),
        ("lr", 0.0, "above 0"),
        ("lr", math.nan, "finite"),
        ("lr", math.inf, "finite"),
        ("lr", "1e-3", "float"),
        ("optimizer", "lion", "sgd, adamw"),
        ("momentum", 1.0, "below 1"),
        ("momentum", math.nan, "below 1"),
        ("weight_decay", -1e-4, "at least 0"),
        ("weight_decay", math.inf, "finite"),
        ("schedule", "step", "onecycle, constant"),
        ("warmup", 1.0, "below 1"),
        ("label_smoothing", -0.1, "from 0"),
        ("augment", 1, "bool"),
        ("seed", -1, "from 0"),
        ("seed", 2**63, "2**63 - 1"),
        ("deterministic", "True", "bool"),
        ("eval_every", 0, "at least 1"),
        ("log_every", 0, "at least 1"),
        ("checkpoint_every", 0, "at least 1"),
        ("device", "tpu", "auto, cpu, cuda"),
        ("track", "maybe", "offline, online, off"),
        ("project", "", "some text"),
        ("group", "", "some text"),
        ("name", "", "some text"),
        ("run_dir", 3, "Path or None"),
        ("resume", "", "some text"),
        ("progress", None, "bool"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_field_and_expectation(field, value, expected):
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(Config(), **{field: value}).validate()
    message = str(caught.value)
    assert message.startswith(f"{field}=")
    assert expected in message
    assert "\n" not in message


def test_every_field_is_covered_by_the_refusals_above():
    marks = test_a_bad_value_is_refused_in_one_line_that_names_field_and_expectation.pytestmark
    covered = {case[0] for case in marks[0].args[1]}
    assert covered == {field.name for field in dataclasses.fields(Config)}


def test_the_defaults_and_the_limits_are_accepted():
    Config().validate()
    Config(
        lr=1, seed=2**63 - 1, momentum=0, warmup=0.0, weight_decay=0, max_steps=1, run_dir=Path("x"), group="g"
    ).validate()


def test_the_record_is_plain_json_with_every_field():
    record = Config(run_dir=Path("runs/a"), data_dir=Path("d")).as_record()
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {field.name for field in dataclasses.fields(Config)}
    assert record["run_dir"] == "runs/a"


def test_differences_name_fields_that_matter_and_only_those():
    config = Config()
    record = config.as_record()
    assert config.differences(record) == []
    changed = {**record, "epochs": 3, "lr": 0.5} | dict.fromkeys(FREE_ON_RESUME, "elsewhere")
    assert config.differences(changed) == ["epochs: 3 there, 8 asked", "lr: 0.5 there, 0.03 asked"]


def test_a_field_that_came_after_the_record_was_at_its_default_there():
    record = Config().as_record()
    del record["shuffle_frames"]
    assert Config().differences(record) == []
    assert Config(shuffle_frames=True).differences(record) == ["shuffle_frames: False there, True asked"]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (None, {}),
        ("width=32,depth=1", {"width": 32, "depth": 1}),
        ("hidden=(64, 32), dropout=0.5", {"hidden": (64, 32), "dropout": 0.5}),
    ],
)
def test_model_options_are_read(text, options):
    assert parse_model_options(text) == options


@pytest.mark.parametrize(
    "text", ["32", "width=", "width=1,width=2", "width=open('x')", "**{'width': 1}", "width=1)(", "width=(", "a b"]
)
def test_model_options_that_do_not_read_as_such_are_refused(text):
    with pytest.raises(ConfigError) as caught:
        parse_model_options(text)
    assert str(caught.value) == f"model_options={text!r}; expected each option once, as width=32,depth=1"


def test_options_may_have_flags_of_their_own():
    config = Config(model_options="dropout=0.5", width=8, skips=False)
    config.validate()
    assert config.network_options() == {"dropout": 0.5, "width": 8, "skips": False}


def test_an_option_is_given_once():
    with pytest.raises(ConfigError) as caught:
        Config(model_options="width=4", width=8).validate()
    assert str(caught.value) == "width=8 and model_options='width=4'; expected width once"
