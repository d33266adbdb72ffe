"""Robust error-minimising noise (REM): Fu et al., "Robust Unlearnable Examples", ICLR 2022, arXiv 2203.14533.

    min_theta mean_i min_|delta|<=epsilon  E_t max_|a|<=radius  CE(f_theta(t(x_i + delta_i) + a), y_i)

t is a random flip and crop. So that adversarial training does not undo it, the noise is learnt against the worst small
perturbation a of what the network sees. At each step a batch's noise is found for the present network from a uniform
start, and then the network takes a step on these images, augmented and attacked anew. At the end every image's noise is
found for the final network.

As in the authors' public code (github.com/fshp971/robust-unlearnable-examples), a counts as a constant for the gradient
in delta, and E_t is a mean over a few draws. Deviations: the augmentation is that of `uge.training`; x + delta is kept
in [0, 1] after each step; the network's optimiser has Nesterov momentum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uge.baselines.baseline import LearntBaseline, LinfConfig, signed_step, uniform
from uge.protection import Telling
from uge.training import Recipe, make_optimiser

FALLS = (0.4, 0.8)  # of the network's steps; its learning rate falls to a tenth at each


@dataclass(frozen=True)
class REMConfig(LinfConfig):
    """Settings of REM; the defaults are the public code's for CIFAR-10.

    Attributes:
        radius_share: L_inf bound of the adversary that the noise resists, as a share of epsilon.
        network_steps: steps of the network, each with a batch's noise.
        steps: signed gradient steps of the noise.
        draws: of the augmentation, in each of them.
        attack_steps: of the adversary.
        attack_share: their length as a share of the radius.
        learning_rate: of the network, at first.
    """

    radius_share: float = 0.5
    network: str = "resnet:depth=18"
    network_steps: int = 5000
    steps: int = 10
    step_share: float = 0.2
    draws: int = 5
    attack_steps: int = 10
    attack_share: float = 0.2
    batch_size: int = 128
    learning_rate: float = 0.1


class REMProtection(LearntBaseline[REMConfig]):
    """Learns the noise beside a network that is trained adversarially on it."""

    Config = REMConfig
    stream = "rem"

    @property
    def rounds(self) -> int:
        return self.config.network_steps + len(self._batches(self.config.batch_size))

    def begin(self, telling: Telling) -> None:
        config = self.config
        self.surrogate = self.network(config.network, "surrogate", config.network)
        self.optimiser = make_optimiser(self.surrogate, Recipe(learning_rate=config.learning_rate))

    def round(self, number: int, rng: torch.Generator) -> dict[str, float]:
        """A step of the network, or, when it has taken all of them, the noise of a batch."""
        config = self.config
        if number < config.network_steps:
            return {"loss": self._step(number, rng)}
        pick = self._batches(config.batch_size)[number - config.network_steps]
        self.delta[pick] = self._noise(*self._batch(pick), rng).cpu()
        return {}

    def _step(self, number: int, rng: torch.Generator) -> float:
        """One step of adversarial training on a batch with the noise that is best for the present network; its loss."""
        config = self.config
        assert self.optimiser is not None
        x, y = self._batch(self._pick(config.batch_size, rng))
        x = x + self._noise(x, y, rng)
        x = self._attacked(self._seen(x, rng), y, rng)
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * 0.1 ** sum(number >= share * config.network_steps for share in FALLS)
        self.surrogate.train()
        return self._learn(x, y)

    def _noise(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        """delta float32 [B, C, H, W] on the scale [0, 1] for the network as it is."""
        config = self.config
        epsilon = config.epsilon_255 / 255
        self.surrogate.eval()

        def seen(perturbed: Tensor) -> Tensor:  # [B, ...] -> [draws B, ...]
            parts = []
            for _ in range(config.draws):
                shifted = self._seen(perturbed, rng)
                attacked = self._attacked(shifted.detach(), y, rng)
                parts.append(shifted + (attacked - shifted).detach())
            return torch.cat(parts)

        delta = uniform(x.shape, epsilon, rng).to(self.device)
        step, targets = config.step_share * epsilon, y.repeat(config.draws)
        for _ in range(config.steps):
            delta = signed_step(self.surrogate, x, delta, targets, step, epsilon, seen=seen)
        return delta

    def _attacked(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        """x + a for the worst a that signed ascent finds from a uniform start; in [0, 1]."""
        radius = self.config.radius_share * self.config.epsilon_255 / 255
        self.surrogate.eval()
        a = uniform(x.shape, radius, rng).to(self.device)
        for _ in range(self.config.attack_steps):
            a = signed_step(self.surrogate, x, a, y, -self.config.attack_share * radius, radius)
        return x + a
