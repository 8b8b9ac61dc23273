"""Patterns of syntax: where an expression or a statement occurs in a tree, and the tree with another in its place.

A pattern is Python text of one expression or one simple statement. Syntax trees are compared, so formatting, line
breaks and parentheses do not matter, nor what stands before and after a run of operands: `b & c` occurs in
`a & b & c & d`, and `a - b` in `x + a - b`. `_` stands for any one expression, a call's last argument `*_` for any
further arguments, and `_` as the whole body of an `if` or `for`, which only `within` may be, for any statements.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

Code: TypeAlias = ast.expr | ast.stmt
Operand: TypeAlias = tuple[type, ast.expr]
"""An operand of a chain, and the operator before it."""

ANY = "_"
CHAINS: dict[type, type] = {
    operator: chain
    for chain, operators in {
        ast.Add: (ast.Add, ast.Sub),
        ast.Mult: (ast.Mult,),
        ast.BitAnd: (ast.BitAnd,),
        ast.BitOr: (ast.BitOr,),
        ast.And: (ast.And,),
        ast.Or: (ast.Or,),
    }.items()
    for operator in operators
}
"""Operators that make one chain, by the one that stands before its first operand."""
_UNCOMPARED = ("ctx", "kind", "type_comment")


@dataclass(frozen=True)
class Occurrence:
    """Where a pattern was found: the node, the operands of it where it is a chain, and what `_` stood for."""

    node: Code
    operands: slice
    wildcards: tuple[ast.expr, ...]


def parse(text: str, *, block: bool = False) -> Code:
    """The pattern of that text. Raises SyntaxError unless it is one expression or one simple statement.

    With `block` it may be a compound statement with a body of `_`.
    """
    body = ast.parse(text).body
    if len(body) != 1 or (hasattr(body[0], "body") and not (block and _is_any_body(body[0].body))):
        raise SyntaxError(f"`{text}` is not one expression or one simple statement")
    return body[0].value if isinstance(body[0], ast.Expr) else body[0]


def wildcards(pattern: ast.AST) -> int:
    """How many `_` stand in the pattern for one expression."""
    if isinstance(pattern, ast.Starred) and _is_any(pattern.value):
        return 0
    return _is_any(pattern) + sum(map(wildcards, ast.iter_child_nodes(pattern)))


def occurrences(pattern: Code, tree: ast.AST, within: Code | None = None) -> list[Occurrence]:
    """Every place in the tree where the pattern occurs, inside (or as) code that matches `within` if given."""
    return list(_occurrences(pattern, tree, within, within is None, None))


def _occurrences(
    pattern: Code, node: ast.AST, within: Code | None, inside: bool, chain: type | None
) -> Iterator[Occurrence]:
    inside = inside or (within is not None and _matched(within, node) is not None)
    if inside and isinstance(node, Code):
        wanted = _operands(pattern)
        if len(wanted) > 1 and _chain(node) is _chain(pattern):
            # The left part of a chain is the chain's own beginning, which was looked at with the whole.
            yield from () if _chain(node) is chain else _runs(wanted, node)
        elif (found := _matched(pattern, node)) is not None:
            yield Occurrence(node, slice(None), tuple(found))
    for child in ast.iter_child_nodes(node):
        left = isinstance(node, ast.BinOp) and child is node.left
        yield from _occurrences(pattern, child, within, inside, _chain(node) if left else None)


def _runs(wanted: list[Operand], node: Code) -> Iterator[Occurrence]:
    operands = _operands(node)
    for start in range(len(operands) - len(wanted) + 1):
        run = slice(start, start + len(wanted))
        found: list[ast.expr] = []
        if all(a[0] is b[0] and _matches(a[1], b[1], found) for a, b in zip(wanted, operands[run], strict=True)):
            yield Occurrence(node, run, tuple(found))


def _matched(pattern: ast.AST, node: ast.AST) -> list[ast.expr] | None:
    """What the pattern's `_` stand for in the node, None where it does not match."""
    found: list[ast.expr] = []
    return found if _matches(pattern, node, found) else None


