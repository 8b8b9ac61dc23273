"""What `fuse` did to a network: filled in as PyTorch captures graphs of it, and as calls come."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Names = Mapping[int, str]
"""Qualified names of a network's parameters by their ids."""


@dataclass(frozen=True)
class FusedLayer:
    """Some layers that are one fused op now."""

    name: str
    """The convolution's name in the network."""
    steps: tuple[str, ...]
    """What the op does, in the program's order: conv, norm, add, relu, max-pool, ..."""


@dataclass(frozen=True)
class SkippedLayer:
    """A layer that stayed as it was."""

    name: str
    reason: str


@dataclass
class CapturedGraph:
    """One graph that PyTorch captured: a network has one for each mode, dtype, size and part between graph breaks."""

    fused: list[FusedLayer] = field(default_factory=list)
    skipped: list[SkippedLayer] = field(default_factory=list)
    nodes: int = 0
    runs: int = 0


@dataclass
class FuseReport:
    """`print` shows one line a layer. `graphs` has the detail; a layer that several graphs have is listed once."""

    graphs: list[CapturedGraph] = field(default_factory=list)
    fused_calls: int = 0
    plain_calls: Counter[str] = field(default_factory=Counter)
    """How often a call ran as the network is, by reason."""

    @property
    def fused(self) -> tuple[FusedLayer, ...]:
        """The layers that are fused in any graph."""
        return tuple(_once(graph.fused for graph in self.graphs))

    @property
    def skipped(self) -> tuple[SkippedLayer, ...]:
        """The layers that are fused in none, each with its reason."""
        fused = {layer.name for layer in self.fused}
        return tuple(layer for layer in _once(graph.skipped for graph in self.graphs) if layer.name not in fused)

    @property
    def runs(self) -> int:
        """How often captured graphs have run."""
        return sum(graph.runs for graph in self.graphs)

    def ran_plain(self, reason: str) -> None:
        """Count a call that ran as the network is, and warn of the first for a reason."""
        self.plain_calls[reason] += 1
        if self.plain_calls[reason] == 1:
            warnings.warn(f"fuse: this call runs unfused: {reason}", stacklevel=4)

    def __deepcopy__(self, memo: Any) -> "FuseReport":
        """A copy of a network is not fused and has no report: what holds this one shares it."""
        return self

    def __str__(self) -> str:
        if not self.graphs and not self.plain_calls:
            return "nothing captured yet: call the network, or give fuse an example"
        lines = [f"{len(self.fused)} fused", *_aligned((layer.name, " -> ".join(layer.steps)) for layer in self.fused)]
        if self.skipped:
            lines += [f"{len(self.skipped)} left as they were", *_aligned((s.name, s.reason) for s in self.skipped)]
        lines.append(f"{self.fused_calls} calls ran fused, {sum(self.plain_calls.values())} plain")
        lines += [f"  {count} plain: {reason}" for reason, count in self.plain_calls.items()]
        return "\n".join(lines)


def _once(graphs: Iterable[list[Any]]) -> list[Any]:
    """For each name the entries of the graph that has the most of them: a layer may be called twice in one graph."""
    found: dict[str, list[Any]] = {}
    for entries in graphs:
        here: dict[str, list[Any]] = {}
        for entry in entries:
            here.setdefault(entry.name, []).append(entry)
        for name, those in here.items():
            if len(those) > len(found.get(name, [])):
                found[name] = those
    return [entry for those in found.values() for entry in those]


def _aligned(entries: Iterable[tuple[str, str]]) -> list[str]:
    entries = list(entries)
    width = max((len(name) for name, _ in entries), default=0)
    return [f"  {name:{width}}  {text}" for name, text in entries]
