"""Occlusion maps (Zeiler & Fergus 2014): how much the class's probability falls where a grey square "
"covers the image."""

import torch
from torch import nn


@torch.no_grad()
def occlusion_map(network: nn.Module, image: torch.Tensor, label: int, *, square: int, step: int) -> torch.Tensor:
    """(rows, columns) of p(label) uncovered minus covered, for a square of zeros, the mean of standardised images,
    moved over image (C, H, W) in steps; places where it ends inside the image."""
    network.eval()
    height, width = image.shape[1:]
    rows, columns = range(0, height - square + 1, step), range(0, width - square + 1, step)
    covered = []
    for top in rows:
        for left in columns:
            one = image.clone()
            one[:, top : top + square, left : left + square] = 0
            covered.append(one)
    probability = network(torch.stack([image, *covered])).softmax(1)[:, label]
    return (probability[0] - probability[1:]).view(len(rows), len(columns))
