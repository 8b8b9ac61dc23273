"""Faults of what every kernel inlines: windows and their codes, index arithmetic, rounding, sides."""

from tests.faults.mutation import planted

WINDOW = planted(
    "window",
    "device/windows.py",
    {
        "fold": (
            ("last_of_equals_wins", "tie", "active > best", "active >= best"),
            ("nan_ignored", "NaN", "(active > best) | (active != active)", "active > best"),
            ("first_nan_wins", "NaN", "active != active", "(active != active) & (best == best)"),
            ("minus_infinity_has_no_winner", "NaN", "(active != active) | (code < 0)", "active != active"),
            ("unpooled_result_has_no_winner", "code", "tl.zeros_like(code)", "code"),
            (
                "unpooled_winner_after_activation",
                "activation",
                "(active, tl.zeros_like(code), value)",
                "(active, tl.zeros_like(code), active)",
            ),
            ("sides_coded_the_wrong_way", "code", "tl.where(_, G.window, 0)", "tl.where(_, 0, G.window)"),
            (
                "side_of_activated_value",
                "code",
                "A.off(value, A)",
                "A.off(active, A)",
            ),
            ("padding_in_average", "partial window", "tl.where(exists[None, :], active, 0.0)", "active"),
            ("slope_at_activated_value", "slope", "value", "active", "winner = _"),
        ),
        "joint_piece": (
            ("joint_pieces_swapped", "code", "PIECE % 2 == 1", "PIECE % 2 == 0"),
            ("joint_halves_swapped", "code", "PIECE // 2 == 0", "PIECE // 2 == 1"),
            ("joint_pair_swapped", "code", "PIECE == 0", "PIECE == 1"),
        ),
        "store_bits": (
            ("bits_reversed", "bits", "remainder(offs_k, 8)", "7 - remainder(offs_k, 8)"),
            ("byte_count_floor", "bits", "G.rows + 7", "G.rows"),
            ("byte_of_wrong_group", "bits", "group * BYTES", "group"),
        ),
        "conv_gradient": (
            ("byte_read_by_filter", "bits", "quotient(k, 8)", "k"),
            ("next_bit_read", "bits", "remainder(k, 8)", "remainder(k + 1, 8)"),
            ("any_later_element_won", "code", "code.to(tl.int32) == element", "code.to(tl.int32) >= element"),
            ("code_read_by_height", "code", "G.window_w", "G.window_h", "element = _"),
            ("sides_swapped", "code", "code != 0", "code == 0"),
            ("bit_of_the_other_side", "bits", "(bits >> _) & 1 == 0", "(bits >> _) & 1 == 1"),
            ("winner_off_its_side_lost", "code", "won | off", "won"),
            ("side_coded_by_code_off", "code", "element + G.window", "element + G.code_off"),
            ("gradient_not_divided", "divisor", "widen(grad, ACC) / divisor", "widen(grad, ACC)"),
            ("overlap_misses_a_window", "overlap", "G.window_w - 1", "G.window_w - 2"),
            ("overlap_overwrites", "overlap", "total += tl.where(won, _, 0.0)", "total = tl.where(won, _, 0.0)"),
        ),
        "write_outputs": (
            ("side_of_winner_lost", "relu", "off | _", "off", "off = _"),
            ("off_code_is_an_element", "code", "G.code_off", "0", "tl.store(*_)"),
        ),
        "_window_span": (
            ("divisor_without_padding", "divisor", "size + PADDING", "size"),
            ("divisor_counts_padding", "divisor", "tl.maximum(start, 0)", "start"),
            (
                "divisor_beyond_the_edge",
                "divisor",
                "tl.minimum(start + WINDOW, size) - tl.maximum(start, 0)",
                "WINDOW - tl.maximum(-start, 0)",
            ),
        ),
        "_covering": (
            ("window_past_the_end", "bounds", "o.to(tl.uint32) < out_size", "o.to(tl.uint32) <= out_size"),
            ("window_before_the_start", "bounds", "(o >= 0) & (o < out_size)", "o < out_size"),
            ("window_before_the_start_of_strides", "bounds", "o.to(tl.uint32) < out_size", "o < out_size"),
            ("element_past_the_window", "bounds", "element < WINDOW", "element <= WINDOW"),
            ("pool_dilation_unchecked", "dilation", "remainder(element, DILATION) == 0", "element >= 0"),
            ("pool_padding_sign", "padding", "p + PADDING", "p - PADDING"),
        ),
        "window_pixel": (
            ("row_stride_of_columns", "stride", "oh * G.pool_stride_h", "oh * G.pool_stride_w"),
            (
                "column_padding_missing",
                "padding",
                "ew * G.pool_dilation_w - G.pool_padding_w",
                "ew * G.pool_dilation_w",
            ),
            ("row_dilation_of_columns", "dilation", "eh * G.pool_dilation_h", "eh * G.pool_dilation_w"),
        ),
    },
)
DEVICE = planted(
    "device",
    "device/arithmetic.py",
    {
        "inside": (
            ("one_column_too_many", "bounds", "w < size_w", "w <= size_w"),
            ("row_above_the_image", "bounds", "mask & (h >= 0)", "mask"),
            ("slice_too_many", "bounds", "d < size_d", "d <= size_d"),
        ),
        "offset_of": (("row_offset_by_columns", "stride", "h * stride_h", "h * stride_w"),),
        "split_tap": (("tap_depth_by_depth", "tap", "G.kernel_h", "G.kernel_d", "d = _"),),
        "split_element": (("element_row_by_height", "code", "G.window_w", "G.window_h", "h = _"),),
        "of_side": (
            ("gradient_multiplied", "NaN", "tl.where(off, 0.0, grad).to(grad.dtype)", "grad * (off == 0)"),
            ("slope_of_one_side_only", "slope", "widen(grad, ACC) * A.on_slope", "widen(grad, ACC)"),
            (
                "slopes_swapped",
                "slope",
                "tl.where(off, grad * A.off_slope, grad * A.on_slope)",
                "tl.where(off, grad * A.on_slope, grad * A.off_slope)",
            ),
        ),
        "load_operand": (("masked_load_of_ones", "mask", "0.0", "1.0", "value = _"),),
        "first_tap": (
            ("first_tap_padding_sign", "phase", "phase + PADDING", "phase - PADDING"),
            ("first_tap_dilation_lost", "phase", "tap * DILATION", "tap"),
        ),
        "phase_tap": (("tap_step_lost", "phase", "mh * G.tap_step_h", "mh"),),
        "split_phase_tap": (
            ("phase_tap_row_by_height", "tap", "quotient(index, G.phase_taps_w)", "quotient(index, G.phase_taps_h)"),
        ),
        "round_to": (("half_rounds_away", "rounding", "bits + 0x7FFF + ((bits >> 16) & 1)", "bits + 0x8000"),),
    },
)
DIVISION = (
    *planted(
        "division_direct",
        "device/windows.py",
        {
            "_covering": (("window_of_a_pixel", "division", "quotient(p, STRIDE)", "p // STRIDE"),),
        },
    ),
    *planted(
        "division_direct",
        "conv/dgrad.py",
        {
            "conv_act_pool_dgrad_kernel": (
                ("channel_block", "division", "remainder(tl.program_id(0), NUM_C)", "tl.program_id(0) % NUM_C"),
                ("rows_of_a_phase", "division", "quotient_up(in_h, G.stride_h)", "tl.cdiv(in_h, G.stride_h)"),
            ),
        },
    ),
    *planted(
        "division_signed",
        "device/arithmetic.py",
        {
            "quotient": (("as_written", "division", "_as_unsigned(value) // DIVISOR", "value // DIVISOR"),),
            "remainder": (("remainder_as_written", "division", "_as_unsigned(value) % DIVISOR", "value % DIVISOR"),),
            "_is_power_of_two": (("never", "division", "number > 0", "number < 0"),),
        },
    ),
    *planted(
        "division_rule",
        "compile_check/vector_divisions.py",
        {
            "_Function.divisions": (("first_lane_only", "division", "enumerate(divisors)", "enumerate(divisors[:1])"),),
            "_expanded_by_lanes": (("equal_divisors_too", "division", "len(set(divisors)) > 1", "divisors"),),
            "_combined": (("zeros_kept", "division", "0 in (a, b)", "a == b == 0"),),
        },
    ),
)
"""What undoes the mend of a miscompiled division, which no result in the interpreter shows."""
