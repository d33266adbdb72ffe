"""How far a copy is from its original, and how much of the labels a straight line reads from either."""

from __future__ import annotations

import torch
from torch import Tensor

from uge.attack.projection import logistic_regression
from uge.data.images import ImageSet, to_float
from uge.runtime import generator_for

EPOCHS = 10  # of linear classifiers
SSIM_WINDOW = 11  # pixels; the Gaussian window of Wang et al. 2004, sigma 1.5


def psnr(clean: Tensor, copies: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of uint8 images [N, C, H, W]: 10 log10(255^2 / mean squared difference).

    float32 [N] in dB; infinite where a copy equals its original.
    """
    assert clean.shape == copies.shape
    error = (clean.float() - copies.float()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / error)


def ssim(clean: Tensor, copies: Tensor, *, batch_size: int = 500) -> Tensor:
    """Structural similarity of uint8 images [N, C, H, W], averaged over pixels and channels.

    SSIM(a, b) = (2 m_a m_b + c1)(2 cov_ab + c2) / ((m_a^2 + m_b^2 + c1)(var_a + var_b + c2)) in a Gaussian window
    (Wang et al. 2004), computed by kornia. The window is `SSIM_WINDOW` pixels wide, or the largest odd number of
    pixels that fits a smaller image. `batch_size` bounds the memory, and changes no value.

    Returns:
        float32 [N], at most 1; 1 where a copy equals its original.
    """
    from kornia.metrics import ssim as ssim_map

    assert clean.shape == copies.shape
    side = min(clean.shape[2:])
    window = min(SSIM_WINDOW, side if side % 2 else side - 1)
    parts = [
        ssim_map(to_float(a), to_float(b), window_size=window).mean(dim=(1, 2, 3))
        for a, b in zip(clean.split(batch_size), copies.split(batch_size), strict=True)
    ]
    return torch.cat(parts)


def linear_separability(x: Tensor, labels: Tensor, classes: int) -> float:
    """How much of the labels a linear classifier reads from images that it was not fitted to, in percent.

    Yu et al., Availability Attacks Create Shortcuts, KDD 2022: perturbations of unlearnable images are separable
    almost perfectly, which makes them the easiest thing to learn. There the classifier is judged on its own training
    images. Ours: fitted to either half of the images and judged on the other, for with fewer images than values it
    would tell pure noise apart as well. x are images or perturbations, float32 [N, C, H, W], labels int64 [N].
    """
    x = x.flatten(1)
    x = (x - x.mean(0)) / x.std().clamp_min(1e-6)
    halves, right = torch.randperm(len(x), generator=generator_for(0, "halves")) % 2 == 0, 0
    for judged in (halves, ~halves):
        weight, bias = logistic_regression(x[~judged], labels[~judged], classes, epochs=EPOCHS, batch_size=256)
        right += int(((x[judged] @ weight.T + bias).argmax(1) == labels[judged]).sum())
    return round(100 * right / len(x), 2)


def quality(published: ImageSet, clean: ImageSet | None, *, most: int = 5000) -> dict[str, float | None]:
    """Everything that the page says of the pictures themselves, means over the images; originals in the same order.

    Returns:
        `held_out_separability_published`, of at most `most` images, and with originals `psnr_db` (of the changed
        images; None where there is none), `ssim`, `l_inf_255` (the largest change of any value), `l2` (of images in
        [0, 1]) and `held_out_separability_difference`.
    """
    chosen = published.choose(most, generator_for(0, "separability"))  # folders are read class by class
    x, labels = to_float(published.images[chosen]), published.labels[chosen]
    found: dict[str, float | None] = {
        "held_out_separability_published": linear_separability(x, labels, published.classes)
    }
    if clean is None or not clean.aligned(published):
        return found
    difference = x - to_float(clean.images[chosen])
    pairs = list(zip(published.images.split(500), clean.images.split(500), strict=True))
    distances = torch.cat([(to_float(a) - to_float(b)).flatten(1).norm(dim=1) for a, b in pairs])
    largest = max(int((a.int() - b.int()).abs().max()) for a, b in pairs)
    ratio = torch.cat([psnr(b, a) for a, b in pairs])
    changed = ratio[ratio.isfinite()]
    return found | {
        "psnr_db": round(float(changed.mean()), 2) if len(changed) else None,
        "ssim": round(float(ssim(clean.images, published.images).mean()), 4),
        "l_inf_255": largest,
        "l2": round(float(distances.mean()), 4),
        "held_out_separability_difference": linear_separability(difference, labels, published.classes),
    }
