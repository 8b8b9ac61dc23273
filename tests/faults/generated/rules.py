"""The rules: what each makes of an expression or a statement of a kernel or device function.

A rule looks at one node and gives replacements of it, or of a part of it. Rules know Triton's spelling and this
project's names (`stride_xh`, `mask_p`), and nothing of any one kernel.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.faults.syntax import Code

LETTERS = ("dhw", "nkc")
"""Dimensions whose coordinates, sizes and strides may be taken for each other: a name's last letter."""
MASKS = ("mask", "ok", "exists", "here", "valid")
"""What masks are called, or begin with."""
CONVERSIONS = ("widen", "round_to", "as_stored", "as_operand")
"""Device functions that give their first argument back in another type."""
REDUCTIONS = ("sum", "max", "min", "argmax", "argmin", "cumsum", "reduce", "expand_dims", "program_id")
"""Functions of which an argument is the number of an axis."""
SHAPED = ("reshape", "permute", "trans", "zeros", "full", "broadcast_to")
"""Functions that take a shape or an order of axes."""


@dataclass(frozen=True)
class Edit:
    """`text` in the place of `node`."""

    node: Code
    text: str


Rule = Callable[[ast.AST, frozenset[str]], Iterator[Edit]]
"""Gives the edits of a node of a function that knows those names."""


def _becomes(node: Code, new: Code) -> Edit:
    text = ast.unparse(ast.fix_missing_locations(new))
    return Edit(node, f"({text})" if isinstance(new, ast.expr) else text)


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _operated(node: ast.AST, operators: dict[type, type]) -> Iterator[Edit]:
    """The node with the operator that stands for its own."""
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in operators:
        changed = _with(node, op=operators[type(node.op)]())
        assert isinstance(changed, Code)
        yield _becomes(node, changed)


def _compared(node: ast.AST, operators: dict[type, type]) -> Iterator[Edit]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in operators:
        yield _becomes(node, ast.Compare(node.left, [operators[type(node.ops[0])]()], node.comparators))


def _called(node: ast.AST) -> str:
    """The last name of what a call calls; empty for anything else."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _pair(first: ast.expr, second: ast.expr) -> ast.Tuple:
    """Two neighbours in a list of arguments, with the comma between them, as one node."""
    return ast.Tuple(
        [first, second],
        ast.Load(),
        lineno=first.lineno,
        col_offset=first.col_offset,
        end_lineno=second.end_lineno,
        end_col_offset=second.end_col_offset,
    )


def _exchanged(first: ast.expr, second: ast.expr) -> Edit:
    return Edit(_pair(first, second), f"{ast.unparse(second)}, {ast.unparse(first)}")


def _listed(node: ast.AST) -> list[ast.expr]:
    """Positional arguments or elements."""
    if isinstance(node, ast.Call):
        return node.args
    return node.elts if isinstance(node, ast.Tuple | ast.List) else []


def _stem(node: ast.expr) -> tuple[str, str]:
    """A name without its dimension's letter, and that letter; both empty where it ends in none."""
    text = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
    return (text[:-1], text[-1]) if text and text[-1] in "".join(LETTERS) else ("", "")


