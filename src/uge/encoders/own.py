"""A feature space of the data itself: a small classifier trained on the originals, cut before its last layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uge.data.images import ImageSet
from uge.networks import fresh_network
from uge.networks.vgg import VGG
from uge.runtime import seed_for
from uge.training import Recipe, fit


class OwnEncoder(nn.Module):
    """Average-pooled features of a trained VGG, before its linear layer."""

    def __init__(self, classifier: nn.Sequential) -> None:
        super().__init__()
        self.normalise, body = classifier
        assert isinstance(body, VGG)
        self.features = body.features

    def forward(self, x: Tensor) -> Tensor:
        return self.features(self.normalise(x)).mean(dim=(2, 3))


def own_encoder(images: ImageSet, seed: int, device: torch.device) -> nn.Module:
    """Train the classifier: an 8-layer VGG, an architecture of its own beside most authorised networks."""
    seed = seed_for(seed, "own encoder")
    classifier = fresh_network("vgg:depth=8,width=16", images, seed)
    fit(classifier, images, Recipe(epochs=10), seed=seed, device=device)
    assert isinstance(classifier, nn.Sequential)
    return OwnEncoder(classifier)
