"""Shortcut loss: labels that are easier to read off the perturbation than off the picture."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def shortcut(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of a surrogate hacker on the copy, minimised by generator and surrogate alike.

        L_sc = -1/B sum_i log softmax(h(x_u,i))_(y_i)

    Source: Huang et al., "Unlearnable Examples", ICLR 2021 (error-minimising noise). A hacker whose loss the
    perturbation has brought to zero already has no gradient left to learn the picture with.

    Args:
        logits: h(x_u) of a surrogate in training on x_u, [B, K]; gets gradients, through x_u too.
        labels: int64 [B].

    Returns:
        A scalar >= 0.
    """
    return F.cross_entropy(logits, labels)
