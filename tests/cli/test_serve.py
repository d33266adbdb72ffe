"""The recipient's service over HTTP, on the loopback address: every request has an answer or one clear error."""

from __future__ import annotations

import http.client
import io
import json
import math
import re
import shutil
import signal
import socket
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uge.copy import Copy
from uge.errors import PublishError
from uge.keys import SealedKey, load_key, save_key
from uge.service.accounts import DAILY_REFUSALS
from uge.service.detector import Detector, train_detector
from uge.service.http import ACCOUNT, CLOSED, MOST_BYTES, REFUSED, Log
from uge.service.runs import DETECTOR, save_detector

from .conftest import ENVIRONMENT, INSTALLED, Run, role

Ask = Callable[..., tuple[int, dict]]


@pytest.fixture(scope="module")
def trained(run: Run, published: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network that recognises published images by their letters alone."""
    out, recipient = tmp_path_factory.mktemp("trained") / "run", role(key, "recipient")
    how = ("--key", recipient, "--network", "convnet:width=4", "--epochs", 1, "--out", out)
    run("train", published, *how).ok()
    opens = load_key(recipient)
    copy = Copy.read(published, opens)
    detector = train_detector(copy.images, copy.view(opens), steps=1)
    thumbnails = replace(detector.thumbnails, threshold=1.0)
    save_detector(Detector(detector.network, math.inf, thumbnails), opens, out / DETECTOR)
    return out


@contextmanager
def service(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that serves, and its port; it is told to stop at the end."""
    command = [INSTALLED, "serve", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            assert found, line + process.stderr.read()
            yield process, int(found[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        assert process.stderr.read() == ""


def asked(port: int, content: bytes, method: str = "POST", path: str = "/", account: str = "") -> tuple[int, dict]:
    """Status and JSON of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, content, {ACCOUNT: account} if account else {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@cache
def picture(side: int = 16, kind: str = "PNG", seed: int = 0) -> bytes:
    """Noise, enlarged."""
    buffer = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(values).resize((side, side), Image.Resampling.NEAREST).save(buffer, kind)
    return buffer.getvalue()


def bomb() -> bytes:
    """A small file that says that it holds 40,000 x 40,000 pixels."""
    small = picture()
    head = b"IHDR" + struct.pack(">II", 40_000, 40_000) + small[24:29]
    return small[:12] + head + struct.pack(">I", zlib.crc32(head)) + small[33:]


NO_IMAGES = {
    b"": "the image: cannot be read (it is empty)",
    b"no image at all": "the image: cannot be read (not an image)",
    b"%PDF-1.7": "the image: cannot be read (it is a PDF)",
    picture()[:90]: "the image: cannot be read (",
    picture(kind="JPEG")[:300]: "the image: cannot be read (",
    bomb(): "the image asks for 1,600,000,000 pixels",
}


def test_every_request_over_http_has_an_answer_or_one_clear_error(
    run: Run, trained: Path, published: Path, key: Path
) -> None:
    """One process serves all of this: starting one takes seconds."""
    key_file = role(key, "recipient")
    with service(trained, "--key", key_file) as (process, port):
        ask = partial(asked, port)
        published_images_are_refused(ask, published)
        a_hundred_at_once_are_answered(ask)
        assert {ask(picture(100, kind))[0] for kind in ("JPEG", "GIF", "BMP")} == {200}
        for content, reason in NO_IMAGES.items():
            status, told = ask(content)
            assert status == 400 and told["error"].startswith(reason) and "\n" not in told["error"]
        assert ask(b"", "GET") == (405, {"error": "POST an image file to /"})
        assert ask(picture(), "PUT")[0] == 405
        assert ask(picture(), "POST", "/elsewhere")[0] == 404
        assert ask(bytes(MOST_BYTES + 1))[0] == 413
        clients_that_die_harm_nobody(port)
        error = run("serve", trained, "--key", key_file, "--port", 0).error
        assert f"{trained} is served by process {process.pid}" in error
        memory_stays_flat(ask, process)
    log = Log.read(trained / "served.json")  # as the next run of the service reads it
    assert log.bad > len(NO_IMAGES) and log.accounts.keys() == {"", "hacker"}
    assert (log.accounts["hacker"].answered, log.accounts["hacker"].refused) == (0, DAILY_REFUSALS)
    assert log.accounts[""].answered > 100 and not log.accounts[""].refused
    (trained / "served.json").write_text("{}")
    with pytest.raises(PublishError, match="damaged; delete it, and counting begins anew"):
        Log.read(trained / "served.json")


def published_images_are_refused(ask: Ask, published: Path) -> None:
    files = sorted((published / "train").rglob("*.png"))[: DAILY_REFUSALS + 1]
    answers = [ask(file.read_bytes(), account="hacker") for file in files]
    assert answers == [(403, {"error": REFUSED})] * DAILY_REFUSALS + [(403, {"error": CLOSED})]


def a_hundred_at_once_are_answered(ask: Ask) -> None:
    with ThreadPoolExecutor(100) as crowd:
        answers = [*crowd.map(lambda number: ask(picture(seed=number)), range(100))]
    for status, told in answers:
        assert status == 200 and told["class"] in told["probabilities"].keys() == {"forest", "river", "sea"}
        assert sum(told["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def clients_that_die_harm_nobody(port: int) -> None:
    for sent in (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nabc", b"\x00\xff nonsense\r\n\r\n", b""):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(sent)
    assert asked(port, picture())[0] == 200


def memory_stays_flat(ask: Ask, process: subprocess.Popen[str]) -> None:
    def crowd() -> float:
        """MiB after forty requests, twenty at a time."""
        contents = [picture(1000), bomb(), bytes(MOST_BYTES), picture(), picture(1000)[:-100]]
        with ThreadPoolExecutor(20) as clients:
            assert {status for status, _ in clients.map(ask, contents * 8)} == {200, 400}
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    first = crowd()
    crowd()
    assert crowd() < first + 40


def test_mistakes_are_one_line(run: Run, trained: Path, published: Path, key: Path, tmp_path: Path) -> None:
    recipient = role(key, "recipient")
    assert "cannot read the trained network" in run("serve", published, "--key", recipient).error
    other = Path(shutil.copytree(trained, tmp_path / "other", ignore=shutil.ignore_patterns(DETECTOR)))
    done = run("serve", other, "--key", recipient)
    assert done.error == f"{other} cannot recognise its copy yet: give --copy COPY, once" and not done.stdout
    save_key(SealedKey.draw(), tmp_path / "another")
    done = run("serve", other, "--key", role(tmp_path / "another", "recipient"), "--copy", published)
    assert "key" in done.error and not done.stdout, "it is told before anything is learnt"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = run("serve", trained, "--key", recipient, "--port", port).error
    assert error == f"cannot serve on port {port}: Address already in use; choose another --port"
