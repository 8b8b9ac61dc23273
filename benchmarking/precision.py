"""The numeric type of a comparison: the same switches on both sides, read back for the record."""

from typing import Any

import torch


def set_precision(dtype: str) -> None:
    """TF32 for convolutions and products under "tf32", IEEE float32 otherwise; cuDNN chooses algorithms by trial."""
    precision = "tf32" if dtype == "tf32" else "ieee"
    # Both spellings, the older first: the newer alone would make the older raise when others read it.
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.benchmark = True


def precision_record() -> dict[str, Any]:
    """The switches as PyTorch has them."""
    return {
        "conv_fp32_precision": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        "matmul_fp32_precision": torch.backends.cuda.matmul.fp32_precision,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }
