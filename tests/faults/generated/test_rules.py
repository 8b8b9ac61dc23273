"""Each rule makes of small code what it says, and nothing of code that it does not speak of."""

import pytest

from tests.faults.generated.mutants import mutants_of
from tests.faults.generated.rules import RULES

CASES: tuple[tuple[str, str, list[str]], ...] = (
    ("comparison_neighbour", "m = a < b", ["m = (a <= b)"]),
    ("comparison_neighbour", "m = a >= b", ["m = (a > b)"]),
    ("comparison_negated", "m = a < b", ["m = (a >= b)"]),
    ("comparison_negated", "m = a != b", ["m = (a == b)"]),
    ("sum_sign", "a += b", ["a -= b"]),
    ("sum_sign", "m = a - b", ["m = (a + b)"]),
    ("inverse_operator", "m = a // b", ["m = (a % b)"]),
    ("inverse_operator", "m = a / b", ["m = (a * b)"]),
    ("product_as_sum", "m = a * b", ["m = (a + b)"]),
    ("mask_and_or", "m = a & b", ["m = (a | b)"]),
    ("mask_and_or", "m = a and b", ["m = (a or b)"]),
    ("integer_off_by_one", "m = a + 3", ["m = a + 4", "m = a + 2"]),
    ("integer_off_by_one", "m = f(0)", ["m = f(1)"]),
    ("integer_off_by_one", "m = tl.sum(a, 1)", []),
    ("number_changed", "m = f(0.0)", ["m = f(1.0)"]),
    ("number_changed", "m = f(0.5)", ["m = f(1.5)", "m = f((-0.5))"]),
    ("coordinates_swapped", "m = f(p_d, p_h, G)", ["m = f(p_h, p_d, G)"]),
    ("coordinates_swapped", "n, p_h, p_w = f(a)", ["n, p_w, p_h = f(a)"]),
    ("coordinates_swapped", "m = f(p_d, q_h)", []),
    ("other_dimension", "m = p_d + a", ["m = p_h + a"]),
    ("other_dimension", "m = a * G.stride_w", ["m = a * G.stride_d"]),
    ("other_dimension", "m = q_h", []),
    ("mask_term_dropped", "m = a & b", ["m = (a)", "m = (b)"]),
    ("mask_term_dropped", "m = a and b and c", ["m = (b and c)", "m = (a and c)", "m = (a and b)"]),
    ("mask_dropped", "m = tl.load(a, mask=b & c)", ["m = tl.load(a, mask=(b & c == b & c))"]),
    ("mask_dropped", "m = load_row(a, mask_k)", ["m = load_row(a, (mask_k == mask_k))"]),
    ("choice_dropped", "m = tl.where(a, b, c)", ["m = (b)", "m = (c)"]),
    ("choice_swapped", "m = tl.where(a, b, c)", ["m = tl.where(a, c, b)"]),
    ("axis_wrong", "m = tl.sum(a, axis=1)", ["m = tl.sum(a, axis=0)"]),
    ("axis_wrong", "m = tl.program_id(0)", ["m = tl.program_id(1)"]),
    ("axis_wrong", "m = a[:, None]", ["m = a[None, :]"]),
    ("shape_permuted", "m = tl.reshape(a, [2, b, b])", ["m = tl.reshape(a, [b, 2, b])"]),
    ("shape_permuted", "m = tl.permute(a, (1, 0))", ["m = tl.permute(a, (0, 1))"]),
    ("accumulation_dropped", "a += b", ["a = b"]),
    ("accumulation_dropped", "a = a & b", ["a = b"]),
    ("accumulation_dropped", "a = multiply_accumulate(b, c, a, P)", ["a = multiply_accumulate(b, c, (a * 0), P)"]),
    ("conversion_dropped", "m = (a + b).to(c)", ["m = (a + b)"]),
    ("conversion_dropped", "m = as_stored(a, b, c)", ["m = (a)"]),
    ("operands_exchanged", "m = a % b", ["m = (b % a)"]),
    ("operands_exchanged", "m = a + b", []),
    ("branch_changed", "m = a if b else c", ["m = a if (not b) else c"]),
    ("branch_changed", "if a == b: m = 1", ["if (not a == b): m = 1"]),
    ("statement_removed", "tl.store(a, b)", ["pass"]),
    ("statement_removed", "a = a * b", ["pass"]),
    ("statement_removed", "m = a * b", []),
    ("extreme_exchanged", "m = tl.maximum(a, b)", ["m = tl.minimum(a, b)"]),
    ("term_dropped", "m = a + b", ["m = (a)", "m = (b)"]),
    ("term_dropped", "m = a - b", ["m = (a)"]),
    ("factor_dropped", "m = a * b", ["m = (a)", "m = (b)"]),
    ("factor_dropped", "m = a // b", ["m = (a)"]),
    ("loop_shortened", "for i in range(b): a += i", [
        "for i in range(0 + 1, b, 1): a += i", "for i in range(0, b - 1, 1): a += i",
    ]),
    ("loop_shortened", "for i in range(a, b, c): m = i", [
        "for i in range(a + c, b, c): m = i", "for i in range(a, b - c, c): m = i",
    ]),
    ("sign_dropped", "m = not a", ["m = (a)"]),
    ("sign_dropped", "m = -a", ["m = (a)"]),
    ("result_negated", "return f(a)", ["return (-f(a))"]),
    ("result_negated", "return a, b", []),
)  # fmt: skip


def source(line: str) -> str:
    """A kernel of one statement."""
    return f"@kernel\ndef one(a, b, c, p_d, p_h, p_w, mask_k, G):\n    {line}\n"


@pytest.mark.parametrize(("rule", "line", "expected"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_rule_makes_what_it_says(rule: str, line: str, expected: list[str]) -> None:
    made = [mutant.applied(source(line)) for mutant in mutants_of(source(line), "k.py") if mutant.rule == rule]
    assert made == [source(line) for line in expected]


def test_every_rule_has_a_case() -> None:
    assert {rule for rule, _, expected in CASES if expected} == set(RULES)
