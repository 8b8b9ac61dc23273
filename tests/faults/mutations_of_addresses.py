"""Faults in how addresses are worked out: 64-bit offsets, layouts of saved tensors, weights that no tap meets."""

from tests.faults.mutation import Mutation

WIDE = tuple(
    Mutation(f"address_{name}", file, "offset", old, new, function)
    for name, file, function, old, new in (
        (
            "forward_channels_in_32_bits",
            "conv_relu_pool_forward.py",
            "_convolve",
            "tl.zeros([], dtype=n.dtype)",
            "tl.zeros([], dtype=tl.int32)",
        ),
        (
            "forward_weight_not_measured",
            "conv_relu_pool_forward.py",
            "_prepare",
            "offset_type(x, weight, y, saved, residual)",
            "offset_type(x, y, saved, residual)",
        ),
        (
            "few_channels_rows_in_32_bits",
            "conv_relu_pool_few_channels.py",
            "conv_relu_pool_few_channels_kernel",
            "h.to(OFFSET) * stride_xh",
            "h * stride_xh",
        ),
        (
            "few_channels_taps_in_32_bits",
            "conv_relu_pool_few_channels.py",
            "_taps",
            "tl.zeros([], dtype=from_p.dtype)",
            "tl.zeros([], dtype=tl.int32)",
        ),
        (
            "box_rows_in_32_bits",
            "box_functions.py",
            "finish_box",
            "oh = (h0 // G.window_h + offs_p // BOX_W % BOX_H).to(OFFSET)",
            "oh = h0 // G.window_h + offs_p // BOX_W % BOX_H",
        ),
        (
            "wgrad_taps_in_32_bits",
            "conv_relu_pool_wgrad.py",
            "conv_relu_pool_wgrad_kernel",
            "column = (tile_n * BLOCK_N + tl.arange(0, BLOCK_N)).to(OFFSET)",
            "column = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)",
        ),
        (
            "never_64_bits",
            "launch.py",
            "offset_type",
            "return tl.int64 if max([pixels, *spans]) >= 2**31 - 2**22 else tl.int32",
            "return tl.int32",
        ),
    )
)
SAVED = tuple(
    Mutation(f"saved_{name}", file, "layout", old, new, function)
    for name, file, function, old, new in (
        ("dgrad_codes_layout_forgotten", "operator_implementations.py", "input_gradient", "strides(code), ", ""),
        ("dgrad_weights_layout_forgotten", "operator_implementations.py", "input_gradient", "weight.stride(), ", ""),
        (
            "wgrad_codes_layout_forgotten",
            "operator_implementations.py",
            "weight_gradient",
            "grad.stride(), strides(code)",
            "grad.stride()",
        ),
        ("read_by_the_codes_strides", "memory_format.py", "in_strides_of", "saved.stride() == code.stride()", "True"),
        (
            "coefficients_taken_as_dense",
            "norm_implementations.py",
            "backward",
            "coefficients.contiguous()",
            "coefficients",
        ),
    )
)
UNMET = tuple(
    Mutation(f"unmet_{name}", file, "mask", old, new, function)
    for name, file, function, old, new in (
        (
            "weight_multiplied_by_zero",
            "conv_relu_pool_dgrad.py",
            "conv_relu_pool_dgrad_kernel",
            "(mask_k & exists)[:, None] & mask_c[None, :]",
            "mask_k[:, None] & mask_c[None, :]",
        ),
        (
            "windowed_weight_multiplied_by_zero",
            "conv_relu_pool_windowed_dgrad.py",
            "conv_relu_pool_windowed_dgrad_kernel",
            "mask_c[None, :] & exists",
            "mask_c[None, :]",
        ),
    )
)
