"""One swept parameter: which keys its distribution takes, its values on a grid, and how a search draws it.

The distributions are W&B's. Those Optuna knows are drawn by it directly; the others are drawn as a quantile in (0, 1)
and put through the inverse distribution function, so that every search method can use them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from tidepool.sweeping.errors import SweepError

if TYPE_CHECKING:
    import optuna

Value = str | int | float | bool | None

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
_ON_A_GRID = ("constant", "categorical", "int_uniform", "q_uniform")
_QUANTILE_EDGE = 1e-9  # keeps normal and beta draws finite
_MOST_GRID_VALUES = 100_000


@dataclass(frozen=True)
class Parameter:
    """A parameter of the sweep: `name`, W&B `distribution`, and the keys written for it."""

    name: str
    distribution: str
    settings: Mapping[str, Any]

    @property
    def is_constant(self) -> bool:
        return self.distribution == "constant"

    def grid_values(self) -> tuple[Value, ...]:
        """Every value on a grid, in file order.

        Raises:
            SweepError: the distribution is continuous, or has more values than anyone could run.
        """
        settings = self.settings
        if self.distribution == "constant":
            return (settings["value"],)
        if self.distribution == "categorical":
            return tuple(settings["values"])
        if self.distribution not in _ON_A_GRID:
            reason = f"a grid cannot go over {self.distribution}; list its values, or use method: random or bayes"
            raise SweepError(f"parameters.{self.name}: {reason}")
        step = settings.get("q", 1)
        steps = (settings["max"] - settings["min"]) / step + 1e-9
        if steps >= _MOST_GRID_VALUES:
            amount = f"{math.floor(steps) + 1:,}" if steps < 1e15 else "countless"
            raise SweepError(f"parameters.{self.name}: the grid would have {amount} values; list the ones you want")
        count = math.floor(steps) + 1
        return tuple(_on_step(settings["min"] + index * step, step, settings["min"]) for index in range(count))

    def suggest(self, trial: optuna.Trial) -> Value:
        """The value `trial` gives this parameter; a repeated call on one trial gives the same."""
        settings = self.settings
        if self.distribution == "constant":
            return settings["value"]
        if self.distribution == "categorical":
            return trial.suggest_categorical(self.name, settings["values"])
        if self.distribution == "int_uniform":
            return trial.suggest_int(self.name, settings["min"], settings["max"])
        if self.distribution in ("uniform", "q_uniform"):
            return self._quantised(trial.suggest_float(self.name, settings["min"], settings["max"]))
        if "log_uniform" in self.distribution:
            low, high = self._log_bounds()
            return self._quantised(trial.suggest_float(self.name, low, high, log=True))
        quantile = trial.suggest_float(self.name, _QUANTILE_EDGE, 1 - _QUANTILE_EDGE)
        if self.distribution == "categorical_w_probabilities":
            return self._weighted_choice(quantile)
        return self._quantised(self._inverse(quantile))

    def _log_bounds(self) -> tuple[float, float]:
        low, high = self.settings["min"], self.settings["max"]
        if self.distribution.endswith("_values"):
            return low, high  # given as values; 1/x is log-uniform wherever x is
        if self.distribution.startswith("inv_"):
            return math.exp(-high), math.exp(-low)
        return math.exp(low), math.exp(high)

    def _inverse(self, quantile: float) -> float:
        settings = self.settings
        if self.distribution.endswith("beta"):
            from scipy.stats import beta  # a second's import that only beta needs

            return float(beta.ppf(quantile, settings.get("a", 1), settings.get("b", 1)))
        mu, sigma = settings.get("mu", 0.0), settings.get("sigma", 1.0)
        deviate = mu if sigma == 0 else NormalDist(mu, sigma).inv_cdf(quantile)
        return math.exp(deviate) if "log_normal" in self.distribution else deviate

    def _weighted_choice(self, quantile: float) -> Value:
        weights = self.settings["probabilities"]
        mark, total = quantile * sum(weights), 0.0
        for value, weight in zip(self.settings["values"], weights, strict=True):
            total += weight
            if mark < total:
                return value
        return next(v for v, w in zip(self.settings["values"][::-1], weights[::-1], strict=True) if w > 0)

    def _quantised(self, value: float) -> float | int:
        if not self.distribution.startswith("q_"):
            return value
        step = self.settings.get("q", 1)
        if not math.isfinite(value / step):
            return value  # a step too small to be told from none
        return _on_step(round(value / step) * step, step)

    def describe(self) -> str:
        """What the parameter ranges over, for a search whose points are not known beforehand."""
        settings = ", ".join(f"{key} {value}" for key, value in self.settings.items() if key != "distribution")
        return f"<{self.distribution}: {settings}>"


def _on_step(value: float, *steps: float) -> float | int:
    """`value` as a whole number where every step is one, else without the noise of binary fractions."""
    return round(value) if all(isinstance(step, int) for step in steps) else round(value, 12)


def read_parameter(name: str, settings: Mapping[str, Any], *, method: str) -> Parameter:
    """The parameter `name` from its keys in the sweep file, for the search `method`.

    Raises:
        SweepError: keys that do not go together or with `method`; one line starting with the key.
    """
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
    if method != "grid" and distribution == "categorical":
        _check_told_apart(where, settings["values"])
    parameter = Parameter(name, distribution, settings)
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


def _check_told_apart(where: str, values: Sequence[Value]) -> None:
    """Refuse values that are equal to Python and so one choice to Optuna: a run tried again would get the other."""
    for index, value in enumerate(values):
        if value in values[:index]:
            same = values[values.index(value)]
            raise SweepError(f"{where}.values: a search cannot tell {value!r} from {same!r}; use method: grid")


def _check_values(where: str, distribution: str, settings: Mapping[str, Any]) -> None:
    if "values" in settings:
        values = settings["values"]
        typed = [(type(value), value) for value in values]  # 1 and true are equal, and two values to a program
        for index, value in enumerate(typed):
            if value in typed[:index]:
                raise SweepError(f"{where}.values: {value[1]!r} stands there twice")
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
