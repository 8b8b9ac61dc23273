"""What `fuse` did to a network, layer by layer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FusedLayer:
    """Some layers that are one fused op now."""

    name: str
    """The convolution's name in the network."""
    steps: tuple[str, ...]
    """What the op does, in its order: conv, norm, add, relu, max-pool, ..."""
    layers: tuple[str, ...]
    """The names of what it replaces, in the network's order; a function's is its own behind that of its module."""


@dataclass(frozen=True)
class SkippedLayer:
    """A layer that stayed as it was."""

    name: str
    reason: str


@dataclass(frozen=True)
class FuseReport:
    """`print` shows one line a layer."""

    fused: tuple[FusedLayer, ...] = ()
    skipped: tuple[SkippedLayer, ...] = ()

    def __str__(self) -> str:
        entries = [(layer.name, " -> ".join(layer.steps)) for layer in self.fused]
        lines = [f"{len(self.fused)} fused", *_aligned(entries)]
        if self.skipped:
            lines += [f"{len(self.skipped)} left as they were", *_aligned([(s.name, s.reason) for s in self.skipped])]
        return "\n".join(lines)


def _aligned(entries: list[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in entries), default=0)
    return [f"  {name:{width}}  {text}" for name, text in entries]
