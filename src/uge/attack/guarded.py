"""A student of a guarded service: he searches for what the guard lets pass, and learns from the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack.distillation import Distillation
from uge.attack.options import whole_number
from uge.data.images import ImageSet, to_float, to_uint8
from uge.runtime import generator_for
from uge.service.accounts import Account
from uge.service.disguises import disguised
from uge.training import logits_of

CERTAIN = 20.0  # the logit of a published label
AT_A_TIME = 250
DAY = "2026-01-01"  # whichever; each account has one
ENOUGH = 10  # answers a class, without copies


class Guarded(Distillation):
    """Ask about each published image in many disguises, and learn what is answered.

    A disguise is drawn anew for every image and try: `uge.service.disguises`, which the guard's detector was trained
    against. An account is used until it is closed for the day. What is refused is left out, for copies under their
    labels teach their shift; but where little is answered they are all that he has. Ours.

    Args:
        guard: the recipient's guarded network; NaN stands for what it refuses.
        tries: how often he asks about each image, at most.
        accounts: days of accounts that he has with the service: one account for a week counts as seven.
        seed: of the disguises.
    """

    cost = 2.0
    before = 3.0
    tried = ()  # it says what a service gives away, not a copy; and its detector takes long to learn

    def __init__(self, guard: nn.Module, tries: int | str = 10, accounts: int | str = 1, seed: int = 0) -> None:
        super().__init__(guard)
        self.tries = whole_number("guarded: tries", tries, 1, 1000)
        self.count = whole_number("guarded: accounts", accounts, 1)
        self.seed = seed

    @classmethod
    def unfit(cls, images: ImageSet, given: Mapping[str, Any], options: Mapping[str, str]) -> str:
        return "" if given["key"] is None or given["key"].opens else "a guard needs a sealed key"

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """What was answered, repeated to as many images as were published; if it is little, these instead of others."""
        sent, answers = self.answered(images.images)
        published, labels = images.images.clone(), CERTAIN * F.one_hot(images.labels, images.classes).float()
        count = len(images) if len(sent) >= ENOUGH * images.classes else min(len(sent), len(images))
        taken = torch.arange(count) % max(1, len(sent))
        places = torch.randperm(len(images), generator=generator_for(self.seed, "guarded", "places"))[:count]
        published[places], labels[places] = sent[taken], answers[taken]
        return published, labels

    def answered(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Disguised images uint8 [M, C, H, W] that were answered, and the answers float32 [M, K]."""
        rng = generator_for(self.seed, "guarded")
        accounts = [Account() for _ in range(self.count)]
        found = [(images[:0], logits_of(self.teacher, images[:1])[:0])]
        for part in (part for _ in range(self.tries) for part in images.split(AT_A_TIME)):
            accounts = [account for account in accounts if not account.closed(DAY)]
            if not accounts:
                break
            found.append(self._ask(part, accounts, rng))
        sent, answers = (torch.cat(each) for each in zip(*found, strict=True))
        self.findings = {"answered": len(sent)}
        return sent, answers

    def _ask(self, images: Tensor, accounts: Sequence[Account], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x = to_float(images)
        sent = to_uint8(disguised(x, x.roll(1, dims=0), rng))
        answers = logits_of(self.teacher, sent)
        refused = answers.isnan().any(1).tolist()
        given = [account.admits(each, DAY) for account, each in zip(cycle(accounts), refused, strict=False)]
        return sent[given], answers[given]
