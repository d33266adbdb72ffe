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

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.data.images import to_float
from uge.errors import ConfigError
from uge.networks import parse_network
from uge.protect.baseline import Baseline, BaselineConfig, add_within_linf, check_epsilon, check_scope
from uge.protect.protection import OnStep
from uge.protect.surrogate import SMALL_SURROGATE, build_surrogate, signed_step
from uge.runtime import generator_for, repeatable
from uge.training import Recipe, Shift, make_optimiser


@dataclass(frozen=True)
class EMConfig(BaselineConfig):
    """Settings of error-minimising noise; the defaults are the paper's for sample-wise noise on CIFAR-10.

    For class-wise noise the paper has scope "class", steps 1 and error 0.1: preset "class".

    Attributes:
        epsilon_255: L_inf bound in 8-bit steps.
        scope: "sample" (a noise for each image) or "class" (one for each class).
        network: the surrogate.
        network_steps: M, batches that the network learns from in each round.
        steps: T, signed gradient steps on each batch of perturbations in each round.
        step_share: length of these steps as a share of epsilon.
        error: stop when the network errs on less than this share of the perturbed images.
        rounds: stop after as many at the latest.
        batch_size: images a step.
        learning_rate: of the network (SGD with momentum 0.9, weight decay 5e-4).
    """

    bound = "L_inf: epsilon_255"
    epsilon_255: int = 8
    scope: str = "sample"
    network: str = "resnet:depth=18"
    network_steps: int = 10
    steps: int = 20
    step_share: float = 0.1
    error: float = 0.01
    rounds: int = 30
    batch_size: int = 128
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon_255)
        check_scope(self.scope)
        parse_network(self.network)
        for name in ("network_steps", "steps", "rounds", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("step_share", "learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.error < 1:
            raise ConfigError(f"error is a share from 0 up to 1, got {self.error}")


class EMProtection(Baseline[EMConfig]):
    """Learns the noise beside a network that learns from it."""

    @repeatable()
    def train(self, on_step: OnStep | None = None) -> None:
        """Learn the noise, going on from the work folder where it holds an unfinished run of the same settings."""
        super().train(on_step)
        config = self.config
        self.log = []
        rng = generator_for(self.seed, "em")
        network = build_surrogate(config.network, self.clean, self.seed, self.device)
        recipe = Recipe(learning_rate=config.learning_rate, schedule="constant")
        optimiser = make_optimiser(network, recipe)
        self._delta = self._start(rng)
        if (state := self.saved()) is not None:
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            rng.set_state(state["rng"])
            self._delta, self.log = state["delta"], state["log"]
        saved = time.perf_counter()
        started = saved - (self.log[-1]["seconds"] if self.log else 0.0)
        while len(self.log) < config.rounds and not (self.log and self.log[-1]["error"] < config.error):
            loss = self._teach(network, optimiser, rng)
            error = self._perturb(network)
            step, seconds = len(self.log) + 1, round(time.perf_counter() - started, 2)
            self.log.append({"step": step, "epoch": step, "loss": loss, "error": error, "seconds": seconds})
            if on_step:
                on_step(self.log[-1], config.rounds)
            if time.perf_counter() - saved > self.checkpoint_seconds:
                state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "rng": rng.get_state()}
                self.save(state | {"delta": self._delta, "log": self.log})
                saved = time.perf_counter()

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        own = labels if self.config.scope == "class" else torch.arange(numbers.start, numbers.stop)
        return add_within_linf(images, 255 * self._delta[own], self.config.epsilon_255)

    @property
    def _epsilon(self) -> float:
        return self.config.epsilon_255 / 255

    def _start(self, rng: torch.Generator) -> Tensor:
        """Delta float32 on the scale [0, 1]: zero for images, uniform for classes, as in the paper."""
        shape = self.clean.images.shape[1:]
        if self.config.scope == "sample":
            return torch.zeros(len(self.clean), *shape)
        return self._epsilon * (2 * torch.rand(self.clean.classes, *shape, generator=rng) - 1)

    def _batch(self, pick: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x float32 [B, C, H, W] in [0, 1], labels int64 [B], and the rows of delta of these images, int64 [B]."""
        labels = self.clean.labels[pick]
        x = to_float(self.clean.images[pick].to(self.device))
        return x, labels.to(self.device), labels if self.config.scope == "class" else pick

    def _teach(self, network: torch.nn.Module, optimiser: torch.optim.Optimizer, rng: torch.Generator) -> float:
        """The network learns from some batches of perturbed images; the mean of its losses."""
        network.train()
        total = 0.0
        for _ in range(self.config.network_steps):
            pick = torch.randperm(len(self.clean), generator=rng)[: self.config.batch_size]
            x, y, rows = self._batch(pick)
            x = (x + self._delta[rows].to(self.device)).clamp(0, 1)
            loss = F.cross_entropy(network(Shift.draw(len(x), self.clean.image_size, rng)(x)), y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += float(loss.detach())
        return total / self.config.network_steps

    def _perturb(self, network: torch.nn.Module) -> float:
        """All perturbations take their steps against the network as it is; the share of images it errs on then."""
        config = self.config
        network.eval()
        wrong = 0
        for pick in torch.arange(len(self.clean)).split(config.batch_size):
            x, y, rows = self._batch(pick)
            if config.scope == "class":  # whatever is not in the batch has no gradient and stays
                delta, owners = self._delta.to(self.device), rows.to(self.device)
            else:
                delta, owners = self._delta[rows].to(self.device), None
            for _ in range(config.steps):
                step = config.step_share * self._epsilon
                delta = signed_step(network, x, delta, y, step, self._epsilon, owners=owners)
            if config.scope == "class":
                self._delta = delta.cpu()
            else:
                self._delta[rows] = delta.cpu()
            with torch.no_grad():
                added = delta if owners is None else delta[owners]
                wrong += int((network((x + added).clamp(0, 1)).argmax(1) != y).sum())
        return wrong / len(self.clean)


PRESETS = {
    "default": EMConfig(),
    "class": EMConfig(scope="class", steps=1, error=0.1),
    "quick": EMConfig(network=SMALL_SURROGATE, steps=10, rounds=20),
}
