"""Options of counter-measures: they come as text and are judged before anything trains."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from uge.data.images import ImageSet
from uge.errors import ConfigError


def number(what: str, value: str | float, least: float, most: float) -> float:
    """A number in a range, as the user wrote it; `what` names it, such as "mixup: alpha".

    Raises:
        ConfigError: no number, or out of range.
    """
    try:
        read = float(value)
    except ValueError:
        read = float("nan")
    if not least <= read <= most:  # false for nan as well
        raise ConfigError(f"{what}: expected a number from {least:g} to {most:g}, got '{value}'")
    return read


def whole_number(what: str, value: str | int, least: int, most: int = 10**6) -> int:
    """A whole number in a range, as `number`."""
    if not str(value).isdecimal() or not least <= int(value) <= most:
        raise ConfigError(f"{what}: expected a whole number from {least} to {most}, got '{value}'")
    return int(value)


def count(default: int, least: int, most: int = 10**6) -> Any:
    """The field of a `Trained` that is a whole number in a range."""
    return field(default=default, metadata={"range": (least, most)})


def originals_for(clean: ImageSet, asked: str | int, what: str, option: str = "images") -> int:
    """How many originals, or pairs of them with copies, a hacker has.

    Raises:
        ConfigError: no whole number, or more than there are.
    """
    wanted, kind = whole_number(f"{what}: {option}", asked, 1), {"images": "clean images"}.get(option, option)
    if wanted > len(clean):
        raise ConfigError(f"{what}: {wanted} {kind} asked for, but there are {len(clean)} originals")
    return wanted
