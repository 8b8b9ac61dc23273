"""A filter's gradient taken apart: what each position of the output gives to it."""

import torch

from tidepool.kernels import conv_act_pool


def filter_gradient(x: torch.Tensor, weight: torch.Tensor, dy: torch.Tensor, *, backend: str) -> torch.Tensor:
    """dL/dw (K, C, R, S) of a plain convolution of x (N, C, H, W), given dL/dy (N, K, H', W')."""
    weight = weight.clone().requires_grad_()
    conv_act_pool(x, weight, activation=None, pool=None, backend=backend).backward(dy)
    assert weight.grad is not None
    return weight.grad


def gradient_terms(
    x: torch.Tensor, weight: torch.Tensor, dy: torch.Tensor, *, backend: str
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The filter gradient with dy kept at one position (h, w) alone, row by row, and the gradient with all of dy."""
    terms = []
    for h in range(dy.shape[2]):
        for w in range(dy.shape[3]):
            alone = torch.zeros_like(dy)
            alone[:, :, h, w] = dy[:, :, h, w]
            terms.append(filter_gradient(x, weight, alone, backend=backend))
    return terms, filter_gradient(x, weight, dy, backend=backend)
