"""What a kernel touches beside what the roofline counts, and why they differ where they do.

The roofline counts every tensor of a kernel once, whole. What the simulator saw touched is compared with it tensor by
tensor; each reason below names a difference in bytes, and what none explains is said to be unexplained.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidepool.benchmarking.counting.count import Counted, Touched
from tidepool.benchmarking.counting.launches import Sized
from tidepool.kernels.auto.roofline import KernelCost
from tidepool.kernels.layer.geometry import Geometry

APART_PERCENT = 5.0
"""From here on a row carries a reason."""
_EXPLAINED = 0.01
"""Of the roofline's bytes: what may be left without a reason."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Bytes of memory that a kernel has to move, each once, and the roofline's; a `reason` where they are apart."""

    read: int
    written: int
    roofline_read: int
    roofline_written: int
    reason: str

    @property
    def difference_percent(self) -> float:
        counted = self.roofline_read + self.roofline_written
        return 100 * (self.read + self.written - counted) / counted


def compare(counted: Counted, full: Sized, cost: KernelCost) -> Compared:
    """A kernel beside the roofline's of the same name."""
    touched = counted.touched
    found = Compared(
        read=sum(one.read for one in touched.values()),
        written=sum(one.written for one in touched.values()),
        roofline_read=cost.bytes_read,
        roofline_written=cost.bytes_written,
        reason="",
    )
    if abs(found.difference_percent) <= APART_PERCENT:
        return found
    total = cost.bytes_read + cost.bytes_written
    reasons = sorted(_reasons(counted, full, touched, total), key=lambda one: -abs(one[0]))
    rest = found.read + found.written - total - sum(amount for amount, _ in reasons)
    words = [f"{amount:+,} bytes: {why}" for amount, why in reasons if abs(amount) > _EXPLAINED * total]
    if abs(rest) > _EXPLAINED * total:
        words.append(f"{rest:+,} bytes: not explained")
    return Compared(**{**vars(found), "reason": "; ".join(words)})


def _reasons(counted: Counted, full: Sized, touched: Mapping[str, Touched], total: int) -> Iterator[tuple[int, str]]:
    geometry, arguments = full.geometry, counted.launch.named
    for name, one in touched.items():
        amount = max(one.read, one.written)
        if amount < one.size:
            yield amount - one.size, f"{_short(name)} is touched in part, {_why_in_part(geometry, name)}"
    workspace = touched.get("workspace_ptr")
    if workspace is not None and workspace.size:
        splits = arguments.get("splits") or counted.launch.grid[1]
        amount = workspace.size - _rooflines_workspace(total, touched)
        if amount:
            theirs = splits * (workspace.size - amount) / workspace.size
            yield amount, f"the workspace has {splits} splits, the roofline's {theirs:g}, {_why_other_splits(geometry)}"
    weight = touched.get("weight_desc")
    if weight is not None:
        plain = geometry.filters * geometry.groups * geometry.channels * geometry.taps * 2
        if weight.size != plain:
            yield weight.size - plain, "the packed weight's channels are filled up with zeros to whole steps"


def _why_other_splits(geometry: Geometry) -> str:
    if geometry.depthwise:
        return "which is an upper bound: the coarser block, rounded up"
    return "whose rule takes channels for neighbours" if geometry.rank == 1 else "not explained"


def _rooflines_workspace(total: int, touched: Mapping[str, Touched]) -> int:
    """The workspace that the roofline counted: what is left of its bytes when the other tensors are taken away."""
    return total - sum(one.size for name, one in touched.items() if name != "workspace_ptr")


def _why_in_part(geometry: Geometry, name: str) -> str:
    if not name.startswith("x_"):
        return "what no program reaches is left out"
    axes = [(getattr(geometry, f"stride_{d}"), getattr(geometry, f"kernel_{d}")) for d in "dhw"]
    if any(stride > kernel for stride, kernel in axes):
        return "the stride steps over the rest"
    return "the last rows and columns belong to no whole window"


def _short(name: str) -> str:
    return name.removesuffix("_ptr").removesuffix("_desc")
