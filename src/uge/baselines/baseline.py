"""What the protections of other papers share: one loop of rounds, and bounds that hold in the published 8-bit images.

They are here to be compared with. None takes a key: but for the learnability lock, what they publish is meant to be
learnt by nobody.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.data.images import to_float
from uge.errors import ConfigError
from uge.networks import parse_network
from uge.protection import NO_KEY, OnStep, Protection, Settings, Telling, preparing
from uge.runtime import generator_for, repeatable, seed_for
from uge.training import Recipe, Shift

SCOPES = ("sample", "class")


@dataclass(frozen=True)
class BaselineConfig(Settings):
    """Settings of a baseline.

    Attributes:
        bound: what limits the change of an image; published with the settings. Baselines with an L_inf bound have
            a setting `epsilon_255` besides, the others publish no epsilon asked, but the one measured.

    A setting that several have means the same in all: `network` is the surrogate, f, `network_epochs` its training on
    the originals, `batch_size` images a step, `step_share` the length of steps on perturbations as a share of epsilon.
    """

    bound: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        return {"bound": self.bound} | super().to_dict()

    def __post_init__(self) -> None:
        super().__post_init__()
        if hasattr(self, "network"):
            parse_network(self.network)
        if (scope := getattr(self, "scope", SCOPES[0])) not in SCOPES:
            raise ConfigError(f"unknown scope '{scope}'; choose from: {', '.join(SCOPES)}")


@dataclass(frozen=True)
class LinfConfig(BaselineConfig):
    """Settings of a baseline with an L_inf bound.

    Attributes:
        epsilon_255: the bound in 8-bit steps.
    """

    bound = "L_inf: epsilon_255"
    epsilon_255: int = 8


C = TypeVar("C", bound=BaselineConfig)


class Baseline(Protection[C]):
    """A protection without a key. Most have nothing to train."""

    takes = NO_KEY

    def train(self, on_step: OnStep | None = None) -> None:
        """Nothing is to be trained."""

    @torch.no_grad()
    def copied(self, numbers: range) -> Tensor:
        chosen = slice(numbers.start, numbers.stop)
        return self.protected(self.clean.images[chosen], self.clean.labels[chosen], numbers)

    @abstractmethod
    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        """The copies of originals, uint8 [B, C, H, W] both, with labels int64 [B].

        Their numbers, which are their places in `clean`, are for draws that are an image's own.
        """


class LearntBaseline(Baseline[C]):
    """A baseline that learns perturbations in rounds; a killed run goes on after the last one that was kept.

    Attributes:
        stream: names its random draws.
        longest: a gradient of the surrogate may be, which is cut to it.
        rounds: how many, at most.
        by_class: whether a row of `delta` is of a class, and not of an image.
        delta: the perturbations, float32, rows of a shape that the subclass chooses.
        surrogate: the network beside them.
        optimiser: of that network, where it learns meanwhile.
    """

    stream: ClassVar[str]
    longest: ClassVar[float] = math.inf
    by_class: bool = False
    delta: Tensor
    surrogate: nn.Module
    optimiser: torch.optim.Optimizer | None = None

    @property
    def rounds(self) -> int:
        config: Any = self.config
        return config.rounds if hasattr(config, "rounds") else len(self._batches(config.batch_size))

    @abstractmethod
    def begin(self, telling: Telling) -> None:
        """Set the attributes as they are before the first round; without it `delta` is zero for every image."""

    @abstractmethod
    def round(self, number: int, rng: torch.Generator) -> dict[str, float]:
        """Learn a little, with draws of the round's own; what the log says of it."""

    def enough(self) -> bool:
        """Whether to end here, before the last round: where there is an error to stop at, below it."""
        return bool(self.log) and self.log[-1].get("error", 1.0) < getattr(self.config, "error", 0.0)

    @repeatable()
    def train(self, on_step: OnStep | None = None) -> None:
        """Learn the perturbations, going on from the work folder where it holds an unfinished run."""
        self.delta = torch.zeros(self.clean.images.shape)
        self.begin(lambda what: preparing(what, self.rounds, on_step))
        if (state := self.resumed()) is not None:
            self.delta = state["delta"]
            for name, part in self._learners().items():
                part.load_state_dict(state[name])
        self.take_steps(
            self.rounds,
            lambda number: self.round(number, generator_for(self.seed, self.stream, number)),
            lambda: {"delta": self.delta} | {name: part.state_dict() for name, part in self._learners().items()},
            on_step,
            self.enough,
        )

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        assert self.epsilon_255 is not None  # baselines with another bound have another way
        own = self._rows(torch.arange(numbers.start, numbers.stop))
        return add_within_linf(images, 255 * self.delta[own], self.epsilon_255)

    def _teach_surrogate(self, what: str, recipe: Recipe, telling: Telling) -> None:
        """Train the surrogate on the originals, once; kept under this name."""
        seed = seed_for(self.seed, f"{self.stream} {what}")
        self.teach_once(what, self.surrogate, self.clean, recipe, seed=seed, on_epoch=telling(what))

    def _learners(self) -> dict[str, Any]:
        return {"surrogate": self.surrogate} | ({"optimiser": self.optimiser} if self.optimiser else {})

    def _batches(self, size: int) -> tuple[Tensor, ...]:
        """The numbers of all images, int64 [B] batch by batch, in their order."""
        return torch.arange(len(self.clean)).split(size)

    def _pick(self, size: int, rng: torch.Generator) -> Tensor:
        """Numbers of so many images at random, int64 [B]."""
        return torch.randperm(len(self.clean), generator=rng)[:size]

    def _batch(self, pick: Tensor) -> tuple[Tensor, Tensor]:
        """x float32 [B, C, H, W] in [0, 1] and labels int64 [B] of the images numbered `pick`, on the device."""
        return to_float(self.clean.images[pick].to(self.device)), self.clean.labels[pick].to(self.device)

    def _rows(self, pick: Tensor) -> Tensor:
        """The rows of delta that belong to the images numbered `pick`, int64 [B]."""
        return self.clean.labels[pick] if self.by_class else pick

    def _seen(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """x flipped and cropped at random, as networks are trained here."""
        return Shift.draw(len(x), self.clean.image_size, rng)(x)

    def _teach(self, perturbed: Callable[[Tensor, Tensor, Tensor], Tensor], rng: torch.Generator) -> float:
        """The surrogate learns from some batches of images `perturbed(x, y, pick)`; the mean of its losses."""
        config: Any = self.config
        self.surrogate.train()
        total = 0.0
        for _ in range(config.network_steps):
            pick = self._pick(config.batch_size, rng)
            x, y = self._batch(pick)
            total += self._learn(self._seen(perturbed(x, y, pick), rng), y)
        return total / config.network_steps

    def _learn(self, x: Tensor, y: Tensor) -> float:
        """One step of the surrogate on these images; the loss before it."""
        assert self.optimiser is not None
        loss = F.cross_entropy(self.surrogate(x), y)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.surrogate.parameters(), self.longest)
        self.optimiser.step()
        return float(loss.detach())


