"""Normalisation and augmentation of whole uint8 batches on the device they live on."""

import torch
from einops import rearrange, repeat


def normalise(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """uint8 (N, C, H, W) -> `(images / 255 - mean) / std` in `dtype`, with (C,) `mean` and `std` of 0..1 pixels.

    Computed in float32, or in float64 when that is `dtype`, and rounded to `dtype` once. Keeps the memory format.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    scale = rearrange(1 / (255 * std.to(wide)), "c -> c 1 1")
    shift = rearrange(mean.to(wide) / std.to(wide), "c -> c 1 1")
    return images.to(wide).mul(scale).sub_(shift).to(dtype)


def augment(images: torch.Tensor, *, flip: bool, translate: int, generator: torch.Generator) -> torch.Tensor:
    """Mirror each uint8 (N, C, H, W) picture with probability 1/2 and shift it by up to `translate` pixels each way.

    Shifts are whole pixels, uniform over -translate..translate, independent for rows and columns (Keller Jordan's
    airbench does the same by padding and cropping); what comes into view is the mirrored picture. Numbers are
    drawn on the generator's device, so one CPU generator gives the same pictures on every device. They are drawn in
    one order whatever `flip` is: the shifts of a run do not depend on it.

    Raises:
        ValueError: `translate` is negative, or so large that the picture would need reflecting twice.
    """
    num, _, height, width = images.shape
    limit = min(height, width) - 1
    if not 0 <= translate <= limit:
        raise ValueError(f"translate={translate}; expected 0..{limit} pixels for {height}x{width} pictures")
    drawn_on = generator.device
    mirrored = (torch.rand(num, generator=generator, device=drawn_on) < 0.5) & flip
    shift = torch.randint(-translate, translate + 1, (2, num), generator=generator, device=drawn_on)
    mirrored, shift = mirrored.to(images.device), shift.to(images.device)

    rows = torch.arange(height, device=images.device) + rearrange(shift[0], "n -> n 1")  # [N, H]
    columns = torch.arange(width, device=images.device) + rearrange(shift[1], "n -> n 1")  # [N, W]
    rows, columns = _reflected(rows, height), _reflected(columns, width)
    columns = torch.where(rearrange(mirrored, "n -> n 1"), width - 1 - columns, columns)

    source = rearrange(rows * width, "n h -> n h 1") + rearrange(columns, "n w -> n 1 w")  # [N, H, W]
    source = repeat(source, "n h w -> n c (h w)", c=images.shape[1])
    moved = rearrange(images, "n c h w -> n c (h w)").gather(2, source)
    return rearrange(moved, "n c (h w) -> n c h w", h=height)


def _reflected(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Positions past an edge come back from it, the edge itself not repeated: -1 -> 1, size -> size - 2."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()
