"""Own pairs: a hacker protects images of his own as the copy's manifest says, and learns to undo what that does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uge.attack.informed import NO_DATA, Informed, labels_told
from uge.attack.options import count
from uge.data.decoding import shrunk
from uge.data.images import ImageSet, normalisation_of, to_float, to_uint8
from uge.keys.key import RECIPIENT_NETWORK, Key
from uge.keys.letter import even
from uge.keys.sealed import SealedKey
from uge.keys.weights import WeightsKey
from uge.networks import NetworkSpec, fresh_network
from uge.protect import DEFAULT, PROTECTIONS, resolve_config
from uge.runtime import generator_for, seed_for
from uge.training import fit, logits_of, recommended_recipe

READER, READER_EPOCHS = "vgg:depth=8,width=16", 12  # the classifier of his own originals


@dataclass(eq=False, kw_only=True)
class OwnPairs(Informed):
    """A U-Net from the hacker's own copies to their originals, told what a classifier of originals takes a copy for.

        x_hat = D(x_u, (y, softmax f(x_u))),   min_D mean ||D(G(x), ...) - x||^2 over images x of his own

    How the published copy was made is no secret: G is its manifest's method with its settings, under keys that he
    draws himself, each for a part of his images, so that D cannot learn by heart what one key makes of a class. What
    the published copy's own key makes of an image f reads off, a classifier of his originals. The lowest bits of sealed
    copies are cipher text, and cleared first. Findings, beside those of `Informed`: `own_steps` of each key. Ours.

    Args:
        keys: how many he draws.
        set: settings of his own copies in the place of those published, "NAME=VALUE NAME=VALUE".

    Raises:
        ConfigError: a method or setting that this version does not know.
    """

    name = "own-pairs"
    before = 19.0
    by_epochs = False
    keys: int = count(4, 1, 1000)
    set: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.method = self.settings.get("method", DEFAULT)
        known = {field.name for field in dataclasses.fields(resolve_config(self.method))}
        told = {name: self.settings[name] for name in known & self.settings.keys()}
        own = {name: value for name, _, value in (each.partition("=") for each in self.set.split())}
        self.config: Any = resolve_config(self.method, told | own)

    @classmethod
    def unfit(cls, images: ImageSet, given: Mapping[str, Any], options: Mapping[str, str]) -> str:
        if given["settings"].get("method") not in PROTECTIONS:
            return "no manifest names a method of ours that made the copy"
        return "" if options.get("data") else NO_DATA

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        own = self.own(images)
        copies, originals = self.copies_of(own), own.images
        seed = seed_for(self.seed, self.name, "reader")
        reader = fresh_network(READER, own, seed)
        fit(reader, own, recommended_recipe(READER, READER_EPOCHS), seed=self.seed, device=self.device)

        def told(seen: Tensor, of: ImageSet) -> Tensor:
            return torch.cat([labels_told(of, own), logits_of(reader, seen).softmax(1)], dim=1)

        self.learn(lambda pick, _: (to_float(copies[pick]), to_float(originals[pick])), told(copies, own), own.channels)
        published = self.legible(images.images)
        return to_uint8(self.applied(to_float(published), told(published, images))), images.labels

    def copies_of(self, own: ImageSet) -> Tensor:
        """His copies, uint8 [N, C, H, W], every `keys`-th of them under the same key."""
        kind, copies = PROTECTIONS[self.method], torch.empty_like(own.images)
        side: Any = self.settings.get("seen_at")  # by the published copy's generator, in pixels
        seen = shrunk(own, side) if kind.enlarges and side in range(16, 4096) else own
        for number in range(min(self.keys, len(own))):
            part, seed = torch.arange(number, len(own), self.keys), seed_for(self.seed, self.name, number)
            images = seen.subset(part)
            keys = own_keys(kind.takes, images, seed)
            protection = kind(images, keys, self.config, seed=seed, device=self.device)
            protection.train()
            self.findings = {"own_steps": len(protection.log)}  # of each key
            whole = (protection.enlarged(at, image)[None] for at, image in enumerate(own.images[part]))
            copies[part] = torch.cat(list(protection.copies() if seen is own else whole))
        return self.legible(copies)

    def legible(self, copies: Tensor) -> Tensor:
        """Copies without what is cipher text in them."""
        return even(copies) if PROTECTIONS[self.method].takes == SealedKey.kind else copies


def own_keys(kind: str, images: ImageSet, seed: int) -> list[Key]:
    """The hacker's key for his own images, of the kind that a protection takes; the seed draws it: it hides nothing."""
    if kind == SealedKey.kind:
        drawn = torch.randint(256, (32,), generator=generator_for(seed, "own-pairs", "secret"))
        return [SealedKey(secret=bytes(drawn.tolist()), fingerprint="")]
    if kind != WeightsKey.kind:
        return []
    mean, std = normalisation_of(images.images)
    weights = fresh_network(RECIPIENT_NETWORK, images, seed_for(seed, "own-pairs", "weights")).state_dict()
    return [
        WeightsKey(
            network=NetworkSpec.of(RECIPIENT_NETWORK, images),
            mean=mean,
            std=std,
            own_recipe=recommended_recipe(RECIPIENT_NETWORK),
            weights=dict(weights),
            class_names=images.class_names,
            fingerprint="",
        )
    ]
