"""Faults of the windowed gradients: their kernels, and what the two share."""

from tests.faults.mutation import Mutation

DGRAD_FILE = "conv_relu_pool_windowed_dgrad.py"
WGRAD_FILE = "conv_relu_pool_windowed_wgrad.py"
FUNCTIONS_FILE = "windowed_functions.py"

WINDOWED_DGRAD = tuple(
    Mutation(f"windowed_dgrad_{name}", DGRAD_FILE, kind, old, new)
    for name, kind, old, new in (
        ("row_period_of_columns", "phase", "h = i_h * PERIOD_H + phase_h", "h = i_h * PERIOD_W + phase_h"),
        ("row_phase_of_columns", "phase", "first_tap(phase_h % G.stride_h, ", "first_tap(phase_w % G.stride_h, "),
        ("last_tap_lost", "tap", "range(TAPS * BLOCKS_K)", "range((TAPS - 1) * BLOCKS_K)"),
        ("dilation_lost", "dilation", "md * (G.tap_step_d * G.dilation_d // G.stride_d)", "md"),
        (
            "taps_past_the_filter",
            "mask",
            "(rd < G.kernel_d) & (rh < G.kernel_h) & (rw < G.kernel_w)",
            "(rd < G.kernel_d) & (rh < G.kernel_h)",
        ),
        ("written_to_first_group", "group", "(group * G.channels + offs_c) * stride_xc", "offs_c * stride_xc"),
        ("one_image_too_many", "bounds", "mask_p = (n < batch) & inside", "mask_p = (n <= batch) & inside"),
        ("phases_lost", "grid", "Prepared((tiles * phases, geometry.groups)", "Prepared((tiles, geometry.groups)"),
    )
)

WINDOWED_WGRAD = tuple(
    Mutation(f"windowed_wgrad_{name}", WGRAD_FILE, kind, old, new)
    for name, kind, old, new in (
        ("first_window_row_only", "window", "ROWS: tl.constexpr = G.window_d * G.window_h", "ROWS: tl.constexpr = 1"),
        ("column_of_row_elements", "window", "element = row * WINDOW +", "element = row +"),
        ("stride_between_elements_lost", "stride", "G.pool_dilation_w * G.stride_w", "G.pool_dilation_w"),
        ("taps_past_the_filter", "bounds", "& (tap_w + tap < G.kernel_w)", "& (tap_w + tap <= G.kernel_w)"),
        ("last_split_unbounded", "split", "mask_p = offs_p < num_outputs", "mask_p = offs_p >= 0"),
        ("bias_of_units_that_were_off", "bias", "tl.where(code == G.code_off, 0.0, grad)", "grad"),
        ("bias_in_the_weights", "workspace", "(row + COLUMNS)", "row"),
        ("row_padding_of_columns", "padding", "h = p * G.stride_h - G.padding_h", "h = p * G.stride_h - G.padding_w"),
        ("input_of_first_group", "group", "x_ptr += group * G.channels * stride_xc", "x_ptr += group * 0"),
        ("input_bounds_swapped", "bounds", "w + u, in_d, in_h, in_w, G)", "w + u, in_d, in_w, in_h, G)"),
    )
)

WINDOWED_FUNCTIONS = tuple(
    Mutation(f"windowed_{name}", FUNCTIONS_FILE, kind, old, new)
    for name, kind, old, new in (
        ("one_channel_too_many", "bounds", "return offs < CHANNELS", "return offs <= CHANNELS"),
        ("window_before_not_counted_back", "window", "// STRIDE - LIFT - j,", "// STRIDE - LIFT,"),
        ("place_in_window_before", "window", "lifted % STRIDE + j * STRIDE", "lifted % STRIDE"),
        ("gaps_between_dilated_elements", "dilation", "ok = ok & (place % DILATION == 0)", "ok = ok & (place >= 0)"),
        ("highest_bit_of_element_lost", "code", "if (1 << bit) < COUNT:", "if (2 << bit) < COUNT:"),
        ("code_strides_of_gradient", "stride", "from_e + shift, ok)", "from_g + shift, ok)"),
        ("pooled_bounds_swapped", "bounds", "i_w + sw, out_d, out_h, out_w, G)", "i_w + sw, out_d, out_w, out_h, G)"),
        ("pool_padding_of_columns", "padding", "qh + G.pool_padding_h, jh", "qh + G.pool_padding_w, jh"),
    )
)
