"""Imports go one way through the house, and the front door is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import uge

PACKAGE = Path(uge.__file__).parent
STOREYS = (  # a room imports from its own storey, without going round in a circle, and from those before it
    {"errors"},
    {"grammar"},
    {"runtime", "records", "outside", "locks", "durable", "runners"},
    {"data", "networks", "losses", "filters", "operations"},
    {"training"},
    {"encoders"},  # after training: the encoder `own` is trained, by the one loop
    {"keys", "checkpoint", "copy", "protection", "baselines", "protect"},
    {"pipeline", "service"},
    {"attack"},
    {"audit"},
    {"report"},
    {"demo", "bench"},
    {"cli", "__main__"},
)
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}
ROOMS_OF_REPORT = {"errors", "runtime", "records", "outside", "locks", "durable", "data", "copy"}  # images to show
HEAVY = {"torch", "numpy", "datasets", "kornia", "matplotlib", "transformers", "timm", "pandas"}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"  # the package's own front door is no room
}


def modules_imported_by(path: Path, *, types: bool = True) -> Iterator[str]:
    """Modules of the package that any import statement of a file names, inside functions too.

    Without `types` those that only a type checker reads are passed over.
    """
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING" and not types:
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(PACKAGE)}: relative import in line {node.lineno}"
            base = node.module or ""
            modules = [f"{base}.{alias.name}" for alias in node.names]
            modules = [each if each.removeprefix("uge.") in MODULES else base for each in modules]
        else:
            continue
        for module in modules:
            package, _, rest = module.partition(".")
            if package == "uge" and rest and rest != "__version__":
                yield rest


IMPORTS: dict[str, set[str]] = {}  # of each room
for name, path in MODULES.items():
    room = name.partition(".")[0]
    IMPORTS.setdefault(room, set()).update({i.partition(".")[0] for i in modules_imported_by(path)} - {room})


def in_a_circle(imports: dict[str, set[str]]) -> list[str]:
    """What is left when all have gone, again and again, that import nothing that is left."""
    left = dict(imports)
    while free := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_no_two_files_import_each_other() -> None:
    """Inside a room, too."""
    assert not in_a_circle({name: {*modules_imported_by(path, types=False)} for name, path in MODULES.items()})


def test_the_reading_of_imports_finds_those_that_are_there() -> None:
    assert {"errors", "runtime", "networks", "data"} <= IMPORTS["training"]
    assert IMPORTS["errors"] == set()


def test_no_file_is_long() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert not {name: lines for name, lines in lengths.items() if lines > 400}


def public_names(path: Path) -> set[str]:
    """Functions, classes and types that a file defines; not its constants, and no type variables."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.add(node.targets[0].id)
    return {name for name in found if not name.startswith("_") and len(name) > 1 and not name.isupper()}


def test_no_name_stands_for_two_things() -> None:
    """But a command may be called as what it does is."""
    found: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for name in public_names(path) - ({module.rpartition(".")[2]} if module.startswith("cli.") else set()):
            found.setdefault(name, []).append(module)
    assert not {name: modules for name, modules in found.items() if len(modules) > 1}


@pytest.mark.parametrize("room", IMPORTS)
def test_a_room_imports_from_no_later_storey(room: str) -> None:
    assert room in STOREY, f"uge.{room} has no storey; give it one in this test"
    later = {other for other in IMPORTS[room] if STOREY[other] > STOREY[room]}
    assert not later, f"uge.{room} imports {sorted(later)}, which come after it"


def test_no_two_rooms_import_each_other() -> None:
    assert not in_a_circle(IMPORTS)


def test_the_report_reads_records_and_manifests_only() -> None:
    assert IMPORTS["report"] <= ROOMS_OF_REPORT


def test_help_loads_nothing_heavy() -> None:
    """Nor does `import uge`, which comes with it."""
    script = (
        "import atexit, sys\nfrom uge.cli import main\nsys.argv = ['uge', '--help']\n"
        "atexit.register(lambda: print('LOADED', *{name.partition('.')[0] for name in sys.modules}))\nmain()"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert not HEAVY & set(run.stdout.rpartition("LOADED")[2].split())


def test_every_public_name_exists() -> None:
    for name in uge.__all__:
        assert getattr(uge, name) is not None, name
        assert name in dir(uge)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = uge.nonsense
