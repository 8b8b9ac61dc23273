"""What most excites a unit: gradient ascent on the input (Erhan et al. 2009), jittered and blurred as in Olah et al.
(2017, "Feature Visualization", Distill), and the images of a set that do."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

Layer = Callable[[torch.Tensor], torch.Tensor]
STEPS, RATE, START = 64, 0.1, 0.1


def most_exciting_input(
    layer: Layer, channels: list[int], size: tuple[int, int, int], seed: int, *, steps: int = STEPS
) -> torch.Tensor:
    """(len(channels), C, H, W): from noise, inputs that raise the mean of one channel each of layer(x) "
    "(N, K, H', W')."""
    generator = torch.Generator().manual_seed(seed)
    x = (START * torch.randn(len(channels), *size, generator=generator)).requires_grad_()
    rows = torch.arange(len(channels))
    optimizer = torch.optim.Adam([x], lr=RATE)
    for step in range(steps):
        down, right = torch.randint(-2, 3, (2,), generator=generator).tolist()
        response = layer(torch.roll(x, (down, right), (2, 3)))[rows, channels].mean((1, 2))
        optimizer.zero_grad()
        (-response.sum()).backward()
        optimizer.step()
        if step % 4 == 3:
            with torch.no_grad():
                x.copy_(F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1).lerp(x, 0.7))
    return x.detach()


@torch.no_grad()
def most_exciting_images(layer: Layer, images: torch.Tensor, channel: int, count: int) -> torch.Tensor:
    """The indices of the `count` images (N, C, H, W) with the greatest response of a channel at any place."""
    responses = torch.cat([layer(part)[:, channel].amax((1, 2)) for part in images.split(500)])
    return responses.topk(count).indices
