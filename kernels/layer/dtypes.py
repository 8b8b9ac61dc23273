"""The dtypes that the ops take, and the names that flags and tables have for them."""

import torch

TAKEN = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BY_NAME = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "tf32": torch.float32}
"""Where "tf32" is float32 that a GPU may round to TF32 in products, "fp32" is float32 that it may not."""
