"""D-VAE: an autoencoder that may tell only so much of an image keeps the picture and loses the perturbation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack.denoiser import Trained
from uge.attack.options import count
from uge.data.images import ImageSet, to_float, to_uint8
from uge.networks.unet import two_convolutions
from uge.runtime import seed_for

FOLD = 4  # the code has a place for every square of so many pixels
CODE = 16  # values at each place
STRICT = 0.1  # squared error for each nat a pixel beyond the bound


class Separated(NamedTuple):
    """What an autoencoder makes of images: the images, the perturbation that it expects, and the rate, [B]."""

    picture: Tensor
    perturbation: Tensor
    rate: Tensor


class Autoencoder(nn.Module):
    """x -> code -> picture, and code and label -> perturbation, for images float32 [B, C, H, W] in [0, 1]."""

    def __init__(self, channels: int, image_size: tuple[int, int], classes: int, width: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(nn.PixelUnshuffle(FOLD), *_layers(channels * FOLD**2, width, 2 * CODE))
            self.decoder = _decoder(CODE, width, channels)
            self.perturber = _decoder(2 * CODE, width, channels)
            for tensor in self.perturber[-2].parameters():
                nn.init.zeros_(tensor)  # nothing is expected at first
            self.places = CODE, -(-image_size[0] // FOLD), -(-image_size[1] // FOLD)
            self.labels = nn.Embedding(classes, math.prod(self.places))

    def forward(self, x: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> Separated:
        """Without random draws the code is its own mean."""
        height, width = x.shape[2:]
        padded = F.pad(4 * x - 2, (0, -width % FOLD, 0, -height % FOLD), mode="replicate")
        mean, spread = self.encoder(padded).chunk(2, dim=1)
        spread = spread.clamp(-8, 4)
        noise = 0 if rng is None else torch.randn(mean.shape, generator=rng).to(x.device)
        code = mean + noise * (spread / 2).exp()
        rate = 0.5 * (mean.square() + spread.exp() - spread - 1).sum((1, 2, 3)) / (height * width)
        told = self.labels(labels).view(-1, *self.places)
        picture = 0.5 + self.decoder(code) / 4
        perturbation = self.perturber(torch.cat([code.detach(), told], dim=1)) / 8
        return Separated(picture[:, :, :height, :width], perturbation[:, :, :height, :width], rate)


def _layers(inputs: int, width: int, outputs: int) -> list[nn.Module]:
    """Three 3x3 convolutions, the last one without normalisation."""
    return [two_convolutions(inputs, 2 * width), nn.Conv2d(2 * width, outputs, 3, padding=1)]


def _decoder(inputs: int, width: int, channels: int) -> nn.Sequential:
    """From a code to images `FOLD` times as large."""
    return nn.Sequential(*_layers(inputs, width, channels * FOLD**2), nn.PixelShuffle(FOLD))


@dataclass(eq=False, kw_only=True)
class Disentangled(Trained):
    """Train on what is left when the part that a label tells of what a narrow autoencoder loses is taken away.

        min mean |x - p(z)|^2 + |x - p(z) - q(z, y)|^2,   z ~ N(m(x), s(x)),   KL(N(m, s) || N(0, 1)) <= rate
        x <- x - q(z, y) + mean_k q(z, k),   then x <- p'(z') of a second autoencoder, where its rate is given

    p is the picture, q what code and label tell of the rest; the second term moves q alone. Yu et al., Purify
    Unlearnable Examples via Rate-Constrained Variational Autoencoders, ICML 2024. Ours: the bound is a penalty; what q
    would say for all labels stays; who trains on pictures tests on them, too.

    Args:
        rate_milli: the bound, in thousandths of a nat a pixel; other options are those of `Trained`.
        pictures_milli: that of the second autoencoder, whose pictures are trained on; 0 for none.
    """

    name = "d-vae"
    before = 2.5
    by_epochs = False
    tried = ("", "pictures_milli=50")
    steps: int = count(1500, 1)
    rate_milli: int = count(100, 1, 10000)
    pictures_milli: int = count(0, 0, 10000)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        self.separate(images, self.rate_milli)
        parts = zip(images.images.split(250), images.labels.split(250), strict=True)
        cleaned = torch.cat([self.cleaned(*part, images.classes) for part in parts])
        if self.pictures_milli:
            self.separate(images.with_images(cleaned), self.pictures_milli)
        return self.pictures(cleaned), images.labels

    def at_test(self, images: ImageSet) -> ImageSet:
        return images.with_images(self.pictures(images.images))

    def separate(self, images: ImageSet, rate_milli: int) -> None:
        """Train an autoencoder of these images, bound to a rate."""
        pixels, labels = images.images.to(self.device), images.labels.to(self.device)

        def error(network: nn.Module, pick: Tensor, rng: torch.Generator) -> Tensor:
            x = to_float(pixels[pick])
            seen: Separated = network(x, labels[pick], rng)
            rest = x - seen.picture
            beyond = F.relu(seen.rate - rate_milli / 1000).mean()
            return rest.square().mean() + (rest.detach() - seen.perturbation).square().mean() + STRICT * beyond

        shape = images.channels, images.image_size, images.classes
        self.learnt(Autoencoder(*shape, self.width, seed_for(self.seed, self.name)), error, len(images))

    @torch.no_grad()
    def cleaned(self, images: Tensor, labels: Tensor, classes: int) -> Tensor:
        """x - q(z, y) + mean_k q(z, k) at the mean of z, uint8 [B, C, H, W]."""
        x, labels = to_float(images.to(self.device)), labels.to(self.device)
        usual = torch.zeros_like(x)
        for label in range(classes):
            usual += self.network(x, torch.full_like(labels, label)).perturbation / classes
        return to_uint8((x + usual - self.network(x, labels).perturbation).clamp(0, 1)).cpu()

    @torch.no_grad()
    def pictures(self, images: Tensor) -> Tensor:
        """p'(z') at the mean of z', uint8 [N, C, H, W]; the images themselves without a second autoencoder."""
        if not self.pictures_milli:
            return images
        told = torch.zeros(250, dtype=torch.long, device=self.device)  # pictures do not depend on labels
        seen = (self.network(to_float(part.to(self.device)), told[: len(part)]) for part in images.split(250))
        return torch.cat([to_uint8(each.picture.clamp(0, 1)).cpu() for each in seen])
