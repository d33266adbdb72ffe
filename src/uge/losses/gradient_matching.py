"""Gradient matching L_gm: what keeps the copy learnable for the authorised network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class GradientMatching(NamedTuple):
    """Named terms of L_gm, each a scalar.

    Attributes:
        direction: mean over layers of 1 - cos(g, g_u), in [0, 2].
        magnitude: mean over layers of |‖g_u‖ - ‖g‖|² / ‖g‖², at least 0.
    """

    direction: Tensor
    magnitude: Tensor


def gradient_matching(clean: Sequence[Tensor], copy: Sequence[Tensor], tiny: float = 1e-12) -> GradientMatching:
    """Distance between the authorised network's gradients on the originals and on the copy.

    With layers l = 1..L, g_l = d loss(f(x), y) / d theta_l and g_u,l the same on x_u:

        direction = 1/L sum_l (1 - <g_l, g_u,l> / (‖g_l‖ ‖g_u,l‖))
        magnitude = 1/L sum_l min((‖g_u,l‖ - ‖g_l‖)² / ‖g_l‖², 1e4)

    Source: the layer-wise cosine is that of Zhao et al., Dataset Condensation, ICLR 2021, taken over whole layers
    instead of output channels; gradient matching for authorised learning is Ye & Wang, CVPR 2024. The magnitude
    term is ours: SGD with a fixed learning rate follows lengths as well as directions.

    Args:
        clean: gradients on the originals, one tensor a layer; treated as constants.
        copy: gradients on the copy, same shapes; these get gradients.
        tiny: added under square roots, so that zero gradients give finite values: two zero gradients are at
            direction 1 and magnitude 0.

    Returns:
        The two terms.
    """
    directions, magnitudes = [], []
    for g, g_u in zip(clean, copy, strict=True):
        g = g.detach().flatten()
        g_u = g_u.flatten()
        length = (g.square().sum() + tiny).sqrt()
        length_u = (g_u.square().sum() + tiny).sqrt()
        directions.append(1 - (g @ g_u) / (length * length_u))
        magnitudes.append(((length_u - length) / length).square().clamp(max=1e4))
    return GradientMatching(torch.stack(directions).mean(), torch.stack(magnitudes).mean())
