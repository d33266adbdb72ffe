"""The authorised network's way through training: where gradient matching looks.

Matching gradients at the weights of a clean training run is not enough, because training on the copy drifts off
that run. So two kinds of weights are visited: checkpoints of a clean run, and networks that are being trained on the
current copy while the generator learns (on-policy).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uge.networks import trainable
from uge.training import Recipe, State, learning_rate_at, make_optimiser, snapshot


class LiveRun:
    """A network in training on the current copy, advanced one step at a time and restarted at the end of its run.

    Every run begins with a copy of the network's weights, and takes `run_steps` steps by the recipe.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, run_steps: int, device: torch.device) -> None:
        self.recipe = recipe
        self.run_steps = run_steps
        self.network = copy.deepcopy(network).to(device).train()
        self.initial = snapshot(network)
        self.restart()

    def restart(self, state: State | None = None, step: int = 0) -> None:
        """Begin a run at its first step, or in the middle from a given state."""
        self.network.load_state_dict(state or self.initial)
        self.optimiser = make_optimiser(self.network, self.recipe)
        self.step = step

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(trainable(self.network).values())

    def advance(self, gradients: Sequence[Tensor]) -> None:
        """One optimiser step along `gradients`, one tensor a trainable parameter."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate_at(self.recipe, (self.step + 1) / (self.run_steps + 1))
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient.detach()
        self.optimiser.step()
        self.step += 1
        if self.step >= self.run_steps:
            self.restart()

    def state(self) -> dict[str, Any]:
        """Everything needed to go on later exactly as if nothing had happened."""
        return {"network": snapshot(self.network), "optimiser": self.optimiser.state_dict(), "step": self.step}

    def load(self, state: dict[str, Any]) -> None:
        self.restart(state["network"], state["step"])
        self.optimiser.load_state_dict(state["optimiser"])
