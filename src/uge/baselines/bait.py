"""Binding artificial perturbations to incorrect targets (BAIT): Li et al., "When Priors Backfire", ICLR 2026.

arXiv 2603.04731. Against hackers who begin with a pretrained network. Every class k has a perturbation delta_k. A
pretrained network f learns from what would be published, and the perturbation of another class j shall overrule what f
knows of an image:

    theta <- a step on CE(f(x_i + delta_{y_i}), y_i)
    delta <- steps on CE(f(x_i + delta_j), j),   j != y_i,   |delta|_inf <= epsilon

In three stages j is the highest wrong logit of f(x_i), then random, then the lowest one. x_u = x + delta_y.

Stages and augmentation are those of the authors' public code (github.com/zhli-cs/BAIT). Deviations: f is
EfficientNet-lite0 (there a ResNet-18) on images enlarged to 64 pixels (there as they are), its normalisation keeps its
statistics, and it learns with AdamW (with their SGD it diverges); deltas take signed gradient steps on some batches a
round (there a generator proposes them, image by image, and takes a step of Adam on all batches; the mean over a class
is its delta); they follow f and not f one step ahead; deltas are rounded to 8-bit steps at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.baselines.baseline import LearntBaseline, LinfConfig, signed_step
from uge.encoders.classifier import pretrained_classifier
from uge.protection import Telling
from uge.training import Recipe, make_optimiser

STAGES = 3


@dataclass(frozen=True)
class BAITConfig(LinfConfig):
    """Settings of BAIT; rounds and epsilon are the public code's for CIFAR-10.

    Attributes:
        encoder: f without its last layer (see `uge.encoders`).
        side: pixels to which it enlarges images.
        rounds: steps of f, a third of them in each stage.
        steps: of the deltas in each round, on a batch of images each.
        learning_rate: of f.
    """

    encoder: str = "efficientnet-lite0"
    side: int = 64
    rounds: int = 90
    steps: int = 4
    step_share: float = 0.1
    batch_size: int = 128
    learning_rate: float = 0.0003


class BAITProtection(LearntBaseline[BAITConfig]):
    """Learns one perturbation a class that a pretrained network takes for the class itself."""

    Config = BAITConfig
    stream = "bait"
    longest = 5.0
    by_class = True

    def begin(self, telling: Telling) -> None:
        self.delta = torch.zeros(self.clean.classes, *self.clean.images.shape[1:])
        built = pretrained_classifier(self.config.encoder, self.clean, self.config.side, "float32")  # signs need it
        self.surrogate = built.to(self.device).train().requires_grad_(True)
        recipe = Recipe(optimiser="adamw", learning_rate=self.config.learning_rate)
        self.optimiser = make_optimiser(self.surrogate, recipe)

    def round(self, number: int, rng: torch.Generator) -> dict[str, float]:
        """`overruled` is the share of images that f takes for the class of the perturbation on them, not their own."""
        config = self.config
        x, y = self._drawn(rng)
        epsilon, delta, overruled = config.epsilon_255 / 255, self.delta.to(self.device), 0.0
        loss = self._learn((x + delta[y]).clamp(0, 1), y)
        for _ in range(config.steps):
            x, y = self._drawn(rng)
            with torch.no_grad():
                j = wrong_targets(self.surrogate(x), y, STAGES * number // config.rounds, rng)
                seen = self.surrogate((x + delta[j]).clamp(0, 1)).argmax(1)
            overruled += float((seen == j).float().mean()) / config.steps
            delta = signed_step(self.surrogate, x, delta, j, config.step_share * epsilon, epsilon, owners=j)
        self.delta = delta.cpu()
        return {"loss": loss, "overruled": overruled}

    def _drawn(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch at random, flipped and cropped; perturbations are laid on it afterwards, as there."""
        x, y = self._batch(self._pick(self.config.batch_size, rng))
        return self._seen(x, rng), y


def wrong_targets(logits: Tensor, labels: Tensor, stage: int, rng: torch.Generator) -> Tensor:
    """j for some images, never their own class where there is another: int64 [B], like the labels.

    `logits` float32 [B, K] are of the images without perturbations. Stage 0 takes the highest wrong logit, 1 any at
    random (`rng`), 2 the lowest.
    """
    if stage == 1:
        others = torch.randint(max(1, logits.shape[1] - 1), (len(labels),), generator=rng).to(labels.device)
        return (labels + 1 + others) % logits.shape[1]
    own = F.one_hot(labels, logits.shape[1]).bool()
    ranked = logits if stage == 0 else -logits
    return ranked.masked_fill(own, -torch.inf).argmax(1)
