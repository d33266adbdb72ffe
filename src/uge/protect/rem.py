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

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.data.images import to_float
from uge.errors import ConfigError
from uge.networks import parse_network
from uge.protect.baseline import Baseline, BaselineConfig, add_within_linf, check_epsilon
from uge.protect.protection import OnStep
from uge.protect.surrogate import SMALL_SURROGATE, build_surrogate, signed_step
from uge.runtime import generator_for, repeatable
from uge.training import Recipe, Shift, make_optimiser

FALLS = (0.4, 0.8)  # of the network's steps; its learning rate falls to a tenth at each


@dataclass(frozen=True)
class REMConfig(BaselineConfig):
    """Settings of REM; the defaults are the public code's for CIFAR-10.

    Attributes:
        epsilon_255: L_inf bound in 8-bit steps.
        radius_share: L_inf bound of the adversary that the noise resists, as a share of epsilon.
        network: the surrogate.
        network_steps: steps of the network, each with a batch's noise.
        steps: signed gradient steps of the noise.
        step_share: their length as a share of epsilon.
        draws: of the augmentation, in each of them.
        attack_steps: of the adversary.
        attack_share: their length as a share of the radius.
        batch_size: images a step.
        learning_rate: of the network, at first.
    """

    bound = "L_inf: epsilon_255"
    epsilon_255: int = 8
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

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon_255)
        parse_network(self.network)
        for name in ("network_steps", "steps", "draws", "attack_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("step_share", "attack_share", "learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.radius_share < 1:  # an adversary as strong as the noise would leave nothing of it
            raise ConfigError(f"radius_share is a share from 0 up to 1, got {self.radius_share}")


class REMProtection(Baseline[REMConfig]):
    """Learns the noise beside a network that is trained adversarially on it."""

    @repeatable()
    def train(self, on_step: OnStep | None = None) -> None:
        """Train the network, then find the noise, going on from the work folder after its last checkpoint."""
        super().train(on_step)
        config = self.config
        self.log = []
        self._delta = torch.zeros(self.clean.images.shape)
        network = build_surrogate(config.network, self.clean, self.seed, self.device)
        optimiser = make_optimiser(network, Recipe(learning_rate=config.learning_rate, schedule="constant"))
        if (state := self.saved()) is not None:
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            self._delta, self.log = state["delta"], state["log"]
        batches = torch.arange(len(self.clean)).split(config.batch_size)
        total = config.network_steps + len(batches)
        saved = time.perf_counter()
        started = saved - (self.log[-1]["seconds"] if self.log else 0.0)
        for number in range(len(self.log), total):
            rng = generator_for(self.seed, "rem", number)
            row: dict[str, Any] = {"step": number + 1, "epoch": 1}
            if number < config.network_steps:
                row["loss"] = self._teach(network, optimiser, number, rng)
            else:
                pick = batches[number - config.network_steps]
                self._delta[pick] = self._noise(network, *self._batch(pick), rng).cpu()
            self.log.append(row | {"seconds": round(time.perf_counter() - started, 2)})
            if on_step:
                on_step(self.log[-1], total)
            if time.perf_counter() - saved > self.checkpoint_seconds:
                state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
                self.save(state | {"delta": self._delta, "log": self.log})
                saved = time.perf_counter()

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        delta = 255 * self._delta[numbers.start : numbers.stop]
        return add_within_linf(images, delta, self.config.epsilon_255)

    def _batch(self, pick: Tensor) -> tuple[Tensor, Tensor]:
        """x float32 [B, C, H, W] in [0, 1] and labels int64 [B]."""
        return to_float(self.clean.images[pick].to(self.device)), self.clean.labels[pick].to(self.device)

    def _teach(
        self, network: torch.nn.Module, optimiser: torch.optim.Optimizer, number: int, rng: torch.Generator
    ) -> float:
        """One step of adversarial training on a batch with the noise that is best for the present network; its loss."""
        config = self.config
        x, y = self._batch(torch.randperm(len(self.clean), generator=rng)[: config.batch_size])
        x = x + self._noise(network, x, y, rng)
        x = self._attacked(network, Shift.draw(len(x), self.clean.image_size, rng)(x), y, rng)
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * 0.1 ** sum(number >= share * config.network_steps for share in FALLS)
        network.train()
        loss = F.cross_entropy(network(x), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    def _noise(self, network: torch.nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        """delta float32 [B, C, H, W] on the scale [0, 1] for a network as it is."""
        config = self.config
        epsilon = config.epsilon_255 / 255
        network.eval()

        def seen(perturbed: Tensor) -> Tensor:  # [B, ...] -> [draws B, ...]
            parts = []
            for _ in range(config.draws):
                shifted = Shift.draw(len(x), self.clean.image_size, rng)(perturbed)
                attacked = self._attacked(network, shifted.detach(), y, rng)
                parts.append(shifted + (attacked - shifted).detach())
            return torch.cat(parts)

        delta = epsilon * (2 * torch.rand(x.shape, generator=rng).to(self.device) - 1)
        for _ in range(config.steps):
            delta = signed_step(
                network, x, delta, y.repeat(config.draws), config.step_share * epsilon, epsilon, seen=seen
            )
        return delta

    def _attacked(self, network: torch.nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        """x + a for the worst a that signed ascent finds from a uniform start; in [0, 1]."""
        radius = self.config.radius_share * self.config.epsilon_255 / 255
        network.eval()
        a = radius * (2 * torch.rand(x.shape, generator=rng).to(self.device) - 1)
        for _ in range(self.config.attack_steps):
            a = signed_step(network, x, a, y, -self.config.attack_share * radius, radius)
        return x + a


PRESETS = {
    "default": REMConfig(),
    "quick": REMConfig(
        network=SMALL_SURROGATE, network_steps=400, steps=5, step_share=0.4, draws=1, attack_steps=2, attack_share=0.75
    ),
}
