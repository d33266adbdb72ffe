"""Targeted adversarial poisoning (TAP): Fowl et al., "Adversarial Examples Make Strong Poisons", NeurIPS 2021.

arXiv 2106.10807. A network f is trained on the originals and then attacked, with theta fixed:

    targeted     min_delta CE(f(x + delta), pi(y))      untargeted     max_delta CE(f(x + delta), y)

under |delta|_inf <= epsilon, pi a permutation of the classes without a fixed point. The labels stay y, so whoever
learns from the copies learns features of pi(y) under the name of y. Targeted is the stronger one.

Deviations: pi is the next class; the augmentation that each step on delta draws is that of `uge.training`; lengths of
steps fall as stated below; deltas are rounded to 8-bit steps at the end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from uge.data.images import to_float
from uge.errors import ConfigError
from uge.networks import parse_network
from uge.protect.baseline import Baseline, BaselineConfig, add_within_linf, check_epsilon
from uge.protect.protection import OnStep, preparing
from uge.protect.surrogate import SMALL_SURROGATE, build_surrogate, signed_step
from uge.runtime import generator_for, repeatable, seed_for
from uge.training import Shift, fit, recommended_recipe


@dataclass(frozen=True)
class TAPConfig(BaselineConfig):
    """Settings of adversarial poisoning; the defaults are the paper's for CIFAR-10.

    Attributes:
        epsilon_255: L_inf bound in 8-bit steps.
        targeted: towards the next class, or away from its own.
        network: f.
        network_epochs: its training on the originals.
        steps: signed gradient steps on each image.
        step_share: length of the first steps as a share of epsilon; halved after half and three quarters of them.
        batch_size: images a step.
    """

    bound = "L_inf: epsilon_255"
    epsilon_255: int = 8
    targeted: bool = True
    network: str = "resnet:depth=18"
    network_epochs: int = 40
    steps: int = 250
    step_share: float = 0.1
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon_255)
        parse_network(self.network)
        for name in ("network_epochs", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.step_share < float("inf"):
            raise ConfigError(f"step_share must be positive, got {self.step_share}")


class TAPProtection(Baseline[TAPConfig]):
    """Publishes adversarial examples under their old labels."""

    @repeatable()
    def train(self, on_step: OnStep | None = None) -> None:
        """Train the network, then attack batch by batch, going on from the work folder after the last whole batch."""
        super().train(on_step)
        config = self.config
        self.log = []
        self._delta = torch.zeros(self.clean.images.shape)
        network = build_surrogate(config.network, self.clean, self.seed, self.device)
        batches = torch.arange(len(self.clean)).split(config.batch_size)
        saved = time.perf_counter()
        if (state := self.saved()) is not None:
            network.load_state_dict(state["network"])
            self._delta, self.log = state["delta"], state["log"]
        else:
            recipe = recommended_recipe(config.network, config.network_epochs)
            telling = preparing("network", len(batches), on_step)
            seed = seed_for(self.seed, "tap network")
            fit(network, self.clean, recipe, seed=seed, device=self.device, on_epoch=telling)
            self._checkpoint(network)
        network.eval()
        started = saved - (self.log[-1]["seconds"] if self.log else 0.0)
        for number in range(len(self.log), len(batches)):
            reached = self._attack(network, batches[number], generator_for(self.seed, "tap", number))
            seconds = round(time.perf_counter() - started, 2)
            self.log.append({"step": number + 1, "epoch": 1, "reached": reached, "seconds": seconds})
            if on_step:
                on_step(self.log[-1], len(batches))
            if time.perf_counter() - saved > self.checkpoint_seconds:
                self._checkpoint(network)
                saved = time.perf_counter()

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        delta = 255 * self._delta[numbers.start : numbers.stop]
        return add_within_linf(images, delta, self.config.epsilon_255)

    def _attack(self, network: torch.nn.Module, pick: Tensor, rng: torch.Generator) -> float:
        """Perturb some images, at `pick`; the share of them that the network then takes for what it should."""
        config = self.config
        epsilon = config.epsilon_255 / 255
        x, y = to_float(self.clean.images[pick].to(self.device)), self.clean.labels[pick].to(self.device)
        targets = (y + 1) % self.clean.classes if config.targeted else y
        delta = epsilon * (2 * torch.rand(x.shape, generator=rng).to(self.device) - 1)
        for number in range(config.steps):
            shift = Shift.draw(len(x), self.clean.image_size, rng)
            halved = (2 * number >= config.steps) + (4 * number >= 3 * config.steps)
            step = config.step_share * epsilon / 2**halved
            delta = signed_step(network, x, delta, targets, step if config.targeted else -step, epsilon, seen=shift)
        self._delta[pick] = delta.cpu()
        with torch.no_grad():
            found = network(x + delta).argmax(1)
        return float(((found == targets) == config.targeted).float().mean())

    def _checkpoint(self, network: torch.nn.Module) -> None:
        self.save({"network": network.state_dict(), "delta": self._delta, "log": self.log})


PRESETS = {
    "default": TAPConfig(),
    "untargeted": TAPConfig(targeted=False),
    "quick": TAPConfig(network=SMALL_SURROGATE, network_epochs=20, steps=60),
}
