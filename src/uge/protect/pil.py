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

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.data.images import to_float
from uge.errors import ConfigError
from uge.protect.baseline import Baseline, BaselineConfig, add_within_linf, check_epsilon
from uge.protect.protection import OnStep
from uge.runtime import generator_for, seed_for
from uge.training import Recipe, fit

BATCH = 500  # images perturbed at a time; each image's steps are its own


@dataclass(frozen=True)
class PILConfig(BaselineConfig):
    """Settings of PIL; the defaults are the public code's for CIFAR-10.

    Attributes:
        epsilon_255: L_inf bound in 8-bit steps.
        balance: lambda.
        steps: signed gradient steps on each image.
        step_share: their length as a share of epsilon.
        epochs: training of the linear classifier (SGD, cosine schedule, no weight decay, no augmentation).
        learning_rate: its peak.
        batch_size: images a step of that training.
    """

    bound = "L_inf: epsilon_255"
    epsilon_255: int = 8
    balance: float = 0.9
    steps: int = 30
    step_share: float = 0.1
    epochs: int = 30
    learning_rate: float = 0.003
    batch_size: int = 512

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon_255)
        for name in ("steps", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("step_share", "learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.balance <= 1:
            raise ConfigError(f"balance is a share from 0 to 1, got {self.balance}")


class PILProtection(Baseline[PILConfig]):
    """Publishes images that a linear classifier reads from their perturbations alone."""

    def train(self, on_step: OnStep | None = None) -> None:
        """Train the linear classifier and perturb all images; a killed run starts again, as it takes a minute."""
        super().train(on_step)
        config = self.config
        self.log = []
        self._delta = torch.zeros(self.clean.images.shape)
        weight = self._classifier()
        started = time.perf_counter()
        batches = torch.arange(len(self.clean)).split(BATCH)
        for number, pick in enumerate(batches):
            loss = self._perturb(weight, pick, generator_for(self.seed, "pil", number))
            seconds = round(time.perf_counter() - started, 2)
            self.log.append({"step": number + 1, "epoch": 1, "loss": loss, "seconds": seconds})
            if on_step:
                on_step(self.log[-1], len(batches))
        assert self._delta.abs().max() <= config.epsilon_255 / 255 + 1e-6

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        delta = -255 * self._delta[numbers.start : numbers.stop]
        return add_within_linf(images, delta, self.config.epsilon_255)

    def _classifier(self) -> Tensor:
        """W, float32 [K, C H W], trained on the originals."""
        values = self.clean.images[0].numel()
        linear = nn.utils.skip_init(nn.Linear, values, self.clean.classes, bias=False)  # it would draw globally
        reach = values**-0.5  # what torch draws for a linear layer
        start = torch.rand(linear.weight.shape, generator=generator_for(self.seed, "pil classifier"))
        linear.weight.data = reach * (2 * start - 1)
        recipe = Recipe(
            self.config.epochs,
            self.config.batch_size,
            learning_rate=self.config.learning_rate,
            weight_decay=0.0,
            schedule="cosine",
            augmentation="none",
        )
        seed = seed_for(self.seed, "pil classifier")
        fit(nn.Sequential(nn.Flatten(), linear), self.clean, recipe, seed=seed, device=self.device)
        return linear.weight.detach()

    def _perturb(self, weight: Tensor, pick: Tensor, rng: torch.Generator) -> float:
        """Perturb the images at `pick`; the mean of CE(f(delta), y) at the end."""
        epsilon = self.config.epsilon_255 / 255
        x = to_float(self.clean.images[pick].to(self.device)).flatten(1)
        y = self.clean.labels[pick].to(self.device)
        delta = epsilon * (2 * torch.rand(x.shape, generator=rng).to(self.device) - 1)
        for _ in range(self.config.steps):
            slope = gradient(weight, x, delta, y, self.config.balance)
            delta = (delta - self.config.step_share * epsilon * slope.sign()).clamp(-epsilon, epsilon)
        self._delta[pick] = delta.view(-1, *self.clean.images.shape[1:]).cpu()
        return float(F.cross_entropy(delta @ weight.T, y))


def gradient(weight: Tensor, x: Tensor, delta: Tensor, y: Tensor, balance: float) -> Tensor:
    """Of balance CE(W delta, y) + (1 - balance) KL(uniform || softmax W (x - delta)), an image a row, in delta.

        W' ( balance (softmax(W delta) - e_y) - (1 - balance) (softmax(W (x - delta)) - 1/K) )

    Args:
        weight: W, float32 [K, D].
        x: float32 [B, D].
        delta: float32 [B, D].
        y: int64 [B].
        balance: in 0..1.

    Returns:
        float32 [B, D].
    """
    classes = len(weight)
    carried = (delta @ weight.T).softmax(1) - F.one_hot(y, classes)
    left = ((x - delta) @ weight.T).softmax(1) - 1 / classes
    return (balance * carried - (1 - balance) * left) @ weight


PRESETS = {"default": PILConfig()}
