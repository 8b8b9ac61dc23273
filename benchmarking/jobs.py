"""What a fresh process is started to do, as JSON on its command line, and what it is made of again over there."""

import json
from dataclasses import dataclass
from pathlib import Path

from tidepool.benchmarking.comparison import Comparison
from tidepool.benchmarking.opponents import backends
from tidepool.benchmarking.suites import chosen, suite

KINDS = ("time", "check", "ceilings", "tune")


@dataclass(frozen=True)
class Job:
    """A comparison and what to do of it: time it, only check it, measure ceilings, or tune its layers."""

    kind: str
    comparison: Comparison
    budget_s: float | None

    @property
    def key(self) -> str:
        """Under which the state file keeps that the job is done."""
        return f"{self.kind} {self.comparison.dtype}"

    def text(self) -> str:
        """The job as one line of JSON."""
        c = self.comparison
        content = {
            "kind": self.kind,
            "budget_s": self.budget_s,
            "out": str(c.out),
            "suite": c.suite,
            "cases": [case.name for case in c.cases],
            "backends": [backend.name for backend in c.backends],
            "dtype": c.dtype,
            "passes": list(c.passes),
            "replicate": c.replicate,
            "rounds": c.rounds,
            "cuda_graph": c.cuda_graph,
            "seed": c.seed,
            "since": c.since,
        }
        return json.dumps(content)


def job_from_text(text: str) -> Job:
    """The job that wrote `text`. Raises ValueError where none did."""
    content = json.loads(text)
    try:
        kind, budget_s = content.pop("kind"), content.pop("budget_s")
        content["out"] = Path(content["out"])
        content["cases"] = chosen(suite(content["suite"]), content["cases"])
        content["backends"] = backends(content["backends"])
        content["passes"] = tuple(content["passes"])
        comparison = Comparison(**content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a job: {error}") from None
    if kind not in KINDS:
        raise ValueError(f"not a job: kind {kind!r}, expected one of {', '.join(KINDS)}")
    return Job(kind, comparison, budget_s)
