"""Faults of the kernels around a norm: statistics, the normalise pass and its backward, gates, global pools.

`test_norm_detector` judges them; their names begin with `norm_`.
"""

from tests.faults.mutation import Mutation

FUNCTIONS_FILE = "norm_functions.py"
STATISTICS_FILE = "conv_norm_act_statistics.py"
FORWARD_FILE = "conv_norm_act_forward.py"
BACKWARD_FILE = "conv_norm_act_backward.py"
IMAGE_FILE = "image_functions.py"
GATE_FILE = "squeeze_excite.py"
GLOBAL_FILE = "global_average_pool.py"

NORM = tuple(
    Mutation(f"norm_{name}", file, kind, old, new, *function)
    for name, file, kind, old, new, *function in (
        ("shift_missing", FUNCTIONS_FILE, "affine", "return (z - mean) * scale + shift", "return (z - mean) * scale"),
        ("eps_missing", FUNCTIONS_FILE, "affine", "tl.sqrt(variance + EPS)", "tl.sqrt(variance)"),
        ("weight_undivided", FUNCTIONS_FILE, "affine", "inverse * load_row(weight_ptr", "load_row(weight_ptr"),
        ("one_channel_too_many", FUNCTIONS_FILE, "bounds", "return k < CHANNELS", "return k <= CHANNELS"),
        ("residual_subtracted", FUNCTIONS_FILE, "residual", "u += widen(", "u -= widen("),
        (
            "padding_counted",
            FUNCTIONS_FILE,
            "mask",
            "tl.sum(mask_p.to(ACC), axis=0)",
            "tl.sum(mask_p.to(ACC) * 0 + 1, axis=0)",
        ),
        ("deviation_from_0", FUNCTIONS_FILE, "statistics", "value - mean[:, None], 0.0", "value, 0.0"),
        ("parts_means_ignored", FUNCTIONS_FILE, "merge", "within + count * distance * distance", "within"),
        (
            "last_part_counts_in_full",
            FUNCTIONS_FILE,
            "merge",
            "tl.minimum(total, last * chunk) - first * chunk",
            "last * chunk - first * chunk",
        ),
        ("parts_unweighted", FUNCTIONS_FILE, "merge", "count * (mean - origin[None, :])", "(mean - origin[None, :])"),
        ("relu_multiplied", FUNCTIONS_FILE, "NaN", "tl.where(u <= 0, 0.0, grad)", "(grad * (u > 0))"),
        ("running_variance_biased", STATISTICS_FILE, "running", "squares / (number - 1)", "squares / number"),
        ("momentum_of_new_lost", STATISTICS_FILE, "running", "new * mean + kept", "mean + kept"),
        (
            "momentum_of_old_lost",
            STATISTICS_FILE,
            "running",
            "old * load_row(running_var_ptr",
            "new * load_row(running_var_ptr",
        ),
        ("merged_parts_of_old_size", STATISTICS_FILE, "merge", "return merged, chunk * each", "return merged, chunk"),
        ("merged_from_wrong_part", STATISTICS_FILE, "merge", "first = merged * each", "first = merged"),
        (
            "window_bounds_swapped",
            FORWARD_FILE,
            "partial window",
            "inside(pd, ph, pw, conv_d, conv_h, conv_w, G)",
            "inside(pd, ph, pw, conv_d, conv_w, conv_h, G)",
        ),
        (
            "residual_strides_swapped",
            FORWARD_FILE,
            "stride",
            "stride_rd, stride_rh, stride_rw, G)",
            "stride_rd, stride_rw, stride_rh, G)",
        ),
        (
            "shift_of_wrong_row",
            FORWARD_FILE,
            "affine",
            "coefficients_ptr + 3 * G.filters",
            "coefficients_ptr + G.filters",
        ),
        (
            "pixel_programs_floor",
            FORWARD_FILE,
            "grid",
            "* triton.cdiv(shapes.num_outputs, tile.block_p)",
            "* (shapes.num_outputs // tile.block_p)",
        ),
        (
            "sign_saved_without_residual_only",
            FORWARD_FILE,
            "code",
            'norm.activation == "relu" and has_residual',
            'norm.activation == "relu" and not has_residual',
        ),
        ("sum_of_last_block", BACKWARD_FILE, "sum", "total += grad", "total = grad"),
        ("projection_of_1", BACKWARD_FILE, "sum", "projected += grad * distance", "projected += distance"),
        (
            "weight_gradient_undivided",
            BACKWARD_FILE,
            "sum",
            "dweight = tl.sum(projected, axis=0) * inverse",
            "dweight = tl.sum(projected, axis=0)",
        ),
        ("sum_for_mean", BACKWARD_FILE, "mean", "dbias / num_pixels", "dbias"),
        (
            "projection_added",
            BACKWARD_FILE,
            "mean",
            "grad -= distance * load_row(means_ptr",
            "grad += distance * load_row(means_ptr",
        ),
        (
            "shares_overlap",
            BACKWARD_FILE,
            "bounds",
            "(offs_p < num_pixels) & (offs_p < start + pixels_per_split)",
            "(offs_p < num_pixels)",
        ),
        ("gradient_unscaled", BACKWARD_FILE, "affine", "round_to(scale * grad", "round_to(grad"),
        (
            "slope_forgotten",
            BACKWARD_FILE,
            "slope",
            "        if G.activation != READ.activation:",
            "        if G.rank == 0:",
        ),
        ("mean_undivided", IMAGE_FILE, "mean", "total = total / pixels", "total = total * 1.0"),
        ("gate_slope_of_sigmoid", IMAGE_FILE, "slope", "total * slope * (1.0 - slope)", "total * slope"),
        (
            "image_of_channel_block",
            IMAGE_FILE,
            "index",
            "(tl.program_id(0) // blocks).to",
            "(tl.program_id(0) % blocks).to",
        ),
        ("gate_sign", GATE_FILE, "activation", "tl.exp(-gate)", "tl.exp(gate)", "squeeze_excite_kernel"),
        ("gate_sums_x_alone", GATE_FILE, "sum", "total += grad * widen(", "total += widen("),
        ("gate_missing_in_gradient", GATE_FILE, "affine", "round_to(grad * factor", "round_to(grad"),
        ("global_pool_last_block", GLOBAL_FILE, "sum", "total += widen(", "total = widen("),
        (
            "global_pool_shares_overlap",
            GLOBAL_FILE,
            "bounds",
            "(offs_p < pixels) & (offs_p < start + pixels_per_split)",
            "(offs_p < pixels)",
        ),
        (
            "global_pool_divided_by_all",
            GLOBAL_FILE,
            "mean",
            "grad / math.prod(ctx.x_size[2:])",
            "grad / math.prod(ctx.x_size)",
        ),
    )
)
