"""`tidepool <command>`: names, help, the scripts at the root, other people's packages, and readers that go away."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tidepool
from tests.analysis.runs.run_writer import write_run
from tidepool import program
from tidepool.command_line import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]


def python(*arguments: object, path: Path | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    """Run Python in a child, with `path` before everything else that can be imported."""
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), environment.get("PYTHONPATH", "")])
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help_and_bad_flags_by_the_name_it_was_called(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code in (0, None)
    assert capsys.readouterr().out.startswith(f"usage: tidepool {name} ")
    try:
        code = main([name, *(["resnet18"] if name == "coverage" else []), "--no_such_flag"])
    except SystemExit as ended_too:
        code = ended_too.code
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1), error
    assert error.startswith(f"tidepool {name}: ")


def test_no_command_and_help_list_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        for name, (_, about) in COMMANDS.items():
            assert any(line.split(maxsplit=1) == [name, about] for line in lines)


def test_an_unknown_command_lists_the_choices_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    expected = f"tidepool: no command 'trian'; expected one of: {', '.join(COMMANDS)}\n"
    assert capsys.readouterr() == ("", expected)


def test_version_says_which_tidepool_this_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tidepool {tidepool.__version__} ({ROOT / 'src' / 'tidepool'})\n"


def test_importing_tidepool_loads_nothing_heavy() -> None:
    code = "import sys, tidepool.command_line; print(sorted({'torch', 'triton', 'pandas'} & set(sys.modules)))"
    assert python("-c", code).stdout == "[]\n"


WITHOUT_TORCH = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "triton"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from tidepool.command_line import console
console()
"""


def test_a_report_needs_no_torch_and_a_run_says_that_it_does(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "first", seed=0)
    done = python("-c", WITHOUT_TORCH, "report", "runs", "--out", "report", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "1 run -> report/report.html\n"), done.stderr
    refused = python("-c", WITHOUT_TORCH, "train")
    assert (refused.returncode, refused.stderr) == (1, "tidepool train: needs torch, which is not installed here\n")


def test_a_script_of_a_clone_runs_that_clone_and_hides_no_package_of_others(tmp_path: Path) -> None:
    """The installed tidepool is this one; the other clone's script runs its own, and `kernels` is PyPI's."""
    clone, others = tmp_path / "clone", tmp_path / "others"
    shutil.copytree(ROOT / "src" / "tidepool", clone / "src" / "tidepool", ignore=lambda folder, names: [
        name for name in names if not name.endswith(".py")
    ])  # fmt: skip
    (clone / "src" / "tidepool" / "training").mkdir()
    (clone / "kernels").mkdir()
    (clone / "kernels" / "__init__.py").touch()
    (others / "kernels").mkdir(parents=True)
    (others / "kernels" / "__init__.py").touch()
    (clone / "src" / "tidepool" / "training" / "program.py").write_text(
        "import kernels\ndef main(arguments, *, prog):\n    print(prog, __file__, kernels.__file__)\n    return 0\n"
    )
    shutil.copy(ROOT / "train.py", clone)
    done = python(clone / "train.py", path=others, cwd=tmp_path)
    own = clone / "src" / "tidepool" / "training" / "program.py"
    assert done.stdout == f"train.py {own} {others / 'kernels' / '__init__.py'}\n", done.stderr


def test_tests_of_another_clone_stop_in_one_line(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src" / "tidepool", tmp_path / "installed" / "tidepool", symlinks=True)
    (tmp_path / "clone" / "tests").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "clone" / "tests")
    (tmp_path / "clone" / "tests" / "test_nothing.py").write_text("def test_nothing(): pass\n")
    done = python("-m", "pytest", "tests", path=tmp_path / "installed", cwd=tmp_path / "clone")
    assert done.returncode == 2
    installed, clone = tmp_path / "installed" / "tidepool", tmp_path / "clone"
    assert (done.stdout, done.stderr) == (
        "",
        f"tidepool comes from {installed}, and these are the tests of {clone}: "
        f"pip install -e {clone}, or set PYTHONPATH={clone / 'src'}\n",
    )


WRITER = """
import signal, sys, threading
from tidepool.program import run_process

def main(arguments, *, prog):
    if arguments == ["asked"]:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    for _ in range(100000):
        print("one line of many", flush=arguments == ["flushed"])
    return 0

run_process(main, sys.argv[1:], prog="writer")
"""


def closed(command: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a command whose reader has gone before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, *command], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize(("how", "code"), [("plain", 141), ("flushed", 141), ("asked", 143)])
def test_a_reader_that_goes_away_ends_a_command_quietly(how: str, code: int) -> None:
    assert closed(["-c", WRITER, how]) == (code, "")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["-m", "tidepool"], 141),
        (["-m", "tidepool.analysis.readme", "--help"], 141),
        ([str(ROOT / "train.py"), "--help"], 143),
    ],
)
def test_programs_however_called_end_quietly(command: list[str], code: int) -> None:
    assert closed(command) == (code, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_while_a_command_is_imported_is_one_line(number: signal.Signals, code: int) -> None:
    code_of_it = (
        "import signal, time\nfrom tidepool.program import stopped_at_once\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
        "with stopped_at_once('tidepool train'):\n    print('importing', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code_of_it], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (code, f"tidepool train: stopped by {number.name}\n")


def test_signals_that_are_handled_or_ignored_stay_so_while_a_command_is_imported() -> None:
    before = {number: signal.getsignal(number) for number in program.STOPPED}
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with program.stopped_at_once("x"):
            assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    with program.stopped_at_once("x"):
        pass
    assert {number: signal.getsignal(number) for number in program.STOPPED} == before
