"""Error-minimising noise (EM): Huang et al., "Unlearnable Examples", ICLR 2021, arXiv 2101.04898.

    min_theta mean_i min_delta_i CE(f_theta(x_i + delta_i), y_i),   |delta_i|_inf <= epsilon

with one delta for each image (sample-wise) or for each class (class-wise). In turn, theta takes a few steps of SGD on
the images as they are perturbed so far, and every delta takes signed gradient steps that lower the loss; the round is
repeated until the network errs on a small share of the perturbed images.

Deviations: rounds are limited, so that it always ends; the error that ends it is counted batch by batch as the deltas
are learnt, not in one more pass; the delta of a class follows the sum of its images' gradients and not the mean of
their steps; deltas are rounded to 8-bit steps at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uge.baselines.baseline import LearntBaseline, LinfConfig, signed_step, uniform
from uge.protection import Telling
from uge.runtime import generator_for
from uge.training import Recipe, make_optimiser


@dataclass(frozen=True)
class EMConfig(LinfConfig):
    """Settings of error-minimising noise; the defaults are the paper's for sample-wise noise on CIFAR-10.

    For class-wise noise the paper has scope "class", steps 1 and error 0.1.

    Attributes:
        scope: "sample" (a noise for each image) or "class" (one for each class).
        network_steps: M, batches that the network learns from in each round.
        steps: T, signed gradient steps on each batch of perturbations in each round.
        error: stop when the network errs on less than this share of the perturbed images.
        rounds: stop after as many at the latest.
        learning_rate: of the network (SGD with momentum 0.9, weight decay 5e-4).
    """

    scope: str = "sample"
    network: str = "resnet:depth=18"
    network_steps: int = 10
    steps: int = 20
    step_share: float = 0.1
    error: float = 0.01
    rounds: int = 30
    batch_size: int = 128
    learning_rate: float = 0.1


class EMProtection(LearntBaseline[EMConfig]):
    """Learns the noise beside a network that learns from it."""

    Config = EMConfig
    stream = "em"

    def begin(self, telling: Telling) -> None:
        config = self.config
        self.surrogate = self.network(config.network, "surrogate", config.network)
        self.optimiser = make_optimiser(self.surrogate, Recipe(learning_rate=config.learning_rate))
        self.by_class = config.scope == "class"
        if self.by_class:  # as in the paper: zero for images, uniform for classes
            shape = self.clean.classes, *self.clean.images.shape[1:]
            self.delta = uniform(shape, config.epsilon_255 / 255, generator_for(self.seed, self.stream))

    def round(self, number: int, rng: torch.Generator) -> dict[str, float]:
        return {"loss": self._teach(self._perturbed, rng), "error": self._perturb()}

    def _perturbed(self, x: Tensor, y: Tensor, pick: Tensor) -> Tensor:
        return (x + self.delta[self._rows(pick)].to(self.device)).clamp(0, 1)

    def _perturb(self) -> float:
        """All perturbations take their steps against the network as it is; the share of images it errs on then."""
        config, epsilon = self.config, self.config.epsilon_255 / 255
        self.surrogate.eval()
        wrong = 0
        for pick in self._batches(config.batch_size):
            x, y = self._batch(pick)
            rows = torch.arange(self.clean.classes) if self.by_class else pick  # whatever has no image here stays
            delta, owners = self.delta[rows].to(self.device), y if self.by_class else None
            for _ in range(config.steps):
                delta = signed_step(self.surrogate, x, delta, y, config.step_share * epsilon, epsilon, owners=owners)
            self.delta[rows] = delta.cpu()
            with torch.no_grad():
                wrong += int((self.surrogate(self._perturbed(x, y, pick)).argmax(1) != y).sum())
        return wrong / len(self.clean)
