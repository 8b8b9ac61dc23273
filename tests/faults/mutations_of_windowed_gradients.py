"""Faults of the windowed gradients: their kernels, and what the two share."""

from tests.faults.mutation import planted

WINDOWED_DGRAD = planted(
    "windowed_dgrad",
    "conv/windowed_dgrad.py",
    {
        "conv_act_pool_windowed_dgrad_kernel": (
            ("row_period_of_columns", "phase", "i_h * PERIOD_H", "i_h * PERIOD_W"),
            ("row_phase_of_columns", "phase", "phase_h", "phase_w", "first_h = _"),
            ("last_tap_lost", "tap", "TAPS", "TAPS - 1", "range(*_)"),
            ("dilation_lost", "dilation", "md * (G.tap_step_d * G.dilation_d // G.stride_d)", "md"),
            (
                "taps_past_the_filter",
                "mask",
                "(rd < G.kernel_d) & (rh < G.kernel_h) & (rw < G.kernel_w)",
                "(rd < G.kernel_d) & (rh < G.kernel_h)",
            ),
            ("written_to_first_group", "group", "group * G.channels + offs_c", "offs_c"),
            ("one_image_too_many", "bounds", "n < batch", "n <= batch", "mask_p = _"),
        ),
        "_prepare": (("phases_lost", "grid", "tiles * phases", "tiles"),),
    },
)
WINDOWED_WGRAD = planted(
    "windowed_wgrad",
    "conv/windowed_wgrad.py",
    {
        "conv_act_pool_windowed_wgrad_kernel": (
            ("first_window_row_only", "window", "G.window_d * G.window_h", "1"),
            ("taps_past_the_filter", "bounds", "tap_w + tap < G.kernel_w", "tap_w + tap <= G.kernel_w"),
            ("last_split_unbounded", "split", "offs_p < num_outputs", "offs_p >= 0", "mask_p = _"),
            ("bias_of_units_that_were_off", "bias", "tl.where(code == G.code_off, 0.0, grad)", "grad"),
            ("bias_in_the_weights", "workspace", "row + COLUMNS", "row"),
            ("input_of_first_group", "group", "group * G.channels * stride_xc", "group * 0"),
        ),
        "_add_row": (
            ("column_of_row_elements", "window", "row * WINDOW", "row"),
            ("stride_between_elements_lost", "stride", "G.pool_dilation_w * G.stride_w", "G.pool_dilation_w"),
            (
                "input_bounds_swapped",
                "bounds",
                "inside(d, h, w + u, in_d, in_h, in_w, G)",
                "inside(d, h, w + u, in_d, in_w, in_h, G)",
            ),
        ),
        "_input_pixel": (("row_padding_of_columns", "padding", "G.padding_h", "G.padding_w", "h = _"),),
    },
)
CHANNELS = planted(
    "windowed",
    "device/arithmetic.py",
    {"channel_mask": (("one_channel_too_many", "bounds", "offs < CHANNELS", "offs <= CHANNELS"),)},
)
WINDOWED_FUNCTIONS = planted(
    "windowed",
    "device/choice.py",
    {
        "window_back": (
            (
                "window_before_not_counted_back",
                "window",
                "quotient(lifted, STRIDE) - LIFT - j",
                "quotient(lifted, STRIDE) - LIFT",
            ),
            ("place_in_window_before", "window", "remainder(lifted, STRIDE) + j * STRIDE", "remainder(lifted, STRIDE)"),
            ("gaps_between_dilated_elements", "dilation", "remainder(place, DILATION) == 0", "place >= 0"),
        ),
        "spread": (("highest_bit_of_element_lost", "code", "(1 << bit) < COUNT", "(2 << bit) < COUNT"),),
        "chosen_gradient": (
            ("code_strides_of_gradient", "stride", "from_e + shift", "from_g + shift"),
            (
                "pooled_bounds_swapped",
                "bounds",
                "inside(i_d + sd, i_h + sh, i_w + sw, out_d, out_h, out_w, G)",
                "inside(i_d + sd, i_h + sh, i_w + sw, out_d, out_w, out_h, G)",
            ),
            ("pool_padding_of_columns", "padding", "qh + G.pool_padding_h", "qh + G.pool_padding_w"),
        ),
    },
)
