"""Faults of the kernels themselves: dense forward, dgrad, wgrad and its reduction, and the three depthwise ones."""

from tests.faults.mutation import Mutation

FORWARD_FILE = "conv_relu_pool_forward.py"
DGRAD_FILE = "conv_relu_pool_dgrad.py"
WGRAD_FILE = "conv_relu_pool_wgrad.py"
DEPTHWISE_FILE = "conv_relu_pool_depthwise.py"

FORWARD = tuple(
    Mutation(f"forward_{name}", FORWARD_FILE, kind, old, new)
    for name, kind, old, new in (
        (
            "filter_programs_floor",
            "grid",
            "triton.cdiv(geometry.filters, tile.block_k)",
            "(geometry.filters // tile.block_k)",
        ),
        (
            "pixel_programs_floor",
            "grid",
            "triton.cdiv(shapes.num_outputs, tile.block_p)",
            "shapes.num_outputs // tile.block_p",
        ),
        (
            "strided_bias_read_densely",
            "strides",
            "x if bias is None else bias.contiguous()",
            "x if bias is None else bias",
        ),
        (
            "huge_windows_coded_in_16_bits",
            "code",
            "<= MAX_INT16_WINDOW else torch.int32",
            "<= MAX_INT16_WINDOW else torch.int16",
        ),
        (
            "large_windows_coded_in_a_byte",
            "code",
            "if geometry.window <= MAX_BYTE_WINDOW",
            "if geometry.window <= MAX_BYTE_WINDOW + 2",
        ),
        ("one_output_too_many", "bounds", "mask_p = offs_p < num_outputs", "mask_p = offs_p <= num_outputs"),
        ("one_column_too_many", "bounds", "exists = column_p < num_outputs", "exists = column_p <= num_outputs"),
        ("one_filter_too_many", "bounds", "mask_k = offs_k < G.filters", "mask_k = offs_k <= G.filters"),
        (
            "window_checked_against_input",
            "partial window",
            "exists = exists & inside(pd, ph, pw, conv_d, conv_h, conv_w, G)",
            "exists = exists & inside(pd, ph, pw, in_d, in_h, in_w, G)",
        ),
        (
            "window_unchecked_when_joint",
            "partial window",
            "here = here & inside(ed, eh, ew, conv_d, conv_h, conv_w, G)",
            "here = here & (ew >= 0)",
        ),
        (
            "input_of_wrong_group",
            "group",
            "x_ptr += group * G.channels * stride_xc",
            "x_ptr += group * G.filters * stride_xc",
        ),
        (
            "weight_of_wrong_group",
            "group",
            "weight_ptr += group * G.filters * stride_wk",
            "weight_ptr += group * G.channels * stride_wk",
        ),
        ("bias_of_first_group", "group", "bias_ptr + group * G.filters", "bias_ptr"),
        ("bias_missing", "bias", "acc += bias[:, None]", "acc += 0 * bias[:, None]"),
        ("bias_twice", "bias", "acc += bias[:, None]", "acc += 2 * bias[:, None]"),
        ("compared_unrounded", "rounding", "value = as_stored(acc, Y_DTYPE, ACC)", "value = acc"),
        ("last_step_lost", "tap", "for step in range(STEPS):", "for step in range(STEPS - 1):"),
        (
            "reduction_steps_floor",
            "tap",
            "(G.taps * G.channels + BLOCK_C - 1) // BLOCK_C if FLAT",
            "(G.taps * G.channels) // BLOCK_C if FLAT",
        ),
        ("channel_blocks_floor", "tap", "(G.channels + BLOCK_C - 1) // BLOCK_C", "G.channels // BLOCK_C"),
        ("tail_of_taps_unmasked", "mask", "mask_c = flat < G.taps * G.channels", "mask_c = flat >= 0"),
        ("one_channel_too_many", "mask", "mask_c = offs_c < G.channels", "mask_c = offs_c <= G.channels"),
        (
            "row_stride_of_columns",
            "stride",
            "base_h = ph * G.stride_h - G.padding_h",
            "base_h = ph * G.stride_w - G.padding_h",
        ),
        (
            "column_padding_of_rows",
            "padding",
            "base_w = pw * G.stride_w - G.padding_w",
            "base_w = pw * G.stride_w - G.padding_h",
        ),
        (
            "row_dilation_of_columns",
            "dilation",
            "rh * G.dilation_h, rw * G.dilation_w",
            "rh * G.dilation_w, rw * G.dilation_w",
        ),
        (
            "filter_strides_swapped",
            "stride",
            "offset_of(rd, rh, rw, stride_wd, stride_wh, stride_ww, G)",
            "offset_of(rd, rh, rw, stride_wd, stride_ww, stride_wh, G)",
        ),
        (
            "image_bounds_swapped",
            "bounds",
            "mask_x = exists[None, :] & inside(d, h, w, in_d, in_h, in_w, G)",
            "mask_x = exists[None, :] & inside(d, h, w, in_d, in_w, in_h, G)",
        ),
        (
            "tap_by_tap_bounds_dropped",
            "mask",
            "(exists & inside(base_d + tap_d, base_h + tap_h, base_w + tap_w, in_d, in_h, in_w, G))",
            "(exists & (base_w + tap_w >= 0))",
        ),
    )
)

