"""`uge protect`: a protected copy, and what to do with it."""

from __future__ import annotations

import os
import shlex
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uge.cli import options
from uge.cli.terminal import Bar, note, say
from uge.errors import ConfigError, UgeError

if TYPE_CHECKING:
    from uge.copy import Manifest
    from uge.data import ImageSet, Photographs

HARDLY_CHANGED_DB = 48.0  # PSNR of a change of one 8-bit step
MOST_COMPARED, MOST_PHOTOGRAPHS = 1000, 100  # images
SHOWN, SQUARE = 6, 96  # images in OUT.png, and the side in pixels of those of different sizes
WORKING_SIZE = 64
AS_SEEN: dict[str, Any] = {"working_size": WORKING_SIZE, "picture_size": 128}  # pixels: as networks see them
PICTURES = "pictures"  # the method for images without classes


def protect(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Folder, .zip, .parquet, .npz, hub:NAME, eurosat, or a picture.")
    ],
    out: options.Out,
    key: Annotated[
        list[Path] | None,
        typer.Option("--key", help="NAME.protector.uge to sign and seal with; default: a new key beside the copy."),
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="Opens the key, or encrypts the new one.")
    ] = None,
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Leave the new key's files open.")] = False,
    method: Annotated[
        str | None, typer.Option("--method", help="Protection (uge list); default: what the key is for.")
    ] = None,
    epsilon: Annotated[
        int | None, typer.Option("--epsilon", help="Largest change of a value, of 255: more protects better.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, one setting of the method; repeatable.")
    ] = None,
    image_size: options.Size = None,
    convert: options.Convert = False,
    skip_bad: options.SkipBad = False,
    runner: options.RunnerText = "local",
) -> None:
    """A protected copy of DATA for everybody, and a key that gives the recipient the originals back.

    Killed at any time, the same command goes on where it stopped.
    """
    from uge.copy import MANIFEST, check_outside
    from uge.data import load, photographs
    from uge.data.sources import check_exists, splits_of
    from uge.durable import check_target
    from uge.keys import SealedKey, is_sealed, pair_of
    from uge.pipeline import key_beside, protect_and_publish, was_published
    from uge.protect import PROTECTIONS, method_for, resolve_config
    from uge.runners import build_runner
    from uge.runtime import best_device

    out = out if out.name not in ("", "..") else Path(os.path.abspath(out))  # "." has no name to put a key's behind
    check_outside(out, data)
    if not was_published(out):
        check_target(out)
    settings = options.pairs(set_ or [], "--set", "epochs=1")
    settings |= {} if epsilon is None else {"epsilon_255": str(epsilon)}
    where = build_runner(runner)
    keys = [options.read_key(file, passphrase_file, "protector") for file in key or []]
    chosen = method or method_for(keys)
    config = resolve_config(chosen, settings)
    draws = not keys and PROTECTIONS[chosen].takes == SealedKey.kind
    ours = [*pair_of(out)] if draws else []
    work = Path(f"{out}.partial")
    fresh = draws and not all(file.exists() for file in ours)
    if fresh:  # asked before the long work
        check_exists(data)
        passphrase = options.new_passphrase(passphrase_file, no_passphrase)
    elif draws:
        if passphrase_file is not None and not is_sealed(ours[0]):
            raise ConfigError(f"{ours[0]} is there already, and open; remove {ours[0]} and {ours[1]} for a new key")
        passphrase = options.passphrase_of(ours[0], passphrase_file)
        if not work.exists():
            note(f"seals with the key that is there already, {ours[0]}; remove both of its files for a new one")
    how = options.how(convert, skip_bad)
    with ExitStack() as stack:
        originals: ImageSet | Photographs
        if image_size is None and PROTECTIONS[chosen].enlarges:
            originals = stack.enter_context(photographs(data, "train", **AS_SEEN, **how))
            alone = len(originals.small.labels.unique()) == 1
            if alone and chosen != PICTURES:
                one = f"{data} has one class only ({originals.small.class_names[0]!r})"
                if method is not None:
                    raise ConfigError(f"{one}; leave --method out, or give images of other classes, too")
                try:
                    chosen, config = PICTURES, resolve_config(PICTURES, settings)
                except ConfigError as error:
                    raise ConfigError(f"{one}, which is protected by the method pictures: {error}") from error
            _tell_originals(data, originals, chosen)
            has_test = not alone and "test" in originals.splits
        else:
            originals = load(data, "train", image_size=options.size_of(image_size), **how)
            has_test = "test" in splits_of(data, skip_bad=skip_bad, limits=how["limits"])
        drawn = not Path(f"{out}.png").exists()
        if draws:
            fresh = not any(file.exists() for file in ours)  # another process may have made them since
            keys = [key_beside(out, passphrase)]
        try:
            with Bar("protecting") as bar:
                manifest = protect_and_publish(
                    originals,
                    keys,
                    out,
                    chosen,
                    config,
                    device=best_device(),
                    runner=where,
                    on_step=bar.step,
                    on_copy=partial(_show, out, originals),
                )
        except UgeError:
            if fresh and not work.exists() and not (out / MANIFEST).exists():  # nothing was done with the new key
                for file in ours:
                    file.unlink(missing_ok=True)
            raise
        theirs = [(file, _recipients_file(file)) for file in ours[:1] or key or ()]
        secrets = [str(found or f"the recipient's file of {file}") for file, found in theirs]
        _tell(out, manifest, originals, secrets, f", keep {ours[0]}" if ours else "", drawn)
        reads = [flag for flag, given in (("--convert", convert), ("--skip-bad", skip_bad)) if given]
        sizes = ["--image-size", image_size] if image_size else []
        opens = ["--key", str(theirs[0][1] or theirs[0][0])] if theirs else []
        say("Next: " + shlex.join(_next(out, data, opens, reads, sizes, has_test, len(manifest.class_names))))


