"""Random networks: layers, sums, writes, views, branches, contexts and state in any order, from a seed."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS, SIZE = 4, 8
ACTIVATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    F.relu,
    F.relu_,
    F.silu,
    torch.tanh,
    F.relu6,
    lambda t: F.leaky_relu(t, 0.1, inplace=True),
    lambda t: t.sigmoid(),
)
POOLS: tuple[Callable[[Tensor], Tensor], ...] = (lambda t: F.max_pool2d(t, 2), lambda t: F.avg_pool2d(t, 2))
KINDS = (
    *("layers",) * 8, *("add",) * 3, "write", "write_view", "state", "attribute", "branch", "no_grad", "no_autocast",
    "dropout", "statistics", "identity", "gate",
)  # fmt: skip


@dataclass
class Statement:
    """One line of a forward: what it does, to which of the tensors so far, and with which layers."""

    kind: str
    picks: tuple[int, ...]
    chosen: dict[str, int] = field(default_factory=dict)


class RandomProgram(nn.Module):
    """A network whose forward carries out random statements on a list of tensors and ends in a sum of some."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        self.convs = nn.ModuleList(
            nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=kernel // 2, bias=draw.random() < 0.5) for kernel in (1, 3, 3)
        )
        self.norms = nn.ModuleList(
            (nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS, affine=False, momentum=0.3), nn.BatchNorm2d(CHANNELS))
        )
        self.register_buffer("seen", torch.zeros(CHANNELS))
        self.statements = [
            Statement(
                draw.choice(KINDS),
                tuple(draw.randrange(100) for _ in range(3)),
                {name: draw.randrange(1000) for name in ("conv", "norm", "activation", "pool", "parts", "way")},
            )
            for _ in range(draw.randint(4, 10))
        ]
        self.aux: Any = None

    def forward(self, x: Tensor) -> Tensor:
        tensors = [x, x * 1]
        for statement in self.statements:
            made = self.carry_out(statement, tensors)
            if made is not None:
                tensors.append(made)
        return torch.stack([tensor.mean((2, 3)) for tensor in tensors[1:]]).sum(0)

    def carry_out(self, statement: Statement, tensors: list[Tensor]) -> Tensor | None:
        pick = tensors[statement.picks[0] % len(tensors)]
        return getattr(self, f"_{statement.kind}")(statement.chosen, pick, tensors, statement.picks)

    def _layers(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> Tensor:
        """Some of conv, norm, sum, activation and pool, in an order of its own."""
        parts = chosen["parts"]
        y = self.convs[chosen["conv"] % 3](t)
        if parts & 16 and y.shape[-1] > 3:
            y = POOLS[chosen["pool"] % 2](y)
        if parts & 1:
            y = self.norms[chosen["norm"] % 3](y)
        if parts & 2:
            same = [other for other in tensors if other.shape == y.shape]
            if same:
                other = same[picks[1] % len(same)]
                y = y.add_(other) if parts & 64 else other + y
        if parts & 4:
            y = ACTIVATIONS[chosen["activation"] % len(ACTIVATIONS)](y)
        if parts & 8 and y.shape[-1] > 3:
            y = POOLS[chosen["pool"] // 2 % 2](y)
        return y

    def _add(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> Tensor:
        same = [other for other in tensors if other.shape == t.shape]
        return t + same[picks[1] % len(same)]

    def _write(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> None:
        if t is not tensors[0]:
            t.mul_(0.5) if chosen["way"] % 2 else t.detach().add_(0.25)

    def _write_view(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> None:
        if t is not tensors[0]:
            t[:, chosen["way"] % CHANNELS] = 0.5

    def _state(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> Tensor:
        self.seen.mul_(0.9).add_(t.detach().mean((0, 2, 3)))
        return t * (1 + self.seen[:, None, None])

    def _attribute(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> None:
        self.aux = t.abs().mean()

    def _branch(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> Tensor:
        return self.norms[0](self.convs[0](t)) if self.training else F.relu(self.convs[1](t))

    def _no_grad(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> Tensor:
        with torch.no_grad():
            return self._layers(chosen, t, tensors, picks)

    def _no_autocast(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> Tensor:
        y = self.convs[0](t)
        with torch.autocast("cpu", enabled=False):
            return F.relu(self.norms[1](y))

    def _dropout(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> Tensor:
        return F.dropout(t, 0.2, self.training)

    def _statistics(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> Tensor:
        """The running statistics read between a norm and what follows it."""
        norm = self.norms[chosen["norm"] % 3]
        y = norm(self.convs[chosen["conv"] % 3](t))
        scale = norm.running_mean.sum() if chosen["way"] % 2 else 1.0
        return F.relu(y) * scale

    def _identity(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> Tensor:
        """A view: what is written into it is written into the other."""
        return t.view(t.shape) if chosen["way"] % 2 else t.permute(0, 1, 3, 2)

    def _gate(self, chosen: dict[str, int], t: Tensor, tensors: list[Tensor], picks: tuple[int, ...]) -> Tensor:
        return t * torch.sigmoid(self.convs[0](F.adaptive_avg_pool2d(t, 1)))
