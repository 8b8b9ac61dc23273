"""Faults of the forward kernels of boxes of pixels, and of the epilogue they share; `test_box_detector` judges them."""

from tests.faults.mutation import Mutation

HOPPER = tuple(
    Mutation(f"hopper_{name}", "conv_relu_pool_hopper.py", kind, old, new, function)
    for function, name, kind, old, new in (
        (
            "conv_relu_pool_hopper_kernel",
            "last_tile_lost",
            "bounds",
            "tl.range(tl.program_id(0), num_tiles, ",
            "tl.range(tl.program_id(0), num_tiles - 1, ",
        ),
        ("_compute_tile", "filters_of_first_tile", "grid", "(tile % NUM_K) * BLOCK_K", "(tile % NUM_K) * 0"),
        (
            "_compute_tile",
            "rows_counted_as_columns",
            "grid",
            "(box // tiles_w % tiles_h)",
            "(box // tiles_h % tiles_w)",
        ),
        ("_compute_tile", "one_picture_a_box", "grid", "(tiles_w * tiles_h) * BLOCK_N", "(tiles_w * tiles_h)"),
        ("_convolve", "last_step_lost", "tap", "range(G.taps * BLOCKS_C)", "range(G.taps * BLOCKS_C - 1)"),
        ("_convolve", "row_dilation_of_columns", "tap", "* G.dilation_h - G.padding_h", "* G.dilation_w - G.padding_h"),
        ("_convolve", "column_padding_of_rows", "tap", "* G.dilation_w - G.padding_w", "* G.dilation_w - G.padding_h"),
        ("_convolve", "tap_rows_by_filter_height", "tap", "(tap // G.kernel_w)", "(tap // G.kernel_h)"),
        ("_convolve", "row_parity_of_column", "stride", "h & 1, w0", "w & 1, w0"),
        ("_convolve", "column_parity_lost", "stride", "(w & 1) * G.channels + c", "c"),
        ("_convolve", "weights_of_first_step", "tap", "[k0, step * BLOCK_C]", "[k0, 0]"),
        ("_view_of_x", "pairs_a_row_apart", "stride", "(n, 2 * h, h, 2 * w, 1)", "(n, h, h, 2 * w, 1)"),
        ("_packed", "channels_not_filled_up", "bounds", "missing = -packed.shape[-1] % step", "missing = 0"),
        ("_prepare", "boxes_floor", "grid", "triton.cdiv(conv_w, tile.block_w)", "max(conv_w // tile.block_w, 1)"),
    )
)
FEW_CHANNELS = tuple(
    Mutation(f"few_channels_{name}", "conv_relu_pool_few_channels.py", kind, old, new, function)
    for function, name, kind, old, new in (
        (
            "conv_relu_pool_few_channels_kernel",
            "last_box_lost",
            "bounds",
            "range(tl.program_id(0), num_boxes, ",
            "range(tl.program_id(0), num_boxes - 1, ",
        ),
        (
            "conv_relu_pool_few_channels_kernel",
            "row_stride_of_columns",
            "stride",
            "* G.stride_h - G.padding_h",
            "* G.stride_w - G.padding_h",
        ),
        (
            "conv_relu_pool_few_channels_kernel",
            "column_padding_of_rows",
            "padding",
            "* G.stride_w - G.padding_w",
            "* G.stride_w - G.padding_h",
        ),
        (
            "conv_relu_pool_few_channels_kernel",
            "filters_of_first_tile",
            "grid",
            "tl.program_id(1) * BLOCK_K",
            "tl.program_id(1) * 0",
        ),
        ("_weights", "tail_of_taps_unmasked", "mask", "f < G.taps * G.channels", "f <= G.taps * G.channels"),
        ("_weights", "channels_slowest", "tap", "(f % G.channels) * stride_wc", "(f // G.taps) * stride_wc"),
        (
            "_taps",
            "picture_width_as_height",
            "bounds",
            "(h + tap_h).to(tl.uint32) < in_h",
            "(h + tap_h).to(tl.uint32) < in_w",
        ),
        (
            "_taps",
            "column_dilation_of_rows",
            "tap",
            "TAP % G.kernel_w * G.dilation_w",
            "TAP % G.kernel_w * G.dilation_h",
        ),
        ("_taps", "odd_before_even", "tap", "tl.join(even, odd)", "tl.join(odd, even)"),
        ("_taps", "channel_of_first", "tap", "(wide + FIRST % G.channels) * stride_xc", "wide * stride_xc"),
        ("_prepare", "boxes_floor", "grid", "triton.cdiv(conv_h, tile.block_h)", "max(conv_h // tile.block_h, 1)"),
    )
)
BOX = tuple(
    Mutation(f"box_{name}", "box_functions.py", kind, old, new, function)
    for function, name, kind, old, new in (
        ("finish_box", "one_filter_too_many", "bounds", "offs_k < G.filters", "offs_k <= G.filters"),
        ("finish_box", "bias_subtracted", "bias", "acc += widen(", "acc -= widen("),
        ("finish_box", "compared_unrounded", "rounding", "value = as_stored(acc, Y_DTYPE, ACC)", "value = acc"),
        ("finish_box", "one_picture_too_many", "bounds", "mask_p = (n < batch)", "mask_p = (n <= batch)"),
        ("finish_box", "output_bounds_swapped", "bounds", "(oh < out_h) & (ow < out_w)", "(oh < out_w) & (ow < out_h)"),
        ("finish_box", "window_row_bound_of_columns", "partial window", "(ph < conv_h)", "(ph < conv_w)"),
        ("finish_box", "bits_transposed", "code", "ph * stride_eh + pw * stride_ew", "pw * stride_eh + ph * stride_ew"),
        ("finish_box", "element_always_first", "code", "winner, part, element,", "winner, part, 0,"),
        ("_window_element", "columns_swapped", "tie", "if ELEMENT % 2 == 1:", "if ELEMENT % 2 == 0:"),
        ("_window_element", "rows_swapped", "tie", "if ELEMENT // 2 == 0:", "if ELEMENT // 2 == 1:"),
    )
)  # fmt: skip
