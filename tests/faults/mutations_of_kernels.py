"""Faults of the kernels themselves: dense forward, dgrad, wgrad and its reduction, and the three depthwise ones."""

from tests.faults.mutation import planted

FORWARD = planted(
    "forward",
    "conv/forward.py",
    {
        "_prepare": (
            (
                "filter_programs_floor",
                "grid",
                "triton.cdiv(geometry.filters, tile.block_k)",
                "geometry.filters // tile.block_k",
            ),
            (
                "pixel_programs_floor",
                "grid",
                "triton.cdiv(shapes.num_outputs, tile.block_p)",
                "shapes.num_outputs // tile.block_p",
            ),
        ),
        "pointers": (("strided_bias_read_densely", "strides", "bias.contiguous()", "bias"),),
        "conv_act_pool_forward_kernel": (
            ("one_output_too_many", "bounds", "offs_p < num_outputs", "offs_p <= num_outputs"),
            ("one_column_too_many", "bounds", "column_p < num_outputs", "column_p <= num_outputs"),
            ("one_filter_too_many", "bounds", "offs_k < G.filters", "offs_k <= G.filters"),
            (
                "window_checked_against_input",
                "partial window",
                "inside(pd, ph, pw, conv_d, conv_h, conv_w, G)",
                "inside(pd, ph, pw, in_d, in_h, in_w, G)",
            ),
            (
                "window_unchecked_when_joint",
                "partial window",
                "inside(ed, eh, ew, conv_d, conv_h, conv_w, G)",
                "ew >= 0",
            ),
            ("input_of_wrong_group", "group", "group * G.channels", "group * G.filters"),
            ("weight_of_wrong_group", "group", "G.filters", "G.channels", "weight_ptr += _"),
            ("bias_of_first_group", "group", "bias_ptr + group * G.filters", "bias_ptr"),
            ("bias_missing", "bias", "bias[:, None]", "0 * bias[:, None]"),
            ("bias_twice", "bias", "bias[:, None]", "2 * bias[:, None]"),
            ("compared_unrounded", "rounding", "as_stored(acc, Y_DTYPE, ACC)", "acc"),
        ),
        "_convolve": (
            ("last_step_lost", "tap", "range(STEPS)", "range(STEPS - 1)"),
            ("reduction_steps_floor", "tap", "G.taps * G.channels + BLOCK_C - 1", "G.taps * G.channels"),
            ("channel_blocks_floor", "tap", "G.channels + BLOCK_C - 1", "G.channels"),
            ("tail_of_taps_unmasked", "mask", "flat < G.taps * G.channels", "flat >= 0"),
            ("one_channel_too_many", "mask", "offs_c < G.channels", "offs_c <= G.channels"),
            ("row_stride_of_columns", "stride", "ph * G.stride_h", "ph * G.stride_w"),
            ("column_padding_of_rows", "padding", "G.padding_w", "G.padding_h", "base_w = _"),
            (
                "filter_strides_swapped",
                "stride",
                "offset_of(rd, rh, rw, stride_wd, stride_wh, stride_ww, G)",
                "offset_of(rd, rh, rw, stride_wd, stride_ww, stride_wh, G)",
            ),
            (
                "image_bounds_swapped",
                "bounds",
                "inside(d, h, w, in_d, in_h, in_w, G)",
                "inside(d, h, w, in_d, in_w, in_h, G)",
            ),
            (
                "tap_by_tap_bounds_dropped",
                "mask",
                "inside(base_d + tap_d, base_h + tap_h, base_w + tap_w, in_d, in_h, in_w, G)",
                "base_w + tap_w >= 0",
            ),
        ),
        "_dilated": (("row_dilation_of_columns", "dilation", "rh * G.dilation_h", "rh * G.dilation_w"),),
    },
)
SAVED_CODES = planted(
    "forward",
    "layer/saved.py",
    {
        "_code_dtype": (
            ("huge_windows_coded_in_16_bits", "code", "torch.int32", "torch.int16", "return _"),
            (
                "large_windows_coded_in_a_byte",
                "code",
                "geometry.codes <= MAX_BYTE_CODES",
                "geometry.codes <= MAX_BYTE_CODES + 2",
            ),
        ),
    },
)
CALL = planted(
    "call",
    "operators/call.py",
    {
        "_layer_call": (
            (
                "uncovered_bits_unwritten",
                "bits",
                "not windows_cover(geometry, shapes)",
                "windows_cover(geometry, shapes)",
            ),
        ),
    },
)
DGRAD = planted(
    "dgrad",
    "conv/dgrad.py",
    {
        "_prepare": (
            (
                "channel_programs_floor",
                "grid",
                "triton.cdiv(geometry.channels, tile.block_c)",
                "geometry.channels // tile.block_c",
            ),
            (
                "pixel_programs_floor",
                "grid",
                "triton.cdiv(shapes.phase_pixels(geometry), tile.block_p)",
                "shapes.phase_pixels(geometry) // tile.block_p",
            ),
        ),
        "conv_act_pool_dgrad_kernel": (
            ("phase_strides_swapped", "phase", "quotient(phase, G.stride_w)", "quotient(phase, G.stride_h)"),
            ("phase_not_added", "phase", "w * G.stride_w + phase_w", "w * G.stride_w"),
            ("one_image_too_many", "bounds", "n < batch", "n <= batch"),
            ("one_channel_too_many", "bounds", "G.channels", "G.channels + 1", "mask_c = _"),
            (
                "taps_past_the_filter",
                "mask",
                "(flat < TAPS * G.filters) & (rd < G.kernel_d) & (rh < G.kernel_h) & (rw < G.kernel_w)",
                "(flat < TAPS * G.filters) & (rd < G.kernel_d) & (rh < G.kernel_h)",
            ),
            (
                "taps_past_the_filter_tap_by_tap",
                "mask",
                "exists = (rd < G.kernel_d) & (rh < G.kernel_h) & (rw < G.kernel_w)",
                "exists = (rd < G.kernel_d) & (rw < G.kernel_w)",
            ),
            ("dilation_lost", "dilation", "(mh * (G.tap_step_h * G.dilation_h // G.stride_h))[None, :]", "mh[None, :]"),
            ("padding_sign", "padding", "w + G.padding_w", "w - G.padding_w"),
            ("last_step_lost", "tap", "range(STEPS)", "range(STEPS - 1)"),
            ("gradient_of_wrong_group", "group", "G.filters", "G.channels", "grad_ptr += _"),
            ("bits_of_wrong_group", "bits", "group * G.code_channels", "group * G.filters"),
            ("written_to_first_group", "group", "group * G.channels + offs_c", "offs_c"),
            ("gradient_unrounded", "rounding", "as_operand(grad, DTYPE, ACC)", "grad"),
            ("phase_pixels_floor", "grid", "quotient_up(in_h, G.stride_h)", "quotient(in_h, G.stride_h)"),
        ),
    },
)
WGRAD = planted(
    "wgrad",
    "conv/wgrad.py",
    {
        "conv_act_pool_wgrad_kernel": (
            (
                "split_tail_counted_twice",
                "split tail",
                "(offs_p < num_pixels) & (offs_p < start + pixels_per_split)",
                "offs_p < num_pixels",
            ),
            (
                "pixels_past_the_end",
                "bounds",
                "(offs_p < num_pixels) & (offs_p < start + pixels_per_split)",
                "offs_p < start + pixels_per_split",
            ),
            ("pixel_steps_floor", "split tail", "quotient_up(_, BLOCK_P)", "quotient(_, BLOCK_P)"),
            ("workspace_row_without_group", "workspace", "split * G.groups + group", "split * G.groups"),
            ("workspace_row_without_bias", "workspace", "ROW", "COLUMNS", "at = _"),
            ("row_dilation_of_columns", "dilation", "rh * G.dilation_h", "rh * G.dilation_w"),
            ("column_padding_missing", "padding", "rw * G.dilation_w - G.padding_w", "rw * G.dilation_w"),
            ("column_stride_of_rows", "stride", "pw * G.stride_w", "pw * G.stride_h"),
            (
                "image_bounds_swapped",
                "bounds",
                "inside(d, h, w, in_d, in_h, in_w, G)",
                "inside(d, h, w, in_d, in_w, in_h, G)",
            ),
            ("input_of_wrong_group", "group", "group * G.channels", "group * G.filters"),
            ("bits_of_wrong_group", "bits", "group * G.code_channels", "group"),
            ("bias_of_last_block", "bias", "bias_acc += _", "bias_acc = _"),
            ("gradient_unrounded", "rounding", "as_operand(grad, DTYPE, ACC)", "grad"),
        ),
        "_prepare": (
            (
                "pixels_per_split_floor",
                "split tail",
                "triton.cdiv(shapes.conv_pixels, tile.splits)",
                "shapes.conv_pixels // tile.splits",
            ),
            ("column_programs_floor", "grid", "triton.cdiv(columns, tile.block_n)", "columns // tile.block_n"),
            (
                "filter_programs_floor",
                "grid",
                "triton.cdiv(geometry.filters, tile.block_k)",
                "geometry.filters // tile.block_k",
            ),
        ),
    },
)
REDUCE = planted(
    "wgrad_reduce",
    "conv/wgrad.py",
    {
        "conv_act_pool_wgrad_reduce_kernel": (
            ("last_split_lost", "split tail", "range(splits)", "range(splits - 1)"),
            ("one_element_too_many", "bounds", "offs < num_elements", "offs <= num_elements"),
            ("bias_column_as_weight", "bias", "column < COLUMNS", "column <= COLUMNS"),
            ("first_column_as_bias", "bias", "column == COLUMNS", "column == 0"),
            ("channel_and_tap_swapped", "tap", "quotient(column, G.channels)", "remainder(column, G.taps)"),
            ("slices_overlap", "workspace", "split * num_elements", "split * (num_elements - 1)"),
        ),
    },
)
DEPTHWISE = planted(
    "depthwise",
    "conv/depthwise.py",
    {
        "conv_act_pool_depthwise_forward_kernel": (
            ("forward_one_filter_too_many", "bounds", "offs_k < G.rows", "offs_k <= G.rows"),
            ("forward_one_output_too_many", "bounds", "offs_p < num_outputs", "offs_p <= num_outputs"),
            ("forward_multiplier_ignored", "group", "quotient(safe_k, G.filters)", "remainder(safe_k, G.groups)"),
            ("forward_first_tap_lost", "tap", "range(G.taps)", "range(1, G.taps)"),
            ("forward_bias_subtracted", "bias", "acc += bias[:, None]", "acc -= bias[:, None]"),
            ("forward_column_padding_of_rows", "padding", "G.padding_w", "G.padding_h", "w = _"),
            ("forward_row_dilation_of_columns", "dilation", "rh * G.dilation_h", "rh * G.dilation_w"),
            ("forward_compared_unrounded", "rounding", "widen(round_to(acc, Y_DTYPE), ACC)", "acc"),
            ("forward_window_unchecked", "partial window", "inside(pd, ph, pw, conv_d, conv_h, conv_w, G)", "pw >= 0"),
        ),
        "conv_act_pool_depthwise_dgrad_kernel": (
            (
                "dgrad_first_filter_only",
                "group",
                "safe_c * G.filters + remainder(step, G.filters)",
                "safe_c * G.filters",
            ),
            ("dgrad_filters_lost", "tap", "TAPS * G.filters", "TAPS"),
            ("dgrad_row_phase_of_columns", "phase", "phase_h", "phase_w", "first_h = _"),
            ("dgrad_row_dilation_lost", "dilation", "first_h * G.dilation_h", "first_h"),
            (
                "dgrad_taps_past_the_filter",
                "mask",
                "(rd < G.kernel_d) & (rh < G.kernel_h) & (rw < G.kernel_w)",
                "(rd < G.kernel_d) & (rw < G.kernel_w)",
            ),
            ("dgrad_one_channel_too_many", "bounds", "offs_c < G.groups", "offs_c <= G.groups"),
            ("dgrad_gradient_unrounded", "rounding", "as_operand(grad, DTYPE, ACC)", "grad"),
        ),
        "conv_act_pool_depthwise_wgrad_kernel": (
            ("wgrad_last_block_only", "tap", "acc += _", "acc = _"),
            (
                "wgrad_split_tail_counted_twice",
                "split tail",
                "(offs_p < num_pixels) & (offs_p < start + pixels_per_split)",
                "offs_p < num_pixels",
            ),
            ("wgrad_workspace_row_of_groups", "workspace", "split * G.rows", "split * G.groups"),
            ("wgrad_multiplier_ignored", "group", "quotient(safe_k, G.filters)", "remainder(safe_k, G.groups)"),
            ("wgrad_gradient_unrounded", "rounding", "as_operand(grad, DTYPE, ACC)", "grad"),
            ("wgrad_column_stride_of_rows", "stride", "pw * G.stride_w", "pw * G.stride_h"),
            (
                "wgrad_image_bounds_of_output",
                "bounds",
                "inside(d, h, w, in_d, in_h, in_w, G)",
                "inside(d, h, w, conv_d, conv_h, conv_w, G)",
            ),
        ),
    },
)
