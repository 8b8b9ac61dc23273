"""A network for raw waveforms: one-dimensional convolutions, the first one long enough to act as a filter bank.

W. Dai, C. Dai, S. Qu, J. Li, S. Das, "Very Deep Convolutional Neural Networks for Raw Waveforms" (2017), table 1, M5.
"""

import torch
from torch import nn

from tidepool.kernels import MaxPool
from tidepool.models.fused import global_average_pool
from tidepool.models.layers import ConvNormAct, fully_connected
from tidepool.models.registry import ModelInputs, at_least_one, check_smallest, register

FIRST_KERNEL, FIRST_STRIDE = 80, 4  # at 8 kHz the first filters span 10 ms
MULTIPLES = (1, 1, 2, 4)
# Four pools by 4 leave one sample of 256, which is what the first convolution makes of so many.
SMALLEST = 255 * FIRST_STRIDE + FIRST_KERNEL - 2 * (FIRST_KERNEL // 2)


class Conv1dAudio(nn.Module):
    """Four stages of convolution, norm, ReLU and a pool by 4, then the mean over time: (N, C, samples) -> (N, classes).

    Convolutions are padded by half their length, so that only strides and pools shorten the signal.
    """

    def __init__(self, inputs: ModelInputs, width: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        before = inputs.in_channels
        for stage, multiple in enumerate(MULTIPLES):
            kernel, stride = (FIRST_KERNEL, FIRST_STRIDE) if stage == 0 else (3, 1)
            stages.append(
                ConvNormAct(
                    before,
                    width * multiple,
                    kernel,
                    rank=1,
                    stride=stride,
                    padding=kernel // 2,
                    pool=MaxPool(4),
                    backend=inputs.backend,
                )
            )
            before = width * multiple
        self.features = nn.Sequential(*stages)
        self.backend = inputs.backend
        self.head = fully_connected(before, inputs.num_classes, rectified=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(global_average_pool(self.features(x), keepdim=False, backend=self.backend))


@register("conv1d_audio", "waveform")
def conv1d_audio(inputs: ModelInputs, *, width: int = 64) -> Conv1dAudio:
    """`width`: channels of the first two stages, doubled in each of the other two; the paper's M5 has 128, twice the
    default."""
    if inputs.image_size is not None:
        check_smallest("conv1d_audio", inputs.image_size, SMALLEST)
    return Conv1dAudio(inputs, at_least_one("width", width))
