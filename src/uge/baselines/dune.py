"""Dual-branch unlearnable ensembles (DUNE): Wang et al., "Dual-branch Robust Unlearnable Examples", ICML 2026.

arXiv 2605.01718. A network is trained on the originals and kept at M times, f_1 to f_M. Together they shall take what
is published under the label y for the class t = y + 3, for its detail and for its colour:

    min_delta  mean_m CE(f_m(x + delta), t),   |delta|_inf <= epsilon
    min_c  mean over class y of  mean_m CE(f_m(x + c), t) + max(0, 20 - PSNR(x, x + c)) + max(0, 0.8 - SSIM(x, x + c))
    x_u = x + delta + c_y

delta, an image's own, takes signed gradient steps; c, one value a channel for a whole class, is found by ten particles
in ten moves, v <- v / 2 + 0.3 (p - c) + 0.3 (g - c), c <- c + v, with p the particle's best place and g the swarm's.

The settings are those of the authors' public code (github.com/wxldragon/DUNE). Deviations: there the penalties have a
third part, LPIPS beyond 0.03, which needs a network of its own; a swarm is judged on 1,000 images of its class, here on
100; p and g stay where they were best (there they move along with their particles); where y + 3 comes round to y, the
next class is meant; how long the network is trained is not said there; delta and c are rounded to 8-bit steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.baselines.baseline import BaselineConfig, LearntBaseline, add_within_linf, signed_step
from uge.errors import ConfigError
from uge.protection import Telling
from uge.runtime import generator_for, seed_for
from uge.training import OnEpoch, State, recommended_recipe, recorded

LEAST_PSNR, LEAST_SSIM = 20.0, 0.8  # dB, and of 1: a colour that costs more is penalised
PARTICLES, MOVES = 10, 10
REACH, SPEED = 0.1, 0.01  # of colours and of their first moves, on the scale [0, 1]


@dataclass(frozen=True)
class DUNEConfig(BaselineConfig):
    """Settings of DUNE; the defaults are the public code's for CIFAR-10 but for `network_epochs` and `colour_images`.

    Attributes:
        noise_255: bound on delta in 8-bit steps; the colour comes on top.
        offset: t - y.
        checkpoints: M, evenly spread over that training.
        steps: signed gradient steps on each image.
        colour_images: of a class, to judge its colour by.
    """

    bound = "L_inf: noise_255, and on top of it a colour for each class of about 20 dB"
    noise_255: int = 8
    offset: int = 3
    network: str = "resnet:depth=18"
    network_epochs: int = 40
    checkpoints: int = 5
    steps: int = 30
    step_share: float = 0.0625
    colour_images: int = 100
    batch_size: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoints > self.network_epochs:
            raise ConfigError(
                f"checkpoints must be at most network_epochs, got {self.checkpoints} and {self.network_epochs}"
            )


class DUNEProtection(LearntBaseline[DUNEConfig]):
    """Publishes adversarial examples of several networks, tinted by their class."""

    Config = DUNEConfig
    stream = "dune"

    def begin(self, telling: Telling) -> None:
        """Train the network, and find the colours with it, once."""
        states = self.kept("network", lambda: self._taught(telling("network")))
        self.surrogate = Together([self._network() for _ in states])
        for network, state in zip(self.surrogate.networks, states, strict=True):
            network.load_state_dict(state)
        self.surrogate.eval().requires_grad_(False)
        told = telling("colours of the classes")
        self.colours = torch.zeros(self.clean.classes, self.clean.channels)
        for label in range(self.clean.classes):
            self.colours[label] = self.kept(f"colour-{label}", partial(self._colour, label))
            if told:
                told(label + 1, 0.0, 0.0)

    def round(self, number: int, rng: torch.Generator) -> dict[str, float]:
        """Perturb one batch; `reached` is how much of it the networks then take for t, in their mean."""
        config, epsilon = self.config, self.config.noise_255 / 255
        pick = self._batches(config.batch_size)[number]
        x, y = self._batch(pick)
        targets, delta = self._targets(y), torch.zeros_like(x)
        for _ in range(config.steps):
            delta = signed_step(self.surrogate, x, delta, targets, config.step_share * epsilon, epsilon)
        self.delta[pick] = delta.cpu()
        with torch.no_grad():
            return {"reached": float((self.surrogate(x + delta).argmax(1) == targets).float().mean())}

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        noisy = add_within_linf(images, 255 * self.delta[numbers.start : numbers.stop], self.config.noise_255)
        return (noisy + (255 * self.colours[labels]).round()[:, :, None, None]).clamp(0, 255).to(torch.uint8)

    def _network(self) -> nn.Module:
        return self.network(self.config.network, "surrogate", self.config.network)

    def _taught(self, told: OnEpoch | None) -> list[State]:
        """The weights of one training at its M times."""
        epochs, count = self.config.network_epochs, self.config.checkpoints
        times = [epochs * (number + 1) // count for number in range(count)]
        recipe, seed = recommended_recipe(self.config.network, epochs), seed_for(self.seed, "dune network")
        return recorded(self._network(), self.clean, recipe, times, seed=seed, device=self.device, on_epoch=told)

    def _targets(self, labels: Tensor) -> Tensor:
        """t for each network's answers, int64 [M B]."""
        classes = self.clean.classes
        offset = self.config.offset % classes or 1
        return ((labels + offset) % classes).repeat(self.config.checkpoints)

    def _colour(self, label: int) -> Tensor:
        """c of a class, float32 [C]."""
        members = (self.clean.labels == label).nonzero().flatten()[: self.config.colour_images]
        if not len(members):
            return torch.zeros(self.clean.channels)
        x, y = self._batch(members)
        targets = self._targets(y)

        @torch.no_grad()
        def cost(colours: Tensor) -> Tensor:
            tinted = [(x + colour.to(x.device).view(1, -1, 1, 1)).clamp(0, 1) for colour in colours]
            losses = [F.cross_entropy(self.surrogate(seen), targets) for seen in tinted]
            return (torch.stack(losses) + penalty(x, torch.stack(tinted))).cpu()

        return best_of_swarm(cost, self.clean.channels, generator_for(self.seed, "dune", "colour", label))


