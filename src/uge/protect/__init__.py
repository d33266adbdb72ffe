"""Protections by name. A new one is one file and one line in `PROTECTIONS` (`BASELINES`) and `PRESETS`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from uge.errors import ConfigError, unknown_name
from uge.protect import (
    ar,
    cuda,
    em,
    learnability_lock,
    lsp,
    null_space,
    ops,
    pil,
    random_noise,
    rem,
    reversible,
    tap,
    texture,
    ungeneralizable,
)
from uge.protect.baseline import Baseline, BaselineConfig
from uge.protect.keyed import KeyedConfig
from uge.protect.null_space import NullSpaceProtection
from uge.protect.reversible import ReversibleProtection
from uge.protect.ungeneralizable import UngeneralizableConfig, UngeneralizableProtection

Config = UngeneralizableConfig | KeyedConfig | BaselineConfig

BASELINES: dict[
    str, type[Baseline[Any]]
] = {  # protections of other papers and one of ours, without authorised networks
    "random-noise": random_noise.RandomNoiseProtection,
    "lsp": lsp.LSPProtection,
    "ops": ops.OPSProtection,
    "ar": ar.ARProtection,
    "cuda": cuda.CUDAProtection,
    "em": em.EMProtection,
    "tap": tap.TAPProtection,
    "rem": rem.REMProtection,
    "pil": pil.PILProtection,
    "texture": texture.TextureProtection,
    "learnability-lock": learnability_lock.LearnabilityLockProtection,
}
PROTECTIONS: dict[str, type] = {
    "uge": UngeneralizableProtection,
    "null-space": NullSpaceProtection,
    "reversible": ReversibleProtection,
    **BASELINES,
}
PRESETS: dict[str, Mapping[str, Config]] = {
    "uge": ungeneralizable.PRESETS,
    "null-space": null_space.PRESETS,
    "reversible": reversible.PRESETS,
    "random-noise": random_noise.PRESETS,
    "lsp": lsp.PRESETS,
    "ops": ops.PRESETS,
    "ar": ar.PRESETS,
    "cuda": cuda.PRESETS,
    "em": em.PRESETS,
    "tap": tap.PRESETS,
    "rem": rem.PRESETS,
    "pil": pil.PRESETS,
    "texture": texture.PRESETS,
    "learnability-lock": learnability_lock.PRESETS,
}


def resolve_config(preset: str = "default", overrides: dict[str, Any] | None = None, *, method: str = "uge") -> Config:
    """A preset with single settings replaced.

    Args:
        preset: an entry of `PRESETS[method]`.
        overrides: setting -> value; text is read as the setting's own type, items of a list are separated by spaces.
        method: an entry of `PROTECTIONS`.

    Raises:
        ConfigError: unknown method, preset or setting, or a value that is not of its type.
    """
    if method not in PROTECTIONS:
        raise unknown_name("method", method, PROTECTIONS)
    if preset not in PRESETS[method]:
        raise unknown_name("preset", preset, PRESETS[method])
    base = PRESETS[method][preset]
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
