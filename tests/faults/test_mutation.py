"""A mutation is found by syntax wherever its function lies, changes that code alone, and says where it is not found."""

from pathlib import Path

import pytest

from tests.faults.mutation import Mutation, MutationError

SOURCE = """\
LIMIT = 254  # × a comment with more bytes than letters


def bound(
    a, b, c,
):
    x = "×" if a else (b
         & (a < b) & c)
    if a < b:
        x += sum(a, b, key=c)
    return (x
            - a * 2
            + b)


class Tile:
    def bound(self, a):
        return a[0, 1], a
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two kernels' modules, one of which the mutations are about."""
    (tmp_path / "kernels/conv").mkdir(parents=True)
    (tmp_path / "kernels/conv/one.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "kernels/two.py").write_text("def bound():\n    return 7\n", encoding="utf-8")
    return tmp_path


def mutation(old: str, new: str, function: str = "bound", within: str = "", file: str = "") -> Mutation:
    return Mutation(name="m", function=function, kind="bounds", old=old, new=new, within=within, file=file)


@pytest.mark.parametrize(
    ("planted", "before", "after"),
    [
        (mutation("b & (a < b)", "b"), 'x = "×" if a else (b\n         & (a < b) & c)', 'x = "×" if a else ((b & c))'),
        (
            mutation("(a<b) & c", "a & c"),
            'x = "×" if a else (b\n         & (a < b) & c)',
            'x = "×" if a else ((b & a & c))',
        ),
        (mutation("x - a*2", "x"), "(x\n            - a * 2\n            + b)", "((x + b))"),
        (mutation("a < b", "a <= b", within="if a < b: _"), "if a < b:", "if (a <= b):"),
        (mutation("x += _", "x = _"), "x += sum(a, b, key=c)", "x = sum(a, b, key=c)"),
        (mutation("sum(a, *_)", "0"), "sum(a, b, key=c)", "(0)"),
        (mutation("b", "*()", within="sum(*_)"), "sum(a, b, key=c)", "sum(a, *(), key=c)"),
        (mutation("a * _", "_"), "a * 2", "(2)"),
        (mutation("254", "255", "LIMIT"), "LIMIT = 254", "LIMIT = (255)"),
        (mutation("a[0, 1]", "a[1, 0]", "Tile.bound"), "a[0, 1]", "(a[1, 0])"),
        (mutation("7", "8", file="kernels/two.py"), "return 7", "return (8)"),
        (mutation("7", "8", file="kernels/gone.py"), "return 7", "return (8)"),
    ],
    ids=lambda value: f"{value.old} to {value.new}" if isinstance(value, Mutation) else "",
)
def test_changes_that_code_alone(planted: Mutation, before: str, after: str, tree: Path) -> None:
    sources = {str(path.relative_to(tree)): path.read_text() for path in (tree / "kernels").rglob("*.py")}
    changed = planted.apply(tree)
    assert sources[changed].count(before) == 1
    assert (tree / changed).read_text() == sources.pop(changed).replace(before, after)
    assert all((tree / path).read_text() == source for path, source in sources.items())


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        (
            mutation("a < c", "b"),
            r"m: `a < c` occurs 0 times in bound (kernels/conv/one.py, kernels/two.py), expected once",
        ),
        (
            mutation("a < b", "b"),
            r"m: `a < b` occurs 2 times in bound (kernels/conv/one.py:8, kernels/conv/one.py:9), expected once",
        ),
        (
            mutation("a[0, 1]", "a"),
            r"(kernels/conv/one.py, kernels/two.py), expected once; it occurs in Tile.bound (kernels/conv/one.py)",
        ),
        (
            mutation("7", "8", "limit_of"),
            "no function, method or constant limit_of in kernels/; it occurs in bound (kernels/two.py)",
        ),
        (
            mutation("71", "8", "Tile.bounds"),
            "no function, method or constant Tile.bounds in kernels/; names like it: Tile.bound",
        ),
        (mutation("a b", "b"), "invalid syntax"),
        (mutation("for x in a: b", "b"), "`for x in a: b` is not one expression or one simple statement"),
        (mutation("a < b", "a  <  (b)"), "old and new have to be two expressions or two statements, and not the same"),
        (mutation("- a * 2 + b", "b"), "m: `- a * 2 + b` occurs 0 times in bound"),
        (mutation("2", "*()"), "m: kernels/conv/one.py:12 does not parse with *() (invalid syntax)"),
        (mutation("_ < _", "_"), "`_` in new is what the only `_` in old stood for"),
    ],
    ids=lambda value: f"{value.old} to {value.new}" if isinstance(value, Mutation) else "",
)
def test_refused_in_one_line(planted: Mutation, message: str, tree: Path) -> None:
    with pytest.raises(MutationError) as raised:
        planted.apply(tree)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