def uniform(shape: Sequence[int], reach: float, rng: torch.Generator) -> Tensor:
    """Uniform on [-reach, reach], float32 of this shape."""
    return reach * (2 * torch.rand(tuple(shape), generator=rng) - 1)


def add_within_linf(images: Tensor, delta: Tensor, epsilon_255: int) -> Tensor:
    """x_u = clip(x + delta) with |x_u - x| <= epsilon in whole steps: uint8 [B, C, H, W], as the images x.

    delta is in 8-bit steps and broadcast over images. x is whole, so that rounding never leads past the bound.
    """
    return (images + delta.clamp(-epsilon_255, epsilon_255).round()).clamp(0, 255).to(torch.uint8)


def add_within_rms(images: Tensor, delta: Tensor, rms_255: float) -> Tensor:
    """x_u = clip(x + s delta) with the largest s (in steps of 0.2%) that keeps the root mean square after rounding.

    An L2 norm of e on the scale [0, 1] is rms_255 = 255 e / sqrt(C H W): the same visibility at any image size.

    Args:
        images: x, uint8 [B, C, H, W]; x_u is like it.
        delta: any scale, float32 [B, C, H, W]; an image whose delta is zero stays as it is.
        rms_255: bound on the root mean square of each image's change, in 8-bit steps.
    """

    def rms(change: Tensor) -> Tensor:
        return change.square().mean((1, 2, 3), keepdim=True).sqrt()

    scaled = delta * (rms_255 / rms(delta).clamp_min(1e-12))
    while True:
        change = scaled.round()
        over = rms(change) > rms_255
        if not over.any():  # soon: rounding adds a 12th to a mean square of 36
            break
        scaled = torch.where(over, scaled * 0.998, scaled)
    return (images + change).clamp(0, 255).to(torch.uint8)


def signed_step(
    network: nn.Module,
    x: Tensor,
    delta: Tensor,
    targets: Tensor,
    step: float,
    epsilon: float,
    *,
    owners: Tensor | None = None,
    seen: Callable[[Tensor], Tensor] = nn.Identity(),  # noqa: B008  # it holds nothing
) -> Tensor:
    """One step of projected gradient descent on the cross-entropy at x + delta.

        delta <- clip( delta - step sign(d/d delta sum_i CE(f(T(x_i + delta_i)), t_i)), -epsilon, epsilon )

    and x + delta is kept in [0, 1]. Source: Madry et al., ICLR 2018, arXiv 1706.06083.

    Args:
        network: f; its weights stay as they are.
        x: float32 [B, C, H, W] in [0, 1].
        delta: float32 [B, C, H, W], or [K, C, H, W] with `owners`.
        targets: int64 [B], or shares of the classes, float32 [B, K].
        step: its length, on the scale [0, 1]; a negative one climbs.
        epsilon: L_inf bound, on the scale [0, 1].
        owners: the rows of delta that the images share, int64 [B]; None where each has its own.
        seen: T, what happens to the perturbed images on their way to the network.

    Returns:
        The new delta.
    """
    delta = delta.detach().requires_grad_()
    added = delta if owners is None else delta[owners]
    loss = F.cross_entropy(network(seen((x + added).clamp(0, 1))), targets, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, delta)
    moved = (delta.detach() - step * gradient.sign()).clamp(-epsilon, epsilon)
    return moved if owners is not None else (x + moved).clamp(0, 1) - x
