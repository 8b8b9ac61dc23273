"""Faults of what a learned slope adds: its rows in forward, the pass over the kept values, and what comes behind it."""

from tests.faults.mutation import planted

SLOPE = (
    *planted(
        "slope",
        "conv/learned_slope.py",
        {
            "conv_act_pool_slope_kernel": (
                ("one_filter_too_many", "bounds", "G.filters", "G.filters + 1", "mask_k = _"),
                ("one_value_too_many", "bounds", "offs_p < num_values", "offs_p <= num_values"),
                (
                    "splits_share_a_value",
                    "bounds",
                    "offs_p < start + values_per_split",
                    "offs_p <= start + values_per_split",
                ),
                ("value_by_output_size", "bounds", "conv_h", "out_h", "split_index(*_)"),
                (
                    "value_row_stride_of_columns",
                    "stride",
                    "offset_of(d, h, w, stride_ed, stride_eh, stride_ew, G)",
                    "offset_of(d, h, w, stride_ed, stride_ew, stride_eh, G)",
                ),
                (
                    "gradient_row_stride_of_columns",
                    "stride",
                    "offset_of(d, h, w, stride_zd, stride_zh, stride_zw, G)",
                    "offset_of(d, h, w, stride_zd, stride_zw, stride_zh, G)",
                ),
                ("of_the_last_block_alone", "sum", "acc += A.by_slope(z, grad, A)", "acc = A.by_slope(z, grad, A)"),
                (
                    "splits_in_one_column",
                    "sum",
                    "offs_k.to(tl.int64) * tl.num_programs(1) + split",
                    "offs_k.to(tl.int64) * tl.num_programs(1)",
                ),
                ("filters_a_split_apart", "sum", "tl.num_programs(1)", "1"),
            ),
            "conv_act_pool_slope_reduce_kernel": (
                ("first_block_alone", "sum", "quotient_up(length, BLOCK)", "1"),
                ("next_slopes_sum", "bounds", "offs < length", "offs <= length"),
                ("first_slopes_sum", "sum", "tl.program_id(0).to(tl.int64) * length", "0"),
            ),
            "_prepare": (
                (
                    "filter_programs_floor",
                    "grid",
                    "triton.cdiv(geometry.filters, tile.block_k)",
                    "max(geometry.filters // tile.block_k, 1)",
                ),
                (
                    "values_of_splits_floor",
                    "grid",
                    "triton.cdiv(shapes.conv_pixels, tile.splits)",
                    "shapes.conv_pixels // tile.splits",
                ),
            ),
        },
    ),
    *planted(
        "slope_rows",
        "device/windows.py",
        {
            "load_slope": (("one_for_all", "slope", "SLOPES == 1", "SLOPES >= 1"),),
            "activated": (
                (
                    "result_unrounded",
                    "rounding",
                    "round_to(A.forward(value, slope[:, None], A), DTYPE)",
                    "A.forward(value, slope[:, None], A)",
                ),
            ),
        },
    ),
    *planted(
        "slope_forward",
        "conv/forward.py",
        {
            "conv_act_pool_forward_kernel": (
                ("of_first_group", "group", "group * G.filters + offs_k", "offs_k", "load_slope(*_)"),
            ),
        },
    ),
    *planted(
        "slope_layer",
        "layer/learned_slope.py",
        {
            "behind_slope": (("max_pool_lost", "pool", 'layer.pool == "max"', 'layer.pool == "avg"'),),
            "before_slope": (("average_lost", "pool", 'layer.pool != "avg"', 'layer.pool == "avg"'),),
        },
    ),
)
