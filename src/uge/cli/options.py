"""What several commands take, and how they read it."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uge.errors import ConfigError, KeyFileError, unknown_name
from uge.outside import MOST_SETTINGS, read_file

if TYPE_CHECKING:
    from uge.data import Limits
    from uge.keys import Key

EPOCHS = 30  # of a training, where nobody says how many

CopyFolder = Annotated[Path, typer.Argument(metavar="COPY", help="Published folder.")]
Folder = Annotated[Path, typer.Argument(metavar="COPY", help="Published folder, or any ImageFolder.")]
Out = Annotated[Path, typer.Option("--out", help="New folder to write.")]
KeyFile = Annotated[Path | None, typer.Option("--key", help="Key file.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="Opens the key: a file with its passphrase, or an age or ssh identity."),
]
Clean = Annotated[str | None, typer.Option("--clean", help="DATA whose train split holds the originals.")]
Test = Annotated[str, typer.Option("--test", help="DATA whose test split measures accuracy.")]
Split = Annotated[str, typer.Option("--split", help="val measures with that one, where test has no labels.")]
Size = Annotated[str | None, typer.Option("--image-size", help="Resize to SIZE or HEIGHTxWIDTH pixels.")]
Convert = Annotated[bool, typer.Option("--convert", help="Convert alpha, 16-bit, CMYK and mixed images.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Pass over files that cannot be read, and list them.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides everything but keys.")]
RunnerText = Annotated[
    str, typer.Option("--runner", help="local, local:workers=4, ray or slurm:partition=NAME,minutes=60.")
]


def size_of(text: str | None) -> tuple[int, int] | None:
    """--image-size as (height, width)."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and len(side) < 9 and int(side) for side in sides):
        raise ConfigError(f"--image-size '{text}' is not SIZE or HEIGHTxWIDTH, as in 32 or 32x48")
    height, width = int(sides[0]), int(sides[-1])
    data_limits().check(f"--image-size '{text}'", pixels=height * width)
    return height, width


def seconds(text: str, option: str) -> float:
    """A length of time, as in 90s, 30m or 2h."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    if unit is None or not text[:-1].isdecimal() or not int(text[:-1]):
        raise ConfigError(f"{option} '{text}' is no length of time, as in 90s, 30m or 2h")
    return float(unit * int(text[:-1]))


_limits: dict[str, int] = {}  # of this call of the program


def set_limits(texts: Sequence[str]) -> None:
    """--limit: what every source that this call reads may ask for."""
    if not texts:
        return
    from dataclasses import fields

    from uge.data import Limits

    known = [field.name for field in fields(Limits)]
    for name, value in pairs(texts, "--limit", "files=1000000").items():
        if name not in known:
            raise unknown_name("limit", name, known)
        if not value.isdecimal() or not int(value):
            raise ConfigError(f"--limit {name} is a whole number above 0, got '{value}'")
        _limits[name] = int(value)


def data_limits() -> Limits:
    """What every source may ask for."""
    from uge.data import Limits

    return Limits(**_limits)


def how(convert: bool, skip_bad: bool) -> dict[str, Any]:
    """How to read a source, as `load` and `Copy.read` take it."""
    return {"convert": convert, "skip_bad": skip_bad, "limits": data_limits()}


def pairs(texts: Sequence[str], option: str, example: str) -> dict[str, str]:
    """NAME=VALUE of an option that can be repeated; `example` shows one."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{option} '{text}' is not NAME=VALUE, as in {option} {example}")
        found[name.strip().replace("-", "_")] = value.strip()
    return found


def new_passphrase(file: Path | None, no_passphrase: bool) -> bytes | None:
    """The passphrase of a new key: of a file, or of whoever sits at the terminal; None to leave the key open."""
    if file is not None and no_passphrase:
        raise ConfigError("give --passphrase-file or --no-passphrase, not both")
    if file is not None:
        return _passphrase(file)
    if no_passphrase:
        return None
    if not sys.stdin.isatty():
        raise ConfigError("give --passphrase-file FILE to encrypt the new key, or --no-passphrase to leave it open")
    return _ask("Passphrase of the new key", confirm=True)


def passphrase_of(key: Path, file: Path | None) -> bytes | None:
    """What opens an encrypted key file with a passphrase: of a file, or of whoever sits at the terminal."""
    from uge.keys import is_sealed

    if file is not None:
        return None if _is_identity(file) else _passphrase(file)
    return _ask(f"Passphrase of {key}") if sys.stdin.isatty() and is_sealed(key) else None


def read_key(file: Path, passphrase_file: Path | None, role: str | None = None) -> Key:
    """Read a key; where it is encrypted, with a passphrase or an identity."""
    from uge.keys import load_key

    identity = passphrase_file if passphrase_file is not None and _is_identity(passphrase_file) else None
    return load_key(file, role=role, passphrase=passphrase_of(file, passphrase_file), identity=identity)


def _is_identity(file: Path) -> bool:
    """Whether a file holds an age or ssh identity and no passphrase."""
    try:
        return any(
            mark in read_file(file, MOST_SETTINGS, links=True) for mark in (b"AGE-SECRET-KEY-", b"PRIVATE KEY-----")
        )
    except OSError:
        return False


def _passphrase(file: Path) -> bytes:
    """A passphrase as bytes, the same whether read from a file (one line) or typed."""
    try:
        text = read_file(file, MOST_SETTINGS, links=True).decode("utf-8-sig")  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise KeyFileError(f"cannot read passphrase {file}: {reason}") from error
    lines = text.splitlines()
    if len(lines) != 1 or not lines[0]:
        raise KeyFileError(f"passphrase {file} has {len(lines)} lines; expected one that is not empty")
    return _normal(lines[0])


def _normal(text: str) -> bytes:
    """Keyboards write one letter as one or two code points; the passphrase is the same."""
    return unicodedata.normalize("NFC", text).encode()


def _ask(prompt: str, confirm: bool = False) -> bytes:
    return _normal(typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True))
