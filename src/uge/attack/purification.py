"""Learnt purification: without pairs, with true pairs, and with pairs that the hacker makes himself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack.denoiser import Denoised, patches
from uge.attack.guessed_views import space_of
from uge.attack.options import whole
from uge.data.images import ImageSet, to_float, to_uint8
from uge.data.sources import load
from uge.errors import ConfigError, unknown_name
from uge.filters import grayscale
from uge.keys.keyed_view import KeyedView, needs_headroom
from uge.keys.reversible import Reversible
from uge.protect import PRESETS, PROTECTIONS, resolve_config
from uge.protect.keyed import KeyedProtection, random_bytes
from uge.protect.protection import Settings
from uge.runtime import generator_for

STRIDE = 3  # of the blind spots; no two of them touch
KEYS = ("null-space", "reversible")  # whose pairs a hacker can make
SETTINGS = {kind: {field.name for field in fields(PRESETS[kind]["default"])} for kind in KEYS}


class Purify(Denoised):
    """A denoiser learnt from the published images alone: each pixel is guessed from the others.

        min_D mean ||J (D(x with J hidden) - x)||^2,   J a grid of blind spots, each hidden behind its neighbours' mean

    Batson & Royer, Noise2Self: Blind Denoising by Self-Supervision, ICML 2019. What one pixel tells about the next
    stays, what is independent from pixel to pixel goes: fine perturbations, but no tints, and the image's own fine
    detail too. At the end every pixel is guessed once, over the nine places of the grid.

    Args:
        steps: the most steps of training.
        depth: layers.
        width: filters.
        device: where the denoiser trains and works.
        seed: of its weights and draws.
    """

    def __init__(
        self,
        steps: str | int = 1500,
        depth: str | int = 8,
        width: str | int = 32,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        super().__init__("purify", steps, depth, width, device, seed)

    def learn(self, images: ImageSet) -> None:
        pixels = images.images.to(self.device)

        def error(network: nn.Module, pick: Tensor, rng: torch.Generator) -> Tensor:
            (x,) = patches([to_float(pixels[pick])], rng)
            place = int(torch.randint(STRIDE**2, (), generator=rng))
            spots = blind_spots(x, place)
            return (network(hidden(x, spots)) - x)[:, :, spots].square().mean()

        self.fitted(images.channels, error, len(images))

    @torch.no_grad()
    def estimate(self, images: Tensor) -> Tensor:
        x = to_float(images.to(self.device))
        guess = torch.empty_like(x)
        for place in range(STRIDE**2):
            spots = blind_spots(x, place)
            guess[:, :, spots] = self.network(hidden(x, spots))[:, :, spots]
        return guess.clamp(0, 1)


def blind_spots(x: Tensor, place: int) -> Tensor:
    """bool [H, W]: one pixel in `STRIDE` each way, the `place`-th of the grids that together cover all."""
    rows, columns = (torch.arange(side, device=x.device) % STRIDE for side in x.shape[2:])
    return (rows[:, None] == place // STRIDE) & (columns == place % STRIDE)


def hidden(x: Tensor, spots: Tensor) -> Tensor:
    """x with every spot replaced by the weighted mean of its eight neighbours (diagonal ones count half)."""
    kernel = torch.tensor([[0.5, 1, 0.5], [1, 0, 1], [0.5, 1, 0.5]], device=x.device) / 6
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    around = F.conv2d(padded, kernel.expand(x.shape[1], 1, 3, 3), groups=x.shape[1])
    return torch.where(spots, around, x)


NO_PAIRS = "the originals are not those of the copies one by one: other files, or another order"


def pairs_asked_for(clean: ImageSet, count: str | int, what: str) -> int:
    """How many true pairs a hacker has.

    Raises:
        ConfigError: no whole number, or more than there are.
    """
    wanted = whole(f"{what}: pairs", count, 1)
    if wanted > len(clean):
        raise ConfigError(f"{what}: {wanted} pairs asked for, but there are {len(clean)} originals")
    return wanted


def pairs_of(clean: ImageSet, copies: ImageSet, count: int, what: str, seed: int) -> Tensor:
    """The numbers of the pairs that a hacker of a seed has, balanced over the classes, int64 [count].

    Raises:
        ConfigError: the originals are not those of the copies one by one.
    """
    if not clean.aligned(copies):
        raise ConfigError(f"{what}: {NO_PAIRS}")
    return clean.choose(count, generator_for(seed, "clean subset"))


class Pairs(Denoised):
    """A denoiser learnt from a few true pairs, min_D mean ||D(x_u) - x||^2, and applied to all published images.

    Args:
        clean: all originals, in the order of the published images.
        pairs: how many of them the hacker has; the same for every hacker of a seed, balanced over the classes.
        steps: the most steps of training.
        depth: layers.
        width: filters.
        device: where the denoiser trains and works.
        seed: of its weights and draws.
    """

    def __init__(
        self,
        clean: ImageSet,
        pairs: str | int = 100,
        steps: str | int = 3000,
        depth: str | int = 8,
        width: str | int = 32,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        super().__init__("pairs", steps, depth, width, device, seed)
        self.clean = clean
        self.pairs = pairs_asked_for(clean, pairs, "pairs")

    def learn(self, images: ImageSet) -> None:
        """Raises: ConfigError, as `pairs_of`."""
        chosen = pairs_of(self.clean, images, self.pairs, "pairs", self.seed)
        copies, originals = images.images[chosen], self.clean.images[chosen]
        result = self.fitted(images.channels, self.supervised(copies, originals), len(chosen))
        copies, originals = copies[result.held_out], originals[result.held_out]
        self.findings = {**self.findings, "rms_left": left_over(self.estimate, copies, originals)}


def key_of(settings: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The kind of key that a copy is behind by its manifest, and its layout; "" where pairs cannot be made."""
    if isinstance(view := settings.get("view"), Mapping):  # of a baseline behind a key
        return str(view.get("kind", "")), view
    method = settings.get("method", "")
    return (method, settings) if method in KEYS else ("", {})


