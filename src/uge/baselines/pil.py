"""Perturbation-induced linearisation (PIL): Liu, Chen & Zhang, ICLR 2026, arXiv 2601.19967.

A bias-free linear classifier f(x) = W x is trained on the originals. Then, with W fixed, for each image

    min_delta  lambda CE(f(delta), y) + (1 - lambda) KL(uniform || softmax f(x - delta)),   |delta|_inf <= epsilon

in signed gradient steps from a uniform start, and x - delta is published: the image loses what a linear classifier sees
of its class, and delta carries the class instead. The whole copy takes about as long as an epoch of a deep network.

The form and the settings are those of the authors' public code (github.com/jinlinll/pil); the paper itself was not at
hand. Deviations: W is one matrix, there it is the product of two, which is the same set of functions; images are
shuffled for its training, with Nesterov momentum; deltas are rounded to 8-bit steps at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.baselines.baseline import LearntBaseline, LinfConfig, uniform
from uge.protection import Telling
from uge.runtime import generator_for
from uge.training import Recipe

BATCH = 500  # images perturbed at a time; each image's steps are its own


@dataclass(frozen=True)
class PILConfig(LinfConfig):
    """Settings of PIL; the defaults are the public code's for CIFAR-10.

    Attributes:
        balance: lambda.
        steps: signed gradient steps on each image.
        epochs: training of the linear classifier (SGD, cosine schedule, no weight decay, no augmentation).
        learning_rate: its peak.
        batch_size: images a step of that training.
    """

    balance: float = 0.9
    steps: int = 30
    step_share: float = 0.1
    epochs: int = 30
    learning_rate: float = 0.003
    batch_size: int = 512


class PILProtection(LearntBaseline[PILConfig]):
    """Publishes images that a linear classifier reads from their perturbations alone."""

    Config = PILConfig
    stream = "pil"

    @property
    def rounds(self) -> int:
        return len(self._batches(BATCH))

    def begin(self, telling: Telling) -> None:
        """Train the linear classifier, once."""
        values = self.clean.images[0].numel()
        linear = nn.utils.skip_init(nn.Linear, values, self.clean.classes, bias=False)  # it would draw globally
        reach = values**-0.5  # what torch draws for a linear layer
        linear.weight.data = uniform(linear.weight.shape, reach, generator_for(self.seed, "pil classifier"))
        self.surrogate = nn.Sequential(nn.Flatten(), linear).to(self.device)
        rate, size = self.config.learning_rate, self.config.batch_size
        recipe = Recipe(self.config.epochs, size, "sgd", rate, weight_decay=0.0, schedule="cosine", augmentation="none")
        self._teach_surrogate("classifier", recipe, telling)

    def round(self, number: int, rng: torch.Generator) -> dict[str, float]:
        """Perturb one batch; `loss` is the mean of CE(f(delta), y) at the end."""
        epsilon = self.config.epsilon_255 / 255
        pick = self._batches(BATCH)[number]
        x, y = self._batch(pick)
        x, weight = x.flatten(1), next(self.surrogate.parameters()).detach()  # W, float32 [K, C H W]
        delta = uniform(x.shape, epsilon, rng).to(self.device)
        for _ in range(self.config.steps):
            slope = gradient(weight, x, delta, y, self.config.balance)
            delta = (delta - self.config.step_share * epsilon * slope.sign()).clamp(-epsilon, epsilon)
        self.delta[pick] = -delta.view(-1, *self.clean.images.shape[1:]).cpu()
        return {"loss": float(F.cross_entropy(delta @ weight.T, y))}


def gradient(weight: Tensor, x: Tensor, delta: Tensor, y: Tensor, balance: float) -> Tensor:
    """Of balance CE(W delta, y) + (1 - balance) KL(uniform || softmax W (x - delta)), an image a row, in delta.

        W' ( balance (softmax(W delta) - e_y) - (1 - balance) (softmax(W (x - delta)) - 1/K) )

    float32 [B, D], as x and delta; W (`weight`) is float32 [K, D], y int64 [B], balance in 0..1.
    """
    classes = len(weight)
    carried = (delta @ weight.T).softmax(1) - F.one_hot(y, classes)
    left = ((x - delta) @ weight.T).softmax(1) - 1 / classes
    return (balance * carried - (1 - balance) * left) @ weight
