"""Optimizer and learning-rate schedule: PyTorch's own, chosen by the configuration."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from tidepool.training.config import Config

WARMUP_DIVISOR = 25  # the learning rate starts at lr / 25, OneCycleLR's own default
DROPS, DROP = (0.5, 0.75), 0.1  # of schedule "step": He et al. (2015) divide by ten there on CIFAR-10


def make_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """SGD with Nesterov momentum, AdamW or Muon over `model`'s parameters; vectors (biases, normalisation) do not
    decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.optimizer == "muon":
        return MuonAndAdamW(parameters, config)
    groups = _groups(parameters, config.weight_decay)
    # On a GPU the fused kernels: they leave a step out on the device's own word (`step.train_step`).
    fused = True if all(parameter.is_cuda for parameter in parameters) and parameters else None
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=fused)
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)


def _groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class MuonAndAdamW(Optimizer):
    """torch.optim.Muon for the weights within a network, filters (K, C, ...) as matrices (K, C ...); AdamW for the last
    weight, which is the classifier's, and for vectors (K. Jordan, "Muon", 2024).

    Muon's steps are scaled to the root mean square of AdamW's, so that one learning rate serves both. A matrix is a
    view of its filters, and so is its gradient.
    """

    def __init__(self, parameters: list[nn.Parameter], config: Config) -> None:
        weights = [parameter for parameter in parameters if parameter.dim() >= 2][:-1]
        inner = {id(parameter) for parameter in weights}
        rest = [parameter for parameter in parameters if id(parameter) not in inner]
        self._own = parameters
        views = [_matrix_view(parameter) for parameter in weights]
        self.inner: dict[str, Optimizer] = {}
        if views:
            nesterov = config.momentum > 0
            self.inner["muon"] = torch.optim.Muon(
                views,
                lr=config.lr,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                nesterov=nesterov,
                adjust_lr_fn="match_rms_adamw",
            )
        if rest:
            groups = _groups(rest, config.weight_decay)
            self.inner["adamw"] = torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999))
        super().__init__([group for one in self.inner.values() for group in one.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """What a schedule sets in these groups is what the inner optimizers read."""
        self.param_groups = [group for one in self.inner.values() for group in one.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of both."""
        assert closure is None
        for optimizer in self.inner.values():
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, of the parameters and of the views."""
        super().zero_grad(set_to_none)
        for parameter in self._own:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Both optimizers' states, by name."""
        states = {name: optimizer.state_dict() for name, optimizer in self.inner.items()}
        return {
            "state": {name: state["state"] for name, state in states.items()},
            "param_groups": {name: state["param_groups"] for name, state in states.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take `state_dict`'s result back."""
        for name, optimizer in self.inner.items():
            optimizer.load_state_dict({key: state_dict[key][name] for key in ("state", "param_groups")})
        self._share_groups()


def _matrix_view(weight: nn.Parameter) -> nn.Parameter:
    """(K, C, ...) -> the same memory as (K, C ...), whose gradient follows the weight's. The columns stand as they lie
    in memory, which is another order in channels_last; Muon's step is the same for any."""

    def as_matrix(tensor: Tensor) -> Tensor:
        last = tensor.dim() > 2 and not tensor.is_contiguous()
        return (tensor.movedim(1, -1) if last else tensor).flatten(1)

    view = nn.Parameter(as_matrix(weight.detach()))
    assert view.data_ptr() == weight.data_ptr()

    def follow(parameter: Tensor) -> None:
        assert parameter.grad is not None
        view.grad = as_matrix(parameter.grad)

    weight.register_post_accumulate_grad_hook(follow)
    return view


def make_schedule(optimizer: Optimizer, config: Config, total_steps: int) -> LRScheduler:
    """Learning rate as a function of the step, for `total_steps` steps; momentum stays as configured."""
    if config.schedule != "onecycle":
        return LambdaLR(optimizer, lambda step: schedule_factor(config, total_steps, step))
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


def schedule_factor(config: Config, total_steps: int, step: int) -> float:
    """What the learning rate is multiplied by at a step from 0 on: it rises in a straight line from 1/25 in the
    warm-up, and then stays (constant), falls along a cosine to 0 past the last step (cosine), or drops to a tenth after
    half and again after three quarters of all steps (step)."""
    rising = config.warmup * total_steps
    if step < rising:
        return 1 / WARMUP_DIVISOR + (1 - 1 / WARMUP_DIVISOR) * step / rising
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / (total_steps - rising)))
    if config.schedule == "step":
        return DROP ** sum(step >= drop * total_steps for drop in DROPS)
    return 1.0
