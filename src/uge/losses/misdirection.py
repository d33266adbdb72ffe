"""Misdirection: networks that know the originals take a copy for one of another class."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def misdirection(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of a reference network on the copy under another label, minimised by the perturbation alone.

        L_md = -1/B sum_i log softmax(r(x_u,i))_(t_i),   t_i != y_i

    Source: Fowl et al., "Adversarial Examples Make Strong Poisons", NeurIPS 2021 (targeted, t_i = pi(y_i)). A hacker's
    labels stay y: whatever he learns of the picture, he learns under a wrong name. Ours: targets of each image's own,
    which nobody can tell from its label.

    Args:
        logits: r(x_u) of a network trained on the originals, [B, K]; gets gradients through x_u.
        targets: t, int64 [B].

    Returns:
        A scalar >= 0.
    """
    return F.cross_entropy(logits, targets)
