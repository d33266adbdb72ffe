"""Protections by name, the default first. A new one is one file and one line in `PROTECTIONS` or `BASELINES`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from uge.baselines import BASELINES
from uge.errors import ConfigError, unknown_name
from uge.keys.key import Key
from uge.protect.pictures import PicturesProtection
from uge.protect.sealed import SealedProtection
from uge.protect.ungeneralizable import UngeneralizableProtection
from uge.protection import Protection, Settings

PROTECTIONS: dict[str, type[Protection[Any]]] = {
    "sealed": SealedProtection,
    "pictures": PicturesProtection,
    "uge": UngeneralizableProtection,
    **BASELINES,
}
DEFAULT = next(iter(PROTECTIONS))


def method_for(keys: Sequence[Key]) -> str:
    """The method of whoever holds these keys and names none."""
    return next((name for name, kind in PROTECTIONS.items() if keys and kind.takes == keys[0].kind), DEFAULT)


def resolve_config(method: str = DEFAULT, overrides: dict[str, Any] | None = None) -> Settings:
    """The settings of a method: its defaults with single settings replaced.

    Args:
        method: an entry of `PROTECTIONS`.
        overrides: setting -> value; text is read as the setting's own type, items of a list are separated by spaces.

    Raises:
        ConfigError: unknown method or setting, or a value that is not of its type.
    """
    if method not in PROTECTIONS:
        raise unknown_name("method", method, PROTECTIONS)
    base = PROTECTIONS[method].Config()
    known = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    values = {}
    for name, value in (overrides or {}).items():
        if name not in known:
            raise unknown_name("setting", name, known)
        values[name] = _typed(name, value, type(known[name]))
    return dataclasses.replace(base, **values)


def _typed(name: str, value: Any, kind: type) -> Any:
    if kind is tuple:
        if not isinstance(value, str | list | tuple):
            raise ConfigError(f"setting {name} is a list, got '{value}'")
        items = tuple(value.split()) if isinstance(value, str) else tuple(value)
        if wrong := [item for item in items if not isinstance(item, str)]:
            raise ConfigError(f"setting {name} is a list of texts, got {wrong[0]!r} in it")
        return items
    if kind is bool and isinstance(value, str):
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"setting {name} is true or false, got '{value}'")
        return value.lower() == "true"
    try:
        if kind is int and float(value) != int(float(value)):
            raise ValueError
        return kind(float(value)) if kind is int else kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"setting {name} is a {kind.__name__}, got '{value}'") from error
