"""Faults of the forward kernels of boxes of pixels, and of the epilogue they share; `test_box_detector` judges them."""

from tests.faults.mutation import planted

HOPPER = planted(
    "hopper",
    "conv/hopper.py",
    {
        "conv_act_pool_hopper_kernel": (("last_tile_lost", "bounds", "num_tiles", "num_tiles - 1", "tl.range(*_)"),),
        "_compute_tile": (
            ("filters_of_first_tile", "grid", "BLOCK_K", "0", "tile_k = _"),
            ("rows_counted_as_columns", "grid", "box // tiles_w % tiles_h", "box // tiles_h % tiles_w"),
            ("one_picture_a_box", "grid", "box // (tiles_w * tiles_h) * BLOCK_N", "box // (tiles_w * tiles_h)"),
        ),
        "_convolve": (
            ("last_step_lost", "tap", "G.taps * BLOCKS_C", "G.taps * BLOCKS_C - 1"),
            ("row_dilation_of_columns", "tap", "G.dilation_h", "G.dilation_w", "h = _"),
            ("column_padding_of_rows", "tap", "G.padding_w", "G.padding_h", "w = _"),
            ("tap_rows_by_filter_height", "tap", "quotient(tap, G.kernel_w)", "quotient(tap, G.kernel_h)"),
            ("row_parity_of_column", "stride", "h & 1", "w & 1"),
            ("column_parity_lost", "stride", "(w & 1) * G.channels + c", "c"),
            ("weights_of_first_step", "tap", "step * BLOCK_C", "0"),
        ),
        "_view_of_x": (("pairs_a_row_apart", "stride", "2 * h", "h"),),
        "_packed": (("channels_not_filled_up", "bounds", "-packed.shape[-1] % step", "0"),),
        "_prepare": (("boxes_floor", "grid", "triton.cdiv(conv_w, tile.block_w)", "max(conv_w // tile.block_w, 1)"),),
    },
)
FEW_CHANNELS = planted(
    "few_channels",
    "conv/few_channels.py",
    {
        "conv_act_pool_few_channels_kernel": (
            ("last_box_lost", "bounds", "num_boxes", "num_boxes - 1", "range(*_)"),
            ("row_stride_of_columns", "stride", "G.stride_h", "G.stride_w", "h = _"),
            ("column_padding_of_rows", "padding", "G.padding_w", "G.padding_h", "w = _"),
            ("filters_of_first_tile", "grid", "BLOCK_K", "0", "tile_k = _"),
        ),
        "_weights": (
            ("tail_of_taps_unmasked", "mask", "f < G.taps * G.channels", "f <= G.taps * G.channels"),
            ("channels_slowest", "tap", "remainder(f, G.channels)", "quotient(f, G.taps)"),
        ),
        "_taps": (
            ("picture_width_as_height", "bounds", "in_h", "in_w", "mask = _"),
            ("column_dilation_of_rows", "tap", "G.dilation_w", "G.dilation_h", "tap_w = _"),
            ("odd_before_even", "tap", "tl.join(even, odd)", "tl.join(odd, even)"),
            ("channel_of_first", "tap", "wide + FIRST % G.channels", "wide"),
        ),
        "_prepare": (("boxes_floor", "grid", "triton.cdiv(conv_h, tile.block_h)", "max(conv_h // tile.block_h, 1)"),),
    },
)
BOX = planted(
    "box",
    "device/boxes.py",
    {
        "finish_box": (
            ("one_filter_too_many", "bounds", "offs_k < G.filters", "offs_k <= G.filters"),
            ("bias_subtracted", "bias", "acc += _", "acc -= _"),
            ("compared_unrounded", "rounding", "as_stored(acc, Y_DTYPE, ACC)", "acc"),
            ("one_picture_too_many", "bounds", "n < batch", "n <= batch"),
            ("output_bounds_swapped", "bounds", "(oh < out_h) & (ow < out_w)", "(oh < out_w) & (ow < out_h)"),
            ("window_row_bound_of_columns", "partial window", "ph < conv_h", "ph < conv_w"),
            ("bits_transposed", "code", "ph * stride_eh + pw * stride_ew", "pw * stride_eh + ph * stride_ew"),
            ("slopes_of_first_filters", "slope", "offs_k", "offs_k - tile_k", "load_slope(*_)"),
            ("element_always_first", "code", "element", "0", "fold(*_)"),
        ),
        "_window_element": (
            ("columns_swapped", "tie", "ELEMENT % 2 == 1", "ELEMENT % 2 == 0"),
            ("rows_swapped", "tie", "ELEMENT // 2 == 0", "ELEMENT // 2 == 1"),
        ),
    },
)
