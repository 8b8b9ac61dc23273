"""Which of this process's runs to stop early, judged beside every run of the sweep, other machines' among them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tidepool.sweeping.follower import MetricFollower
from tidepool.sweeping.hyperband import Judged, runs_to_stop
from tidepool.sweeping.ledger import Claim, Ledger
from tidepool.sweeping.spec import Sweep


class EarlyStopping:
    """Follows the metric of the runs of this process, and notes it in the ledger at each band they reach."""

    def __init__(self, sweep: Sweep, ledger: Ledger, directory: Path) -> None:
        self._sweep, self._ledger, self._directory = sweep, ledger, directory
        self._followers: dict[Path, MetricFollower] = {}

    def runs_to_stop(self, running: Mapping[Path, Claim]) -> list[Path]:
        """The folders of those `running` here that have fallen behind."""
        rule, metric = self._sweep.early_terminate, self._sweep.metric
        assert rule is not None
        assert metric is not None  # read_sweep refuses early_terminate without one
        runs = {f"trial {entry.trial_id}": Judged(entry.reports) for entry in self._ledger.judged()}
        names = {f"trial {claim.trial_id}": run_dir for run_dir, claim in running.items()}
        for name, run_dir in names.items():
            runs[name] = self._follow(run_dir, running[run_dir], metric.name, metric.maximize)
        return [names[name] for name in runs_to_stop(runs, list(names), rule, maximize=metric.maximize)]

    def _follow(self, run_dir: Path, claim: Claim, name: str, maximize: bool) -> Judged:
        assert self._sweep.early_terminate is not None
        if run_dir not in self._followers:
            marks = frozenset(self._sweep.early_terminate.bands)
            self._followers[run_dir] = MetricFollower(run_dir / "metrics.jsonl", name, marks)
        follower = self._followers[run_dir]
        for band in follower.read():
            self._ledger.report(claim, band, follower.at[band])
        return Judged(dict(follower.at), follower.highest if maximize else follower.lowest)

    def last_look(self, run_dir: Path, claim: Claim) -> None:
        """A run has ended: note what it logged after the last look, for others to be judged by."""
        metric = self._sweep.metric
        if self._sweep.early_terminate is not None and metric is not None:
            self._follow(run_dir, claim, metric.name, metric.maximize)
            self._followers.pop(run_dir)
