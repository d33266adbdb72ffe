"""Distillation: a hacker who may ask the trained authorised network learns its answers on the published images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack.options import number
from uge.data.images import ImageSet
from uge.errors import ConfigError
from uge.losses.undistillation import distillation
from uge.records import ASKS
from uge.training import PlainTraining, logits_of

LABELS = ("soft", "hard")
QUERIES = ("published", "any")


class Distillation(PlainTraining):
    """Train a student on the teacher's answers instead of the labels.

    Soft labels: Hinton, Vinyals & Dean 2015. Queries on any image follow Beyer et al., Knowledge distillation: a good
    teacher is patient and consistent, CVPR 2022: the teacher answers for each augmented image, mixed with another.

    Args:
        teacher: the trained authorised network.
        labels: "soft" (all outputs) or "hard" (the class it names).
        temperature: of the soft labels.
        queries: "published" (it answers on each published image once) or "any" (on whatever the student sees:
            the augmented published images, half of them mixed in pairs).
    """

    knows = ASKS
    cost = 1.3
    tried: ClassVar[Sequence[str]] = ("soft", "hard", "soft,queries=any", "soft,temperature=1")

    def __init__(
        self, teacher: nn.Module, labels: str = "soft", temperature: float | str = 4.0, queries: str = "published"
    ) -> None:
        if labels not in LABELS or queries not in QUERIES:
            raise ConfigError(
                f"distillation has labels {' or '.join(LABELS)} and queries {' or '.join(QUERIES)},"
                f" got '{labels}' and '{queries}'"
            )
        self.temperature = number("distillation: temperature", temperature, 1e-3, 1e6)
        self.teacher, self.labels, self.queries = teacher.eval(), labels, queries

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """The published images with the teacher's answers, float32 [N, K]."""
        return images.images, logits_of(self.teacher, images.images)

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Where any image may be asked: mix half of the batch in pairs and ask again."""
        if self.queries == "published":
            return x, y
        share = torch.rand(len(x), generator=generator).to(x.device)
        share = torch.where(torch.arange(len(x), device=x.device) % 2 == 0, torch.ones_like(share), share)
        x = share.view(-1, 1, 1, 1) * x + (1 - share).view(-1, 1, 1, 1) * x.roll(1, dims=0)
        with torch.no_grad():
            return x, self.teacher(x.contiguous(memory_format=torch.channels_last))

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if self.labels == "hard":
            return F.cross_entropy(network(x), y.argmax(1))
        return distillation(y, network(x), self.temperature)
