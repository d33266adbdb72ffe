"""A new protection or counter-measure is one file and one line: the rest of the program finds it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ..extended import add_lines, copied, run_steps

COUNTERMEASURE = '''
"""Mirrored images, for a test."""

from uge.training import PlainTraining


class Mirrored(PlainTraining):
    """Every image upside down in one of so many batches."""

    cost = 2.0
    tried = ("1", "3")
    amount = "mirrors"

    def __init__(self, every=1):
        self.every, self.seen = int(every), 0

    def batch(self, x, y, generator):
        self.seen += 1
        return (x.flip(2) if self.seen % self.every == 0 else x), y
'''
PROTECTION = '''
"""Lighter images, for a test."""

from dataclasses import dataclass

from uge.baselines.baseline import Baseline, LinfConfig


@dataclass(frozen=True)
class LighterConfig(LinfConfig):
    """Settings of lighter images."""

    lightness: int = 3


class LighterProtection(Baseline):
    Config = LighterConfig

    def protected(self, images, labels, numbers):
        return (images.short() + self.config.lightness).clamp(0, 255).byte()
'''
FOUND = """
from uge.attack import cost_of
from uge.audit.plan import named_plans
print("cost", cost_of("mirrored:3"))
for name, plan in named_plans().items():
    print("plan", name, sorted(how for how in {how for _, how in plan.pairs()} if "mirrored" in how))
"""
PLAN = """
epochs = 1
ceilings = false
strongest = 0
more_seeds = []
[[hackers]]
networks = ["mlp:width=8"]
countermeasures = ["mirrored:1", "mirrored:3"]
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the program says and leaves behind, with a protection and a counter-measure more than it has."""
    place = tmp_path_factory.mktemp("extended")
    copied("src", place)
    for room, module, code, name, kind in (
        ("attack", "mirrored", COUNTERMEASURE, "mirrored", "Mirrored"),
        ("baselines", "lighter", PROTECTION, "lighter", "LighterProtection"),
    ):
        (place / "src" / "uge" / room / f"{module}.py").write_text(code)
        lines = f'+from uge.{room}.{module} import {kind}\n+    "{name}": {kind},\n'
        add_lines(place / "src" / "uge" / room / "__init__.py", lines)
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), np.uint8)
    np.savez(place / "data.npz", images=images, labels=np.arange(24) % 2)
    (place / "plan.toml").write_text(PLAN)
    commands = [
        ["list"],
        ["protect", "../data.npz", "--method", "lighter", "--out", "copy", "--set", "lightness=2"],
        ["audit", "copy", "--test", "../data.npz", "--split", "train", "--plan", "../plan.toml", "--out", "audit"],
    ]
    page = place / "page"
    return run_steps([("page", str(page)), *(("uge", each) for each in commands), ("python", FOUND)], place), page


def test_the_list_of_names_has_it(said: tuple[str, Path]) -> None:
    listed = [line.split()[0] for line in said[0].splitlines() if line.startswith("  ") and line.strip()]
    assert {"lighter", "mirrored"} <= {*listed}


def test_plans_try_it_as_it_says_itself_at_the_cost_that_it_states(said: tuple[str, Path]) -> None:
    for plan in ("worst-case", "full"):
        assert f"plan {plan} ['mirrored:1', 'mirrored:3']" in said[0]
    assert "cost (2.0, 0.0)" in said[0]


def test_a_copy_says_how_it_was_made_and_an_audit_with_its_page_has_the_hacker(said: tuple[str, Path]) -> None:
    _, place = said
    manifest = json.loads((place / "copy" / "manifest.json").read_text())
    assert manifest["method"] == "lighter" and manifest["settings"]["lightness"] == 2
    page = (place / "audit" / "report.html").read_text()
    assert "The more a hacker has" in page and "mirrored, mlp(width=8): accuracy with mirrors 1: " in page
