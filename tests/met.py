"""What the default tier meets: every kernel is launched and every refusal raised by a test that is not `full`.

Each process notes both while such a test runs. At the end of a run of the whole default tier (`pytest` or
`pytest -m ""` without paths or `-k`), where kernels are interpreted, the run fails with a line for each kernel and each
`raise ArgumentError` in `kernels/` that was not met.
"""

import ast
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
UNMET = {"backend='triton' takes CUDA": "raised in a process of its own, or for a device that this machine lacks"}
"""What no test in these processes can meet, by a part of its words, and why."""

Met = set[tuple[str, str, int]]
"""(kind, file under kernels/, line): of `launch` the line is the kernel's, of `refusal` one of its raise's."""


class Recorder:
    """Notes launches and refusals of the tests that plain `pytest` runs."""

    def __init__(self) -> None:
        self.met: Met = set()
        self.noting = False
        self._watched: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        """Note what happens in a test that is not `full`."""
        self._watch()
        self.noting = item.get_closest_marker("full") is None
        try:
            return (yield)
        finally:
            self.noting = False

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand what was met to the process that started the workers, or look through it there."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["met"] = sorted(self.met)
        elif runs_the_default_tier(session.config) and session.exitstatus == pytest.ExitCode.OK:
            lines = missing(self.met, expected(KERNELS))
            if lines:
                print(*["", *lines], sep="\n")
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker met."""
        self.met |= {(kind, file, line) for kind, file, line in getattr(node, "workeroutput", {}).get("met", [])}

    def _watch(self) -> None:
        """Listen to launches and refusals from the first test on after their modules were imported."""
        for module, watch in (
            ("tidepool.kernels.runtime.launch", self._watch_launches),
            ("tidepool.kernels.runtime.errors", self._watch_refusals),
        ):
            if module in sys.modules and module not in self._watched:
                self._watched.add(module)
                watch(sys.modules[module])

    def _watch_launches(self, module: Any) -> None:
        launch: Callable[..., None] = module.launch_now

        def noted(kernel: Any, *args: Any, **kwargs: Any) -> None:
            code = kernel.fn.__code__
            self._note("launch", code.co_filename, code.co_firstlineno)
            launch(kernel, *args, **kwargs)

        module.launch_now = noted

    def _watch_refusals(self, module: Any) -> None:
        def noted(error: Exception, *args: Any) -> None:
            frame = sys._getframe(1)
            self._note("refusal", frame.f_code.co_filename, frame.f_lineno)
            ValueError.__init__(error, *args)

        module.ArgumentError.__init__ = noted

    def _note(self, kind: str, file: str, line: int) -> None:
        path = Path(file).resolve()
        if self.noting and path.is_relative_to(KERNELS):
            self.met.add((kind, str(path.relative_to(KERNELS)), line))


def runs_the_default_tier(config: pytest.Config) -> bool:
    """Whether every test of the default tier runs: the command names none of its own, and its marks leave none out."""
    narrowed = ("keyword", "lf", "failedfirst", "deselect", "ignore", "collectonly")
    every_path = config.args_source == pytest.Config.ArgsSource.TESTPATHS
    every_mark = config.option.markexpr in ("", "not full")
    return every_path and every_mark and not any(getattr(config.option, name, None) for name in narrowed)


def expected(folder: Path) -> list[tuple[str, str, int, int, str]]:
    """(kind, file, first line, last line, words for it) of every kernel and of every raise of ArgumentError."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        file = str(path.relative_to(folder))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel") and node.decorator_list:
                first = min(decorator.lineno for decorator in node.decorator_list)
                found.append(("launch", file, first, node.lineno, f"no launch of {node.name}"))
            elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                error, last = ast.unparse(node.exc.func), node.end_lineno or node.lineno
                if error == "ArgumentError":
                    words = f"no refusal by {ast.unparse(node.exc.args[0])}"
                    found.append(("refusal", file, node.lineno, last, words))
    return found


def missing(met: Met, wanted: Iterable[tuple[str, str, int, int, str]]) -> list[str]:
    """A line for everything wanted that was not met."""
    return [
        f"default tier: {words} (kernels/{file}:{first})"
        for kind, file, first, last, words in wanted
        if not any(part in words for part in UNMET)
        and not any((kind, file, line) in met for line in range(first, last + 1))
    ]