def _matches(pattern: object, node: object, found: list[ast.expr]) -> bool:
    if _is_any(pattern) and isinstance(node, ast.expr):
        found.append(node)
        return True
    if type(pattern) is not type(node):
        return False
    if isinstance(pattern, list) and isinstance(node, list):
        if _is_any_body(pattern):
            return True
        return len(pattern) == len(node) and all(_matches(a, b, found) for a, b in zip(pattern, node, strict=True))
    if isinstance(pattern, ast.Call) and isinstance(node, ast.Call) and pattern.args and _is_rest(pattern.args[-1]):
        first = pattern.args[:-1]
        return _matches(pattern.func, node.func, found) and _matches(first, node.args[: len(first)], found)
    if isinstance(pattern, ast.AST):
        fields = (field for field in pattern._fields if field not in _UNCOMPARED)
        return all(_matches(getattr(pattern, field), getattr(node, field), found) for field in fields)
    return pattern == node


def _is_any(node: object) -> bool:
    return isinstance(node, ast.Name) and node.id == ANY


def _is_any_body(body: list[ast.stmt]) -> bool:
    return len(body) == 1 and isinstance(body[0], ast.Expr) and _is_any(body[0].value)


def _is_rest(node: ast.expr) -> bool:
    return isinstance(node, ast.Starred) and _is_any(node.value)


def _chain(node: ast.AST) -> type | None:
    """The kind of chain the node is, None for any other code."""
    return CHAINS.get(type(node.op)) if isinstance(node, ast.BinOp | ast.BoolOp) else None


def _operands(node: ast.AST) -> list[Operand]:
    """The operands of a chain from left to right, of any other code itself alone."""
    chain = _chain(node)
    if chain is None:
        return [(ast.Add, node)] if isinstance(node, ast.expr) else []
    if isinstance(node, ast.BoolOp):
        return [(chain, value) for value in node.values]
    assert isinstance(node, ast.BinOp)
    before = _operands(node.left) if _chain(node.left) is chain else [(chain, node.left)]
    return [*before, (type(node.op), node.right)]


def _joined(operands: list[Operand], chain: type) -> ast.expr:
    if len(operands) == 1:
        return operands[0][1]
    if chain in (ast.And, ast.Or):
        return ast.BoolOp(chain(), [operand for _, operand in operands])
    *before, (operator, last) = operands
    return ast.BinOp(_joined(before, chain), operator(), last)


class _Filled(ast.NodeTransformer):
    def __init__(self, value: ast.expr) -> None:
        self.value = value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.value if _is_any(node) else node


def replacement(found: Occurrence, new: Code) -> str:
    """The text to stand for the node of an occurrence, in one line: `new` instead of what the pattern matched.

    A `_` in `new` is what the pattern's only `_` stood for. An argument or element is left out by `*()`.
    """
    if wildcards(new):
        (value,) = found.wildcards
        new = _Filled(value).visit(new)
    chain = _chain(found.node)
    if found.operands != slice(None) and chain is not None and isinstance(new, ast.expr):
        operands = _operands(found.node)
        operands[found.operands] = _operands(new) if _chain(new) is chain else [(chain, new)]
        new = _joined(operands, chain)
    text = ast.unparse(ast.fix_missing_locations(new))
    return f"({text})" if isinstance(new, ast.expr) and not isinstance(new, ast.Starred) else text


def edited(source: str, node: Code, text: str) -> str:
    """The source with `text` in the node's place. Raises SyntaxError where it does not parse there."""
    lines = source.encode().splitlines(keepends=True)  # columns count bytes
    assert node.end_lineno is not None
    first, last = lines[node.lineno - 1], lines[node.end_lineno - 1]
    changed = first[: node.col_offset] + text.encode() + last[node.end_col_offset :]
    after = b"".join([*lines[: node.lineno - 1], changed, *lines[node.end_lineno :]]).decode()
    ast.parse(after)
    return after
