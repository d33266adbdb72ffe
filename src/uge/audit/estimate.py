"""How long a plan will take, from a few timed steps of each network: stated before anything long begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from uge.attack import beginning, cost_of
from uge.audit.plan import Cell
from uge.data.images import to_float
from uge.runners import threads
from uge.runtime import quick

if TYPE_CHECKING:
    from uge.audit.trainer import Trainer

STEPS = 2  # timed, after one that is not
USUAL_EPOCHS = 30  # by which counter-measures state what they do before the first step
SLACK = 1.15  # testing after each epoch, starting processes


class Estimate:
    """Seconds of single cells of an audit on one worker.

    Every network, those that counter-measures begin with included, is timed when the first cell with it is asked for:
    which combinations a plan comes to is known only when others are trained.
    """

    def __init__(self, audit: Trainer) -> None:
        self.audit = audit
        self.timed: dict[tuple[str, str], tuple[float, float]] = {}

    def seconds(self, cell: Cell) -> float:
        """What one cell takes, about."""
        recipe = self.audit.recipe_of(cell)
        what = cell.network, beginning(cell.countermeasure)  # which may be another network than the cell's
        if what not in self.timed:
            with threads(self.audit.threads):
                self.timed[what] = _time(self.audit, cell)
        step_seconds, share = self.timed[what]
        epochs = max(1.0, share * recipe.epochs)  # what trains no epoch still looks at every image
        images = cell.originals or len(self.audit.sources[cell.trained_on])
        steps_an_epoch = max(1, images // recipe.batch_size)
        cost, before = cost_of(cell.countermeasure)
        return SLACK * (cost * epochs + before * USUAL_EPOCHS) * steps_an_epoch * step_seconds

    def total(self, cells: Sequence[Cell]) -> float:
        return sum(self.seconds(cell) for cell in cells)


def _time(audit: Trainer, cell: Cell) -> tuple[float, float]:
    """Seconds of a step, and the epochs as a share of the recipe's."""
    recipe = audit.recipe_of(cell)
    images = audit.sources["published"]
    images = images.subset(torch.arange(min(recipe.batch_size, len(images))))
    network, begun = audit.network_of(Cell("hacker", cell.network)), recipe
    if how := beginning(cell.countermeasure):  # its other parts may have much to do before, and to many images
        measure = audit.countermeasure_of(replace(cell, countermeasure=how), nn.Identity(), network)
        measure.prepare(images)
        network, begun = measure.begin(network, recipe, torch.Generator())
    network.to(audit.device).train()
    x = to_float(images.images).to(audit.device).contiguous(memory_format=torch.channels_last)
    y = images.labels.to(audit.device)
    started = 0.0
    for step in range(STEPS + 1):
        if step == 1:
            _wait(audit.device)
            started = time.perf_counter()
        with quick(audit.device, recipe.precision):
            loss = F.cross_entropy(network(x), y)
        loss.backward()
    _wait(audit.device)
    return (time.perf_counter() - started) / STEPS, begun.epochs / recipe.epochs


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
