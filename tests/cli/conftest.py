"""The command line in processes of its own, on a few small real images.

Importing torch takes seconds. So one process imports the program once and forks for each call: `run` starts `main`
with arguments, exit code and streams of its own, as the shell would. `INSTALLED` is the real command.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uge.data.decoding import picture_of
from uge.data.images import ImageSet

INSTALLED = Path(sys.executable).with_name("uge")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
KILLED = -signal.SIGALRM  # the exit code of a call that had `kill_after` seconds and not enough of them
SERVER = """
import json, os, signal, sys, traceback
import uge.audit.conduct, uge.cli.app, uge.demo
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(request.get("cwd", "."))
        signal.setitimer(signal.ITIMER_REAL, request.get("kill_after", 0))  # no handler: ends at once, as by kill -9
        for number, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
            os.dup2(os.open(path, os.O_RDWR), number)
        sys.argv, code = ["uge", *request["arguments"]], 0
        try:
            uge.cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Result:
    """What a call left behind."""

    code: int
    stdout: str
    stderr: str

    def ok(self) -> Result:
        """The same, after checking that it ended well."""
        assert self.code == 0, self
        return self

    @property
    def error(self) -> str:
        """The one line of a user's error, after checking that it is one."""
        assert self.code == 2, self
        assert self.stderr.startswith("error: ") and self.stderr.count("\n") == 1, self.stderr
        return self.stderr.removeprefix("error: ").strip()


Run = Callable[..., Result]
Options = tuple[object, ...]


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        ) as server,
    ):

        def call(*arguments: object, **more: object) -> Result:
            assert server.stdin and server.stdout
            files = [Path(folder, name) for name in ("stdout", "stderr")]
            for file in files:
                file.write_text("")
            request = {"arguments": [*map(str, arguments)]} | more | {file.name: str(file) for file in files}
            print(json.dumps(request), file=server.stdin, flush=True)
            code = int(server.stdout.readline())
            return Result(code, *(file.read_text() for file in files))

        yield call


@pytest.fixture(scope="session")
def toy(eurosat: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 16x16 photographs of three classes: train/ with 48 and test/ with 24."""
    folder = tmp_path_factory.mktemp("toy")
    for name, label in (("forest", "Forest"), ("river", "River"), ("sea", "SeaLake")):
        members = (eurosat.labels == eurosat.class_names.index(label)).nonzero().flatten()[:24]
        for number, image in enumerate(eurosat.images[members, :, ::2, ::2]):
            path = folder / ("train" if number < 16 else "test") / name / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture_of(image).save(path)
    return folder


def role(key: Path, name: str) -> Path:
    return Path(f"{key}.{name}.uge")


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.array(picture)


def assert_all_open(run: Run, copy: Path, clean: Path, count: int = 48) -> None:
    """The key beside a copy gives every original back."""
    told = run("verify", copy, "--key", role(copy, "recipient"), "--clean", clean).ok().stdout
    assert f"views: {count} of {count} identical to those of the originals\n" in told


def given(*settings: str) -> tuple[str, ...]:
    """As options."""
    return tuple(part for setting in settings for part in ("--set", setting))


# -- sealed copies: what a user gets without options -------------------------------------------------------------------

SMALL = given("epochs=4", "batch_size=16", "references=mlp:width=8", "surrogates=mlp:width=8", "width=8")


@pytest.fixture(scope="session")
def made(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Run a command that makes something, and name the target."""

    def make(name: str, *arguments: object) -> Path:
        out = tmp_path_factory.mktemp("made") / name
        run(*arguments, "--out", out).ok()
        return out

    return make


@pytest.fixture(scope="session")
def key(made: Callable[..., Path]) -> Path:
    """NAME of a sealed key: NAME.protector.uge and NAME.recipient.uge."""
    return made("alice", "key", "new", "--no-passphrase")


@pytest.fixture(scope="session")
def passphrase(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with one."""
    file = tmp_path_factory.mktemp("passphrase") / "passphrase"
    file.write_text("correct horse battery staple\n")
    return file


@pytest.fixture(scope="session")
def mine(key: Path) -> Options:
    """How the recipient names his key."""
    return "--key", role(key, "recipient")


def protect_arguments(toy: Path, key: Path, out: Path) -> Options:
    return ("protect", toy, "--key", role(key, "protector"), "--out", out, *SMALL)


@pytest.fixture(scope="session")
def published(made: Callable[..., Path], toy: Path, key: Path) -> Path:
    """A sealed copy of the toy images; do not write to it."""
    return made("copy", "protect", toy, "--key", role(key, "protector"), *SMALL)


# -- the paper's method ----------------------------------------------------------------------------------------------

WEIGHTS = ("key", "new", "--initial-weights", "--no-passphrase", "--network", "convnet:width=8", "--epochs", 2)
UGE = given("epochs=8", "run_epochs=1", "batch_size=16", "students=mlp:width=8", "generator_width=8", "encoder=own")


@pytest.fixture(scope="session")
def weights(made: Callable[..., Path], toy: Path) -> Path:
    """NAME of a key of initial weights for the toy images."""
    return made("bob", *WEIGHTS, "--data", toy)


def uge_arguments(toy: Path, weights: Path, out: Path) -> Options:
    """24 steps of the generator, all three terms on."""
    return ("protect", toy, "--key", role(weights, "protector"), "--out", out, *UGE)


@pytest.fixture(scope="session")
def ungeneralizable(made: Callable[..., Path], toy: Path, weights: Path) -> Path:
    """A copy by the paper's method; do not write to it."""
    return made("uge", "protect", toy, "--key", role(weights, "protector"), *UGE)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder: its relative path and its content."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
