"""Faults of what every kernel inlines: windows and their codes, index arithmetic, rounding, activations."""

from tests.faults.mutation import Mutation

WINDOW_FILE = "window_functions.py"
DEVICE_FILE = "device_functions.py"

WINDOW = tuple(
    Mutation(f"window_{name}", WINDOW_FILE, kind, old, new)
    for name, kind, old, new in (
        ("last_of_equals_wins", "tie", "(active > best)", "(active >= best)"),
        ("nan_ignored", "NaN", "| (active != active) |", "|"),
        ("first_nan_wins", "NaN", "| (active != active) |", "| ((active != active) & (best == best)) |"),
        ("minus_infinity_has_no_winner", "NaN", "| (active != active) | (code < 0))", "| (active != active))"),
        (
            "unpooled_result_has_no_winner",
            "code",
            "return active, tl.zeros_like(code), value",
            "return active, code, value",
        ),
        (
            "unpooled_winner_after_activation",
            "activation",
            "return active, tl.zeros_like(code), value",
            "return active, tl.zeros_like(code), active",
        ),
        ("joint_pieces_swapped", "code", "if PIECE % 2 == 1:", "if PIECE % 2 == 0:"),
        ("joint_halves_swapped", "code", "if PIECE // 2 == 0:", "if PIECE // 2 == 1:"),
        ("joint_pair_swapped", "code", "if PIECE == 0:", "if PIECE == 1:"),
        ("bits_reversed", "bits", "on << (offs_k % 8)", "on << (7 - offs_k % 8)"),
        ("byte_count_floor", "bits", "(G.rows + 7) // 8", "G.rows // 8"),
        ("byte_of_wrong_group", "bits", "(group * BYTES + byte)", "(group + byte)"),
        ("zero_counts_as_on", "relu", "tl.where(value <= 0, 0, 1)", "tl.where(value < 0, 0, 1)"),
        ("nan_counts_as_off", "NaN", "tl.where(value <= 0, 0, 1)", "tl.where(value > 0, 1, 0)"),
        ("byte_read_by_filter", "bits", "(k // 8) * stride_ek", "k * stride_ek"),
        ("next_bit_read", "bits", "(bits >> (k % 8))", "(bits >> ((k + 1) % 8))"),
        ("zero_passes_gradient", "relu", "off = off | (best <= 0)", "off = off | (best < 0)"),
        ("off_code_is_an_element", "code", "tl.where(off, G.code_off, code)", "tl.where(off, 0, code)"),
        ("any_later_element_won", "code", "(code.to(tl.int32) == element)", "(code.to(tl.int32) >= element)"),
        (
            "code_read_by_height",
            "code",
            "(ed * G.window_h + eh) * G.window_w + ew",
            "(ed * G.window_h + eh) * G.window_h + ew",
        ),
        (
            "gradient_multiplied",
            "NaN",
            "grad = tl.where(code == 0, grad, 0.0).to(grad.dtype)",
            "grad = grad * (code == 0)",
        ),
        ("padding_in_average", "partial window", "best + tl.where(exists[None, :], active, 0.0)", "best + active"),
        (
            "divisor_without_padding",
            "divisor",
            "tl.minimum(start + WINDOW, size + PADDING) - start",
            "tl.minimum(start + WINDOW, size) - start",
        ),
        (
            "divisor_counts_padding",
            "divisor",
            "tl.minimum(start + WINDOW, size) - tl.maximum(start, 0)",
            "tl.minimum(start + WINDOW, size) - start",
        ),
        (
            "divisor_beyond_the_edge",
            "divisor",
            "tl.minimum(start + WINDOW, size) - tl.maximum(start, 0)",
            "WINDOW - tl.maximum(-start, 0)",
        ),
        ("gradient_not_divided", "divisor", "widen(grad, ACC) / divisor", "widen(grad, ACC)"),
        (
            "overlap_misses_a_window",
            "overlap",
            "((G.window_w - 1) * G.pool_dilation_w)",
            "((G.window_w - 2) * G.pool_dilation_w)",
        ),
        (
            "overlap_overwrites",
            "overlap",
            "total += tl.where(won, widen(grad, ACC), 0.0)",
            "total = tl.where(won, widen(grad, ACC), 0.0)",
        ),
        ("window_past_the_end", "bounds", "ok = (o >= 0) & (o < out_size)", "ok = (o >= 0) & (o <= out_size)"),
        ("window_before_the_start", "bounds", "ok = (o >= 0) & (o < out_size)", "ok = o < out_size"),
        ("element_past_the_window", "bounds", "(element < WINDOW)", "(element <= WINDOW)"),
        ("pool_dilation_unchecked", "dilation", "ok = ok & (element % DILATION == 0)", "ok = ok & (element >= 0)"),
        ("pool_padding_sign", "padding", "p = p + PADDING", "p = p - PADDING"),
        (
            "slope_at_activated_value",
            "slope",
            "winner = tl.where(take, value, winner)",
            "winner = tl.where(take, active, winner)",
        ),
        ("row_stride_of_columns", "stride", "ph = oh * G.pool_stride_h +", "ph = oh * G.pool_stride_w +"),
        (
            "column_padding_missing",
            "padding",
            "(ew * G.pool_dilation_w - G.pool_padding_w)",
            "(ew * G.pool_dilation_w)",
        ),
        (
            "row_dilation_of_columns",
            "dilation",
            "(eh * G.pool_dilation_h - G.pool_padding_h)",
            "(eh * G.pool_dilation_w - G.pool_padding_h)",
        ),
    )
)

