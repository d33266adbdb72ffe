"""Erasure: what a classifier of the copies goes by is taken out of every image before the training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uge.attack.options import number, whole_number
from uge.attack.own_pairs import READER
from uge.baselines.baseline import signed_step
from uge.data.images import ImageSet, to_float, to_uint8
from uge.networks import fresh_network
from uge.runtime import seed_for
from uge.training import PlainTraining, fit, recommended_recipe

STEPS = 16


class Erase(PlainTraining):
    """Train on images that a first classifier of the published images can no longer tell.

        x <- x + a,   min_a KL(uniform || softmax f(x + a)),   |a|_inf <= epsilon

    f learns for a few epochs from the published images, and so first what is easiest: the perturbation where it is a
    shortcut. Signed steps from zero come to rest where f is undecided, so that what takes more to hide stays. Ours.
    Steps towards the label instead, away from what speaks for other classes, taught less than none did (trials,
    `towards the label`): they lay a new shortcut on the image. Test images are shown as they are.

    Args:
        epsilon_255: the bound in 8-bit steps.
        epochs: of f.
        seed: of f.
        device: where it learns.
    """

    before = 1.0
    by_epochs = False

    def __init__(
        self, epsilon_255: str | float = 16, epochs: str | int = 4, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.epsilon = number("erase: epsilon_255", epsilon_255, 1, 128) / 255
        self.epochs = whole_number("erase: epochs", epochs, 1, 1000)
        self.seed, self.device = seed, device

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        seed = seed_for(self.seed, "erase")
        network = fresh_network(READER, images, seed)
        fit(network, images, recommended_recipe(READER, self.epochs), seed=seed, device=self.device)
        network.requires_grad_(False)
        seen = [self._erased(network, part, images.classes) for part in images.images.split(250)]
        return torch.cat(seen), images.labels

    def _erased(self, network: nn.Module, images: Tensor, classes: int) -> Tensor:
        """uint8 [B, C, H, W] -> the same shape."""
        x = to_float(images.to(self.device))
        a, targets = torch.zeros_like(x), x.new_full((len(x), classes), 1 / classes)
        for _ in range(STEPS):
            a = signed_step(network, x, a, targets, 2 * self.epsilon / STEPS, self.epsilon)
        return to_uint8(x + a).cpu()
