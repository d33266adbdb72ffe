"""Several counter-measures as one: `jpeg:30+cutmix`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from uge.data.images import ImageSet
from uge.errors import ConfigError
from uge.training import AtTest, PlainTraining, Recipe


class Combined(PlainTraining):
    """Every part's hooks one after another, in the order in which they are written; parts are (text, counter-measure).

    Raises:
        ConfigError: two parts that each bring a loss, or a network, of their own.
    """

    def __init__(self, parts: Sequence[tuple[str, PlainTraining]]) -> None:
        self.parts = tuple(parts)
        self.with_loss = self._only("loss", "a loss")
        self.with_network = self._only("begin", "a network")

    def _only(self, hook: str, what: str) -> PlainTraining:
        """The one part that has a hook of its own where there can be but one."""
        plain = getattr(PlainTraining, hook)
        own = [(text, part) for text, part in self.parts if getattr(type(part), hook) is not plain]
        if len(own) > 1:
            names = " and ".join(f"'{text}'" for text, _ in own)
            raise ConfigError(f"counter-measures {names} each bring {what} of their own: combine at most one of them")
        return own[0][1] if own else PlainTraining()

    def begin(self, network: nn.Module, recipe: Recipe, generator: torch.Generator) -> tuple[nn.Module, Recipe]:
        return self.with_network.begin(network, recipe, generator)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Each part prepares what the part before it left.

        Targets that are no labels (a teacher's answers) stay, whatever later parts make of the images, unless one
        changes which images there are.

        Raises:
            ConfigError: such a part follows one whose targets are no labels.
        """
        answers: Tensor | None = None
        for text, part in self.parts:
            x, y = part.prepare(images)
            if answers is not None and y is not images.labels:
                whole = "+".join(each for each, _ in self.parts)
                raise ConfigError(f"counter-measure '{text}' brings targets of its own: write it first in {whole}")
            if y.ndim > 1:
                answers, y = y, images.labels
            same = len(x) == len(images)
            names = images.names if same else tuple(f"{number:06d}" for number in range(len(x)))
            images = replace(images, images=x, labels=y, names=names)
        return images.images, images.labels if answers is None else answers

    def at_test(self, images: ImageSet) -> ImageSet:
        for _, part in self.parts:
            images = part.at_test(images)
        return images

    def at_epoch(self, progress: float) -> None:
        for _, part in self.parts:
            part.at_epoch(progress)

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        for _, part in self.parts:
            x, y = part.batch(x, y, generator)
        return x, y

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return self.with_loss.loss(network, x, y)

    def finish(self, network: nn.Module, images: Tensor, targets: Tensor, at_test: AtTest) -> bool:
        return any([part.finish(network, images, targets, at_test) for _, part in self.parts])  # all of them

    @property
    def findings(self) -> Mapping[str, Any]:  # type: ignore[override]  # of the parts, as they stand
        """What all parts found out; of a name that several use, the last one's."""
        return {name: value for _, part in self.parts for name, value in part.findings.items()}
