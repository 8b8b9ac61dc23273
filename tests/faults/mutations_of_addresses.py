"""Faults in how addresses are worked out: 64-bit offsets, layouts of saved tensors, weights that no tap meets."""

from tests.faults.mutation import planted

WIDE = (
    *planted(
        "address",
        "conv/forward.py",
        {
            "_convolve": (("forward_channels_in_32_bits", "offset", "n.dtype", "tl.int32", "wide = _"),),
            "_prepare": (
                (
                    "forward_weight_not_measured",
                    "offset",
                    "offset_type(x, weight, y, saved, residual)",
                    "offset_type(x, y, saved, residual)",
                ),
            ),
        },
    ),
    *planted(
        "address",
        "conv/few_channels.py",
        {
            "conv_act_pool_few_channels_kernel": (("few_channels_rows_in_32_bits", "offset", "h.to(OFFSET)", "h"),),
            "_taps": (("few_channels_taps_in_32_bits", "offset", "from_p.dtype", "tl.int32", "wide = _"),),
        },
    ),
    *planted(
        "address",
        "device/boxes.py",
        {
            "finish_box": (
                (
                    "box_rows_in_32_bits",
                    "offset",
                    "(quotient(h0, G.window_h) + remainder(quotient(offs_p, BOX_W), BOX_H)).to(OFFSET)",
                    "quotient(h0, G.window_h) + remainder(quotient(offs_p, BOX_W), BOX_H)",
                ),
            ),
        },
    ),
    *planted(
        "address",
        "conv/wgrad.py",
        {
            "conv_act_pool_wgrad_kernel": (
                (
                    "wgrad_taps_in_32_bits",
                    "offset",
                    "(tile_n * BLOCK_N + tl.arange(0, BLOCK_N)).to(OFFSET)",
                    "tile_n * BLOCK_N + tl.arange(0, BLOCK_N)",
                ),
            ),
        },
    ),
    *planted(
        "address",
        "runtime/launch.py",
        {
            "offset_type": (
                (
                    "never_64_bits",
                    "offset",
                    "tl.int64 if max([pixels, *spans]) >= 2**31 - 2**22 else tl.int32",
                    "tl.int32",
                ),
            ),
        },
    ),
)
SAVED = (
    *planted(
        "saved",
        "operators/conv_implementations.py",
        {
            "input_gradient": (
                ("dgrad_codes_layout_forgotten", "layout", "strides(code)", "*()"),
                ("dgrad_weights_layout_forgotten", "layout", "weight.stride()", "*()"),
            ),
            "weight_gradient": (("wgrad_codes_layout_forgotten", "layout", "strides(code)", "*()"),),
        },
    ),
    *planted(
        "saved",
        "layer/formats.py",
        {
            "in_strides_of": (("read_by_the_codes_strides", "layout", "saved.stride() == code.stride()", "True"),),
        },
    ),
    *planted(
        "saved",
        "operators/norm_implementations.py",
        {
            "backward": (("coefficients_taken_as_dense", "layout", "coefficients.contiguous()", "coefficients"),),
        },
    ),
)
UNMET = (
    *planted(
        "unmet",
        "conv/dgrad.py",
        {
            "conv_act_pool_dgrad_kernel": (
                ("weight_multiplied_by_zero", "mask", "(mask_k & exists)[:, None]", "mask_k[:, None]"),
            ),
        },
    ),
    *planted(
        "unmet",
        "conv/windowed_dgrad.py",
        {
            "conv_act_pool_windowed_dgrad_kernel": (
                ("windowed_weight_multiplied_by_zero", "mask", "mask_c[None, :] & exists", "mask_c[None, :]"),
            ),
        },
    ),
)
