"""What circular shifts of the input do to a layer's outputs and to a network's predictions."""

from collections.abc import Callable

import torch

from tidepool.analysis.claims.parts.learning import predictions


def shifted(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """x (N, C, H, W) shifted with opposite edges joined."""
    return torch.roll(x, (down, right), (2, 3))


def broken_share(layer: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, shift: int) -> tuple[float, float]:
    """How far layer(shifted x) is from the shifted layer(x), for a diagonal shift in pixels of the input: the fraction
    of outputs that differ in any bit, and the norm of the difference over that of the output.

    Where the layer makes an output of 1/s of the size and the shift is no multiple of s, the nearer of the two whole
    shifts of the output counts.
    """
    y, moved = layer(x), layer(shifted(x, shift, shift))
    stride = round(x.shape[2] / y.shape[2])
    wholes = {shift // stride, -(-shift // stride)}
    results = []
    for whole in wholes:
        wanted = shifted(y, whole, whole)
        error = float((moved - wanted).norm() / y.norm())
        results.append((float((moved != wanted).double().mean()), error))
    return min(results, key=lambda result: result[1])


def consistency(network: torch.nn.Module, x: torch.Tensor, *, farthest: int, pairs: int, seed: int) -> float:
    """Zhang's (2019) measure: how often an image gets one class at two random circular shifts of up to `farthest`
    pixels either way."""
    generator = torch.Generator().manual_seed(seed)
    same = 0.0
    for _ in range(pairs):
        shifts = torch.randint(-farthest, farthest + 1, (2, 2), generator=generator).tolist()
        first, second = (predictions(network, shifted(x, *shift)) for shift in shifts)
        same += float((first == second).double().mean())
    return same / pairs
