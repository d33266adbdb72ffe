"""A residual network that takes perturbations out of images, and how it is trained: for all learnt purification.

    D(x) = x - R(4 x - 2) / 32,   R: 3x3 convolutions, all but the last with ReLU, those between also with normalisation

DnCNN: Zhang et al., Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising, IEEE TIP 2017. Ours:
the last layer begins at zero, so that D begins as the identity; perturbations are small, and the 32 brings what R has
to say near one; training ends on a plateau of images held out, and keeps the weights that were best there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from uge.attack.options import count, whole_number
from uge.data.images import ImageSet, to_float, to_uint8
from uge.runtime import generator_for, quick, seed_for
from uge.training import PlainTraining, snapshot

PATCH = 40  # pixels; larger images are learnt from random squares of this side, as in the paper
BATCH_SIZE = 64  # images a step
HELD_OUT = 10  # one in so many images judges the training
BETTER = 0.998  # of the best error so far counts as progress
PATIENCE = 4  # checks without progress before the learning rate falls
FALL, LAST_RATE = 0.3, 3e-5  # it falls by this factor, and training ends below that rate

Error = Callable[[nn.Module, Tensor, torch.Generator], Tensor]  # network, numbers of images, random draws -> scalar


class Denoiser(nn.Module):
    """D for images float32 [B, C, H, W] in [0, 1], of any size: `depth` layers, 3 at least, of `width` filters."""

    def __init__(self, channels: int, depth: int = 8, width: int = 32, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            for _ in range(depth - 2):
                layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            last = nn.Conv2d(width, channels, 3, padding=1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]  # there is one
            self.residual = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.residual((4 * x - 2).contiguous(memory_format=torch.channels_last)) / 32


class Fitted(NamedTuple):
    """How a training went."""

    held_out: Tensor  # int64 [M], the images that judged it
    error: float  # the best on them
    steps: int  # how long it took
    plateau: bool  # whether it ended on a plateau and not for want of steps


def fit_denoiser(network: nn.Module, error: Error, count: int, steps: int, purpose: str, seed: int = 0) -> Fitted:
    """Minimise an error over images (Adam from 2e-3) until images held out say that no more is to be had.

    Args:
        network: trained in place; left in eval mode with its best weights.
        error: what to minimise, for some of the images.
        count: how many images there are; one in ten of them is held out, and of a single one none.
        steps: the most steps.
        purpose: names the random draws.
        seed: decides them.
    """
    rng = generator_for(seed, purpose, "draws")
    order = torch.randperm(count, generator=rng)
    held_out, learnt = order[: -(-count // HELD_OUT)], order[-(-count // HELD_OUT) :]
    learnt = learnt if len(learnt) else held_out
    judges = held_out[:1000].split(BATCH_SIZE)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    every = max(20, min(100, -(-len(learnt) // BATCH_SIZE)))  # steps between checks

    def error_of(part: Tensor, draws: torch.Generator) -> Tensor:
        with quick(next(network.parameters()).device):
            return error(network, part, draws)

    def judged() -> float:
        network.eval()
        draws = generator_for(seed, purpose, "judge")  # the same at every check
        with torch.no_grad():
            value = sum(float(error_of(part, draws)) * len(part) for part in judges)
        network.train()
        return value / sum(map(len, judges))

    best, waited, step = judged(), 0, 0
    kept = snapshot(network)
    queue: Sequence[Tensor] = ()
    while step < steps and optimiser.param_groups[0]["lr"] >= LAST_RATE:
        queue = queue or torch.randperm(len(learnt), generator=rng).split(BATCH_SIZE)
        pick, queue = learnt[queue[0]], queue[1:]
        optimiser.zero_grad(set_to_none=True)
        error_of(pick, rng).backward()
        optimiser.step()
        step += 1
        if step % every and step < steps:
            continue
        value = judged()
        waited = 0 if value < BETTER * best else waited + 1
        if value < best:
            best, kept = value, snapshot(network)
        if waited == PATIENCE:
            optimiser.param_groups[0]["lr"] *= FALL
            waited = 0
    network.load_state_dict(kept)
    network.eval()
    return Fitted(held_out, best, step, step < steps)


def patches(images: Sequence[Tensor], rng: torch.Generator) -> list[Tensor]:
    """The same random square of several batches [B, C, H, W]; small images whole."""
    height, width = images[0].shape[2:]
    top, left = (int(torch.randint(max(1, size - PATCH + 1), (), generator=rng)) for size in (height, width))
    return [part[:, :, top : top + PATCH, left : left + PATCH] for part in images]


@dataclass(eq=False, kw_only=True)
class Trained(PlainTraining):
    """A hacker who learns a network beforehand; the fields are what he is given, and his options.

    Args:
        steps: the most steps of that training; it ends earlier on a plateau.
        width: filters of the network, on its first level.
        device: where it trains and works.
        seed: of its weights and of all that he draws.

    Attributes:
        name: of the counter-measure, for random draws and errors.
    """

    name: ClassVar[str]
    steps: int = count(3000, 1)
    width: int = count(32, 1, 1024)
    device: torch.device | str = "cpu"
    seed: int = 0
    network: nn.Module = field(default_factory=nn.Identity, init=False)

    def __post_init__(self) -> None:
        """Read the options; ConfigError as `whole_number`."""
        for each in fields(self):
            if "range" in each.metadata:
                read = whole_number(f"{self.name}: {each.name}", getattr(self, each.name), *each.metadata["range"])
                setattr(self, each.name, read)

    def learnt(self, network: nn.Module, error: Error, count: int) -> Fitted:
        """Train a fresh network on so many images, for an error over some of them."""
        self.network = network.to(self.device)
        result = fit_denoiser(self.network, error, count, self.steps, self.name, self.seed)
        self.findings = {**self.findings, "denoiser_steps": result.steps, "denoiser_plateau": result.plateau}
        return result


@dataclass(eq=False, kw_only=True)
class Denoised(Trained, ABC):
    """A hacker who learns a denoiser, trains on what it makes of the published images, and tests so too.

    Args:
        depth: layers of the denoiser; the other options are those of `Trained`.
    """

    depth: int = count(8, 3, 100)

    @abstractmethod
    def learn(self, images: ImageSet) -> None:
        """Train `self.network` and note the findings."""

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        self.learn(images)
        return self.pixels(images.images), images.labels

    def at_test(self, images: ImageSet) -> ImageSet:
        return images.with_images(self.pixels(images.images))

    def pixels(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] -> uint8, the same shape."""
        return torch.cat([to_uint8(self.estimate(part)).cpu() for part in images.split(250)])

    @torch.no_grad()
    def estimate(self, images: Tensor) -> Tensor:
        """What the original was, float32 [B, C, H, W] in [0, 1], for uint8 images of the same shape."""
        return self.network(to_float(images.to(self.device))).clamp(0, 1)

    def fitted(self, channels: int, error: Error, count: int) -> Fitted:
        """A fresh network for images of so many channels, trained."""
        return self.learnt(Denoiser(channels, self.depth, self.width, seed_for(self.seed, self.name)), error, count)