class OwnPairs(Denoised):
    """A denoiser learnt from pairs that the hacker makes: other images, our code and recipe, keys of his own.

        x_hat = x_u - clip(round(x_u - D(x_u)), -epsilon, epsilon)

    He trains a generator of ours on his images, keys his copies by secrets of his own, learns D from these pairs until
    nothing more is gained, and snaps what D takes away to whole steps within the bound, which is all that a copy can
    hold. How the published copy was made is no secret: what no option says is as its manifest has it, the layout of
    the key and the settings of the protection, or where there is none the default.

    Findings, on own pairs held out: `sign_accuracy`, the share of changed values whose direction D tells, in percent
    (chance 50); `rms_left`, root mean square of x_hat - x over that of x_u - x; `shortcut_left`, how much is left of
    what the changes of a class have in common.

    Args:
        settings: what the copy's manifest says, its method among it; empty for a folder of another program.
        data: DATA of the other images, of any size and colours. Without it they are the published images themselves, as
            if they were clean, under labels drawn at random: D then learns to take a second perturbation from a
            protected image, and meets images that hold the first one.
        key: the kind of the keys, "null-space" or "reversible".
        pairs: how many to make; images are used again under other keys where there are fewer.
        preset: of settings, in the place of those published.
        epochs: of the generator's training, in the place of the settings'.
        steps: the most steps of the denoiser's training.
        depth: layers of the denoiser.
        width: filters of each.
        epsilon_255: bound of the published images, in steps of 255.
        group_size: s of a null space.
        cell: p of a null space, in pixels.
        signs: of a null space, "balanced" or "random".
        channels: of a null space, "mixed" or "tied".
        magnitudes: of a reversible key, "half" or "full".
        device: where generator and denoiser train.
        seed: of both, of his keys, and of which images he takes.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        data: str = "",
        key: str = "",
        pairs: str | int = 5000,
        preset: str = "",
        epochs: str | int = "",
        steps: str | int = 6000,
        depth: str | int = 8,
        width: str | int = 32,
        epsilon_255: str | int = "",
        group_size: str | int = "",
        cell: str | int = "",
        signs: str = "",
        channels: str = "",
        magnitudes: str = "",
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        super().__init__("own-pairs", steps, depth, width, device, seed)
        self.data = data
        self.pairs = whole("own-pairs: pairs", pairs, 2)
        told_kind, told_layout = key_of(settings)
        kind = key or told_kind or KEYS[0]
        if kind not in KEYS:
            raise unknown_name("key of counter-measure 'own-pairs'", kind, KEYS)
        layout_told = told_layout if kind == told_kind else {}
        self.told = settings if kind == settings.get("method") else {}  # of a baseline the layout of its key alone
        bound = settings.get("epsilon_255", 8) if epsilon_255 == "" else epsilon_255
        self.epsilon_255 = whole("own-pairs: epsilon_255", bound, 1, 64)
        self.preset = preset
        self.epochs = {} if epochs == "" else {"epochs": whole("own-pairs: epochs", epochs, 1)}
        layout = {"group_size": group_size, "cell": cell, "signs": signs, "channels": channels}
        self.space: KeyedView = space_of("own-pairs", layout_told, layout)
        if kind == "reversible":
            self.space = Reversible(bytes(32), self.epsilon_255, magnitudes or layout_told.get("magnitudes", "half"))
        self.config_for(headroom=False)

    def learn(self, images: ImageSet) -> None:
        rng = generator_for(self.seed, "own pairs")
        originals, copies = self.made(self.others(images, rng), rng)
        result = self.fitted(images.channels, self.supervised(copies.images, originals.images), len(copies))
        before, after = originals.subset(result.held_out), copies.subset(result.held_out)
        self.findings = {
            **self.findings,
            "sign_accuracy": sign_accuracy(self.removed, after.images, before.images),
            "rms_left": left_over(self.estimate, after.images, before.images),
            "shortcut_left": shortcut_left(self.estimate, after, before),
        }

    def others(self, images: ImageSet, rng: torch.Generator) -> ImageSet:
        """The hacker's own images, in the size and colours of the published ones."""
        if not self.data:
            labels = images.labels[torch.randperm(len(images), generator=rng)]
            return replace(images, labels=labels, nonces=None)
        own = load(self.data, "train", image_size=images.image_size, convert=True)
        pixels = own.images
        if own.channels < images.channels:
            pixels = pixels.expand(-1, images.channels, -1, -1).contiguous()
        elif own.channels > images.channels:
            pixels = torch.cat([to_uint8(grayscale(to_float(part))[:, :1]) for part in pixels.split(500)])
        return own.with_images(pixels)

    def made(self, own: ImageSet, rng: torch.Generator) -> tuple[ImageSet, ImageSet]:
        """Originals and their copies, `self.pairs` of each; every image meets a key at most once."""
        own = own.take(self.pairs, rng)
        protection = self.protection(own, replace(self.space, secret=random_bytes(32, rng)))
        protection.train()
        copies: list[Tensor] = []
        for _ in range(-(-self.pairs // len(own))):
            copies += protection.rekeyed(replace(self.space, secret=random_bytes(32, rng))).copies()
        originals = protection.clean.subset(torch.arange(self.pairs) % len(own))
        originals = replace(originals, names=tuple(f"{number:06d}" for number in range(self.pairs)))
        return originals, originals.with_images(torch.cat(copies)[: self.pairs])

    def protection(self, own: ImageSet, space: KeyedView) -> KeyedProtection[Any]:
        """Ours, with its published settings."""
        config = self.config_for(headroom=needs_headroom(own.images))
        protection: KeyedProtection[Any] = PROTECTIONS[space.kind](
            own, space, config, seed=self.seed, device=self.device
        )
        return protection

    def config_for(self, *, headroom: bool) -> Settings:
        """The settings of his own copies; an unknown preset is refused."""
        known = {} if self.preset else {name: self.told[name] for name in SETTINGS[self.space.kind] & self.told.keys()}
        wanted = known | self.epochs | {"epsilon_255": self.epsilon_255, "headroom": headroom}
        return resolve_config(self.preset or "default", wanted, method=self.space.kind)

    @torch.no_grad()
    def removed(self, images: Tensor) -> Tensor:
        """x_u - D(x_u) before it is snapped."""
        x = to_float(images.to(self.device))
        return 255 * (x - self.network(x))

    def estimate(self, images: Tensor) -> Tensor:
        step = self.removed(images).round().clamp(-self.epsilon_255, self.epsilon_255)
        return ((images.to(self.device).float() - step) / 255).clamp(0, 1)


# --- how much of a perturbation is left: u copies, o originals, both uint8 [N, C, H, W]

Estimate = Callable[[Tensor], Tensor]


def _in_steps(estimate: Estimate, copies: Tensor) -> Tensor:
    """Estimates of the originals on the scale 0..255."""
    return 255 * torch.cat([estimate(part).cpu() for part in copies.split(250)])


def left_over(estimate: Estimate, copies: Tensor, originals: Tensor) -> float | None:
    """rms(estimate - o) / rms(u - o): 1 for whoever does nothing; None where nothing was changed."""
    before = (copies.float() - originals.float()).square().mean().sqrt()
    after = (_in_steps(estimate, copies) - originals.float()).square().mean().sqrt()
    return round(float(after / before), 4) if before > 0 else None


def sign_accuracy(removed: Estimate, copies: Tensor, originals: Tensor) -> float | None:
    """Percent of changed values whose change has the sign of what a denoiser would remove; None without changes."""
    change = copies.float() - originals.float()
    told = torch.cat([removed(part).cpu() for part in copies.split(250)])
    right = (told.sign() == change.sign())[change != 0]
    return round(100 * float(right.float().mean()), 3) if len(right) else None


def shortcut_left(estimate: Estimate, copies: ImageSet, originals: ImageSet) -> float | None:
    """How much of the perturbation that a class has in common is left: its amplitude after over before.

        a(r) = sum_y <m_y, r_y> / sum_y <m_y, m'_y>

    m_y is the mean change of a class over one half of its images, m'_y and r_y the mean change and the mean of what
    is left of it over the other half: changes of single images, alike in both, do not count. None where the classes
    have next to nothing in common.
    """
    change = copies.images.float() - originals.images.float()
    left = _in_steps(estimate, copies.images) - originals.images.float()
    along = across = scale = torch.zeros(())
    for label in range(copies.classes):
        members = (copies.labels == label).nonzero()[:, 0]
        one, other = members[::2], members[1::2]
        if len(one) and len(other):
            for a, b in ((one, other), (other, one)):
                mean = change[a].mean(0)
                along = along + (mean * left[b].mean(0)).sum()
                across = across + (mean * change[b].mean(0)).sum()
                scale = scale + mean.square().sum()
    return round(float(along / across), 4) if across > 0.02 * scale else None