class Together(nn.Module):
    """Several networks as one, whose logits [M B, K] are theirs one after another."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([network(x) for network in self.networks])


def penalty(x: Tensor, seen: Tensor) -> Tensor:
    """mean over images of max(0, 20 - PSNR) + max(0, 0.8 - SSIM), in a window of 7 pixels, float32 [P].

    x are originals float32 [B, C, H, W] in [0, 1], `seen` P versions of them, float32 [P, B, C, H, W] in [0, 1].
    """
    from kornia.metrics import ssim  # half a second to import

    psnr = -10 * (seen - x).square().mean((2, 3, 4)).clamp_min(1e-10).log10()
    similar = ssim(x.repeat(len(seen), 1, 1, 1), seen.flatten(0, 1), window_size=7).mean((1, 2, 3)).view_as(psnr)
    return (F.relu(LEAST_PSNR - psnr) + F.relu(LEAST_SSIM - similar)).mean(1)


def best_of_swarm(cost: Callable[[Tensor], Tensor], dimensions: int, rng: torch.Generator) -> Tensor:
    """The best place that a particle swarm comes by, float32 [dimensions].

    Kennedy & Eberhart, Particle Swarm Optimization, ICNN 1995, with constant weights. `cost` is of places, float32
    [PARTICLES, dimensions] -> float32 [PARTICLES]. The swarm begins within `REACH` of zero; `rng` draws where, and the
    first moves.
    """
    drawn = 2 * torch.rand(2, PARTICLES, dimensions, generator=rng) - 1
    places, moves = REACH * drawn[0], SPEED * drawn[1]
    best, least = places.clone(), torch.full((PARTICLES,), float("inf"))
    for _ in range(MOVES):
        found = cost(places)
        better = found < least
        best[better], least[better] = places[better], found[better]
        moves = 0.5 * moves + 0.3 * (best - places) + 0.3 * (best[least.argmin()] - places)
        places = places + moves
    return best[least.argmin()]
