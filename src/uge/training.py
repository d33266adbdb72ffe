"""The only classifier training loop: the authorised user and every hacker train here, so they compare fairly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.data.images import ImageSet, to_float
from uge.errors import ConfigError, TrainingError
from uge.networks import trainable
from uge.runtime import generator_for, precision_of, quick, repeatable

CHOICES = {
    "optimiser": ("sgd", "adamw"),
    "schedule": ("one-cycle", "cosine", "constant"),
    "augmentation": ("standard", "none"),
    "precision": ("auto", "float32", "bfloat16"),
}
AtTest = Callable[[ImageSet], ImageSet]  # what a network is shown in the place of clean test images
State = dict[str, Tensor]
OnEpoch = Callable[[int, float, float], None]  # epoch from 1, train loss, test accuracy or nan


@dataclass(frozen=True)
class Recipe:
    """How to train a classifier.

    Attributes:
        epochs: passes over the data; 0 where a counter-measure only begins and finishes a network.
        batch_size: images a step.
        optimiser: "sgd" (Nesterov momentum 0.9) or "adamw".
        learning_rate: the peak of the schedule.
        weight_decay: coefficient on weights of two or more dimensions.
        schedule: "one-cycle" (rises over the first quarter, falls to zero: Smith & Topin 2018), "cosine", "constant".
        augmentation: "standard" (horizontal flip, random crop after padding by an eighth of the side) or "none".
        precision: "float32" or "bfloat16" autocast, or "auto": bfloat16 where the hardware computes in it.
    """

    epochs: int = 30
    batch_size: int = 128
    optimiser: str = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    augmentation: str = "standard"
    precision: str = "auto"

    def __post_init__(self) -> None:
        for what, known in CHOICES.items():
            if (value := getattr(self, what)) not in known:
                raise ConfigError(f"unknown {what} '{value}'; choose from: {', '.join(known)}")
        if self.epochs < 0 or self.batch_size < 1 or self.learning_rate <= 0:
            raise ConfigError("batch_size and learning_rate must be positive, epochs 0 or more")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def recommended_recipe(network: str, epochs: int = 30) -> Recipe:
    """The recipe that a network trains well with here, by its text ("vit:depth=6"); SGD unless it needs better."""
    name = network.partition(":")[0]
    if name == "vit":  # which bfloat16 slows down
        return Recipe(epochs, optimiser="adamw", learning_rate=1e-3, weight_decay=0.05, precision="float32")
    return Recipe(epochs, learning_rate=0.03 if name == "mlp" else 0.1)


class PlainTraining:
    """No counter-measure.

    Seven places to step in, each an identity; counter-measures override what they need.

    What one needs it takes as arguments (see `uge.attack.build_countermeasure`).

    Attributes:
        knows: what the hacker has besides the published images and our code, one of `uge.attack.KNOWLEDGE`.
        cost: of a step as a multiple of plain training's, about.
        before: what comes before the first step, as a multiple of a plain training of 30 epochs, about.
        by_epochs: whether fewer epochs take less time; not so where most is done before the first, or after the last.
        sees_copy: whether he learns from the published images at all.
        tried: what plans write behind the name, a hacker each: "" for the defaults; plans leave out what has none.
        amount: what the first option counts, where it says how much a hacker has: "pairs"; pages draw that curve.
        findings: what he found out on the way, for the record of the training; nothing by default.
    """

    knows: ClassVar[str] = "nothing"
    cost: ClassVar[float] = 1.0
    before: ClassVar[float] = 0.0
    by_epochs: ClassVar[bool] = True
    sees_copy: ClassVar[bool] = True
    tried: ClassVar[Sequence[str]] = ("",)
    amount: ClassVar[str] = ""
    findings: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def unfit(cls, images: ImageSet, given: Mapping[str, Any], options: Mapping[str, str]) -> str:
        """Why this is of no use against some images; empty if it may be.

        Args:
            images: the published ones.
            given: what there is of the arguments that an audit gives.
            options: as a user wrote them.
        """
        return ""

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Once before training: what to train on, uint8 [N, C, H, W] and targets [N, ...] that `loss` understands."""
        return images.images, images.labels

    def at_test(self, images: ImageSet) -> ImageSet:
        """What the network is shown in the place of clean test images."""
        return images

    def begin(self, network: nn.Module, recipe: Recipe, generator: torch.Generator) -> tuple[nn.Module, Recipe]:
        """After `prepare`: what to train and how, from what the hacker would train without a counter-measure."""
        return network, recipe

    def at_epoch(self, progress: float) -> None:
        """Before each epoch: the share of the training that is over, from 0 up to 1."""

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Change one augmented batch: x float32 [B, C, H, W] in [0, 1], y its targets."""
        return x, y

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The scalar to minimise on one batch."""
        return F.cross_entropy(network(x), y)

    def finish(self, network: nn.Module, images: Tensor, targets: Tensor, at_test: AtTest) -> bool:
        """After training: change the network in place, and say whether it was changed.

        It is given what `prepare` gave, and what the network is shown in the place of clean images.
        """
        return False


