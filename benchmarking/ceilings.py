"""The limits that times are held against, measured on the card in the process that measures them.

Copy bandwidth counts bytes read and written of a device-to-device copy far larger than the L2 cache; the matrix rate
is that of a square product through cuBLAS on normal random numbers (zeros draw less power and run faster).
"""

from dataclasses import dataclass, replace

import torch

from tidepool.kernels.auto.roofline import DEVICES, Device, device_named, operands_of, reference_device
from tidepool.kernels.runtime.targets import target_of_device
from tidepool.kernels.runtime.timing import Timer, median

COPY_BYTES = 2**30
MATRIX_SIZE = 8192


@dataclass(frozen=True)
class Ceilings:
    """Copy bandwidth (bytes read and written a second) and matrix rates (10^12 operations a second)."""

    copy_bytes_per_s: float
    matmul_tflops: float
    bf16_matmul_tflops: float

    def as_device(self, device: torch.device, dtype: torch.dtype) -> Device:
        """The roofline's device with what was measured in place of the data sheet."""
        card = DEVICES[0]
        multiprocessors = card.multiprocessors
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
            card = device_named(name) or reference_device(target_of_device(device), name)
            multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
        rates = {**card.matrix_tflops, "half": self.bf16_matmul_tflops, operands_of(dtype): self.matmul_tflops}
        return replace(
            card,
            matrix_tflops=rates,
            copy_bytes_per_s=self.copy_bytes_per_s,
            multiprocessors=multiprocessors,
            source="measured in the same process",
        )


def measure_ceilings(
    device: torch.device,
    dtype: torch.dtype,
    timer: Timer,
    *,
    copy_bytes: int = COPY_BYTES,
    matrix_size: int = MATRIX_SIZE,
) -> Ceilings:
    """Time a copy and two matrix products, one in bf16 and one in `dtype`, as PyTorch's switches stand."""
    source = torch.empty(copy_bytes, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    copy_ms = median(timer.measure(target.copy_, rotate=((source,),)))
    del source, target
    bf16 = _matmul_tflops(device, torch.bfloat16, timer, matrix_size)
    own = bf16 if dtype == torch.bfloat16 else _matmul_tflops(device, dtype, timer, matrix_size)
    return Ceilings(2 * copy_bytes / (copy_ms / 1e3), own, bf16)


def _matmul_tflops(device: torch.device, dtype: torch.dtype, timer: Timer, size: int) -> float:
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / (median(timer.measure(torch.mm, rotate=((a, b),))) / 1e3) / 1e12
