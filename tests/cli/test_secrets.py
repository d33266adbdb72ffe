"""Where a secret must not be: files that others may read, what is printed, process lists, a hacker's memory."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from uge.keys import load_key

from ..plans import one_training_each
from .conftest import ENVIRONMENT, Run, role

BASE64 = (base64.b64encode, base64.urlsafe_b64encode)
STOPS_AT_THE_END = """
import os, signal, sys
from pathlib import Path
from uge.cli import main
from uge.keys import load_key
words = sys.argv[1:]
if words[0] == "holds":
    kept = load_key(Path(words[1]))
else:
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, stop.code
os.kill(os.getpid(), signal.SIGSTOP)
"""


def forms(key: Path) -> list[bytes]:
    """Both secrets of a protector's key, as bytes and as they are written in text."""
    held = load_key(role(key, "protector"))
    assert held.signing_key is not None
    return [
        form
        for secret in (held.secret, held.signing_key)
        for form in (secret, secret.hex().encode(), *(encode(secret)[:-2] for encode in BASE64))
    ]


@contextmanager
def process_lists() -> Iterator[set[bytes]]:
    """Arguments and environments of all processes that can be seen meanwhile, gathered in what is yielded."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            for name in ("cmdline", "environ"):
                for file in Path("/proc").glob(f"[0-9]*/{name}"):
                    with suppress(OSError):
                        seen.add(file.read_bytes())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked at in /proc")
def test_no_secret_is_in_what_others_can_see(run: Run, toy: Path, key: Path, published: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(one_training_each("authorised", "mlp:width=8"))
    mine, test = ("--key", role(key, "recipient")), ("--test", toy)
    student = ("--hacker", "mlp:width=8", "--countermeasure", "distillation:soft", "--epochs", 1)
    with process_lists() as shown:
        told = [
            run("verify", published, *mine),
            run("open", published, *mine, "--out", tmp_path / "mine"),
            run("train", published, *mine, *test, "--network", "mlp:width=8", "--epochs", 1, "--out", tmp_path / "run"),
            run("attack", published, *mine, *test, *student, "--out", tmp_path / "attacks"),
            run("audit", published, *mine, *test, "--plan", tmp_path / "plan.toml", "--out", tmp_path / "audit"),
            run("report", tmp_path / "audit", "--public"),
        ]
    assert [done.code for done in told] == [0] * 6, told
    secrets = forms(key)
    assert len(shown) > 4
    assert not [where for where in shown for secret in secrets if secret in where]
    assert not [done for done in told for secret in secrets if secret in (done.stdout + done.stderr).encode()]
    files = [file for root in (tmp_path, published) for file in root.rglob("*") if file.is_file()]
    assert len(files) > 60
    assert not [file for file in files for secret in secrets if secret in file.read_bytes()]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="memory is looked at in /proc")
def test_a_hackers_memory_holds_no_secret(key: Path, toy: Path, published: Path, tmp_path: Path) -> None:
    """Of a hacker whose key lies beside the copy, and is not given; the same look finds one that is held."""
    attack = ("attack", published, "--test", toy, "--hacker", "mlp:width=8", "--epochs", 1, "--out", tmp_path / "a")
    for words, found in ((attack, False), (("holds", role(key, "recipient")), True)):
        command = [sys.executable, "-c", STOPS_AT_THE_END, *map(str, words)]
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
            try:
                assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
                assert remembers(process.pid, load_key(role(key, "recipient")).secret) == found
            finally:
                process.kill()


def remembers(process: int, secret: bytes) -> bool:
    """Whether these bytes are anywhere in what a stopped process can write to."""
    with open(f"/proc/{process}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            place, mode = line.split()[:2]
            first, last = (int(each, 16) for each in place.split("-"))
            if mode.startswith("rw") and "[v" not in line:
                memory.seek(first)
                if secret in memory.read(last - first):
                    return True
    return False
