"""`uge open`: the recipient's images as a plain class folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uge.cli import options
from uge.cli.terminal import say


def open_(
    source: Annotated[
        Path, typer.Argument(metavar="COPY", help="Published folder, part of one, or a single PNG file.")
    ],
    key: Annotated[Path, typer.Option("--key", help="NAME.recipient.uge, or the COPY.lock of a learnability lock.")],
    out: options.Out,
    passphrase_file: options.PassphraseFile = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out what does not open, and list it.")] = False,
    runner: options.RunnerText = "local",
) -> None:
    """Your images as a plain class folder, for any training program: OUT/train/CLASS/NAME.png."""
    from uge.copy import check_outside, open_copy
    from uge.runners import build_runner

    check_outside(out, source)
    where = build_runner(runner)
    count = (
        _unlock(source, key, out)
        if key.suffix == ".lock"
        else open_copy(source, options.read_key(key, passphrase_file), out, skip_bad=skip_bad, runner=where)
    )
    say(f"{out}: {count} image{'s' * (count != 1)} opened; private, as the originals are.")


def _unlock(source: Path, file: Path, out: Path) -> int:
    """Undo a learnability lock: the originals, up to rounding."""
    from uge.baselines.learnability_lock import load_lock
    from uge.copy import Copy, write_images
    from uge.durable import check_target
    from uge.errors import KeyFileError

    check_target(out)
    lock, copy = load_lock(file), Copy.read(source)
    if copy.manifest is None or copy.manifest.settings.get("lock") != lock.digest():
        raise KeyFileError(f"{file} is not the lock of {source}; use the one that was written beside it")
    write_images(lock.unlock(copy.images), out)
    return len(copy.images)
