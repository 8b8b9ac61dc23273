"""The sweep file's shape: W&B's sweep keys as a JSON schema in this project's words, and what each is refused for.

What a schema says badly (which keys go with which distribution, what the search method allows) is checked in
`sweeping.parameters` and `sweeping.spec`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

from tidepool.sweeping.errors import SweepError

_NUMBER = {"type": "number"}
_POSITIVE = {"type": "number", "exclusiveMinimum": 0}
_NOT_NEGATIVE = {"type": "number", "minimum": 0}
_TEXT = {"type": "string", "minLength": 1}
# Far beyond any use, and low enough that powers of eta, and a list of run_cap places, can be computed.
_ITERATIONS = {"type": "integer", "minimum": 1, "maximum": 100_000_000}
_BRACKETS = {"type": "integer", "minimum": 1, "maximum": 100}
_ETA = {"type": "number", "exclusiveMinimum": 1, "maximum": 1000}
_RUN_CAP = {"type": "integer", "minimum": 1, "maximum": 1_000_000}

_PARAMETER: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "value": {},
        "values": {"type": "array", "minItems": 1},
        "parameters": {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/parameter"}},
        "probabilities": {"type": "array", "minItems": 1, "items": _NOT_NEGATIVE},
        "distribution": _TEXT,
        "min": _NUMBER,
        "max": _NUMBER,
        "q": _POSITIVE,
        "mu": _NUMBER,
        "sigma": _NOT_NEGATIVE,
        "a": _POSITIVE,
        "b": _POSITIVE,
    },
}

_METRIC: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": _TEXT,
        "goal": {"enum": ["minimize", "maximize"]},
        "target": _NUMBER,
        "impute": {"enum": ["latest", "best", "worst"]},
        "impute_while_running": {"enum": ["latest", "best", "worst", "false"]},
    },
}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A W&B sweep as sweep.py runs it",
    "type": "object",
    "required": ["program", "method", "parameters"],
    "additionalProperties": False,
    "$defs": {"parameter": _PARAMETER},
    "properties": {
        "program": _TEXT,
        "method": {"enum": ["grid", "random", "bayes"]},
        "parameters": {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/parameter"}},
        "metric": _METRIC,
        "command": {"type": "array", "minItems": 1, "items": {"type": ["string", "number"]}},
        "run_cap": _RUN_CAP,
        "early_terminate": {
            "type": "object",
            "required": ["type"],
            "additionalProperties": False,
            "properties": {
                "type": {"enum": ["hyperband"]},
                "min_iter": _ITERATIONS,
                "max_iter": _ITERATIONS,
                "s": _BRACKETS,
                "eta": _ETA,
                "strict": {"type": "boolean"},
            },
        },
        "name": _TEXT,
        "description": _TEXT,
        "project": _TEXT,
        "entity": _TEXT,
        "apiVersion": _TEXT,
        "kind": {"enum": ["sweep"]},
        "controller": {
            "type": "object",
            "required": ["type"],
            "additionalProperties": False,
            "properties": {"type": {"enum": ["local", "cloud"]}},
        },
    },
}

# W&B's own keys that no way of running a sweep here could honour.
_LAUNCH = "belongs to W&B Launch, which a sweep does not start; name the script in program"
NEVER_HONOURED = {
    "job": _LAUNCH,
    "image_uri": _LAUNCH,
    "scheduler": _LAUNCH,
    "metrics": "belongs to W&B Launch; write the list as metric, which is searched here",
}


def check_schema(content: Mapping[str, Any], path: Path) -> None:
    """Refuse content of the sweep file `path` that the schema does not allow.

    Raises:
        SweepError: one line with file, key, what stands there and what was expected.
    """
    for key, reason in NEVER_HONOURED.items():
        if key in content:
            raise SweepError(f"{path}: {key}: {reason}")
    metric = content.get("metric")
    if isinstance(metric, list):  # this project's one extension: several objectives
        if len(metric) < 2:
            raise SweepError(f"{path}: metric: a list of {len(metric)}; expected one metric, or a list of two or more")
        for index, one in enumerate(metric):
            _check(_METRIC, one, path, ("metric", index))
        content = {**content, "metric": metric[0]}
    _check(SCHEMA, content, path)


def _check(schema: Mapping[str, Any], content: Any, path: Path, where: tuple[str | int, ...] = ()) -> None:
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(content))
    if errors:
        # The first fault in reading order, unknown keys before what is missing: a misspelt key is both.
        first = min(errors, key=lambda error: (error.validator == "required", len(error.absolute_path)))
        raise SweepError(f"{path}: {_explain(first, where)}")


def _explain(error: jsonschema.ValidationError, where: tuple[str | int, ...]) -> str:
    key = _dotted([*where, *error.absolute_path])
    prefix = f"{key}: " if key else ""
    instance: Any = error.instance
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])  # type: ignore[index]  # a schema with this validator is a mapping
        unknown = next(name for name in instance if name not in known)
        close = difflib.get_close_matches(str(unknown), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        return f"{prefix}unknown key {unknown!r} ({hint})"
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in instance)  # type: ignore[union-attr]
        return f"{prefix}{missing} is missing" if key else f"{missing}: is missing; expected {_purpose(missing)}"
    if error.validator == "enum":
        return f"{prefix}is {instance!r}; expected {_alternatives(error.validator_value)}"
    if error.validator == "type":
        return f"{prefix}is {_shown(instance)}; expected {_type_words(error.validator_value)}"
    if error.validator in ("minItems", "minProperties", "minLength"):
        return f"{prefix}is empty; expected at least one entry"
    if error.validator == "exclusiveMinimum":
        return f"{prefix}is {instance}; expected more than {error.validator_value}"
    if error.validator == "minimum":
        return f"{prefix}is {instance}; expected {error.validator_value} or more"
    if error.validator == "maximum":
        return f"{prefix}is {instance}; expected {error.validator_value} or less"
    return f"{prefix}{error.message}"


def _dotted(parts: Any) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _purpose(key: str) -> str:
    return {
        "program": "the script to run, such as train.py",
        "method": "grid, random or bayes",
        "parameters": "what to vary, such as seed: {values: [0, 1, 2]}",
    }[key]


def _alternatives(options: Any) -> str:
    words = [str(option) for option in options]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else f"{value!r}"


def _type_words(types: Any) -> str:
    words = {"string": "text", "array": "a list", "object": "a mapping", "integer": "a whole number"}
    names = [types] if isinstance(types, str) else list(types)
    return " or ".join(words.get(name, f"a {name}") for name in names)
