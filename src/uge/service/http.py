"""The guarded network over HTTP: an image file is posted, its class comes back as JSON.

What is held at a time is bounded: so many bodies are read, each up to a size and within a time, and one image after
another is decoded and answered, in a thread of its own. So memory stays flat, whoever asks, and however many.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from uge.data.decoding import centre_cut, decode, squeezed, tensor_of
from uge.data.entries import Limits
from uge.durable import write_file
from uge.errors import ConfigError, DataError, PublishError
from uge.outside import read_json
from uge.service.accounts import DAILY_ACCOUNTS, Account, today
from uge.service.guarded import Guard
from uge.service.runs import Run
from uge.training import logits_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MOST_BYTES, MOST_PIXELS = 2**23, 2**24  # of a file, and of the image in it
MOST_READ, MOST_WAITING = 8, 256  # bodies at a time, and requests that wait for their turn
SECONDS = 20.0  # that a body may take
SECONDS_BETWEEN = 1.0  # between two writings of the log, at least
MOST_ACCOUNTS, LONGEST_NAME = 10_000, 100  # letters
ACCOUNT = "x-account"  # the header in which a proxy says who asks
CLOSED = "too many images of this account were published ones; it gets no more answers today"
FULL = "no new account is taken today; ask again tomorrow"
REFUSED = "this image looks like a published one, or like one made from it; send images of your own"


@dataclass
class Log:
    """How many images of which account were answered and refused, and how many requests held none.

    It is kept in a file, from one run of the service to the next. An account that is deleted there begins anew.

    Attributes:
        file: JSON.
        bad: requests that held no image.
        accounts: by their names.
    """

    file: Path
    bad: int = 0
    accounts: dict[str, Account] = field(default_factory=dict)
    _written: float = 0.0

    @classmethod
    def read(cls, file: Path) -> Log:
        """The log of earlier runs, or a new one.

        Raises:
            PublishError: the file is damaged.
        """
        if not file.exists():
            return cls(file)
        try:
            found = read_json(file)
            return cls(file, int(found["bad"]), {name: Account(**counts) for name, counts in found["accounts"].items()})
        except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise PublishError(f"cannot read {file}, it is damaged; delete it, and counting begins anew") from error

    def account(self, name: str) -> Account | None:
        """That of this name; None where no other is taken today."""
        if name not in self.accounts:
            new = sum(account.since == today() for account in self.accounts.values())
            if new >= DAILY_ACCOUNTS or len(self.accounts) >= MOST_ACCOUNTS:
                return None
        return self.accounts.setdefault(name, Account())

    def write(self, *, soon: bool = False) -> None:
        """Write it; `soon` not where the last writing was a moment ago."""
        if soon and time.monotonic() - self._written < SECONDS_BETWEEN:
            return
        accounts = {name: asdict(account) for name, account in self.accounts.items()}
        write_file(self.file, json.dumps({"bad": self.bad, "accounts": accounts}, indent=1) + "\n", mode=0o600)
        self._written = time.monotonic()


@dataclass(frozen=True)
class Desk:
    """What is done with one file.

    Attributes:
        run: the network and what it sees.
        guard: that stands before it.
        log: counts.
    """

    run: Run
    guard: Guard
    log: Log

    def answer(self, content: bytes, name: str) -> tuple[int, dict[str, Any]]:
        """The HTTP status for the bytes of an image file from an account of this name, and what is said."""
        try:
            return self._answer(content, name)
        finally:
            self.log.write(soon=True)

    def _answer(self, content: bytes, name: str) -> tuple[int, dict[str, Any]]:
        account = self.log.account(name)
        if account is None:
            return 503, {"error": FULL}
        if account.closed(today()):
            return 403, {"error": CLOSED}
        try:
            image = decode(content, "the image", convert=True, limits=Limits(pixels=MOST_PIXELS))
        except DataError as error:
            self.log.bad += 1
            return 400, {"error": str(error).partition(";")[0]}
        image = image.convert("L" if self.run.spec.channels == 1 else "RGB")
        seen = tensor_of((centre_cut if self.run.cut else squeezed)(image, self.run.spec.image_size))[None]
        refused = bool(self.guard.opens(tensor_of(image)[None])) or bool(self.guard.refuses(seen))
        if not account.admits(refused, today()):
            return 403, {"error": REFUSED}
        shares = logits_of(self.guard.service, seen)[0].softmax(0).tolist()
        named = dict(zip(self.run.class_names, (round(share, 4) for share in shares), strict=True))
        return 200, {"class": max(named, key=named.__getitem__), "probabilities": named}


def application(desk: Desk) -> Starlette:
    """The one endpoint, `POST /`; everything else is one line of JSON with the reason."""
    reading = asyncio.Semaphore(MOST_READ)
    worker = ThreadPoolExecutor(1, "answers")
    waiting = 0

    async def ask(request: Request) -> Response:
        nonlocal waiting
        if waiting >= MOST_WAITING:
            raise HTTPException(503, f"{MOST_WAITING} requests wait already; try again later")
        waiting += 1
        try:
            async with reading:
                content = await _body(request)
                name = request.headers.get(ACCOUNT, "")[:LONGEST_NAME]
                answer = await asyncio.get_running_loop().run_in_executor(worker, desk.answer, content, name)
        finally:
            waiting -= 1
        return JSONResponse(answer[1], answer[0])

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        yield
        worker.shutdown()
        desk.log.write()

    handlers = {HTTPException: _refuse, ClientDisconnect: _left}
    return Starlette(routes=[Route("/", ask, methods=["POST"])], exception_handlers=handlers, lifespan=life)


async def _body(request: Request) -> bytes:
    """What was posted, no more of it than may be.

    Raises:
        HTTPException: it is too large, or takes too long.
        ClientDisconnect: whoever sent it has gone.
    """
    parts, size = [], 0
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > MOST_BYTES:
                    raise HTTPException(413, f"the file has more than {MOST_BYTES:,} bytes; send a smaller one")
                parts.append(part)
    except TimeoutError as error:
        raise HTTPException(408, f"the file took longer than {SECONDS:.0f} seconds; send it again") from error
    return b"".join(parts)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = {404: "there is nothing here; POST an image file to /", 405: "POST an image file to /"}
    answer = JSONResponse({"error": told.get(error.status_code, error.detail)}, error.status_code, error.headers)
    answer.headers["connection"] = "close"
    return answer


async def _left(_: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


def bound(port: int) -> socket.socket:
    """A socket of the loopback address; port 0 takes a free one.

    Raises:
        ConfigError: the port is taken or not for this user.
    """
    try:
        return socket.create_server(("127.0.0.1", port), backlog=MOST_WAITING)
    except OSError as error:
        reason = os.strerror(error.errno or 0)  # without the address, which `strerror` of the error names too
        raise ConfigError(f"cannot serve on port {port}: {reason}; choose another --port") from error


def serve(desk: Desk, listening: socket.socket) -> None:
    """Answer until the process is told to stop (SIGINT, SIGTERM)."""
    config = uvicorn.Config(
        application(desk), log_level="error", access_log=False, timeout_keep_alive=5, timeout_graceful_shutdown=5
    )
    uvicorn.Server(config).run([listening])
