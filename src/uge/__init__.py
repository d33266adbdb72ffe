"""Publish images that only an authorised network can learn from.

Names are loaded when they are first used, so that `import uge` and `uge --help` stay fast.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "ImageSet": "uge.data.images",
    "load": "uge.data.sources",
    "Key": "uge.keys.key",
    "new_key": "uge.keys.key",
    "save_key": "uge.keys.key",
    "load_key": "uge.keys.key",
    "NullSpace": "uge.keys.null_space",
    "NetworkSpec": "uge.networks",
    "build_network": "uge.networks",
    "Recipe": "uge.training",
    "fit": "uge.training",
    "UngeneralizableConfig": "uge.protect.ungeneralizable",
    "protect_and_publish": "uge.pipeline",
    "verify": "uge.publish",
    "load_published": "uge.views",
    "authorised_view": "uge.views",
    "run_demo": "uge.demo",
    "UgeError": "uge.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'uge' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
