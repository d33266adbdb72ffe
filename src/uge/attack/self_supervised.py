"""Self-supervised pretraining: the network learns the images without their labels, then a probe reads the labels."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack.last_layer import last_layer, refit_last_layer
from uge.attack.options import number, whole_number
from uge.operations import colour, jitter, sometimes, warp
from uge.training import AtTest, PlainTraining, Recipe


class Head(nn.Module):
    """In the place of the last layer: a projection while the network trains, a linear classifier when it is tested.

    The classifier begins at zero and is fitted when training has ended; until then every test is a guess.
    """

    def __init__(self, features: int, projected: int, classes: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, projected))
        self.classify = nn.Linear(features, classes).requires_grad_(False)
        for tensor in self.classify.parameters():
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x) if self.training else self.classify(x)


class SelfSupervised(PlainTraining):
    """SimCLR on the published images, then a linear probe with their labels.

        min_theta mean_i -log( exp(z_i . z_j(i) / t) / sum_{k != i} exp(z_i . z_k / t) ),   z = g(f(x)) / |g(f(x))|

    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020: j(i) is another
    augmentation of the same image (resized crop, flip, colour jitter, now and then gray), g a projection with one
    hidden layer, thrown away at the end; no blur and strength 0.5, as theirs on CIFAR-10. A perturbation
    that speaks of the label cannot be a shortcut where no label is asked for. Ours: the recipe of
    the network, not LARS, batches of the recipe, and a probe on the images as they are (see `refit_last_layer`).

    Args:
        passes: epochs, as a multiple of the recipe's: without labels learning takes longer.
        temperature: t.
        projected: values of z.
    """

    cost = 2.3

    def __init__(self, passes: str | int = 2, temperature: str | float = 0.5, projected: str | int = 64) -> None:
        self.passes = whole_number("self-supervised: passes", passes, 1, 100)
        self.temperature = number("self-supervised: temperature", temperature, 0.01, 10)
        self.projected = whole_number("self-supervised: projected", projected, 2, 4096)

    def begin(self, network: nn.Module, recipe: Recipe, generator: torch.Generator) -> tuple[nn.Module, Recipe]:
        parent, name = last_layer(network)
        layer: nn.Linear = getattr(parent, name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            setattr(parent, name, Head(layer.in_features, self.projected, layer.out_features))
        return network, replace(recipe, epochs=self.passes * recipe.epochs)

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two views of the batch after one another, [2 * B, C, H, W]."""
        return torch.cat([simclr_view(x, generator), simclr_view(x, generator)]), torch.cat([y, y])

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return contrastive(network(x).float(), self.temperature)

    def finish(self, network: nn.Module, images: Tensor, targets: Tensor, at_test: AtTest) -> bool:
        refit_last_layer(network, images, targets)
        return True


def contrastive(projections: Tensor, temperature: float) -> Tensor:
    """NT-Xent of two views of B images, projections [2 * B, D]: i and i + B belong together."""
    z = F.normalize(projections, dim=1)
    count = len(z)
    alike = (z @ z.T / temperature).masked_fill(torch.eye(count, dtype=torch.bool, device=z.device), -math.inf)
    return F.cross_entropy(alike, torch.arange(count, device=z.device).roll(count // 2))


def simclr_view(x: Tensor, generator: torch.Generator) -> Tensor:
    """One augmentation for each image of x [B, C, H, W] in [0, 1]: crop, flip, colour jitter, gray."""
    count, _, height, width = x.shape

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    area, ratio = drawn(0.2, 1), torch.exp(drawn(math.log(3 / 4), math.log(4 / 3)))  # of the resized crop
    wide, high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    left, down = drawn(-0.5, 0.5) * (1 - wide) * width, drawn(-0.5, 0.5) * (1 - high) * height
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    nought = torch.zeros(count)
    rows = torch.stack([flip * wide, nought, left, nought, high, down], dim=1).view(-1, 2, 3)
    x = warp(x, rows)
    jittered = turned_hue(jitter(x, drawn(0.6, 1.4), drawn(0.6, 1.4), drawn(0.6, 1.4)), drawn(-0.1, 0.1))
    x = sometimes(0.8, x, jittered, generator)
    return sometimes(0.2, x, colour(x, torch.zeros(count)), generator)


def turned_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Colours turned about the gray axis by a share of the circle, one an image; gray images stay.

    A rotation of RGB (Rodrigues' formula), which keeps the mean of the channels where HSV keeps their maximum.
    """
    if x.shape[1] == 1:
        return x
    angle = 2 * math.pi * turn.view(-1, 1, 1)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    rotation = angle.cos() * torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) / 3  # [B, 3, 3]
    return torch.einsum("bij,bjhw->bihw", rotation.to(x.device), x).clamp(0, 1)