@dataclass(frozen=True)
class History:
    """What a training run measured, an entry an epoch; accuracies in percent of the test images.

    Where a counter-measure finished the network, `test_accuracy` has one entry more. `recipe` is the one that was
    used, which a counter-measure may have changed.
    """

    train_loss: tuple[float, ...]
    test_accuracy: tuple[float, ...]
    seconds: float
    images_seen: int
    recipe: Recipe

    @property
    def accuracy(self) -> float:
        """At the end."""
        return self.test_accuracy[-1] if self.test_accuracy else math.nan

    @property
    def peak_accuracy(self) -> float:
        """The best epoch, picked on test data: it favours the hacker."""
        return max(self.test_accuracy, default=math.nan)


@dataclass(frozen=True)
class Shift:
    """One draw of the standard augmentation, so that it can be applied to an image and to its copy alike.

    Attributes:
        flip: bool [B].
        down: int64 [B], rows to move, in -pad..pad.
        right: int64 [B], columns to move, in -pad..pad.
    """

    flip: Tensor
    down: Tensor
    right: Tensor

    @classmethod
    def draw(cls, count: int, image_size: tuple[int, int], generator: torch.Generator) -> Shift:
        pads = [max(1, side // 8) for side in image_size]
        down, right = (torch.randint(-pad, pad + 1, (count,), generator=generator) for pad in pads)
        return cls(torch.rand(count, generator=generator) < 0.5, down, right)

    def __call__(self, x: Tensor) -> Tensor:
        """Flip and move x [B, C, H, W]; what comes in from outside is zero. Differentiable in x."""
        n, _, height, width = x.shape
        flip, down, right = (each.to(x.device)[:, None] for each in (self.flip, self.down, self.right))
        rows = torch.arange(height, device=x.device) + down  # [B, H]
        columns = torch.arange(width, device=x.device) + right  # [B, W]
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        columns = torch.where(flip, width - 1 - columns, columns)
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        index = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, -1)  # [B, 1, H*W]
        moved = x.flatten(2).gather(2, index.expand(-1, x.shape[1], -1)).view_as(x)
        return moved * inside[:, None]


def learning_rate_at(recipe: Recipe, progress: float) -> float:
    """The learning rate at `progress` in [0, 1] of the training."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * progress)) / 2
    warm = 0.25
    return recipe.learning_rate * (progress / warm if progress < warm else (1 - progress) / (1 - warm))


def make_optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the trainable parameters; norms and biases are not decayed."""
    parameters = list(trainable(network).values())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)


