"""Faults of the passes around another library's convolution: bias, activation, pool and codes behind it; unpooling."""

from tests.faults.mutation import planted

EPILOGUE = (
    *planted(
        "epilogue",
        "conv/epilogue.py",
        {
            "conv_act_pool_epilogue_kernel": (
                ("one_filter_too_many", "bounds", "ROWS", "ROWS + 1", "mask_k = _"),
                ("one_output_too_many", "bounds", "offs_p < num_outputs", "offs_p <= num_outputs"),
                (
                    "window_bounds_swapped",
                    "partial window",
                    "inside(pd, ph, pw, conv_d, conv_h, conv_w, G)",
                    "inside(pd, ph, pw, conv_d, conv_w, conv_h, G)",
                ),
                ("element_beyond_the_window", "bounds", "element < G.window", "element <= G.window"),
                ("bias_twice", "bias", "bias[:, None]", "2 * bias[:, None]"),
                ("bias_of_first_group", "group", "filters", "offs_k", "bias = _"),
                (
                    "compared_unrounded",
                    "rounding",
                    "widen(round_to(value + bias[:, None], DTYPE), ACC)",
                    "value + bias[:, None]",
                ),
                (
                    "rows_and_columns_swapped",
                    "stride",
                    "offset_of(pd, ph, pw, stride_vd, stride_vh, stride_vw, G)",
                    "offset_of(pd, ph, pw, stride_vd, stride_vw, stride_vh, G)",
                ),
                ("bits_of_first_group", "bits", "group", "0", "store_bits(*_)"),
            ),
            "_prepare_epilogue": (
                (
                    "pixel_programs_floor",
                    "grid",
                    "triton.cdiv(shapes.num_outputs, tile.block_p)",
                    "shapes.num_outputs // tile.block_p",
                ),
            ),
        },
    ),
    *planted(
        "unpool",
        "conv/epilogue.py",
        {
            "conv_act_pool_unpool_kernel": (
                ("one_filter_too_many", "bounds", "ROWS", "ROWS + 1", "mask_k = _"),
                ("one_pixel_too_many", "bounds", "offs_p < num_pixels", "offs_p <= num_pixels"),
                ("gradient_of_wrong_group", "group", "group * ROWS * stride_gk", "group * stride_gk"),
                ("bits_of_wrong_group", "bits", "group * G.code_channels", "group * ROWS"),
                ("written_to_first_group", "group", "group * ROWS + offs_k", "offs_k"),
                ("pixel_by_output_size", "bounds", "conv_h", "out_h", "split_index(*_)"),
            ),
            "_prepare_unpool": (
                ("filter_programs_floor", "grid", "triton.cdiv(rows, tile.block_k)", "rows // tile.block_k"),
            ),
        },
    ),
)
