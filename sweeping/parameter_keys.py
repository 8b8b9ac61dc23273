"""Parameters as a sweep file writes them: which keys go together, nested blocks, and what each is refused for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameters import Parameter, Value

_BOUNDS = ("min", "max")
# distribution -> (keys it needs, keys it may have)
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "constant": (("value",), ()),
    "categorical": (("values",), ()),
    "categorical_w_probabilities": (("values", "probabilities"), ()),
    "int_uniform": (_BOUNDS, ()),
    "uniform": (_BOUNDS, ()),
    "q_uniform": (_BOUNDS, ("q",)),
    "log_uniform": (_BOUNDS, ()),
    "log_uniform_values": (_BOUNDS, ()),
    "q_log_uniform": (_BOUNDS, ("q",)),
    "q_log_uniform_values": (_BOUNDS, ("q",)),
    "inv_log_uniform": (_BOUNDS, ()),
    "inv_log_uniform_values": (_BOUNDS, ()),
    "normal": ((), ("mu", "sigma")),
    "q_normal": ((), ("mu", "sigma", "q")),
    "log_normal": ((), ("mu", "sigma")),
    "q_log_normal": ((), ("mu", "sigma", "q")),
    "beta": ((), ("a", "b")),
    "q_beta": ((), ("a", "b", "q")),
}


def read_parameters(content: Mapping[str, Any], *, method: str) -> tuple[Parameter, ...]:
    """The parameters in the block `parameters` of a sweep file, nested ones among them, in file order.

    Raises:
        SweepError: as `read_parameter`, or two ways of writing one name.
    """
    found = list(_unnested(content, (), method))
    names = [parameter.name for parameter in found]
    for parameter in found:
        if names.count(parameter.name) > 1:
            raise SweepError(f"parameters.{parameter.name}: stands there nested and with a dot in its name; keep one")
    return tuple(found)


def _unnested(content: Mapping[str, Any], path: tuple[str, ...], method: str) -> Iterator[Parameter]:
    for name, settings in content.items():
        here = (*path, name)
        if "parameters" not in settings:
            yield read_parameter(here, settings, method=method)
            continue
        if len(settings) > 1:
            other = next(key for key in settings if key != "parameters")
            raise SweepError(f"parameters.{'.'.join(here)}.{other}: does not go with parameters, which nest others")
        yield from _unnested(settings["parameters"], here, method)


def nested(parameters: Sequence[Parameter], params: Mapping[str, Value]) -> dict[str, Value]:
    """`params` by their dotted names as the program gets them: those nested in the file as mappings."""
    paths = {parameter.name: parameter.path for parameter in parameters}
    whole: dict[str, Value] = {}
    for name, value in params.items():
        *outer, last = paths.get(name, (name,))
        inner = whole
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return whole


def read_parameter(path: tuple[str, ...], settings: Mapping[str, Any], *, method: str) -> Parameter:
    """The parameter under the keys `path` from its settings in the sweep file, for the search `method`.

    Raises:
        SweepError: keys that do not go together or with `method`; one line starting with the key.
    """
    name = ".".join(path)
    where = f"parameters.{name}"
    if not settings:
        raise SweepError(f"{where}: is empty; expected value, values, or min and max")
    distribution = settings.get("distribution", _implied(settings, where))
    if distribution not in _KEYS:
        raise SweepError(f"{where}.distribution: is {distribution!r}; expected one of {', '.join(_KEYS)}")
    needed, optional = _KEYS[distribution]
    for key in needed:
        if key not in settings:
            raise SweepError(f"{where}: {distribution} needs {' and '.join(needed)}; {key} is missing")
    for key in settings:
        if key not in (*needed, *optional, "distribution"):
            takes = " and ".join((*needed, *optional))
            raise SweepError(f"{where}.{key}: does not go with {distribution}, which takes {takes}")
    _check_values(where, distribution, settings)
    parameter = Parameter(name, distribution, settings, path)
    if method == "grid":
        parameter.grid_values()
    return parameter


def _implied(settings: Mapping[str, Any], where: str) -> str:
    if "value" in settings:
        return "constant"
    if "values" in settings:
        return "categorical_w_probabilities" if "probabilities" in settings else "categorical"
    if "min" in settings and "max" in settings:
        return "int_uniform" if all(isinstance(settings[key], int) for key in _BOUNDS) else "uniform"
    if "distribution" in settings:
        return ""
    raise SweepError(f"{where}: expected value, values, or min and max; found only {', '.join(settings)}")


def _check_values(where: str, distribution: str, settings: Mapping[str, Any]) -> None:
    if "values" in settings:
        seen: set[str] = set()
        for value in settings["values"]:
            text = json.dumps(value, sort_keys=True)  # 1 and true are equal to Python, and two values to a program
            if text in seen:
                raise SweepError(f"{where}.values: {value!r} stands there twice")
            seen.add(text)
    if "probabilities" in settings:
        values, weights = settings["values"], settings["probabilities"]
        if len(values) != len(weights):
            raise SweepError(f"{where}.probabilities: {len(weights)} for {len(values)} values; expected one for each")
        if not math.isclose(sum(weights), 1.0, abs_tol=1e-6):
            raise SweepError(f"{where}.probabilities: add up to {sum(weights):g}; expected 1")
    if "min" in settings:
        low, high = settings["min"], settings["max"]
        if low >= high:
            raise SweepError(f"{where}: min {low} is not below max {high}")
        if not math.isfinite(high - low):
            raise SweepError(f"{where}: from min {low} to max {high} is too wide a range to compute with")
        if distribution == "int_uniform" and not (isinstance(low, int) and isinstance(high, int)):
            raise SweepError(f"{where}: int_uniform needs whole numbers; min is {low}, max is {high}")
        if distribution.endswith("log_uniform_values") and low <= 0:
            raise SweepError(f"{where}.min: is {low}; {distribution} needs more than 0")
        if distribution.endswith("log_uniform") and max(abs(low), abs(high)) > 100:
            raise SweepError(
                f"{where}: {distribution} takes natural logarithms, here {low:g} to {high:g}, which is out of range; "
                f"for plain values use {distribution}_values"
            )
