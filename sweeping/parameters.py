"""One swept parameter: which keys its distribution takes, its values on a grid, and how a search draws it.

The distributions are W&B's. A draw is made in the search's own terms (`native`: what Optuna stores and learns from) and
turned into the value a run is given (`value`): a choice is its label, a bounded range the number before rounding, and
any other distribution a quantile in (0, 1).
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidepool.sweeping import quantiles
from tidepool.sweeping.errors import SweepError

if TYPE_CHECKING:
    import optuna

Value = Any
"""What JSON can hold: text, a number, true, false, null, or a list or mapping of these."""
Native = str | int | float

_ON_A_GRID = ("constant", "categorical", "int_uniform", "q_uniform")
_CHOICES = ("categorical", "categorical_w_probabilities")
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class Parameter:
    """A parameter of the sweep: its W&B `distribution`, the keys written for it, and the keys it lies under, more than
    one where parameters are nested. `name` is these with dots between them."""

    name: str
    distribution: str
    settings: Mapping[str, Any]
    path: tuple[str, ...]

    @property
    def is_constant(self) -> bool:
        return self.distribution == "constant"

    def grid_values(self) -> tuple[Value, ...]:
        """Every value on a grid, in file order; those of W&B's own search, so that max is not among q_uniform's.

        Raises:
            SweepError: the distribution is continuous, or has more values than anyone could run.
        """
        settings = self.settings
        if self.distribution not in _ON_A_GRID:
            reason = f"a grid cannot go over {self.distribution}; list its values, or use method: random or bayes"
            raise SweepError(f"parameters.{self.name}: {reason}")
        if self.distribution != "q_uniform":
            return self._listed()
        low, step = settings["min"], settings.get("q", 1)
        count = (settings["max"] - low) / step
        if count > _MOST_VALUES:
            raise self._too_many(count)
        return tuple(_on_step(low + index * step, step, low) for index in range(math.ceil(count)))

    def _listed(self) -> tuple[Value, ...]:
        settings = self.settings
        if self.distribution == "constant":
            return (settings["value"],)
        if self.distribution in _CHOICES:
            return tuple(settings["values"])
        count = settings["max"] - settings["min"] + 1
        if count > _MOST_VALUES:
            raise self._too_many(count)
        return tuple(range(settings["min"], settings["max"] + 1))

    def _too_many(self, count: float) -> SweepError:
        amount = f"{math.ceil(count):,}" if count < 1e15 else "countless"
        return SweepError(f"parameters.{self.name}: the grid would have {amount} values; list the ones you want")

    def discrete_values(self) -> tuple[Value, ...] | None:
        """Every value a draw may have, or None where they are too many or not bounded."""
        if self.distribution == "categorical_w_probabilities":
            weighed = zip(self.settings["values"], self.settings["probabilities"], strict=True)
            return tuple(value for value, weight in weighed if weight > 0)
        if not self.is_discrete:
            return None
        if self.distribution in ("constant", "categorical", "int_uniform"):
            try:
                return self._listed()
            except SweepError:
                return None
        low, high = (self.value(self.native(quantile)) for quantile in (0.0, 1.0))
        step = self.settings.get("q", 1)
        count = round((high - low) / step) + 1
        return tuple(_on_step(low + index * step, step) for index in range(count)) if count <= _MOST_VALUES else None

    @property
    def is_discrete(self) -> bool:
        """Whether draws lie on steps between two bounds, so that they may repeat."""
        if self.distribution in ("constant", *_CHOICES, "int_uniform"):
            return True
        return self.distribution in ("q_uniform", "q_log_uniform", "q_log_uniform_values", "q_beta")

    def contains(self, value: Value) -> bool:
        """Whether `value` is one the parameter may have; on no step exactly, for the steps of a range may change."""
        if self.distribution in ("constant", *_CHOICES):
            return json.dumps(value, sort_keys=True) in {json.dumps(v, sort_keys=True) for v in self._listed()}
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = (self.value(self.native(quantile)) for quantile in (0.0, 1.0))
        return low <= value <= high and (self.distribution != "int_uniform" or value == int(value))

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """A text for each choice, by which Optuna tells them apart: 1 and true are equal, and lists no keys."""
        values = self.settings["values"]
        texts = tuple(value if isinstance(value, str) else json.dumps(value) for value in values)
        return texts if len(set(texts)) == len(texts) else tuple(json.dumps(value) for value in values)

    def label(self, value: Value) -> str:
        """The label of one of the choices."""
        return self.labels[[json.dumps(one) for one in self.settings["values"]].index(json.dumps(value))]

    @functools.cached_property
    def optuna_distribution(self) -> optuna.distributions.BaseDistribution:
        """Where `native` draws lie."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        settings = self.settings
        if self.distribution == "categorical":
            return CategoricalDistribution(self.labels)
        if self.distribution == "int_uniform":
            return IntDistribution(settings["min"], settings["max"])
        if self.distribution in ("uniform", "q_uniform"):
            return FloatDistribution(settings["min"], settings["max"])
        if "log_uniform" in self.distribution:
            return FloatDistribution(*self._log_bounds(), log=True)
        return FloatDistribution(quantiles.EDGE, 1 - quantiles.EDGE)

    def native(self, quantile: float) -> Native:
        """The draw at a `quantile` from 0 to 1 of the distribution, in the search's terms."""
        settings = self.settings
        if self.distribution == "categorical":
            return self.labels[min(int(quantile * len(self.labels)), len(self.labels) - 1)]
        if self.distribution == "int_uniform":
            count = settings["max"] - settings["min"] + 1
            return settings["min"] + min(int(quantile * count), count - 1)
        if self.distribution in ("uniform", "q_uniform"):
            return quantiles.between(settings["min"], settings["max"], quantile)
        if "log_uniform" in self.distribution:
            return quantiles.log_between(*self._log_bounds(), quantile)
        return min(max(quantile, quantiles.EDGE), 1 - quantiles.EDGE)

    def native_of(self, value: Value) -> Native | None:
        """A draw in the search's terms that gives `value`; None where the terms are quantiles, or it is not one."""
        if self.distribution == "categorical":
            return self.label(value) if self.contains(value) else None
        if "uniform" not in self.distribution or isinstance(value, bool) or not isinstance(value, int | float):
            return None
        low, high = self.native(0.0), self.native(1.0)
        return min(max(value, low), high) if isinstance(low, int | float) and isinstance(high, int | float) else None

    def value(self, native: Native) -> Value:
        """The value a run is given for a draw in the search's terms."""
        if self.distribution == "categorical":
            return self.settings["values"][self.labels.index(str(native))]
        if self.distribution == "int_uniform":
            return int(native)
        drawn = float(native)
        if self.distribution == "categorical_w_probabilities":
            return quantiles.weighted_choice(self.settings["values"], self.settings["probabilities"], drawn)
        if "uniform" not in self.distribution:
            drawn = quantiles.inverse(self.distribution, self.settings, drawn)
        return self._quantised(drawn)

    def suggest(self, trial: optuna.Trial) -> Value:
        """The value `trial` gives this parameter; a repeated call on one trial gives the same."""
        if self.is_constant:
            return self.settings["value"]
        # _suggest: trial.suggest_float and its kin build the distribution anew from its bounds
        return self.value(trial._suggest(self.name, self.optuna_distribution))

    def _log_bounds(self) -> tuple[float, float]:
        low, high = self.settings["min"], self.settings["max"]
        if self.distribution.endswith("_values"):
            return low, high  # given as values; 1/x is log-uniform wherever x is
        if self.distribution.startswith("inv_"):
            return math.exp(-high), math.exp(-low)
        return math.exp(low), math.exp(high)

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


def natives_of(parameters: Sequence[Parameter], params: Mapping[str, Value]) -> dict[str, Native]:
    """`params` in the search's terms, as far as they have any."""
    found = {parameter.name: parameter.native_of(params[parameter.name]) for parameter in parameters}
    return {name: native for name, native in found.items() if native is not None}
