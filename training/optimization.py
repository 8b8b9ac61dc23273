"""Optimizer and learning-rate schedule: PyTorch's own, chosen by the configuration."""

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from tidepool.training.config import Config

WARMUP_DIVISOR = 25  # the learning rate starts at lr / 25, OneCycleLR's own default


def make_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """SGD with Nesterov momentum or AdamW over `model`'s parameters; vectors (biases, normalisation) do not decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # On a GPU the fused kernels: they leave a step out on the device's own word (`loop.train_step`).
    fused = True if all(parameter.is_cuda for parameter in parameters) and parameters else None
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=fused)
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)


def make_schedule(optimizer: Optimizer, config: Config, total_steps: int) -> LRScheduler:
    """Learning rate as a function of the step, for `total_steps` steps; momentum stays as configured."""
    if config.schedule == "constant":
        rising = config.warmup * total_steps

        def factor(step: int) -> float:
            return 1.0 if step >= rising else 1 / WARMUP_DIVISOR + (1 - 1 / WARMUP_DIVISOR) * step / rising

        return LambdaLR(optimizer, factor)
    # OneCycleLR divides by zero when its rising part is exactly one step long; such a part is a start at the peak.
    warmup = 0.0 if abs(config.warmup * total_steps - 1) < 1e-6 else config.warmup
    return OneCycleLR(
        optimizer,
        max_lr=config.lr,
        total_steps=total_steps,
        pct_start=warmup,
        cycle_momentum=False,
        div_factor=WARMUP_DIVISOR,
    )
