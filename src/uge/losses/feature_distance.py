"""Feature distance L_fd: what makes the copy unlearnable for everybody else."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def feature_distance(clean: Tensor, copy: Tensor, mean: Tensor) -> Tensor:
    """Similarity of original and copy in the common feature space, to be minimised.

        L_fd = 1/B sum_i cos(F(x_i) - m, F(x_u,i) - m)

    Source: Ye & Wang, CVPR 2024 maximise a distance in a common feature space; the centred cosine is ours.
    Without centring, the features of any two natural images point the same way and the loss says little.

    Args:
        clean: F(x), [B, D]; treated as constant.
        copy: F(x_u), [B, D]; gets gradients.
        mean: m, the mean feature of the originals, [D]; constant.

    Returns:
        A scalar in [-1, 1]: 1 where the copies look like their originals to F, -1 where they look opposite.
    """
    return F.cosine_similarity(clean.detach() - mean, copy - mean, dim=1, eps=1e-6).mean()


def misalignment(copy: Tensor, labels: Tensor, prototypes: Tensor, mean: Tensor) -> Tensor:
    """Pull each copy to the prototype of the next class in the common feature space, to be minimised.

        L_mis = 1/B sum_i (1 - cos(F(x_u,i) - m, c_(y_i + 1 mod K) - m))

    Unlike `feature_distance` this plants another class's features under each label: a class-wise shortcut, with
    the strength and the weaknesses of one.

    Args:
        copy: F(x_u), [B, D]; gets gradients.
        labels: int64 [B].
        prototypes: mean feature of each class of the originals, [K, D]; constant.
        mean: mean feature of the originals, [D]; constant.

    Returns:
        A scalar in [0, 2].
    """
    target = prototypes[(labels + 1) % len(prototypes)]
    return 1 - F.cosine_similarity(target - mean, copy - mean, dim=1, eps=1e-6).mean()


def class_prototypes(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean feature of each class: features [N, D], labels int64 [N] -> [classes, D]; an empty class is zero."""
    sums = torch.zeros(classes, features.shape[1], dtype=features.dtype, device=features.device)
    sums.index_add_(0, labels, features)
    return sums / torch.bincount(labels, minlength=classes).clamp_min(1)[:, None]
