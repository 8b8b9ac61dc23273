"""Batch normalisation over the samples of all processes of a run, as `nn.SyncBatchNorm` has it, on CPUs as well.

The statistics are reduced between the two passes: sums and counts over all processes give the mean, sums of squared
distances from it the variance, and then each process normalises its own samples. The same reductions run backwards, so
that gradients are those of one process that holds all samples: sum(dy) and sum(dy x) reach every process.
"""

from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F


class SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """(N, C, *spatial) -> the same, its N those of every process together; in eval mode an ordinary batch norm."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C, ...), got {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise by batch statistics in training and where no running ones are kept."""
        self._check_input_dim(input)
        if not self.training and self.running_mean is not None:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        wide = input if input.dtype == torch.float64 else input.float()
        others = [axis for axis in range(input.dim()) if axis != 1]
        size = wide.new_full((1,), input.numel() / input.shape[1])
        sums = all_reduce(torch.cat([wide.sum(others), size]))
        count = float(sums[-1].detach())
        along = (1, -1) + (1,) * (input.dim() - 2)
        mean = sums[:-1] / count
        centred = wide - mean.view(along)
        variance = all_reduce(centred.square().sum(others)) / count
        self._follow(mean.detach(), variance.detach(), count)
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        normalised = centred * scale.view(along)
        if self.bias is not None:
            normalised = normalised + self.bias.view(along)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: float) -> None:
        if not (self.training and self.track_running_stats) or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_((variance * (count / max(count - 1, 1))).to(self.running_var.dtype), momentum)


def synchronise_norms(model: nn.Module) -> None:
    """Put a `SynchronisedBatchNorm` with the same parameters and buffers in the place of each batch norm in `model`.

    Raises:
        RuntimeError: the processes of the run are not joined.
    """
    if not dist.is_initialized():
        raise RuntimeError("synchronise_norms: expected torch.distributed to be initialised")
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, _synchronised(child))


def _synchronised(norm: nn.modules.batchnorm._BatchNorm) -> SynchronisedBatchNorm:
    new = SynchronisedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new.train(norm.training)
    for name, value in chain(norm.named_parameters(recurse=False), norm.named_buffers(recurse=False)):
        setattr(new, name, value)
    return new
