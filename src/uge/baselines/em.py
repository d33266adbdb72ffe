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
from torch.nn import functional as F

from uge.baselines.baseline import LearntBaseline, LinfConfig, add_within_linf, signed_step, uniform
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
        config, shape = self.config, self.clean.images.shape[1:]
        self.surrogate = self.network(config.network, "surrogate", config.network)
        self.optimiser = make_optimiser(self.surrogate, Recipe(learning_rate=config.learning_rate, schedule="constant"))
        if config.scope == "class":  # as in the paper: zero for images, uniform for classes
            self.delta = uniform((self.clean.classes, *shape), self._epsilon, generator_for(self.seed, self.stream))

    def round(self, number: int, rng: torch.Generator) -> dict[str, float]:
        return {"loss": self._teach(rng), "error": self._perturb()}

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        own = self._rows(torch.arange(numbers.start, numbers.stop))
        return add_within_linf(images, 255 * self.delta[own], self.config.epsilon_255)

    @property
    def _epsilon(self) -> float:
        return self.config.epsilon_255 / 255

    def _rows(self, pick: Tensor) -> Tensor:
        """The rows of delta that belong to the images numbered `pick`, int64 [B]."""
        return self.clean.labels[pick] if self.config.scope == "class" else pick

    def _teach(self, rng: torch.Generator) -> float:
        """The network learns from some batches of perturbed images; the mean of its losses."""
        self.surrogate.train()
        total = 0.0
        for _ in range(self.config.network_steps):
            pick = self._pick(self.config.batch_size, rng)
            x, y = self._batch(pick)
            x = (x + self.delta[self._rows(pick)].to(self.device)).clamp(0, 1)
            total += self._learn(F.cross_entropy(self.surrogate(self._seen(x, rng)), y))
        return total / self.config.network_steps

    def _perturb(self) -> float:
        """All perturbations take their steps against the network as it is; the share of images it errs on then."""
        config = self.config
        self.surrogate.eval()
        wrong = 0
        for pick in self._batches(config.batch_size):
            (x, y), rows = self._batch(pick), self._rows(pick)
            if config.scope == "class":  # whatever is not in the batch has no gradient and stays
                delta, owners = self.delta.to(self.device), rows.to(self.device)
            else:
                delta, owners = self.delta[rows].to(self.device), None
            for _ in range(config.steps):
                step = config.step_share * self._epsilon
                delta = signed_step(self.surrogate, x, delta, y, step, self._epsilon, owners=owners)
            if config.scope == "class":
                self.delta = delta.cpu()
            else:
                self.delta[rows] = delta.cpu()
            with torch.no_grad():
                added = delta if owners is None else delta[owners]
                wrong += int((self.surrogate((x + added).clamp(0, 1)).argmax(1) != y).sum())
        return wrong / len(self.clean)
