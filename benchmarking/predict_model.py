"""What a network's training step costs and how fast it could be: its layers, one after another.

Counted are the calls of fused ops and the linear layers, forward and backward, all in one dtype, as
`coverage.costs` counts them; not counted are the loss, the optimiser, and what lies between layers (sums,
dropout, activations of linear layers). Both sides have the same linear layers.
"""

import torch

from tidepool.benchmarking.cases import ModelCase
from tidepool.benchmarking.precision import set_precision
from tidepool.benchmarking.predict import Prediction
from tidepool.kernels.auto.roofline import Device
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.kernels.runtime.launch import operand_kind
from tidepool.models.coverage.costs import call_cost, linear_cost
from tidepool.models.coverage.cover import layer_calls


def predict_model(case: ModelCase, dtype: str, device: Device) -> Prediction:
    """Costs and bounds of one training step of `case` in `dtype`, on the card. Workspaces and what is saved between
    forward and backward are not worked out for networks (None)."""
    set_precision(dtype)
    kind = BY_NAME[dtype]
    with torch.device("meta"):
        model = case.network("cudnn")
    rate = device.matrix_tflops["tf32" if dtype == "tf32" else operand_kind(kind, torch.device("cuda"))] * 1e12
    flops = 0
    moved, seconds = {"fused": 0, "eager": 0}, {"fused": 0.0, "eager": 0.0}
    for _, call in layer_calls(model, (case.batch, case.in_channels, *case.image_size), kind):
        for side in moved:
            if call.linear is not None:
                layer_flops, layer_bytes = linear_cost(call.x_size, call.linear.out_features, call.differentiated, kind)
            else:
                layer_flops, layer_bytes = call_cost(call, fused=side == "fused")
            moved[side] += layer_bytes
            seconds[side] += max(layer_flops / rate, layer_bytes / device.copy_bytes_per_s)
        flops += layer_flops
    return Prediction(
        case=case.name,
        family=case.family,
        device=device.name,
        device_source=device.source,
        matrix_tflops=rate / 1e12,
        copy_bytes_per_s=device.copy_bytes_per_s,
        flops=flops,
        fused_bytes=moved["fused"],
        eager_bytes=moved["eager"],
        bytes_ratio=moved["fused"] / moved["eager"],
        workspace_bytes=None,
        fused_saved_bytes=None,
        eager_saved_bytes=None,
        fused_roofline_ms=seconds["fused"] * 1e3,
        eager_roofline_ms=seconds["eager"] * 1e3,
        bound_ratio=seconds["eager"] / seconds["fused"],
    )