CALL = (
    Mutation(
        "call_uncovered_bits_unwritten",
        "layer_call.py",
        "bits",
        "geometry.saves_bits and not windows_cover(geometry, shapes)",
        "geometry.saves_bits and windows_cover(geometry, shapes)",
    ),
)

DGRAD = tuple(
    Mutation(f"dgrad_{name}", DGRAD_FILE, kind, old, new)
    for name, kind, old, new in (
        (
            "channel_programs_floor",
            "grid",
            "triton.cdiv(geometry.channels, tile.block_c)",
            "(geometry.channels // tile.block_c)",
        ),
        (
            "pixel_programs_floor",
            "grid",
            "triton.cdiv(shapes.phase_pixels(geometry), tile.block_p)",
            "shapes.phase_pixels(geometry) // tile.block_p",
        ),
        (
            "phase_strides_swapped",
            "phase",
            "phase_h = (phase // G.stride_w) % G.stride_h",
            "phase_h = (phase // G.stride_h) % G.stride_h",
        ),
        ("phase_not_added", "phase", "w = w * G.stride_w + phase_w", "w = w * G.stride_w"),
        ("one_image_too_many", "bounds", "mask_p = (n < batch) & inside", "mask_p = (n <= batch) & inside"),
        (
            "one_channel_too_many",
            "bounds",
            "mask_c = channel_mask(offs_c, BLOCK_C, G.channels)",
            "mask_c = channel_mask(offs_c, BLOCK_C, G.channels + 1)",
        ),
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
        (
            "dilation_lost",
            "dilation",
            "(mh * (G.tap_step_h * G.dilation_h // G.stride_h))[None, :]",
            "mh[None, :]",
        ),
        (
            "padding_sign",
            "padding",
            "exact_quotient(w + G.padding_w - first_w * G.dilation_w, G.stride_w)",
            "exact_quotient(w - G.padding_w - first_w * G.dilation_w, G.stride_w)",
        ),
        ("last_step_lost", "tap", "for step in range(STEPS):", "for step in range(STEPS - 1):"),
        (
            "gradient_of_wrong_group",
            "group",
            "grad_ptr += group * G.filters * stride_gk",
            "grad_ptr += group * G.channels * stride_gk",
        ),
        (
            "bits_of_wrong_group",
            "bits",
            "code_ptr += group * G.code_channels * stride_ek",
            "code_ptr += group * G.filters * stride_ek",
        ),
        ("written_to_first_group", "group", "(group * G.channels + offs_c) * stride_xc", "offs_c * stride_xc"),
        ("gradient_unrounded", "rounding", "as_operand(grad, DTYPE, ACC)", "grad"),
        (
            "phase_pixels_floor",
            "grid",
            "tl.cdiv(in_d, G.stride_d), tl.cdiv(in_h, G.stride_h), tl.cdiv(in_w, G.stride_w), G",
            "tl.cdiv(in_d, G.stride_d), in_h // G.stride_h, tl.cdiv(in_w, G.stride_w), G",
        ),
    )
)