@repeatable()
def fit(
    network: nn.Module,
    train: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    test: ImageSet | None = None,
    countermeasure: PlainTraining | None = None,
    device: torch.device | str = "cpu",
    only_at_end: bool = False,
    on_epoch: OnEpoch | None = None,
) -> History:
    """Train a classifier in place, or the one that a counter-measure begins with.

    Args:
        network: maps float32 [B, C, H, W] in [0, 1] to logits; moved to `device`.
        train: the images to learn from.
        recipe: how.
        seed: decides order and augmentation, nothing else.
        test: clean held-out images, measured after each epoch where given.
        only_at_end: measure after the last epoch alone.
        countermeasure: the hooks of a hacker; `PlainTraining` by default.
        device: where to train; the images move there once.
        on_epoch: called after each epoch.

    Returns:
        The history; the network holds the final weights, in eval mode.

    Raises:
        TrainingError: the loss ended as infinity or no number.
    """
    measure = countermeasure or PlainTraining()
    images, targets = (tensor.to(device) for tensor in measure.prepare(train))
    network, recipe = measure.begin(network, recipe, generator_for(seed, "begin"))
    recipe = replace(recipe, precision=precision_of(device)) if recipe.precision == "auto" else recipe
    network.to(device)
    seen_at_test = None if test is None else measure.at_test(test)
    optimiser = make_optimiser(network, recipe)
    generator = generator_for(seed, "train")
    batch_size = min(recipe.batch_size, len(images))
    steps_an_epoch = len(images) // batch_size
    steps = steps_an_epoch * recipe.epochs
    losses: list[float] = []
    accuracies: list[float] = []
    started = time.perf_counter()
    for epoch in range(recipe.epochs):
        network.train()
        measure.at_epoch(epoch / recipe.epochs)
        order = torch.randperm(len(images), generator=generator).to(device)
        total = torch.zeros((), device=device)
        for step in range(steps_an_epoch):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(recipe, (epoch * steps_an_epoch + step + 1) / (steps + 1))
            pick = order[step * batch_size : (step + 1) * batch_size]
            x, y = to_float(images[pick]), targets[pick]
            if recipe.augmentation == "standard":
                x = Shift.draw(len(x), (x.shape[2], x.shape[3]), generator)(x)
            x, y = measure.batch(x, y, generator)
            with quick(device, recipe.precision):
                loss = measure.loss(network, x.contiguous(memory_format=torch.channels_last), y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += loss.detach()
        losses.append(round(float(total) / steps_an_epoch, 5))
        if seen_at_test is not None and (epoch + 1 == recipe.epochs or not only_at_end):
            accuracies.append(accuracy_of(network, seen_at_test))
        if on_epoch:
            on_epoch(epoch + 1, losses[-1], accuracies[-1] if accuracies else math.nan)
    if losses and not math.isfinite(losses[-1]):
        raise TrainingError("the training diverged: its loss is no number any more; a lower learning rate may help")
    network.eval()
    if measure.finish(network, images, targets, measure.at_test) and seen_at_test is not None:
        accuracies.append(accuracy_of(network, seen_at_test))
    seconds = round(time.perf_counter() - started, 2)
    return History(tuple(losses), tuple(accuracies), seconds, steps * batch_size, recipe)


def snapshot(network: nn.Module) -> State:
    """A copy of all weights and buffers, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def recorded(
    network: nn.Module,
    train: ImageSet,
    recipe: Recipe,
    epochs: Container[int],
    *,
    seed: int,
    device: torch.device | str = "cpu",
    on_epoch: OnEpoch | None = None,
) -> list[State]:
    """Train as `fit` does, and keep the weights after each of these epochs, counted from 1."""
    states = []

    def keep(epoch: int, loss: float, accuracy: float) -> None:
        if epoch in epochs:
            states.append(snapshot(network))
        if on_epoch:
            on_epoch(epoch, loss, accuracy)

    fit(network, train, recipe, seed=seed, device=device, on_epoch=keep)
    return states


@torch.no_grad()
def logits_of(network: nn.Module, images: Tensor, *, batch_size: int = 500) -> Tensor:
    """Logits float32 [N, classes] on the CPU, of uint8 images [N, C, H, W], in eval mode and where the network is."""
    was_training, place = network.training, next(network.parameters()).device
    network.eval()
    outputs = [
        network(to_float(part.to(place)).contiguous(memory_format=torch.channels_last)).float().cpu()
        for part in images.split(batch_size)
    ]
    network.train(was_training)
    return torch.cat(outputs)


def accuracy_of(network: nn.Module, test: ImageSet) -> float:
    """Accuracy in percent on clean images."""
    right = logits_of(network, test.images).argmax(1) == test.labels
    return round(100 * right.float().mean().item(), 3)
