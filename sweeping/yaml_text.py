"""Reads a sweep file and refuses what YAML 1.1 would quietly turn into something else.

PyYAML reads ``1e-3`` as text, ``010`` as 8, ``no`` as False, ``1:30`` as 90 and a repeated key as its last value.
Each would start runs nobody asked for, so the text is looked at before it is turned into values.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from tidepool.sweeping.errors import SweepError

_FLOAT_AS_TEXT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+")
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_WORDY_BOOLEANS = {"yes", "no", "on", "off", "y", "n"}


def load_sweep_file(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file `path`, keys in file order.

    Raises:
        SweepError: unreadable file, broken YAML, not a mapping, a repeated key, an empty value, or a value that YAML
            reads as something other than it looks like. One line with file, key and reason.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SweepError(f"{path}: no such sweep file") from None
    except OSError as error:
        raise SweepError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise SweepError(f"{path}: cannot be read (it is not UTF-8 text)") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise SweepError(f"{path}: is empty; expected a W&B sweep (method, program, parameters)")
        if not isinstance(root, yaml.MappingNode):
            raise SweepError(f"{path}: expected a mapping of sweep keys (method: …), found a {_kind(root)}")
        _check_node(root, path, key="", open_nodes=set())
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SweepError(f"{path}: is not valid YAML ({_yaml_reason(error)})") from None
    except RecursionError:
        raise SweepError(f"{path}: is not a sweep (its lists and mappings are nested too deeply)") from None
    except ValueError as error:  # a date such as 2024-13-45, an integer too long to read
        if isinstance(error, SweepError):
            raise
        raise SweepError(f"{path}: holds a value YAML cannot read ({error})") from None


def _yaml_reason(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    reason = str(getattr(error, "problem", None) or " ".join(str(error).split()))
    return f"line {mark.line + 1}, column {mark.column + 1}: {reason}" if mark else reason


def _kind(node: yaml.Node) -> str:
    return "list" if isinstance(node, yaml.SequenceNode) else "single value"


def _join(key: str, part: str) -> str:
    return f"{key}.{part}" if key else part


def _check_node(node: yaml.Node, path: Path, key: str, open_nodes: set[int]) -> None:
    if id(node) in open_nodes:
        raise SweepError(f"{path}: {key}: refers to itself")
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node, path, key)
        return
    open_nodes.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for name_node, value_node in node.value:
            name = _key_name(name_node, path, key)
            line = name_node.start_mark.line + 1
            if name in seen:
                raise SweepError(f"{path}: {_join(key, name)}: stands twice, on lines {seen[name]} and {line}")
            seen[name] = line
            _check_node(value_node, path, _join(key, name), open_nodes)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _check_node(item, path, f"{key}[{index}]", open_nodes)
    open_nodes.discard(id(node))


def _key_name(node: yaml.Node, path: Path, parent: str) -> str:
    where = f"line {node.start_mark.line + 1}"
    if not isinstance(node, yaml.ScalarNode):
        raise SweepError(f"{path}: {parent or 'top level'}: a key on {where} is not text")
    if node.tag == "tag:yaml.org,2002:merge":
        return "<<"
    if node.tag != "tag:yaml.org,2002:str":
        raise SweepError(
            f"{path}: {_join(parent, node.value)}: YAML reads this key ({where}) as {node.tag.rpartition(':')[2]}, "
            "not text; put it in quotes"
        )
    return node.value


def _check_scalar(node: yaml.ScalarNode, path: Path, key: str) -> None:
    text, tag, quoted = node.value, node.tag.rpartition(":")[2], node.style is not None
    if quoted and not text.strip():
        raise SweepError(f"{path}: {key}: is empty; expected a value")
    if text and tag in ("int", "float") and not _is_finite(node):
        raise SweepError(f"{path}: {key}: {_shortened(text)} is not a finite number, or larger than 1.8e+308")
    if quoted:
        return
    reason = None
    if tag == "null" and text == "":
        reason = "is empty; expected a value (write null for None)"
    elif tag == "str" and _FLOAT_AS_TEXT.fullmatch(text):
        reason = f"YAML reads {text} as text; write {_dotted(text)}"
    elif tag == "bool" and text.lower() in _WORDY_BOOLEANS:
        value = text.lower() in {"yes", "on", "y"}
        reason = f"YAML reads {text} as {value}; write {str(value).lower()}, or '{text}' in quotes for the word"
    elif tag == "int" and _OCTAL.fullmatch(text):
        reason = f"YAML reads {text} as octal {int(text.replace('_', ''), 8)}; write it without the leading zero"
    elif tag in ("int", "float") and ":" in text:
        reason = f"YAML reads {text} as a number in base 60; put it in quotes"
    elif tag == "timestamp":
        reason = f"YAML reads {text} as a date; put it in quotes"
    elif tag == "binary":
        reason = "holds binary data; expected text or a number"
    if reason:
        raise SweepError(f"{path}: {key}: {reason}")


def _is_finite(node: yaml.ScalarNode) -> bool:
    """Whether the number YAML reads in `node` is one that a 64-bit float can hold."""
    reader = yaml.constructor.SafeConstructor()
    whole = node.tag.endswith(":int")
    try:
        return math.isfinite(reader.construct_yaml_int(node) if whole else reader.construct_yaml_float(node))
    except OverflowError:
        return False


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:20]}… ({len(text)} characters)"


def _dotted(text: str) -> str:
    """The ways to write the number `text` that YAML reads as a number: ``1.0e-3`` and, when short, ``0.001``."""
    mantissa, _, exponent = text.lower().replace("_", "").partition("e")
    if mantissa.endswith("."):
        mantissa += "0"
    if mantissa.lstrip("+-").startswith("."):
        mantissa = mantissa.replace(".", "0.", 1)
    if "." not in mantissa:
        mantissa += ".0"
    signed = exponent if exponent[0] in "+-" else f"+{exponent}"
    scientific = f"{mantissa}e{signed}"
    value = float(text.replace("_", ""))
    if math.isfinite(value) and 1e-6 <= abs(value) < 1e9:
        plain = f"{value:.12f}".rstrip("0")
        return f"{scientific} or {plain}0" if plain.endswith(".") else f"{scientific} or {plain}"
    return scientific