WGRAD = tuple(
    Mutation(f"wgrad_{name}", WGRAD_FILE, kind, old, new)
    for name, kind, old, new in (
        (
            "split_tail_counted_twice",
            "split tail",
            "mask_p = (offs_p < num_pixels) & (offs_p < start + pixels_per_split)",
            "mask_p = offs_p < num_pixels",
        ),
        (
            "pixels_past_the_end",
            "bounds",
            "mask_p = (offs_p < num_pixels) & (offs_p < start + pixels_per_split)",
            "mask_p = offs_p < start + pixels_per_split",
        ),
        (
            "pixels_per_split_floor",
            "split tail",
            "triton.cdiv(shapes.conv_pixels, tile.splits)",
            "shapes.conv_pixels // tile.splits",
        ),
        ("pixel_steps_floor", "split tail", "tl.cdiv(pixels_per_split, BLOCK_P)", "pixels_per_split // BLOCK_P"),
        (
            "workspace_row_without_group",
            "workspace",
            "(split * G.groups + group) * G.filters",
            "(split * G.groups) * G.filters",
        ),
        (
            "workspace_row_without_bias",
            "workspace",
            "at = row.to(tl.int64)[:, None] * ROW + column[None, :]",
            "at = row.to(tl.int64)[:, None] * COLUMNS + column[None, :]",
        ),
        ("column_programs_floor", "grid", "triton.cdiv(columns, tile.block_n)", "columns // tile.block_n"),
        (
            "filter_programs_floor",
            "grid",
            "triton.cdiv(geometry.filters, tile.block_k)",
            "(geometry.filters // tile.block_k)",
        ),
        (
            "row_dilation_of_columns",
            "dilation",
            "tap_h = rh * G.dilation_h - G.padding_h",
            "tap_h = rh * G.dilation_w - G.padding_h",
        ),
        ("column_padding_missing", "padding", "tap_w = rw * G.dilation_w - G.padding_w", "tap_w = rw * G.dilation_w"),
        ("column_stride_of_rows", "stride", "from_w = pw * G.stride_w", "from_w = pw * G.stride_h"),
        (
            "image_bounds_swapped",
            "bounds",
            "(mask_p[:, None] & mask_n[None, :]) & inside(d, h, w, in_d, in_h, in_w, G)",
            "(mask_p[:, None] & mask_n[None, :]) & inside(d, h, w, in_d, in_w, in_h, G)",
        ),
        (
            "input_of_wrong_group",
            "group",
            "x_ptr += group * G.channels * stride_xc",
            "x_ptr += group * G.filters * stride_xc",
        ),
        (
            "bits_of_wrong_group",
            "bits",
            "code_ptr += group * G.code_channels * stride_ek",
            "code_ptr += group * stride_ek",
        ),
        (
            "bias_of_last_block",
            "bias",
            "bias_acc += tl.sum(widen(grad, ACC), axis=1)",
            "bias_acc = tl.sum(widen(grad, ACC), axis=1)",
        ),
        ("gradient_unrounded", "rounding", "as_operand(grad, DTYPE, ACC)", "grad"),
    )
)

REDUCE = tuple(
    Mutation(f"wgrad_reduce_{name}", WGRAD_FILE, kind, old, new, "conv_relu_pool_wgrad_reduce_kernel")
    for name, kind, old, new in (
        ("last_split_lost", "split tail", "for split in range(splits):", "for split in range(splits - 1):"),
        ("one_element_too_many", "bounds", "mask = offs < num_elements", "mask = offs <= num_elements"),
        (
            "bias_column_as_weight",
            "bias",
            "is_weight = mask & (column < COLUMNS)",
            "is_weight = mask & (column <= COLUMNS)",
        ),
        ("first_column_as_bias", "bias", "is_bias = mask & (column == COLUMNS)", "is_bias = mask & (column == 0)"),
        ("channel_and_tap_swapped", "tap", "split_tap(column // G.channels, G)", "split_tap(column % G.taps, G)"),
        ("slices_overlap", "workspace", "split * num_elements + offs", "split * (num_elements - 1) + offs"),
    )
)