def _recipients_file(protectors: Path) -> Path | None:
    """The recipient's file of a key, beside the protector's; None where it is not, or one of them was renamed."""
    from uge.keys import pair_of

    own, recipients = pair_of(str(protectors).removesuffix(".protector.uge"))
    return recipients if own == protectors and recipients.exists() else None


def _tell_originals(data: str, originals: ImageSet | Photographs, method: str) -> None:
    """How photographs and pictures are seen, and what that is worth."""
    if method == PICTURES:
        note(f"{data}: pictures without classes, {len(originals)} in all; what a pretrained network sees is changed")
        note("who trains on them among many other images learns from those: no copy of a few pictures prevents it")
    elif originals.sizes:
        count = len(set(originals.sizes))
        note(
            f"{data}: {len(originals)} photographs of {count} sizes; protected as networks see them at"
            f" {WORKING_SIZE}x{WORKING_SIZE} pixels, published at their own sizes"
        )
        note(
            "photographs are protected less well than small images, hundreds less than thousands: audit the copy first"
        )


def _show(out: Path, originals: ImageSet | Photographs, manifest: Manifest) -> None:
    """OUT.png: some originals, their copies and the differences. It is as private as the originals."""
    import torch

    from uge.copy import reader_of
    from uge.data.decoding import resized
    from uge.durable import write_file
    from uge.report.figures import comparison_picture

    file = Path(f"{out}.png")
    if file.exists():
        return
    chosen = torch.linspace(0, len(originals) - 1, min(SHOWN, len(originals))).long().tolist()
    published = reader_of(out, manifest)
    pairs = [(originals.own(at), published(at)) for at in chosen]
    size = pairs[0][0].shape[1:] if len({each.shape for each, _ in pairs}) == 1 else (SQUARE, SQUARE)
    before, after = (
        torch.stack([resized(image, (size[0], size[1])) for image in row]) for row in zip(*pairs, strict=True)
    )
    write_file(file, comparison_picture(before, after), mode=0o600)


def _next(
    out: Path, data: str, key: list[str], reads: list[str], sizes: list[str], has_test: bool, classes: int
) -> list[str]:
    """The command to run next: an audit where there are test images, else a look at what the key gives back."""
    if classes > 1 and has_test:
        return ["uge", "audit", str(out), "--test", data, "--clean", data, *reads, *key, "--out", f"{out}-audit"]
    if classes > 1:
        return ["uge", "verify", str(out), "--clean", data, *sizes, *reads, *key]
    return ["uge", "open", str(out), *key, "--out", f"{out}-opened"]


def _tell(
    out: Path, manifest: Manifest, originals: ImageSet | Photographs, secrets: list[str], keep: str, drawn: bool
) -> None:
    """What was published, how different it looks, what to give to whom."""
    import torch

    from uge.audit.quality import psnr
    from uge.copy import reader_of

    allowed = "no bound asked" if manifest.epsilon_255 is None else f"{manifest.epsilon_255} allowed"
    most = MOST_PHOTOGRAPHS if originals.sizes else MOST_COMPARED
    sample = range(0, len(originals), max(1, len(originals) // most))  # one by one: a copy may be larger than memory
    published = reader_of(out, manifest)
    each = [psnr(originals.own(at)[None], published(at)[None]) for at in sample]
    noise = float(torch.cat(each).median())
    classes = len(manifest.class_names)
    kinds = f"images of {classes} classes" if classes > 1 else "picture" if len(originals) == 1 else "pictures"
    say(f"Published {out}: {len(originals)} {kinds}, method {manifest.method}.")
    measured = f"epsilon {manifest.epsilon_measured_255} of 255 measured, {allowed}"
    look = f"Look at {out}.png, and keep it." if drawn else f"{out}.png was there before, and is left as it is."
    say(f"PSNR {noise:.1f} dB (median), {measured}. {look}")
    secret = " and ".join(secrets or ([f"{out}.lock"] if "lock" in manifest.settings else []))
    say(f"Give {out} to anybody" + (f", {secret} to the recipient alone{keep}." if secret else "; it has no key."))
    if noise > HARDLY_CHANGED_DB:
        note("the copies hardly differ from the originals, expect all to learn them")
