"""A hacker who begins with an encoder that others have trained on other images."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from uge.attack.last_layer import refit_last_layer
from uge.attack.options import number, whole_number
from uge.data.images import ImageSet
from uge.encoders import ENCODERS
from uge.encoders.classifier import Pretrained, pretrained_classifier
from uge.errors import unknown_name
from uge.training import AtTest, PlainTraining, Recipe

MOST_PIXELS = 224  # the side for which the encoders were trained


class PretrainedProbe(PlainTraining):
    """A linear classifier on the features of a frozen encoder, by logistic regression (see `refit_last_layer`).

    The encoder takes the network's place, whatever that is. Nothing is trained but the last layer, on the features
    of the images as they are, without augmentation.

    Args:
        encoder: pretrained, one of `uge.encoders`; efficientnet-lite1 is one that the protector did not use.
        side: pixels to which images are resized for efficientnets; 0 takes twice their own, from `least` to 224.
        seed: decides the order of the regression's steps, the only thing here that is drawn.
    """

    by_epochs = False
    tried = ("efficientnet-lite0", "efficientnet-lite1")
    least = 128
    images: ImageSet  # known after `prepare`

    def __init__(self, encoder: str = "efficientnet-lite0", side: str | int = 0, seed: int = 0) -> None:
        known = [name for name in ENCODERS if name != "own"]  # that one is trained on the data itself
        if encoder not in known and not encoder.startswith("clip:"):
            raise unknown_name("pretrained encoder", encoder, [*known, "clip:FOLDER-OR-HUB-ID"])
        self.encoder = encoder
        self.side = whole_number("pretrained: side", side, 0, 1024)
        self.seed = seed

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        self.images = images
        return images.images, images.labels

    def begin(self, network: nn.Module, recipe: Recipe, generator: torch.Generator) -> tuple[nn.Module, Recipe]:
        return self.pretrained(), replace(recipe, epochs=0)

    def finish(self, network: nn.Module, images: Tensor, targets: Tensor, at_test: AtTest) -> bool:
        refit_last_layer(network, images, targets, self.seed)
        return True

    def pretrained(self) -> Pretrained:
        """The encoder, frozen, under a new linear layer."""
        side = self.side or min(MOST_PIXELS, max(self.least, 2 * max(self.images.image_size)))
        return pretrained_classifier(self.encoder, self.images, side, "auto")


class PretrainedFinetune(PretrainedProbe):
    """The linear probe, then the encoder is trained further, with the last layer: AdamW for a share of the epochs.

    Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, ICLR 2022: with a
    last layer that fits already there is less left to learn, and so less of a shortcut.

    Args:
        share: of the epochs that a network trained from scratch gets: features that exist need fewer.
        learning_rate: the peak of the schedule; the other options are those of the probe.
    """

    by_epochs = True
    least = 64  # at 128 pixels a step costs four times as much

    def __init__(
        self,
        encoder: str = "efficientnet-lite0",
        side: str | int = 0,
        share: str | float = 0.3,
        learning_rate: str | float = 3e-4,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, side, seed)
        self.share = number("pretrained-finetune: share", share, 0.01, 10)
        self.learning_rate = number("pretrained-finetune: learning_rate", learning_rate, 1e-6, 1)

    def begin(self, network: nn.Module, recipe: Recipe, generator: torch.Generator) -> tuple[nn.Module, Recipe]:
        tuned = replace(
            recipe,
            epochs=max(1, round(self.share * recipe.epochs)),
            optimiser="adamw",
            learning_rate=self.learning_rate,
            weight_decay=0.05,
        )
        network = self.pretrained()
        refit_last_layer(network, self.images.images, self.images.labels, self.seed)
        return network.requires_grad_(True), tuned

    def finish(self, network: nn.Module, images: Tensor, targets: Tensor, at_test: AtTest) -> bool:
        return False
