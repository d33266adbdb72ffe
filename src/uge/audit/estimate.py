"""How long a plan will take, from a few timed steps of each network: stated before anything long begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from uge.audit.plan import Cell
from uge.audit.runners import threads
from uge.data.images import to_float

if TYPE_CHECKING:
    from uge.audit.run import Audit

STEPS = 2  # timed, after one that is not
COST = {"adversarial": 8.0, "ueraser": 3.0, "distillation": 1.3, "simclr": 4.0, "guessed-views": 1.5,
    "purify": 3.5, "pairs": 4.0, "own-pairs": 9.0}  # steps of plain ones, for about 30 epochs  # fmt: skip
SLACK = 1.15  # testing after each epoch, starting processes


class Estimate:
    """Seconds of single cells on one worker.

    Args:
        audit: the data and recipes.
        cells: every network among them is timed.
    """

    def __init__(self, audit: Audit, cells: Sequence[Cell]) -> None:
        self.audit = audit
        self.step_seconds: dict[str, float] = {}
        with threads(audit.threads):
            for cell in cells:
                if cell.network not in self.step_seconds:
                    self.step_seconds[cell.network] = _step_seconds(audit, cell)

    def seconds(self, cell: Cell) -> float:
        """What one cell takes, about."""
        recipe = self.audit.recipe_of(cell)
        steps = recipe.epochs * max(1, len(self.audit.sources[cell.trained_on]) // recipe.batch_size)
        parts = [part.partition(":")[0] for part in cell.countermeasure.split("+")]
        factor = max(COST.get(part, 1.0) for part in parts)
        return SLACK * factor * steps * self.step_seconds[cell.network]

    def total(self, cells: Sequence[Cell]) -> float:
        return sum(self.seconds(cell) for cell in cells)


def _step_seconds(audit: Audit, cell: Cell) -> float:
    network = audit.network_of(Cell("hacker", cell.network)).to(audit.device).train()
    images = audit.sources["published"]
    pick = torch.arange(min(audit.recipe_of(cell).batch_size, len(images)))
    x = to_float(images.images[pick]).to(audit.device).contiguous(memory_format=torch.channels_last)
    y = images.labels[pick].to(audit.device)
    started = 0.0
    for step in range(STEPS + 1):
        if step == 1:
            _wait(audit.device)
            started = time.perf_counter()
        F.cross_entropy(network(x), y).backward()
    _wait(audit.device)
    return (time.perf_counter() - started) / STEPS


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def duration(seconds: float) -> str:
    """A length of time for people: "40 seconds", "6 minutes", "3.5 hours"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"
