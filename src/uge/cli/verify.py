"""`uge verify`: whether a copy is what its protector made."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import typer

from uge.cli import options
from uge.cli.protect import AS_SEEN
from uge.cli.terminal import note, say

if TYPE_CHECKING:
    from uge.data import ImageSet, Photographs

MOST_PROBLEMS = 20  # that are printed


def verify(
    folder: options.CopyFolder,
    key: options.KeyFile = None,
    clean: options.Clean = None,
    passphrase_file: options.PassphraseFile = None,
    image_size: options.Size = None,
    convert: options.Convert = False,
    skip_bad: options.SkipBad = False,
) -> None:
    """Exit code 1 if anything is wrong with a copy: hashes, labels, with a key its signature and every letter.

    With the originals it also measures the largest change, and compares every view.
    """
    from uge.copy import verify as check
    from uge.data import load, photographs
    from uge.runners import Local

    authorised = None if key is None else options.read_key(key, passphrase_file)
    how = options.how(convert, skip_bad)
    with ExitStack() as stack:
        originals: ImageSet | Photographs | None = None
        if clean is not None and image_size is None:
            originals = stack.enter_context(photographs(clean, "train", **AS_SEEN, **how))
        elif clean is not None:
            originals = load(clean, "train", image_size=options.size_of(image_size), **how)
        found = check(folder, clean=originals, key=authorised, runner=Local())
    for line in found.notes:
        note(line)
    say(*(f"problem: {problem}" for problem in found.problems[:MOST_PROBLEMS]))
    if len(found.problems) > MOST_PROBLEMS:
        say(f"and {len(found.problems) - MOST_PROBLEMS} more")
    if authorised is not None and found.signature == "valid":
        say(f"signature: valid, by the key of fingerprint {authorised.fingerprint[:16]}")
    elif authorised is None:
        say("signature: " + ("not checked: give --key" if found.signature == "not checked" else "none"))
    if found.letters is not None:
        say(f"letters: {found.letters} of {found.images} open")
    if found.views is not None:
        say(f"views: {found.views} of {found.images} identical to those of the originals")
    measured = "" if found.epsilon_255 is None else f", epsilon {found.epsilon_255}/255 measured"
    whole = "all as published" if key else "all as its manifest says, whoever wrote that"
    verdict = whole if found.ok else f"{len(found.problems)} problem{'s' * (len(found.problems) > 1)}"
    say(f"{folder}: {found.images} images{measured}; {verdict}")
    if not found.ok:
        raise typer.Exit(1)
