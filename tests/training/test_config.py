"""Every field and option of Config is checked, and a resumed run may change only what does not matter."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from tidepool.records import FIRST_DEFAULTS, LATER_FIELDS
from tidepool.training.config import FREE_ON_RESUME, Config, ConfigError, parse_model_options


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("data", " ", "some text"),
        ("data_dir", "data", "Path or None"),
        ("model", "", "some text"),
        ("model_options", "width", "as width=32,depth=1"),
        ("options", 1, "Mapping"),
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
        ("optimizer", "lion", "sgd, adamw, muon"),
        ("momentum", 1.0, "below 1"),
        ("momentum", math.nan, "below 1"),
        ("weight_decay", -1e-4, "at least 0"),
        ("weight_decay", math.inf, "finite"),
        ("schedule", "linear", "onecycle, cosine, step, constant"),
        ("warmup", 1.0, "below 1"),
        ("label_smoothing", -0.1, "from 0"),
        ("augment", 1, "bool"),
        ("seed", -1, "from 0"),
        ("seed", 2**63, "2**63 - 1"),
        ("deterministic", "True", "bool"),
        ("eval_every", 0, "at least 1"),
        ("patience", 0, "at least 1"),
        ("accumulate", 0, "at least 1"),
        ("accumulate", 65, "at most batch_size, which is 64"),
        ("clip_norm", 0.0, "above 0"),
        ("ema", 1, "bool"),
        ("ema_decay", 1.0, "below 1"),
        ("cutout", 0, "at least 1"),
        ("mixup", -1.0, "at least 0"),
        ("cutmix", math.inf, "finite"),
        ("channels_last", 1, "bool"),
        ("cuda_graph", 1, "bool"),
        ("init_from", 3, "Path or None"),
        ("log_every", 0, "at least 1"),
        ("checkpoint_every", 0, "at least 1"),
        ("checkpoint_every_steps", 0, "at least 1"),
        ("checkpoint_every_minutes", 0.0, "above 0"),
        ("checkpoint_every_minutes", math.nan, "finite"),
        ("keep_checkpoints", 0, "at least 1"),
        ("device", "tpu", "auto, cpu, cuda"),
        ("track", "maybe", "offline, online, off"),
        ("project", "", "some text"),
        ("group", "", "some text"),
        ("name", "", "some text"),
        ("tags", " ", "some text"),
        ("artifact", 1, "bool"),
        ("histogram_every", 0, "at least 1"),
        ("profile", 1, "bool"),
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
    assert set(record) == {field.name for field in dataclasses.fields(Config)} - {"options"}
    assert record["run_dir"] == "runs/a"
    asked = Config(data="moving_digits", model="mlp", options={"shuffle_frames": True, "hidden": (64, 32)}).as_record()
    assert set(asked) == set(record) | {"shuffle_frames", "hidden"}
    assert (asked["shuffle_frames"], asked["hidden"]) == (True, [64, 32])


def test_differences_name_fields_that_matter_and_only_those():
    config = Config()
    record = config.as_record()
    assert config.differences(record) == []
    changed = {**record, "epochs": 3, "lr": 0.5} | dict.fromkeys(FREE_ON_RESUME, "elsewhere")
    assert config.differences(changed) == ["epochs: 3 there, 8 asked", "lr: 0.5 there, 0.03 asked"]


def test_a_field_that_came_after_the_record_was_at_its_default_there():
    record = Config().as_record()
    del record["label_smoothing"]
    assert Config().differences(record) == []
    assert Config(label_smoothing=0.1).differences(record) == ["label_smoothing: 0.0 there, 0.1 asked"]


@pytest.mark.parametrize("record", [{}, {"width": None, "kernel_size": 3}, {"shuffle_frames": False, "skips": None}])
def test_an_option_that_a_record_lacks_or_has_as_none_was_at_its_default_there(record):
    record = {**Config(model="searchable").as_record(), **record}
    for options in ({}, {"width": 32}, {"skips": True, "kernel_size": 3}):
        assert Config(model="searchable", options=options).differences(record) == []
    assert Config(model="searchable", options={"width": 8}).differences(record) == ["width: 32 there, 8 asked"]
    record["depth"] = 4
    assert Config(model="searchable").differences(record) == ["depth: 4 there, 2 asked"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"options": {"shuffle_frames": True}},
            "shuffle_frames=True: no such option; data 'digits' has the options: none; model 'lenet5': none",
        ),
        (
            {"data": "moving_digits", "model": "c3d", "options": {"held_out_speaker": "ann"}},
            "held_out_speaker='ann': no such option; data 'moving_digits' has the options: shuffle_frames; "
            "model 'c3d': width, dropout",
        ),
        ({"data": "moving_digits", "options": {"shuffle_frames": 1}}, "shuffle_frames=1; expected bool"),
        ({"model": "searchable", "options": {"width": 0.5}}, "width=0.5; expected int"),
        ({"model": "resnet18", "options": {"depth": "3"}}, "depth='3'; expected int or None"),
        ({"model": "mlp", "options": {"hidden": 3}}, "hidden=3; expected Sequence"),
        ({"model": "lenet6"}, "model='lenet6'; expected one of: alexnet, "),
    ],
)
def test_options_that_data_and_network_do_not_have_and_values_of_other_types_are_refused(fields, expected):
    with pytest.raises(ConfigError) as caught:
        Config(**fields).validate()
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


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
    config = Config(
        data="moving_digits",
        model="searchable",
        model_options="depth=1",
        options={"width": 8, "skips": False, "shuffle_frames": True},
    )
    config.validate()
    assert config.network_options() == {"depth": 1, "width": 8, "skips": False}
    assert config.data_options() == {"shuffle_frames": True}


def test_an_option_is_given_once():
    with pytest.raises(ConfigError) as caught:
        Config(model="convnet", model_options="width=4", options={"width": 8}).validate()
    assert str(caught.value) == "width=8 and model_options='width=4'; expected width once"


FIRST_FIELDS = frozenset(
    {"data", "data_dir", "model", "backend", "dtype", "epochs", "max_steps", "batch_size", "lr", "optimizer",
     "momentum", "weight_decay", "schedule", "warmup", "label_smoothing", "augment", "seed", "deterministic",
     "eval_every", "log_every", "checkpoint_every", "device", "track", "project", "group", "name", "run_dir", "resume",
     "progress"}
)  # fmt: skip
"""Of config.json as train.py first wrote it."""


def test_records_know_what_runs_did_before_a_field_came():
    """A report puts runs that are too old to name a setting with those that had it at its default."""
    defaults = Config().as_record()
    later = {name: value for name, value in defaults.items() if name not in FIRST_FIELDS and value is not None}
    assert {name: LATER_FIELDS.get(name) for name in later} == later
    assert {name: defaults[name] for name in FIRST_DEFAULTS} == FIRST_DEFAULTS