DEVICE = tuple(
    Mutation(f"device_{name}", DEVICE_FILE, kind, old, new)
    for name, kind, old, new in (
        ("one_column_too_many", "bounds", "mask = (w >= 0) & (w < size_w)", "mask = (w >= 0) & (w <= size_w)"),
        ("row_above_the_image", "bounds", "mask & (h >= 0) & (h < size_h)", "mask & (h < size_h)"),
        ("slice_too_many", "bounds", "mask & (d >= 0) & (d < size_d)", "mask & (d >= 0) & (d <= size_d)"),
        ("row_offset_by_columns", "stride", "offset += h * stride_h", "offset += h * stride_w"),
        ("tap_depth_by_depth", "tap", "d = tap // (G.kernel_w * G.kernel_h)", "d = tap // (G.kernel_w * G.kernel_d)"),
        ("element_row_by_height", "code", "(element // G.window_w)", "(element // G.window_h)"),
        ("nan_becomes_zero", "NaN", "tl.where(x <= 0, 0.0, x)", "tl.where(x > 0, x, 0.0)"),
        ("masked_load_of_ones", "mask", "mask=mask, other=0.0)", "mask=mask, other=1.0)"),
        ("gelu_scale", "activation", "tl.erf(x * 0.7071067811865476)", "tl.erf(x * 0.7978845608028654)"),
        ("silu_slope_of_sigmoid", "slope", "s * (1.0 + z * (1.0 - s))", "s * (1.0 - s)"),
        ("gelu_slope_variance", "slope", "tl.exp(-0.5 * z * z)", "tl.exp(-z * z)"),
        ("first_tap_padding_sign", "phase", "(phase + PADDING - tap * DILATION)", "(phase - PADDING - tap * DILATION)"),
        ("first_tap_dilation_lost", "phase", "(phase + PADDING - tap * DILATION)", "(phase + PADDING - tap)"),
        ("tap_step_lost", "phase", "first_h + mh * G.tap_step_h", "first_h + mh"),
        ("phase_tap_row_by_height", "tap", "(index // G.phase_taps_w)", "(index // G.phase_taps_h)"),
        ("half_rounds_away", "rounding", "(bits + 0x7FFF + ((bits >> 16) & 1))", "(bits + 0x8000)"),
    )
)  # fmt: skip
