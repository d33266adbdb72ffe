"""What the key is worth: a hacker with noisy copies of its weights, with another key, or with the key itself.

All three train the key's architecture in the order and with the augmentation of the authorised user (see `Audit`), so
that nothing but the key differs.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch
from torch import Tensor, nn

from uge.attack.options import number
from uge.data.images import ImageSet, normalisation_of
from uge.keys.key import Key
from uge.networks import Normalise, build_network
from uge.training import PlainTraining, Recipe
from uge.views import original_view, view_of


class NoisyKey(PlainTraining):
    """Begin with a noisy copy of the key's initial weights.

        theta = theta_0 + r * rms(theta_0) * xi,   xi ~ N(0, 1),   tensor by tensor

    Of a key with a view of its own (null-space, reversible) this hacker knows the weights and not the secret: he sees
    the copy as everybody does, through his own normalisation. A secret cannot be known roughly (any wrong bit gives
    another key stream), so there is no other ladder to climb; at noise 0 this shows what the weights alone are worth.

    Args:
        authorised_key: the key.
        noise: r; at 0 a key of initial weights is the authorised user's.
    """

    def __init__(self, authorised_key: Key, noise: str | float = 0.1) -> None:
        self.key = authorised_key
        self.noise = number("noisy-key: noise", noise, 0, 1000)
        self.normalise: nn.Module | None = None

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        if self.key.view is not None:  # its constants are those of the view
            self.normalise = Normalise(*normalisation_of(images.images))
        return images.images, images.labels

    def begin(self, network: nn.Module, recipe: Recipe, generator: torch.Generator) -> tuple[nn.Module, Recipe]:
        noisy = self.key.network_module()
        with torch.no_grad():
            for weight in noisy.parameters():
                xi = torch.randn(weight.shape, generator=generator)
                weight.add_(self.noise * weight.square().mean().sqrt() * xi)
        if self.normalise is not None:
            assert isinstance(noisy, nn.Sequential)
            noisy[0] = self.normalise
        return noisy, recipe


class StolenKey(PlainTraining):
    """Train as the authorised user does: a control, which must equal him bit for bit.

    Args:
        authorised_key: the key.
        headroom_255: what other images than the copy still need before their view.
    """

    def __init__(self, authorised_key: Key, headroom_255: int = 0) -> None:
        self.key = authorised_key
        self.headroom_255 = headroom_255

    def begin(self, network: nn.Module, recipe: Recipe, generator: torch.Generator) -> tuple[nn.Module, Recipe]:
        return self.key.network_module(), recipe

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        """The view, float32 where the key has one of its own; images without nonces are originals."""
        look = original_view if images.nonces is None else view_of
        return look(images, self.key, headroom_255=self.headroom_255).images, images.labels

    def at_test(self, images: ImageSet) -> ImageSet:
        return view_of(images, self.key, headroom_255=self.headroom_255)


class WrongKey(StolenKey):
    """Use another key as if it were the right one: other initial weights, and another secret where there is one.

    Nothing of the key's secrets is used: the architecture and the layout of the view are public.

    Args:
        authorised_key: the right key.
        headroom_255: what other images than the copy still need before their view.
    """

    def __init__(self, authorised_key: Key, headroom_255: int = 0) -> None:
        view = authorised_key.view and replace(authorised_key.view, secret=hashlib.sha256(b"uge/a wrong key").digest())
        super().__init__(replace(authorised_key, view=view), headroom_255)

    def begin(self, network: nn.Module, recipe: Recipe, generator: torch.Generator) -> tuple[nn.Module, Recipe]:
        seed = int(torch.randint(2**62, (), generator=generator))
        return build_network(self.key.network, self.key.mean, self.key.std, seed), recipe
