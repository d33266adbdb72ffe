"""Misdirection: networks that know the originals take a copy for one of the next class."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def misdirection(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of a reference network on the copy under the next label, minimised by the generator alone.

        L_md = -1/B sum_i log softmax(r(x_u,i))_((y_i + 1) mod K)

    Source: Fowl et al., "Adversarial Examples Make Strong Poisons", NeurIPS 2021 (targeted). A hacker's labels stay
    y: whatever he learns of the picture, he learns under a wrong name.

    Args:
        logits: r(x_u) of a network trained on the originals, [B, K]; gets gradients through x_u.
        labels: int64 [B].

    Returns:
        A scalar >= 0.
    """
    return F.cross_entropy(logits, (labels + 1) % logits.shape[1])
