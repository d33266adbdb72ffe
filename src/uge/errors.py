"""Errors a user can cause. Each message says what was got, what was expected, and what to do.

The command line prints the message on one line and exits with code 2. Anything that is not a `UgeError`
is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UgeError(Exception):
    """Base of every error that a user can cause and mend.

    Example:
        >>> try:
        ...     uge.load_key("nowhere.recipient.uge")
        ... except uge.UgeError as error:
        ...     print(error)
        cannot read key nowhere.recipient.uge: No such file or directory
    """


class DataError(UgeError):
    """Images or labels that cannot be read or used."""


class KeyFileError(UgeError):
    """A key file that cannot be read, or does not fit the data."""


class PublishError(UgeError):
    """A published folder that cannot be written or read."""


class TrainingError(UgeError):
    """A training that came to nothing."""


class ConfigError(UgeError):
    """An option, name or setting that does not exist or is out of range."""


@contextmanager
def told_as(kind: type[UgeError], what: str, mend: str = "") -> Iterator[None]:
    """What the system refuses inside becomes an error of a kind: "cannot write a.png: No space left on device"."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: {error.strerror or error}{mend}") from error


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name of a kind, such as "network", that no registry holds, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"choose from: {', '.join(names)}" if names else "there is none"
    return ConfigError(f"unknown {kind} '{name}'; {hint}")
