"""Faults of the kernels around a norm: statistics, the normalise pass and its backward, gates, global pools.

`test_norm_detector` judges them; their names begin with `norm_`.
"""

from tests.faults.mutation import planted

NORM = (
    *planted(
        "norm",
        "device/norm.py",
        {
            "normalised": (("shift_missing", "affine", "(z - mean) * scale + shift", "(z - mean) * scale"),),
            "affine_rows": (
                ("eps_missing", "affine", "variance + EPS", "variance"),
                ("weight_undivided", "affine", "inverse * _", "_"),
            ),
            "normalise_results": (("residual_subtracted", "residual", "u += _", "u -= _"),),
            "store_statistics": (
                ("padding_counted", "mask", "mask_p.to(ACC)", "mask_p.to(ACC) * 0 + 1", "summed(_, 0)"),
                ("deviation_from_0", "statistics", "value - mean[:, None]", "value"),
            ),
            "merge_parts": (
                ("parts_means_ignored", "merge", "within + count * distance * distance", "within"),
                ("last_part_counts_in_full", "merge", "tl.minimum(total, last * chunk)", "last * chunk"),
                ("parts_unweighted", "merge", "count * (mean - origin[None, :])", "mean - origin[None, :]"),
            ),
            "activation_gradient": (
                (
                    "side_of_gradient",
                    "activation",
                    "A.off(u, A)",
                    "A.off(grad, A)",
                ),
            ),
        },
    ),
    *planted(
        "norm",
        "norm/statistics.py",
        {
            "conv_norm_act_coefficients_kernel": (
                ("running_variance_biased", "running", "number - 1", "number"),
                ("momentum_of_new_lost", "running", "new * mean", "mean"),
                ("momentum_of_old_lost", "running", "old", "new", "kept_var = _"),
            ),
            "_bind_merge": (("merged_parts_of_old_size", "merge", "chunk * each", "chunk"),),
            "conv_norm_act_merge_kernel": (("merged_from_wrong_part", "merge", "merged * each", "merged"),),
        },
    ),
    *planted(
        "norm",
        "norm/forward.py",
        {
            "conv_norm_act_normalise_kernel": (
                ("one_channel_too_many", "bounds", "G.filters", "G.filters + 1", "mask_k = _"),
                (
                    "window_bounds_swapped",
                    "partial window",
                    "inside(pd, ph, pw, conv_d, conv_h, conv_w, G)",
                    "inside(pd, ph, pw, conv_d, conv_w, conv_h, G)",
                ),
                (
                    "residual_strides_swapped",
                    "stride",
                    "offset_of(pd, ph, pw, stride_rd, stride_rh, stride_rw, G)",
                    "offset_of(pd, ph, pw, stride_rd, stride_rw, stride_rh, G)",
                ),
                ("shift_of_wrong_row", "affine", "3 * G.filters", "G.filters"),
            ),
            "_prepare": (
                (
                    "pixel_programs_floor",
                    "grid",
                    "triton.cdiv(shapes.num_outputs, tile.block_p)",
                    "shapes.num_outputs // tile.block_p",
                ),
            ),
            "saves_code": (
                ("sign_saved_without_residual_only", "code", "has_residual", "not has_residual", "return _"),
            ),
        },
    ),
    *planted(
        "norm",
        "norm/backward.py",
        {
            "conv_norm_act_reduce_kernel": (
                ("sum_of_last_block", "sum", "total += _", "total = _"),
                ("projection_of_1", "sum", "grad * distance", "distance"),
                (
                    "shares_overlap",
                    "bounds",
                    "(offs_p < num_pixels) & (offs_p < start + pixels_per_split)",
                    "offs_p < num_pixels",
                ),
            ),
            "conv_norm_act_reduce_splits_kernel": (
                (
                    "weight_gradient_undivided",
                    "sum",
                    "summed(projected, 0) * inverse",
                    "summed(projected, 0)",
                ),
                ("sum_for_mean", "mean", "dbias / num_pixels", "dbias"),
            ),
            "conv_norm_act_dnorm_kernel": (
                ("projection_added", "mean", "grad -= distance * _", "grad += distance * _"),
                ("gradient_unscaled", "affine", "scale * grad", "grad"),
            ),
            "_gradient_and_distance": (
                (
                    "slope_forgotten",
                    "slope",
                    "G.activation != READ.activation",
                    "G.rank == 0",
                    "if G.activation != READ.activation: _",
                ),
            ),
        },
    ),
    *planted(
        "norm",
        "ops/images.py",
        {
            "image_sums_reduce_kernel": (
                ("mean_undivided", "mean", "total / pixels", "total * 1.0"),
                ("gate_slope_of_sigmoid", "slope", "total * slope * (1.0 - slope)", "total * slope"),
            ),
            "image_rows": (
                ("image_of_channel_block", "index", "tl.program_id(0) // blocks", "tl.program_id(0) % blocks"),
            ),
        },
    ),
    *planted(
        "norm",
        "ops/gate.py",
        {
            "squeeze_excite_kernel": (("gate_sign", "activation", "-gate", "gate"),),
            "squeeze_excite_backward_kernel": (
                ("gate_sums_x_alone", "sum", "grad * _", "_", "total += _"),
                ("gate_missing_in_gradient", "affine", "grad * factor", "grad"),
            ),
        },
    ),
    *planted(
        "norm",
        "ops/average.py",
        {
            "global_average_pool_kernel": (
                ("global_pool_last_block", "sum", "total += _", "total = _"),
                (
                    "global_pool_shares_overlap",
                    "bounds",
                    "(offs_p < pixels) & (offs_p < start + pixels_per_split)",
                    "offs_p < pixels",
                ),
            ),
            "_backward": (("global_pool_divided_by_all", "mean", "x_size[2:]", "x_size"),),
        },
    ),
)
