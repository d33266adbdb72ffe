"""Sealed copies of pictures without classes: what a pretrained network sees in them becomes something else.

    minimise over d_i   E_f CE(r(f(x_u)), t),   x_u = 2 (floor(x / 2) + d_i) + coin

r is EfficientNet-Lite0 with its 1000 classes of ImageNet, f what a hacker may do first (`uge.protect.family`,
a flip, a move), and t of each class another one, drawn from the key among those that r sees in no picture. d_i is
the picture's own, made of the levels of a letter (`uge.keys.shift`), found by signed steps with momentum. There is no
shortcut, for there is no label to learn: who mixes the copies with many other images learns from those.

Sources: signed steps with momentum as in Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018; the mean
over transformations as in Athalye et al., ICML 2018; pictures moved towards one other concept as in Shan et al.,
"Glaze", USENIX Security 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.data.images import ImageSet, to_float
from uge.encoders import build_encoder
from uge.encoders.efficientnet_lite import EfficientNetLite
from uge.keys.key import Key
from uge.keys.shift import MOST_LEVEL, Layout
from uge.protect.family import filtered
from uge.protect.letters import LetterConfig, LetterProtection, drawn_order, level, rendered, resized_levels
from uge.protection import OnStep, RunOptions
from uge.runtime import generator_for, quick, repeatable
from uge.training import Shift

TARGET = "uge/picture target/1"
SEEN = 50  # classes that a picture may be like, and that are no target
STEP, MOMENTUM = 0.25, 0.9  # of levels


@dataclass(frozen=True)
class PicturesConfig(LetterConfig):
    """Settings of the protection of pictures.

    Attributes:
        epsilon_255: L_inf bound of the copies in 8-bit steps.
        steps: of each picture's shift.
        batch_size: pictures at a time.
    """

    steps: int = 80
    batch_size: int = 8


class PicturesProtection(LetterProtection[PicturesConfig]):
    """Makes sealed copies of pictures of one class, or of none."""

    Config = PicturesConfig

    def __init__(self, clean: ImageSet, keys: Sequence[Key], config: PicturesConfig, **run: Unpack[RunOptions]) -> None:
        super().__init__(clean, keys, config, **run)
        self.batches = [part for kind in self.kinds for part in kind.split(config.batch_size)]
        self.proposals: dict[int, tuple[Tensor, Tensor]] = {}  # levels int8 of field and nodes, by number

    @repeatable()
    def train(self, on_step: OnStep | None = None) -> None:
        """Find the shift of every picture, batch by batch; a step is one of one batch."""
        network = build_encoder("efficientnet-lite0", self.clean, seed=0, device=self.device)
        assert isinstance(network, EfficientNetLite)
        targets = self._targets(network)
        rng = generator_for(self.seed, "pictures")
        now: list[Tensor] = []  # field, nodes, and the momentum of both
        if (state := self.resumed()) is not None:
            rng.set_state(state["rng"])
            now, self.proposals = state["now"], state["proposals"]

        def step(number: int) -> dict[str, Any]:
            nonlocal now
            part = self.batches[number // self.config.steps]
            layout = self.layout(self.clean.images[part[:1]])
            if number % self.config.steps == 0:
                now = [torch.zeros(len(part), *shape) for shape in (layout.field_shape, layout.node_shape)] * 2
            loss, now = self._step(network, part, layout, targets, now, rng)
            if (number + 1) % self.config.steps == 0:
                field, nodes = (level(free).to(torch.int8) for free in now[:2])
                self.proposals |= {at: (field[row], nodes[row]) for row, at in enumerate(part.tolist())}
            return {"misdirection": round(loss, 4)}

        def reached() -> dict[str, Any]:
            return {"now": now, "proposals": self.proposals, "rng": rng.get_state()}

        self.take_steps(self.config.steps * len(self.batches), step, reached, on_step)

    def copied(self, numbers: range) -> Tensor:
        return torch.stack([self.enlarged(number, self.clean.images[number]) for number in numbers])

    def part(self, numbers: range, turn: int = 0) -> Self:
        part = super().part(numbers, turn)
        part.batches, part.proposals = [], {at: self.proposals[number] for at, number in enumerate(numbers)}
        return part

    def enlarged(self, number: int, photograph: Tensor) -> Tensor:
        """The picture's shift, enlarged to its own size, and sealed there."""
        layout = self.layout(photograph[None])
        field, nodes = (each[None].float() for each in self.proposals[number])
        field = resized_levels(field[None], layout.field_shape)[0]
        if layout.node_step and nodes.numel():
            nodes = resized_levels(nodes, layout.node_shape[1:])
        elif layout.node_step:  # gray as the network sees it, and not quite so at its own size
            nodes = nodes.new_zeros(1, *layout.node_shape)
        return self.sealed(photograph[None], field, nodes)[0]

    def _step(
        self,
        network: EfficientNetLite,
        part: Tensor,
        layout: Layout,
        targets: Tensor,
        now: Sequence[Tensor],
        rng: torch.Generator,
    ) -> tuple[float, list[Tensor]]:
        """One signed step of field and nodes; the loss before it, and where it led."""
        field, nodes, *momenta = now
        free = [field.to(self.device).requires_grad_(), nodes.to(self.device).requires_grad_()]
        x_u = filtered(rendered(self.clean.images[part], free[0], free[1], layout, rng), rng)
        seen = Shift.draw(len(part), self.clean.image_size, rng)(x_u).contiguous(memory_format=torch.channels_last)
        with quick(self.device):
            logits = network.classify(seen).float()
        loss = F.cross_entropy(logits, targets[self.clean.labels[part]].to(self.device))
        moved, grown = [], []
        gradients = torch.autograd.grad(loss, free, allow_unused=True, materialize_grads=True)  # gray: no nodes
        for value, gradient, momentum in zip(free, gradients, momenta, strict=True):
            size = gradient.flatten(1).abs().mean(1).clamp_min(1e-12).view(-1, *[1] * (gradient.ndim - 1))
            grown.append(MOMENTUM * momentum + (gradient / size).cpu())
            moved.append((value.detach().cpu() - STEP * grown[-1].sign()).clamp(-MOST_LEVEL, MOST_LEVEL))
        return float(loss.detach()), [*moved, *grown]

    @torch.no_grad()
    def _targets(self, network: EfficientNetLite) -> Tensor:
        """For each class one of ImageNet, int64 [K], each once, that the network sees in few pictures of any."""
        likely = torch.zeros(1000)
        for part in self.clean.images.split(self.config.batch_size):
            logits = network.classify(to_float(part.to(self.device))).cpu()
            likely += torch.zeros_like(logits).scatter(1, logits.topk(SEEN).indices, 1.0).sum(0)
        drawn = drawn_order(self.secret, TARGET, 1000)
        return drawn[likely[drawn].argsort(stable=True)][torch.arange(self.clean.classes) % 1000]
