"""A linear probe: how well classes can be read off features by ridge regression on one-hot labels."""

import torch
import torch.nn.functional as F

PENALTY = 1e-2


def probe_accuracy(
    train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, wanted: torch.Tensor, *, penalty: float = PENALTY
) -> float:
    """The fraction of test features (M, D) whose class is read right by W = (XᵀX + n·penalty·I)⁻¹ XᵀY, from training
    features (N, D) standardised by their own mean and deviation (Alain & Bengio 2016 probe with a logistic loss)."""
    mean, std = train.double().mean(0), train.double().std(0).clamp(min=1e-6)
    x, z = ((features.double() - mean) / std for features in (train, test))
    x, z = (F.pad(features, (0, 1), value=1.0) for features in (x, z))
    gram = x.T @ x + len(x) * penalty * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, x.T @ F.one_hot(labels).double())
    return float(((z @ weight).argmax(1) == wanted).double().mean())
