"""How far a copy is from its original, as people measure pictures: PSNR and SSIM."""

from __future__ import annotations

import torch
from torch import Tensor

from uge.data.images import to_float

SSIM_WINDOW = 11  # pixels; the Gaussian window of Wang et al. 2004, sigma 1.5


def psnr(clean: Tensor, copies: Tensor) -> Tensor:
    """Peak signal-to-noise ratio an image: 10 log10(255^2 / mean squared difference).

    Args:
        clean: uint8 [N, C, H, W].
        copies: uint8, same shape.

    Returns:
        float32 [N] in dB; infinite where a copy equals its original.
    """
    assert clean.shape == copies.shape
    error = (clean.float() - copies.float()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / error)


def ssim(clean: Tensor, copies: Tensor, *, batch_size: int = 500) -> Tensor:
    """Structural similarity an image, averaged over pixels and channels.

    SSIM(a, b) = (2 m_a m_b + c1)(2 cov_ab + c2) / ((m_a^2 + m_b^2 + c1)(var_a + var_b + c2)) in a Gaussian window
    (Wang et al. 2004), computed by kornia. The window is `SSIM_WINDOW` pixels wide, or the largest odd number of
    pixels that fits a smaller image.

    Args:
        clean: uint8 [N, C, H, W].
        copies: uint8, same shape.
        batch_size: images at a time; bounds the memory, changes no value.

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
    return torch.cat(parts) if parts else torch.empty(0)
