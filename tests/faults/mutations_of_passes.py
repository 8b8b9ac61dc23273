"""Faults of the passes around another library's convolution: bias, activation, pool and codes behind it; unpooling."""

from tests.faults.mutation import Mutation

EPILOGUE_FILE = "conv_relu_pool_epilogue.py"

EPILOGUE = tuple(
    Mutation(f"{kernel}_{name}", EPILOGUE_FILE, kind, old, new, function)
    for kernel, function, mutations in (
        (
            "epilogue",
            "conv_relu_pool_epilogue_kernel",
            (
                (
                    "one_filter_too_many",
                    "bounds",
                    "channel_mask(offs_k, BLOCK_K, ROWS)",
                    "channel_mask(offs_k, BLOCK_K, ROWS + 1)",
                ),
                ("one_output_too_many", "bounds", "mask_p = offs_p < num_outputs", "mask_p = offs_p <= num_outputs"),
                (
                    "window_bounds_swapped",
                    "partial window",
                    "inside(pd, ph, pw, conv_d, conv_h, conv_w, G)",
                    "inside(pd, ph, pw, conv_d, conv_w, conv_h, G)",
                ),
                ("element_beyond_the_window", "bounds", "(element < G.window)", "(element <= G.window)"),
                ("bias_twice", "bias", "value + bias[:, None]", "value + 2 * bias[:, None]"),
                ("bias_of_first_group", "group", "bias_ptr, filters, mask_k", "bias_ptr, offs_k, mask_k"),
                (
                    "compared_unrounded",
                    "rounding",
                    "value = widen(round_to(value + bias[:, None], DTYPE), ACC)",
                    "value = value + bias[:, None]",
                ),
                (
                    "rows_and_columns_swapped",
                    "stride",
                    "offset_of(pd, ph, pw, stride_vd, stride_vh, stride_vw, G)",
                    "offset_of(pd, ph, pw, stride_vd, stride_vw, stride_vh, G)",
                ),
                ("bits_of_first_group", "bits", "offs_k, group, stride_ek", "offs_k, 0, stride_ek"),
            ),
        ),
        (
            "unpool",
            "conv_relu_pool_unpool_kernel",
            (
                (
                    "one_filter_too_many",
                    "bounds",
                    "channel_mask(offs_k, BLOCK_K, ROWS)",
                    "channel_mask(offs_k, BLOCK_K, ROWS + 1)",
                ),
                ("one_pixel_too_many", "bounds", "mask_p = offs_p < num_pixels", "mask_p = offs_p <= num_pixels"),
                ("gradient_of_wrong_group", "group", "group * ROWS * stride_gk", "group * stride_gk"),
                (
                    "bits_of_wrong_group",
                    "bits",
                    "group * G.code_channels * stride_ek",
                    "group * ROWS * stride_ek",
                ),
                ("written_to_first_group", "group", "((group * ROWS + offs_k) * stride_vk)", "(offs_k * stride_vk)"),
                (
                    "pixel_by_output_size",
                    "bounds",
                    "split_index(offs_p, conv_d, conv_h, conv_w, G)",
                    "split_index(offs_p, conv_d, out_h, conv_w, G)",
                ),
            ),
        ),
        (
            "epilogue",
            "_prepare_epilogue",
            (
                (
                    "pixel_programs_floor",
                    "grid",
                    "triton.cdiv(shapes.num_outputs, tile.block_p)",
                    "(shapes.num_outputs // tile.block_p)",
                ),
            ),
        ),
        (
            "unpool",
            "_prepare_unpool",
            (("filter_programs_floor", "grid", "triton.cdiv(rows, tile.block_k)", "(rows // tile.block_k)"),),
        ),
    )
    for name, kind, old, new in mutations
)
