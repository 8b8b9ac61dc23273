"""`bench.py --counters`: the layers of a suite counted on the simulator, one kernel after another, within a budget."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidepool import simulator
from tidepool.benchmarking.budget import Budget
from tidepool.benchmarking.cases import LayerCase
from tidepool.benchmarking.counting import record
from tidepool.benchmarking.counting.compare import Compared, compare
from tidepool.benchmarking.counting.count import COUNTED, Counted, count
from tidepool.benchmarking.counting.launches import KERNELS, Size, at_size
from tidepool.benchmarking.counting.sizes import smaller
from tidepool.benchmarking.precision import set_precision
from tidepool.kernels.auto.roofline import DEVICES, layer_cost
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.kernels.runtime.targets import target_named

TARGETS = tuple(target.name for target in simulator.TARGETS)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One kernel of a layer on a target."""

    suite: str
    layer: LayerCase
    dtype: str
    target: str
    kernel: str

    @property
    def key(self) -> dict[str, str]:
        """As the record has it."""
        values = (self.suite, self.layer.name, self.dtype, self.target, self.kernel)
        return dict(zip(record.KEY, values, strict=True))


def jobs_of(suite: str, layers: Iterable[LayerCase], dtypes: Sequence[str], targets: Sequence[str]) -> list[Job]:
    """Every kernel of every layer, layer by layer."""
    return [
        Job(suite=suite, layer=layer, dtype=dtype, target=target, kernel=kernel)
        for layer in layers
        for target in targets
        for dtype in dtypes
        for kernel in KERNELS
        if kernel != "dgrad" or layer.input_gradient
    ]


def run(jobs: Sequence[Job], out: Path, budget: Budget, announce: Callable[[str], None]) -> list[str]:
    """Count what `out` does not hold yet of this code; returns what the budget left, a line each.

    A kernel that cannot be counted, since no size that is small enough runs its code, is announced and left out.
    """
    known = record.there(out)
    waiting = [job for job in jobs if tuple(job.key.values()) not in known]
    left = []
    for layer_jobs in _by_layer(waiting):
        if not budget.allows("layer"):
            left += [f"{job.layer.name} {job.kernel} {job.dtype} {job.target}" for job in layer_jobs]
            continue
        began = budget.spent()
        for job, counted, compared, flops in _count_layer(layer_jobs):
            if counted is None or compared is None:
                announce(f"{_named(job)}: not counted, no small size runs its code")
                continue
            record.write(out, job.key, counted, compared, flops)
            announce(_line(job, counted, compared))
        record.write_environment(out)
        budget.took("layer", budget.spent() - began)
    return left


def _by_layer(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    groups: dict[tuple[str, str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.layer.name, job.target, job.dtype), []).append(job)
    yield from groups.values()


def _count_layer(jobs: Sequence[Job]) -> Iterator[tuple[Job, Counted, Compared, int] | tuple[Job, None, None, int]]:
    layer, dtype, target = jobs[0].layer, jobs[0].dtype, jobs[0].target
    set_precision(dtype)
    with simulator.device(target, COUNTED) as device:
        full = at_size(layer, Size(batch=layer.batch, spatial=layer.x[2:]), dtype)
        candidates = smaller(layer, full, dtype)
        card = next(card for card in DEVICES if card.target is target_named(target))
        for job in jobs:
            pass_ = {"forward": "forward_training", "wgrad reduce": "wgrad"}.get(job.kernel, job.kernel)
            kernels = layer_cost(
                full.geometry, full.shapes, BY_NAME[dtype], pass_, "fused", bias=layer.bias, device=card
            ).kernels
            cost = next(kernel for kernel in kernels if kernel.name == job.kernel)
            counted = count(full, job.kernel, candidates, device)
            if counted is None:
                yield job, None, None, cost.flops
            else:
                yield job, counted, compare(counted, full, cost), cost.flops


def _named(job: Job) -> str:
    return f"{job.layer.name} {job.kernel} {job.dtype} {job.target}"


def _line(job: Job, counted: Counted, compared: Compared) -> str:
    sizes = ", ".join(str(one.sized.size) for one in counted.fits)
    checked = "run whole"
    if counted.check is not None:
        errors = counted.errors_percent
        worst = max(errors, key=lambda name: abs(errors[name]))
        checked = f"rule off by {errors[worst]:+.2f} % ({worst}) at {counted.check.sized.size}"
        checked += f", layer by {max(map(abs, counted.changes_percent.values())):.2f} % with it"
    return (
        f"{_named(job)}: requested {counted.counts['load_bytes'] / 1e6:.1f} MB, touched "
        f"{(compared.read + compared.written) / 1e6:.1f} MB, roofline {compared.difference_percent:+.1f} %; "
        f"from {sizes}; {checked}{'; ' + compared.reason if compared.reason else ''}"
    )
