"""Protections of other papers, by name: what ours are compared with. A new one is one file and one line."""

from __future__ import annotations

from typing import Any

from uge.baselines.ar import ARProtection
from uge.baselines.bait import BAITProtection
from uge.baselines.baseline import Baseline
from uge.baselines.cuda import CUDAProtection
from uge.baselines.dune import DUNEProtection
from uge.baselines.em import EMProtection
from uge.baselines.learnability_lock import LearnabilityLockProtection
from uge.baselines.lsp import LSPProtection
from uge.baselines.ops import OPSProtection
from uge.baselines.pil import PILProtection
from uge.baselines.random_noise import RandomNoiseProtection
from uge.baselines.rem import REMProtection
from uge.baselines.tap import TAPProtection

BASELINES: dict[str, type[Baseline[Any]]] = {
    "random-noise": RandomNoiseProtection,
    "lsp": LSPProtection,
    "ops": OPSProtection,
    "ar": ARProtection,
    "cuda": CUDAProtection,
    "em": EMProtection,
    "tap": TAPProtection,
    "rem": REMProtection,
    "pil": PILProtection,
    "dune": DUNEProtection,
    "bait": BAITProtection,
    "learnability-lock": LearnabilityLockProtection,
}