def comparison_neighbour(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`<` becomes `<=`, `>` becomes `>=`, and back."""
    return _compared(node, {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt})


def comparison_negated(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`==` becomes `!=`, `<` becomes `>=`, and so on."""
    opposite: dict[type, type] = {ast.Eq: ast.NotEq, ast.Lt: ast.GtE, ast.Gt: ast.LtE}
    return _compared(node, opposite | {new: old for old, new in opposite.items()})


def sum_sign(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`+` becomes `-` and back, in assignments too."""
    return _operated(node, {ast.Add: ast.Sub, ast.Sub: ast.Add})


def inverse_operator(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`//` becomes `%` and `/` becomes `*` and `<<` becomes `>>`, and back but for `*`."""
    pairs: dict[type, type] = {ast.FloorDiv: ast.Mod, ast.Mod: ast.FloorDiv, ast.Div: ast.Mult}
    return _operated(node, pairs | {ast.LShift: ast.RShift, ast.RShift: ast.LShift})


def product_as_sum(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`*` becomes `+`."""
    return _operated(node, {ast.Mult: ast.Add})


def mask_and_or(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`&` becomes `|`, `and` becomes `or`, and back."""
    return _operated(node, {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And})


def integer_off_by_one(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """An integer becomes the next; one above 0 becomes the one before too."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        for value in (node.value + 1, *([node.value - 1] if node.value > 0 else [])):
            yield Edit(node, str(value))


def number_changed(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """A floating-point number becomes itself and 1; one that is not 0 becomes its negative too."""
    if isinstance(node, ast.Constant) and type(node.value) is float:
        yield Edit(node, repr(node.value + 1))
        if node.value:
            yield Edit(node, f"(-{node.value!r})")


def coordinates_swapped(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """Neighbouring arguments or elements that differ in their dimension's letter change places."""
    listed = _listed(node)
    for first, second in pairwise(listed):
        (stem, one), (other_stem, other) = _stem(first), _stem(second)
        if one and other and one != other and stem == other_stem:
            yield _exchanged(first, second)


def other_dimension(node: ast.AST, names: frozenset[str]) -> Iterator[Edit]:
    """A coordinate, size or stride becomes that of the next dimension: `stride_xh` becomes `stride_xw`."""
    if not isinstance(node, ast.Name | ast.Attribute) or not isinstance(node.ctx, ast.Load):
        return
    stem, letter = _stem(node)
    if isinstance(node, ast.Attribute) and stem[-1:] != "_":
        return
    for letters in LETTERS:
        if letter and letter in letters:
            turned = (letters + letters)[letters.index(letter) + 1 :][: len(letters) - 1]
            found = [each for each in turned if isinstance(node, ast.Attribute) or stem + each in names]
            if found and (stem or letters == LETTERS[0]):
                yield Edit(node, stem + found[0])


def mask_term_dropped(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """Of `a & b` or `a and b` one is left."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
        yield _becomes(node, node.left)
        yield _becomes(node, node.right)
    elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        for left_out in node.values:
            rest = [value for value in node.values if value is not left_out]
            yield _becomes(node, rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest))


def mask_dropped(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """A mask that is given to a call becomes true everywhere, in its own shape."""
    if isinstance(node, ast.Call):
        named = [given.value for given in node.keywords if given.arg == "mask"]
        placed = [given for given in node.args if isinstance(given, ast.Name) and given.id.startswith(MASKS)]
        for mask in (*named, *placed):
            yield _becomes(mask, ast.Compare(mask, [ast.Eq()], [mask]))


def choice_dropped(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`tl.where(c, a, b)` becomes `a`, or `b`."""
    if isinstance(node, ast.Call) and _called(node) == "where" and len(node.args) == 3:
        yield _becomes(node, node.args[1])
        yield _becomes(node, node.args[2])


def choice_swapped(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`tl.where(c, a, b)` becomes `tl.where(c, b, a)`."""
    if isinstance(node, ast.Call) and _called(node) == "where" and len(node.args) == 3:
        yield _exchanged(node.args[1], node.args[2])


def axis_wrong(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """Axis 0 of a reduction or of the grid becomes 1, any other 0; `[:, None]` becomes `[None, :]` and back."""
    for axis in axes(node):
        yield Edit(axis, "1" if axis.value == 0 else "0")
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
        first, *others = node.slice.elts
        if len(others) == 1 and isinstance(first, ast.Slice) != isinstance(others[0], ast.Slice):
            yield _exchanged(first, others[0])


def axes(node: ast.AST) -> list[ast.Constant]:
    """The arguments of a call that are the number of an axis."""
    if not isinstance(node, ast.Call) or _called(node) not in REDUCTIONS:
        return []
    first = 0 if _called(node) == "program_id" else 1
    given = [*node.args[first : first + 1], *[given.value for given in node.keywords if given.arg == "axis"]]
    return [axis for axis in given if isinstance(axis, ast.Constant) and type(axis.value) is int]


def shape_permuted(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """Neighbours in a shape or an order of axes change places."""
    if not isinstance(node, ast.Call) or _called(node) not in SHAPED:
        return
    for given in node.args:
        listed = given.elts if isinstance(given, ast.Tuple | ast.List) else []
        for first, second in pairwise(listed):
            if ast.dump(first) != ast.dump(second):
                yield _exchanged(first, second)


def accumulation_dropped(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`a += b` and `a = a | b` become `a = b`; a product that is added to a sum starts at 0."""
    if isinstance(node, ast.AugAssign):
        yield Edit(node, f"{ast.unparse(node.target)} = {ast.unparse(node.value)}")
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and len(node.targets) == 1:
        if ast.unparse(node.value.left) == ast.unparse(node.targets[0]):
            yield Edit(node, f"{ast.unparse(node.targets[0])} = {ast.unparse(node.value.right)}")
    elif _called(node) in ("multiply_accumulate", "dot") and isinstance(node, ast.Call) and len(node.args) > 2:
        yield _becomes(node.args[2], ast.BinOp(node.args[2], ast.Mult(), ast.Constant(0)))


def conversion_dropped(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`v.to(T)` and the device functions that round or widen `v` become `v`."""
    if not isinstance(node, ast.Call):
        return
    if isinstance(node.func, ast.Attribute) and node.func.attr == "to":
        yield _becomes(node, node.func.value)
    elif _called(node) in CONVERSIONS:
        yield _becomes(node, node.args[0])


def operands_exchanged(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`a - b` becomes `b - a`; so do `//`, `%`, `/`, `<<` and `>>`."""
    ordered = ast.Sub | ast.FloorDiv | ast.Mod | ast.Div | ast.LShift | ast.RShift
    if isinstance(node, ast.BinOp) and isinstance(node.op, ordered) and ast.dump(node.left) != ast.dump(node.right):
        yield _becomes(node, ast.BinOp(node.right, node.op, node.left))


def branch_changed(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """The condition of an `if`, of a statement or an expression, is negated."""
    if isinstance(node, ast.If | ast.IfExp):
        yield _becomes(node.test, ast.UnaryOp(ast.Not(), node.test))


def statement_removed(node: ast.AST, names: frozenset[str]) -> Iterator[Edit]:
    """A call for its effect, a sum added to, or an assignment to a name from itself is left out."""
    alone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if isinstance(node, Code) and (alone or isinstance(node, ast.AugAssign) or _is_from_itself(node)):
        yield Edit(node, "pass")


def _is_from_itself(node: ast.AST) -> bool:
    """Whether every name that is assigned is also read there, so that leaving it out leaves none undefined."""
    if not isinstance(node, ast.Assign):
        return False
    targets = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return {name.id for name in ast.walk(node.value) if isinstance(name, ast.Name)} >= set(targets)


def extreme_exchanged(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`maximum` becomes `minimum`, `max` becomes `min`, and back."""
    pairs = {"maximum": "minimum", "max": "min", "argmax": "argmin"}
    pairs |= {new: old for old, new in pairs.items()}
    if isinstance(node, ast.Call) and _called(node) in pairs:
        head, _dot, name = ast.unparse(node.func).rpartition(".")
        yield Edit(node.func, f"{head}.{pairs[name]}" if head else pairs[name])


def term_dropped(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """Of `a + b` one is left, of `a - b` the first."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield _becomes(node, node.left)
        if isinstance(node.op, ast.Add):
            yield _becomes(node, node.right)


def factor_dropped(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """Of `a * b` one is left, of `a // b` and `a / b` the first."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.FloorDiv | ast.Div):
        yield _becomes(node, node.left)
        if isinstance(node.op, ast.Mult):
            yield _becomes(node, node.right)


def loop_shortened(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """A loop over a range starts a step late, or ends a step early."""
    if not isinstance(node, ast.For) or _called(node.iter) not in ("range", "static_range"):
        return
    assert isinstance(node.iter, ast.Call)
    given = [ast.unparse(argument) for argument in node.iter.args]
    start, stop, step = (["0", *given, "1"] if len(given) == 1 else [*given, "1"])[:3]
    called = ast.unparse(node.iter.func)
    yield Edit(node.iter, f"{called}({start} + {step}, {stop}, {step})")
    yield Edit(node.iter, f"{called}({start}, {stop} - {step}, {step})")


def sign_dropped(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """`-a`, `~a` and `not a` become `a`."""
    if isinstance(node, ast.UnaryOp):
        yield _becomes(node, node.operand)


def result_negated(node: ast.AST, _: frozenset[str]) -> Iterator[Edit]:
    """A device function that returns one value returns its negative."""
    if isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Tuple):
        yield _becomes(node.value, ast.UnaryOp(ast.USub(), node.value))


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        comparison_neighbour,
        comparison_negated,
        sum_sign,
        inverse_operator,
        product_as_sum,
        mask_and_or,
        integer_off_by_one,
        number_changed,
        coordinates_swapped,
        other_dimension,
        mask_term_dropped,
        mask_dropped,
        choice_dropped,
        choice_swapped,
        axis_wrong,
        shape_permuted,
        accumulation_dropped,
        conversion_dropped,
        operands_exchanged,
        branch_changed,
        statement_removed,
        extreme_exchanged,
        term_dropped,
        factor_dropped,
        loop_shortened,
        sign_dropped,
        result_negated,
    )
}
