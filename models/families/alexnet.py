"""AlexNet in torchvision's form, one column without local response normalisation: A. Krizhevsky, "One weird trick for
parallelizing convolutional neural networks" (2014), section 5, footnote 1."""

import torch
from einops import rearrange
from torch import nn

from tidepool.kernels import MaxPool
from tidepool.models.layers import AdaptiveAvgPool
from tidepool.models.registry import ModelInputs, at_least_one, check_smallest, fraction, register
from tidepool.models.torchvision_names import NumberedStack, Stage

SMALLEST = 63  # three pools by 2 of windows of 3 leave a pixel of 15, which is what the first convolution makes of 63


class AlexNet(nn.Module):
    """Five convolutions, three overlapping max-pools, then 6x6 pixels into two hidden layers: (N, C, H, W) -> (N,
    num_classes). Parameter names, shapes and starting values are torchvision's."""

    def __init__(self, inputs: ModelInputs, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        pool = MaxPool(3, stride=2)
        stages = [
            Stage(width, kernel=11, stride=4, padding=2, pool=pool),
            Stage(3 * width, kernel=5, padding=2, pool=pool),
            Stage(6 * width),
            Stage(4 * width),
            Stage(4 * width, pool=pool),
        ]
        self.features = NumberedStack(inputs.in_channels, stages, norm=False, backend=inputs.backend)
        self.avgpool = AdaptiveAvgPool((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(4 * width * 36, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, inputs.num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(rearrange(self.avgpool(self.features(x)), "n c h w -> n (c h w)"))


@register("alexnet", usual_input=(3, 224, 224))
def alexnet(inputs: ModelInputs, *, width: int = 64, hidden: int = 4096, dropout: float = 0.5) -> AlexNet:
    """`width`: channels of the first convolution; the others have 3, 6, 4 and 4 times as many. `hidden`: units of each
    hidden layer. `dropout`: before each of them."""
    if inputs.image_size is not None:
        check_smallest("alexnet", inputs.image_size, SMALLEST)
    return AlexNet(inputs, at_least_one("width", width), at_least_one("hidden", hidden), fraction("dropout", dropout))
