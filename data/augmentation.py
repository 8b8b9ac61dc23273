"""Normalisation and augmentation of whole batches on the device they live on."""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange

FULL_SCALE = {torch.uint8: 255}
"""What stands for 1 in a type; floating point is taken as it is."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes that leave the label of a kind of data right.

    `shift`: the most positions each way along each spatial dimension; () for no change at all. `border`: what comes
    into view is the reflected input, or this value. `flip`: the last dimension is mirrored with probability 1/2.
    """

    shift: tuple[int, ...]
    border: Literal["reflect"] | float
    flip: bool = False


NO_AUGMENTATION = Augmentation((), "reflect")


def normalise(inputs: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(N, C, *spatial), uint8 pixels or floats -> `(inputs / full scale - mean) / std` in `dtype`.

    (C,) `mean` and `std` are those of the scaled inputs; the full scale of uint8 is 255, of floats 1. Computed in
    float32, or in float64 when that is `dtype`, and rounded to `dtype` once. Keeps the memory format.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    per_channel = (-1,) + (1,) * (inputs.dim() - 2)
    scale = (1 / (FULL_SCALE.get(inputs.dtype, 1) * std.to(wide))).view(per_channel)
    shift = (mean.to(wide) / std.to(wide)).view(per_channel)
    return inputs.to(wide).mul(scale).sub_(shift).to(dtype)


@dataclass(frozen=True)
class Draws:
    """What is done to each of N inputs: (N,) whether it is mirrored, and (N,) positions to shift for each dimension."""

    mirrored: torch.Tensor
    shifts: tuple[torch.Tensor, ...]

    def at(self, rows: torch.Tensor) -> "Draws":
        """Those of some of the inputs."""
        return Draws(self.mirrored[rows], tuple(shift[rows] for shift in self.shifts))


def draw(num: int, policy: Augmentation, generator: torch.Generator) -> Draws:
    """What to do to `num` inputs.

    Numbers are drawn on the generator's device, so one CPU generator gives the same inputs on every device. They are
    drawn in one order whatever `flip` is: the shifts of a run do not depend on it.
    """
    mirrored = (torch.rand(num, generator=generator, device=generator.device) < 0.5) & policy.flip
    shifts = tuple(
        torch.randint(-most, most + 1, (num,), generator=generator, device=generator.device) for most in policy.shift
    )
    return Draws(mirrored, shifts)


def augment(inputs: torch.Tensor, policy: Augmentation, draws: torch.Generator | Draws) -> torch.Tensor:
    """Mirror and shift each of (N, C, *spatial) as `policy` says, all channels alike: as drawn, or as `draw` draws.

    Shifts are whole positions, uniform over -most..most, independent for each dimension (Keller Jordan's airbench
    does the same to images by padding and cropping); what comes into view is that of the mirrored input.

    Raises:
        ValueError: a shift is negative, or so large that the input would need reflecting twice.
    """
    sizes = inputs.shape[2:]
    for most, size in zip(policy.shift, sizes, strict=bool(policy.shift)):
        if not 0 <= most <= size - 1:
            raise ValueError(f"shift={most}; expected 0..{size - 1} positions in a dimension of {size}")
    if isinstance(draws, torch.Generator):
        draws = draw(inputs.shape[0], policy, draws)
    moved = inputs
    for axis, (most, shift) in enumerate(zip(policy.shift, draws.shifts, strict=True)):
        mirror = draws.mirrored if axis == len(sizes) - 1 else torch.zeros_like(draws.mirrored)
        if most or policy.flip:
            moved = _moved(moved, axis + 2, shift.to(inputs.device), mirror.to(inputs.device), policy.border)
    return moved


def cut_out(inputs: torch.Tensor, side: int, centres: torch.Tensor) -> torch.Tensor:
    """(N, C, *spatial) normalised inputs with zeros, the mean, in a square of `side` positions, clipped at the edges.

    `centres` (N, 2) are where, as fractions of the last two dimensions; of a waveform's one dimension, the second. A
    video's frames lose the same square (DeVries and Taylor, "Cutout", 2017).
    """
    inside: torch.Tensor | None = None
    for axis in range(max(2, inputs.dim() - 2), inputs.dim()):
        size = inputs.shape[axis]
        first = (centres[:, axis - inputs.dim()] * size).long().to(inputs.device) - side // 2
        positions = torch.arange(size, device=inputs.device)
        along = [inputs.shape[0] if one == 0 else size if one == axis else 1 for one in range(inputs.dim())]
        hit = ((positions >= first[:, None]) & (positions < first[:, None] + side)).view(along)
        inside = hit if inside is None else inside & hit
    assert inside is not None
    return inputs.masked_fill(inside, 0.0)


def _moved(
    inputs: torch.Tensor,
    dim: int,
    shift: torch.Tensor,
    mirrored: torch.Tensor,
    border: Literal["reflect"] | float,
) -> torch.Tensor:
    """Each input with the (N,) `shift` along `dim`, of the mirrored input where (N,) `mirrored` says so."""
    size = inputs.shape[dim]
    positions = torch.arange(size, device=inputs.device) + rearrange(shift, "n -> n 1")  # [N, size]
    outside = (positions < 0) | (positions >= size)
    positions = _reflected(positions, size)
    positions = torch.where(rearrange(mirrored, "n -> n 1"), size - 1 - positions, positions)
    along = [inputs.shape[0] if axis == 0 else size if axis == dim else 1 for axis in range(inputs.dim())]
    moved = torch.take_along_dim(inputs, positions.view(along), dim)
    return moved if isinstance(border, str) else moved.masked_fill(outside.view(along), border)


def _reflected(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Positions past an edge come back from it, the edge itself not repeated: -1 -> 1, size -> size - 2."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()
