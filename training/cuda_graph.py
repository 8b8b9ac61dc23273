"""The forward and backward pass of a step as two CUDA graphs, by PyTorch's own capture.

Never run: no GPU was at hand.
"""

import torch
from torch import nn

from tidepool.data import LabelledData
from tidepool.training.config import Config
from tidepool.training.precision import autocast, normalised


def capture(model: nn.Module, data: LabelledData, config: Config, samples: int) -> None:
    """Make calls of `model` in training mode, on batches of `samples`, replay captured graphs; in eval mode it runs as
    before. What the passes before capture left in buffers and random states is taken back."""
    device = data.train.inputs.device
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.cuda.get_rng_state(device)
    sample = normalised(data, config, data.train.inputs[:samples])
    model.train()
    with autocast(config, device):
        torch.cuda.make_graphed_callables(model, (sample,))
    model.load_state_dict(before)
    model.zero_grad(set_to_none=True)
    torch.cuda.set_rng_state(random_state, device)
