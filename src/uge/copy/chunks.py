"""Long work on many images, cut into chunks: each is done once, in whatever process, and kept whatever is killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from uge.durable import write_file
from uge.errors import PublishError, UgeError
from uge.outside import MOST_FACTS, parse_json, read_file
from uge.runners import Local, Runner, threads

C = TypeVar("C")
Done = dict[str, Any]

LEAST_SPREAD = 16  # chunks: fewer are done before another process has loaded torch
AT_ONCE = 64  # chunks that are handed out and not finished: memory has a bound, however many machines there are


def cut(values: Iterable[int], most: int) -> list[range]:
    """Numbers of images in chunks of at most `most` values, or of one image; `values` tells each image's."""
    chunks: list[range] = []
    begin, held, end = 0, 0, 0
    for end, own in enumerate(values):
        if end > begin and held + own > most:
            chunks.append(range(begin, end))
            begin, held = end, 0
        held += own
    return [*chunks, range(begin, end + 1)]


def work_through(
    count: int,
    chunk: Callable[[int], C],
    do: Callable[[C], Done],
    kept: Path,
    runner: Runner | None = None,
    on_done: Callable[[int, int], None] = lambda done, count: None,
) -> Iterator[Done]:
    """Do what is not done yet, then yield the results of all chunks in their order.

    Every chunk is done with one thread, so that all runners and machines add up in the same order.

    Args:
        count: of chunks.
        chunk: gives the chunk of a number, with all that `do` needs, large arrays as those of numpy: torch sends its
            own through shared memory, of which containers have little.
        do: a function of a module, or a partial of one; its results are JSON, and what it writes is on disk when it
            returns.
        kept: a private folder for results; those of a killed run are there, and are not computed again.
        runner: of many chunks; without one they are done in this process.
        on_done: called after each chunk with how many are done, of how many.

    Raises:
        PublishError: a worker died; or what `do` raises.
    """
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    missing = [number for number in range(count) if not _file(kept, number).exists()]
    left, done = iter(missing), count - len(missing)
    running = 0

    def more(wanted: int) -> list[tuple[Path, C]]:
        nonlocal running
        most = AT_ONCE if count >= LEAST_SPREAD else 1
        numbers = list(islice(left, min(wanted, most - running)))
        running += len(numbers)
        return [(_file(kept, number), chunk(number)) for number in numbers]

    for _ in (runner or Local(1)).run(partial(_do, do), more, _lost, kept):
        running, done = running - 1, done + 1
        on_done(done, count)
    for number in range(count):
        yield parse_json(read_file(_file(kept, number), MOST_FACTS))


def _file(kept: Path, number: int) -> Path:
    return kept / f"{number}.json"


def _do(do: Callable[[C], Done], item: tuple[Path, C]) -> None:
    file, chunk = item
    with threads(1):
        result = do(chunk)
    write_file(file, json.dumps(result), mode=0o600)


def _lost(item: tuple[Path, C], error: Exception) -> None:
    cause = getattr(error, "cause", error)  # which Ray wraps
    if isinstance(cause, UgeError):
        raise cause
    raise PublishError(f"chunk {item[0].stem} was lost ({type(error).__name__}); the same command goes on") from error
