"""The tuning step of a visit: a measured plan for every layer, into the table that `backend="auto"` reads."""

import torch

from tidepool.benchmarking.budget import Budget
from tidepool.benchmarking.cases import LayerCase
from tidepool.benchmarking.comparison import Comparison
from tidepool.benchmarking.session import Announce
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.kernels.runtime.timing import Timer
from tidepool.kernels.tune.ahead import compiling_for
from tidepool.kernels.tune.tuner import default_table, tune_layers

TUNED_FOLDER = "tuned"
"""Below a folder of measurements: the tables that its `auto` goes by."""


def tune(comparison: Comparison, device: torch.device, timer: Timer, budget: Budget, announce: Announce) -> bool:
    """Tune the comparison's layers as far as the budget goes; whether all are done.

    The table is `tuner.default_table`, which TIDEPOOL_TUNED places; what it holds for this machine and code is
    not measured again. A layer of which nothing was right is done, and said.
    """
    layers = [case for case in comparison.cases if isinstance(case, LayerCase)]
    with compiling_for(device) as compiler:
        outcome = tune_layers(
            layers,
            BY_NAME[comparison.dtype],
            device,
            timer=timer,
            report=announce,
            table_path=default_table(device),
            budget_s=None if budget.seconds is None else budget.left(),
            compiler=compiler,
            clock=budget.now,
        )
    announce(
        f"tuned {len(outcome.measured)} layers, {len(outcome.skipped)} were, {len(outcome.left)} left"
        + (f"; nothing was right for {', '.join(outcome.failed)}" if outcome.failed else "")
    )
    return not outcome.left
