"""Images that differ in nothing but the place of a patch (after Kayhan & van Gemert 2020, section 3)."""

import torch

SIDE, PATCH, MARGIN, NOISE = 20, 5, 0, 0.25


def patches_at_two_places(patches: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(2 patches, 1, 20, 20) images and their classes: every bright, noisy patch once in the top left corner (0), once
    in the bottom right one (1), in turn."""
    generator = torch.Generator().manual_seed(seed)
    patch = 1 + NOISE * torch.randn(patches, 1, PATCH, PATCH, generator=generator)
    images = torch.zeros(patches, 2, 1, SIDE, SIDE)
    near, far = slice(MARGIN, MARGIN + PATCH), slice(SIDE - MARGIN - PATCH, SIDE - MARGIN)
    images[:, 0, :, near, near] = patch
    images[:, 1, :, far, far] = patch
    return images.flatten(0, 1), torch.tensor([0, 1]).repeat(patches)
