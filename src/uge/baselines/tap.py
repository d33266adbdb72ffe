"""Targeted adversarial poisoning (TAP): Fowl et al., "Adversarial Examples Make Strong Poisons", NeurIPS 2021.

arXiv 2106.10807. A network f is trained on the originals and then attacked, with theta fixed:

    targeted     min_delta CE(f(x + delta), pi(y))      untargeted     max_delta CE(f(x + delta), y)

under |delta|_inf <= epsilon, pi a permutation of the classes without a fixed point. The labels stay y, so whoever
learns from the copies learns features of pi(y) under the name of y. Targeted is the stronger one.

Deviations: pi is the next class; the augmentation that each step on delta draws is that of `uge.training`; lengths of
steps fall as stated below; deltas are rounded to 8-bit steps at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from uge.baselines.baseline import LearntBaseline, LinfConfig, signed_step, uniform
from uge.protection import Telling
from uge.training import recommended_recipe


@dataclass(frozen=True)
class TAPConfig(LinfConfig):
    """Settings of adversarial poisoning; the defaults are the paper's for CIFAR-10.

    Attributes:
        targeted: towards the next class, or away from its own.
        steps: signed gradient steps on each image.
        step_share: length of the first steps as a share of epsilon; halved after half and three quarters of them.
    """

    targeted: bool = True
    network: str = "resnet:depth=18"
    network_epochs: int = 40
    steps: int = 250
    step_share: float = 0.1
    batch_size: int = 128


class TAPProtection(LearntBaseline[TAPConfig]):
    """Publishes adversarial examples under their old labels."""

    Config = TAPConfig
    stream = "tap"

    def begin(self, telling: Telling) -> None:
        """Train the network, once."""
        self.surrogate = self.network(self.config.network, "surrogate", self.config.network)
        self._teach_surrogate("network", recommended_recipe(self.config.network, self.config.network_epochs), telling)
        self.surrogate.eval()

    def round(self, number: int, rng: torch.Generator) -> dict[str, float]:
        """Perturb one batch; `reached` is the share of it that the network then takes for what it should."""
        config = self.config
        pick = self._batches(config.batch_size)[number]
        epsilon = config.epsilon_255 / 255
        x, y = self._batch(pick)
        targets = (y + 1) % self.clean.classes if config.targeted else y
        delta = uniform(x.shape, epsilon, rng).to(self.device)
        for done in range(config.steps):
            halved = (2 * done >= config.steps) + (4 * done >= 3 * config.steps)
            step = (1 if config.targeted else -1) * config.step_share * epsilon / 2**halved
            delta = signed_step(self.surrogate, x, delta, targets, step, epsilon, seen=partial(self._seen, rng=rng))
        self.delta[pick] = delta.cpu()
        with torch.no_grad():
            found = self.surrogate(x + delta).argmax(1)
        return {"reached": float(((found == targets) == config.targeted).float().mean())}
