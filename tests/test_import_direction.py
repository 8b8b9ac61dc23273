"""Imports run one way: between the packages, and between the rooms inside some of them; nothing is loaded twice."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("records", "simulator", "kernels", "models", "data", "training", "benchmarking", "sweeping", "analysis")
MAY_IMPORT = {
    "records": set(),
    "simulator": set(),
    "kernels": {"records", "simulator"},
    "models": {"records", "kernels"},
    "data": set(),
    "training": {"records", "simulator", "kernels", "models", "data"},
    "benchmarking": {"records", "simulator", "kernels", "models", "training"},
    "analysis": {"records"},
    "sweeping": {"records", "analysis"},
}
"""analysis reads what training wrote and imports nothing of it; a finished sweep prints analysis's comparison."""
EXPERIMENTS = Path("analysis", "claims")
"""The one folder of analysis whose experiments need networks: inside functions, or in its room `parts`."""
FOR_EXPERIMENTS = {"kernels", "models", "data"}
FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "simulator": (
        ("faults", "schedule", "targets"),
        ("sass",),
        ("ptx", "numbers"),
        ("registers", "tensor_map", "order", "program_order", "waiting"),
        ("counters",),
        ("global_memory", "shared_memory"),
        ("chunk",),
        ("instructions",),
        ("machine", "known"),
        ("launch",),
        ("triton_device",),
        ("devices",),
    ),
    "kernels": (
        ("runtime",),
        ("activations",),
        ("layer",),
        ("oracle", "device", "tiles", "dispatch"),
        ("conv",),
        ("norm",),
        ("operators",),
        ("auto",),
        ("ops",),
        ("compile_check",),
        ("tune",),
    ),
    "models": (
        ("synchronised",),
        ("fused", "registry", "checkpoint", "antialiased", "locally_connected"),
        ("layers", "torchvision_names"),
        ("families", "fusion"),
        ("coverage",),
    ),
    "analysis": (
        ("text", "statistics", "conditions", "evidence", "prose"),
        ("drawing",),
        ("page",),
        ("data_table",),
        ("bench", "runs"),
        ("sweeps", "columns", "claims"),
        ("report", "readme"),
    ),
}
"""The rooms of a package, folders and files, ground floor first: a room imports rooms of lower floors only."""
USES_THE_FACE = {("models", "coverage")}
"""Rooms that a package's face does not offer (a command), which therefore may import the face."""


def imported(file: Path) -> Iterator[tuple[str, ...]]:
    """Every absolute import in a file, wherever it stands, as the parts of its dotted name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((*node.module.split("."), alias.name) for alias in node.names)


def imported_first(file: Path) -> Iterator[tuple[str, ...]]:
    """What a file imports while it is imported itself: outside functions. Rooms of `parts` may have torch there."""
    if "parts" in file.relative_to(ROOT).parts:
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if id(node) not in inside and isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif id(node) not in inside and isinstance(node, ast.ImportFrom) and node.module:
            yield from ((*node.module.split("."), alias.name) for alias in node.names)


def _is_experiment(file: Path) -> bool:
    return file.relative_to(ROOT).is_relative_to(EXPERIMENTS)


def sources(folder: str) -> list[Path]:
    """The Python files of a folder; there has to be one."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    return files


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_stands_before_them(package: str) -> None:
    for file in sources(package):
        inside = {name[1] for name in imported(file) if name[0] == "tidepool" and name[1] in PACKAGES}
        allowed = MAY_IMPORT[package] | (FOR_EXPERIMENTS if _is_experiment(file) else set())
        wrong = inside - allowed - {package}
        assert not wrong, f"{file.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_import_only_rooms_below_them(package: str) -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS[package]) for room in rooms}
    room_of = {file: Path(file.relative_to(ROOT / package).parts[0]).stem for file in sources(package)}
    assert set(room_of.values()) - {"__init__"} == set(floor)
    for file, room in room_of.items():
        for name in imported(file):
            if name[:2] == ("tidepool", package) and room in floor and name[2] != room:
                if name[2] not in floor and (package, room) in USES_THE_FACE:
                    continue
                assert name[2] in floor, f"{file.relative_to(ROOT)} imports {'.'.join(name)}: not from a room"
                assert floor[name[2]] < floor[room], f"{file.relative_to(ROOT)} imports {'.'.join(name)}"


def test_no_folder_is_imported_by_its_bare_name() -> None:
    names = set(PACKAGES)
    for folder in (*PACKAGES, "src/tidepool", "tests"):
        for file in sources(folder):
            wrong = [name for name in imported(file) if name[0] in names]
            assert not wrong, f"{file.relative_to(ROOT)} imports {'.'.join(wrong[0])}, not tidepool.{wrong[0][0]}"


@pytest.mark.full
def test_no_module_is_loaded_under_two_names() -> None:
    """Everything imported in one process from the root of the repository, where bare names are to be had too."""
    modules = [
        "tidepool." + ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for package in PACKAGES
        for file in sources(package)
        if file.name not in ("__init__.py", "__main__.py")
    ]
    code = (
        "import importlib, sys\nfrom collections import Counter\nfrom pathlib import Path\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "files = Counter(str(Path(m.__file__).resolve()) for m in set(sys.modules.values()) "
        "if getattr(m, '__file__', None))\n"
        f"print([f for f, n in files.items() if n > 1 and f.startswith({str(ROOT)!r})])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_records_analysis_and_sweeping_do_without_torch() -> None:
    for package in ("records", "analysis", "sweeping"):
        for file in sources(package):
            names = imported_first(file) if _is_experiment(file) else imported(file)
            assert not {"torch", "triton"} & {name[0] for name in names}, f"{file.name} imports torch"


def test_claims_conclude_and_draw_without_networks() -> None:
    for file in sources(str(EXPERIMENTS)):
        if "parts" not in file.parts:
            first = {name[:2] for name in imported_first(file) if name[0] == "tidepool"}
            assert not first & {("tidepool", package) for package in FOR_EXPERIMENTS}, file.name
            assert ("tidepool", "analysis", "claims", "parts") not in {name[:4] for name in imported_first(file)}


@pytest.mark.full
def test_a_program_that_fuses_nothing_does_without_sympy() -> None:
    """PyTorch's tracing of symbolic sizes brings it: a sixth of the time that train.py takes to start."""
    code = "import sys, tidepool.training.command_line, tidepool.training.run; print('sympy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stdout + done.stderr


def test_no_file_is_called_utils_helpers_or_common() -> None:
    names = {file.stem for package in PACKAGES for file in sources(package)}
    assert not names & {"utils", "helpers", "common"}
