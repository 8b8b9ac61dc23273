from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.schema import NEVER_HONOURED, SCHEMA, check_schema

GOOD = {"program": "train.py", "method": "grid", "parameters": {"seed": {"values": [0, 1]}}}


def refusal(**changes: object) -> str:
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(SweepError) as caught:
        check_schema(content, Path("a.yaml"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    check_schema(GOOD, Path("a.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metod": "grid"}, "a.yaml: unknown key 'metod' (did you mean method?)"),
        ({"program": None}, "a.yaml: program: is missing; expected the script to run, such as train.py"),
        ({"method": None}, "a.yaml: method: is missing; expected grid, random or bayes"),
        (
            {"parameters": None},
            "a.yaml: parameters: is missing; expected what to vary, such as seed: {values: [0, 1, 2]}",
        ),
        ({"method": "gird"}, "a.yaml: method: is 'gird'; expected grid, random or bayes"),
        ({"program": ["train.py"]}, "a.yaml: program: is a list; expected text"),
        ({"parameters": {}}, "a.yaml: parameters: is empty; expected at least one entry"),
        ({"parameters": {"lr": 0.1}}, "a.yaml: parameters.lr: is 0.1; expected a mapping"),
        ({"parameters": {"lr": {"vales": [1]}}}, "a.yaml: parameters.lr: unknown key 'vales' (did you mean values?)"),
        ({"parameters": {"lr": {"values": []}}}, "a.yaml: parameters.lr.values: is empty; expected at least one entry"),
        ({"parameters": {"lr": {"min": "0", "max": 1}}}, "a.yaml: parameters.lr.min: is '0'; expected a number"),
        ({"run_cap": 0}, "a.yaml: run_cap: is 0; expected 1 or more"),
        ({"run_cap": True}, "a.yaml: run_cap: is True; expected a whole number"),
        ({"metric": {"goal": "maximize"}}, "a.yaml: metric: name is missing"),
        (
            {"early_terminate": {"type": "hyperband", "eta": 1}},
            "a.yaml: early_terminate.eta: is 1; expected more than 1",
        ),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1e200}},
            "a.yaml: early_terminate.eta: is 1e+200; expected 1000 or less",
        ),
        (
            {"early_terminate": {"type": "hyperband", "max_iter": 10, "s": 10000}},
            "a.yaml: early_terminate.s: is 10000; expected 100 or less",
        ),
        ({"run_cap": 10**30}, f"a.yaml: run_cap: is {10**30}; expected 1000000 or less"),
        ({"command": [["${args}"]]}, "a.yaml: command[0]: is a list; expected text or a number"),
        (
            {"parameters": {"opt": {"parameters": {"lr": {"vale": 1}}}}},
            "a.yaml: parameters.opt.parameters.lr: unknown key 'vale' (did you mean value?)",
        ),
        ({"metric": [{"name": "a"}]}, "a.yaml: metric: a list of 1; expected one metric, or a list of two or more"),
        ({"metric": [{"name": "a"}, {"gaol": 1}]}, "a.yaml: metric[1]: unknown key 'gaol' (did you mean goal?)"),
    ],
)
def test_each_fault_is_one_line_with_file_key_and_reason(changes, message):
    assert refusal(**changes) == message


@pytest.mark.parametrize("key", NEVER_HONOURED)
def test_keys_nothing_here_could_honour_are_refused_with_the_reason(key):
    assert refusal(**{key: "x"}) == f"a.yaml: {key}: {NEVER_HONOURED[key]}"