DEPTHWISE = tuple(
    Mutation(f"depthwise_{kernel}_{name}", DEPTHWISE_FILE, kind, old, new, f"conv_relu_pool_depthwise_{kernel}_kernel")
    for kernel, name, kind, old, new in (
        ("forward", "one_filter_too_many", "bounds", "mask_k = offs_k < G.rows", "mask_k = offs_k <= G.rows"),
        ("forward", "one_output_too_many", "bounds", "mask_p = offs_p < num_outputs", "mask_p = offs_p <= num_outputs"),
        (
            "forward",
            "multiplier_ignored",
            "group",
            "(safe_k // G.filters * stride_xc)",
            "(safe_k % G.groups * stride_xc)",
        ),
        ("forward", "first_tap_lost", "tap", "for tap in range(G.taps):", "for tap in range(1, G.taps):"),
        ("forward", "bias_subtracted", "bias", "acc += bias[:, None]", "acc -= bias[:, None]"),
        (
            "forward",
            "column_padding_of_rows",
            "padding",
            "(rw * G.dilation_w - G.padding_w)",
            "(rw * G.dilation_w - G.padding_h)",
        ),
        (
            "forward",
            "row_dilation_of_columns",
            "dilation",
            "(rh * G.dilation_h - G.padding_h)",
            "(rh * G.dilation_w - G.padding_h)",
        ),
        ("forward", "compared_unrounded", "rounding", "value = widen(round_to(acc, Y_DTYPE), ACC)", "value = acc"),
        (
            "forward",
            "window_unchecked",
            "partial window",
            "exists = exists & inside(pd, ph, pw, conv_d, conv_h, conv_w, G)",
            "exists = exists & (pw >= 0)",
        ),
        ("dgrad", "first_filter_only", "group", "safe_c * G.filters + step % G.filters", "safe_c * G.filters"),
        ("dgrad", "filters_lost", "tap", "for step in range(TAPS * G.filters):", "for step in range(TAPS):"),
        ("dgrad", "row_phase_of_columns", "phase", "first_tap(phase_h, ", "first_tap(phase_w, "),
        (
            "dgrad",
            "row_dilation_lost",
            "dilation",
            "exact_quotient(h + G.padding_h - first_h * G.dilation_h, G.stride_h)",
            "exact_quotient(h + G.padding_h - first_h, G.stride_h)",
        ),
        (
            "dgrad",
            "taps_past_the_filter",
            "mask",
            "(rd < G.kernel_d) & (rh < G.kernel_h) & (rw < G.kernel_w)",
            "(rd < G.kernel_d) & (rw < G.kernel_w)",
        ),
        ("dgrad", "one_channel_too_many", "bounds", "mask_c = offs_c < G.groups", "mask_c = offs_c <= G.groups"),
        ("dgrad", "gradient_unrounded", "rounding", "widen(as_operand(grad, DTYPE, ACC), ACC)", "widen(grad, ACC)"),
        ("wgrad", "last_block_only", "tap", "acc += tl.where((column == tap)", "acc = tl.where((column == tap)"),
        (
            "wgrad",
            "split_tail_counted_twice",
            "split tail",
            "mask_p = (offs_p < num_pixels) & (offs_p < start + pixels_per_split)",
            "mask_p = offs_p < num_pixels",
        ),
        ("wgrad", "workspace_row_of_groups", "workspace", "(split * G.rows + offs_k)", "(split * G.groups + offs_k)"),
        (
            "wgrad",
            "multiplier_ignored",
            "group",
            "(safe_k // G.filters * stride_xc)",
            "(safe_k % G.groups * stride_xc)",
        ),
        (
            "wgrad",
            "gradient_unrounded",
            "rounding",
            "grad = widen(as_operand(grad, DTYPE, ACC), ACC)",
            "grad = widen(grad, ACC)",
        ),
        ("wgrad", "column_stride_of_rows", "stride", "w = pw * G.stride_w +", "w = pw * G.stride_h +"),
        (
            "wgrad",
            "image_bounds_of_output",
            "bounds",
            "inside(d, h, w, in_d, in_h, in_w, G)",
            "inside(d, h, w, conv_d, conv_h, conv_w, G)",
        ),
    )
)
