"""The list of edge cases in tests/README.md and the tests that are numbered after it are the same."""

import ast
import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parent
ROW = re.compile(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
NUMBERED = re.compile(r"test_(\d\d)_")


def test_every_case_has_its_tests_and_every_numbered_test_its_case() -> None:
    listed = [
        (int(number), sorted(re.findall(r"`(\w+)`", tests)))
        for number, tests in ROW.findall((TESTS / "README.md").read_text(encoding="utf-8"))
    ]
    numbered = defaultdict(list)
    for path in (TESTS / "kernels").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (match := NUMBERED.match(node.name)):
                numbered[int(match[1])].append(node.name)
    assert [number for number, _ in listed] == list(range(1, 45))
    assert dict(listed) == {number: sorted(names) for number, names in numbered.items()}
