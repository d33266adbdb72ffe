"""Publish images that people can look at and most networks learn little from.

Names are loaded when they are first used, so that `import uge` and `uge --help` stay fast.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.5"

_PUBLIC = {
    "load": "uge.data.sources",
    "SealedKey": "uge.keys",
    "save_key": "uge.keys",
    "load_key": "uge.keys",
    "protect_and_publish": "uge.pipeline",
    "verify": "uge.copy",
    "open_copy": "uge.copy",
    "Copy": "uge.copy",
    "load_published": "uge.copy",
    "authorised_view": "uge.copy",
    "load_network": "uge.service.runs",
    "guard": "uge.service",
    "UgeError": "uge.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'uge' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
