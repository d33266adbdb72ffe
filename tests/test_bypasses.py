"""`uge.outside` opens the files of others, `uge.durable` writes those that matter, and there is no way round them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import uge

PACKAGE = Path(uge.__file__).parent
READERS = {"read_text", "read_bytes", "load_file", "safe_open"}
LOCKERS = {"flock", "lock_descriptor"}
WRITERS = {"write_text", "write_bytes", "rmtree", "mkdtemp", "os.rename", "os.replace", "os.fsync", "os.link"} | LOCKERS
CODE = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}  # modules that run what they read
HOMES = {"outside.py", "locks.py", "durable.py"}
OTHERWISE = {
    ("keys/files.py", "os.rename"): "a pair of files, which appear together and are never overwritten",
    ("keys/files.py", "os.link"): "the same",
    ("keys/files.py", "os.fsync"): "the same",
    ("keys/files.py", "os.open"): "the same",
    ("keys/files.py", "lock_descriptor"): "the same; the folder is the user's, and is not made private",
    ("bench/cost.py", "read_text"): "the system's own /proc/self/status",
    **{
        place: "inside `durable.new_folder`, which syncs all of it before its name appears"
        for place in (
            ("cli/train.py", "write_bytes"),
            ("cli/train.py", "write_text"),
            ("copy/files.py", "write_bytes"),
            ("copy/publishing.py", "open"),
            ("copy/publishing.py", "write_text"),
        )
    },
    ("copy/forms.py", "write_bytes"): "a file of a chunk, synced before the chunk counts as done",
    ("copy/opening.py", "write_bytes"): "the same",
    ("cli/terminal.py", "os.open"): "the system's own /dev/null",
}
FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Name and node of every call of a file: "rmtree", "open", and "os.replace" where it is that of `os`."""
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            text = ast.unparse(node.func)
            yield text if text.startswith("os.") else text.rpartition(".")[2], node


def opens_a_file(called: str, node: ast.Call) -> bool:
    """Of calls named open: the built-in, that of `os`, and a path's; not those of images, zip files and keys."""
    modes = {each.value for each in node.args if isinstance(each, ast.Constant)}
    ways = not node.args or bool(modes & {"r", "rb", "w", "wb", "x", "xb", "a", "ab", "a+b", "r+b"})
    return called == "os.open" or (called == "open" and (isinstance(node.func, ast.Name) or ways))


def is_our_own(called: str, node: ast.Call) -> bool:
    """Whether a file that travels inside the package is read, or a function of ours is called `read_text`."""
    text = ast.unparse(node)
    return "resources." in text or "joinpath(" in text or (called in READERS and isinstance(node.func, ast.Name))


@pytest.mark.parametrize("name", sorted(FILES.keys() - HOMES))
def test_nothing_is_read_or_written_past_the_two_modules(name: str) -> None:
    for called, node in calls(name):
        text = ast.unparse(node)
        if (called in READERS | WRITERS or opens_a_file(called, node)) and not is_our_own(called, node):
            assert (name, called) in OTHERWISE, f"line {node.lineno}: {text[:80]} goes past uge.outside and uge.durable"


def test_every_way_round_is_there_still() -> None:
    assert {(name, called) for name, _ in OTHERWISE for called, _ in calls(name)} >= OTHERWISE.keys()


@pytest.mark.parametrize("name", FILES)
def test_nothing_that_is_read_is_run(name: str) -> None:
    tree = ast.parse(FILES[name].read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    if name != "checkpoint.py":  # which names the error of torch.load
        assert not CODE & imported
    for called, node in calls(name):
        text = ast.unparse(node)
        assert called != "exec" and (called != "eval" or isinstance(node.func, ast.Attribute)), text
        assert not text.startswith(("pickle.load", "torch.load(", "np.load(")) or "weights_only=True" in text, text
