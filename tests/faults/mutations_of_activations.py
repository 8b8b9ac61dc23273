"""Faults of the activations' device functions; `tests/kernels/activations/test_functions.py` judges them, PReLU's
`test_prelu.py` beside it.

Their names begin with `activation_`.
"""

from collections.abc import Sequence

from tests.faults.mutation import Mutation, planted

_FAULTS: dict[str, dict[str, Sequence[tuple[str, str, str, str]]]] = {
    "relu": {
        "relu": (("nan_becomes_zero", "NaN", "tl.where(z <= 0, 0.0, z)", "tl.where(z > 0, z, 0.0)"),),
        "relu_off": (
            ("zero_passes_gradient", "kink", "z <= 0", "z < 0"),
            ("nan_is_off", "NaN", "z <= 0", "(z > 0) == 0"),
        ),
    },
    "silu": {"silu_slope": (("slope_of_sigmoid", "slope", "1.0 + z * (1.0 - s)", "1.0 - s"),)},
    "gelu": {
        "gelu": (("scale", "value", "z * 0.7071067811865476", "z * 0.7978845608028654"),),
        "gelu_slope": (("slope_variance", "slope", "tl.exp(-0.5 * z * z)", "tl.exp(-z * z)"),),
    },
    "leaky_relu": {
        "leaky_relu": (("slope_ignored", "value", "z * A.parameter", "z * 0.01"),),
        "leaky_relu_off": (
            ("zero_is_on", "kink", "z > 0", "z >= 0"),
            ("nan_is_on", "NaN", "(z > 0) == 0", "z <= 0"),
        ),
    },
    "prelu": {
        "prelu": (("slope_ignored", "value", "z * slope", "z"),),
        "prelu_slope": (
            ("zero_is_on", "kink", "z > 0", "z >= 0"),
            ("nan_is_on", "NaN", "tl.where(z > 0, 1.0, slope)", "tl.where(z <= 0, slope, 1.0)"),
        ),
        "prelu_by_slope": (
            ("infinite_gradient_multiplied", "NaN", "tl.where(z > 0, 0.0, grad * z)", "grad * tl.where(z > 0, 0.0, z)"),
            ("positive_values_too", "slope", "tl.where(z > 0, 0.0, grad * z)", "grad * z"),
            ("nan_is_left_out", "NaN", "tl.where(z > 0, 0.0, grad * z)", "tl.where(z <= 0, grad * z, 0.0)"),
        ),
    },
    "relu6": {
        "relu6": (("not_clipped_above", "value", "tl.where(z >= 6, 6.0, z)", "z"),),
        "relu6_off": (
            ("six_passes_gradient", "kink", "z >= 6", "z > 6"),
            ("zero_passes_gradient", "kink", "z <= 0", "z < 0"),
        ),
    },
    "hardsigmoid": {
        "hardsigmoid": (("not_clipped_above", "value", "tl.where(raised >= 6, 6.0, raised)", "raised"),),
        "hardsigmoid_off": (
            ("three_passes_gradient", "kink", "z < 3", "z <= 3"),
            ("minus_three_passes_gradient", "kink", "z > -3", "z >= -3"),
        ),
    },
    "hardswish": {
        "hardswish": (("not_clipped_above", "value", "tl.where(raised >= 6, 6.0, raised)", "raised"),),
        "hardswish_slope": (
            ("slope_at_minus_three", "kink", "z <= -3", "z < -3"),
            ("slope_at_three", "kink", "z < 3", "z <= 3"),
            ("half_the_slope", "slope", "quotient_rounded_once(z, 3.0)", "quotient_rounded_once(z, 6.0)"),
        ),
    },
    "gelu_tanh": {
        "gelu_tanh": (("cubic_term_missing", "value", "z + 0.044715 * z * z * z", "z"),),
        "gelu_tanh_slope": (
            ("slope_of_cubic_missing", "slope", "1.0 + 0.134145 * z * z", "1.0"),
            ("slope_cancels", "accuracy", "sigmoid(-twice)", "(1.0 - s)"),
        ),
    },
    "elu": {
        "elu": (("alpha_ignored", "value", "A.parameter * _", "_"),),
        "elu_slope": (
            ("alpha_ignored_in_slope", "slope", "A.parameter * _", "_"),
            ("slope_above_at_zero", "kink", "z <= 0", "z < 0"),
        ),
    },
    "sigmoid": {"sigmoid_slope": (("slope_not_squared", "slope", "(1.0 + e) * (1.0 + e)", "1.0 + e"),)},
    "tanh": {"tanh_slope": (("slope_of_half", "slope", "-2.0 * tl.abs(z)", "-tl.abs(z)"),)},
    "mish": {
        "mish": (("below_as_above", "value", "tl.where(z < 0, below, above)", "above"),),
        "mish_slope": (("bend_below_as_above", "slope", "tl.where(z < 0, bend, bend * e)", "bend * e"),),
    },
    "exponentials": {
        "expm1": (("series_too_short", "value", "TERMS - back", "TERMS"),),
        "tanh": (("sign_lost", "value", "tl.where(z < 0, -size, size)", "size"),),
        "sigmoid": (("reflected", "value", "tl.where(z < 0, e, 1.0)", "tl.where(z > 0, e, 1.0)"),),
    },
}

ACTIVATIONS: tuple[Mutation, ...] = tuple(
    mutation
    for name, faults in _FAULTS.items()
    for mutation in planted(f"activation_{name}", f"activations/{name}.py", faults)
)
