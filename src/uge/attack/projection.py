"""Orthogonal projection: what a linear classifier learns from the published images is taken out of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.attack.options import whole_number
from uge.data.images import ImageSet, to_float, to_uint8
from uge.runtime import generator_for
from uge.training import PlainTraining


class Projection(PlainTraining):
    """Project every image away from the directions of a logistic regression.

        W = argmin mean L(W x + b, y),   D = Q R,   x <- x - Q Q' (x - m)

    Sandoval-Segura et al., What Can We Learn from Unlearnable Datasets?, NeurIPS 2023. There D
    is W'. Ours: D holds the K - 1 differences between the first class's weights and the others', which are all that
    decides a class, and the mean image m stays where it is, so that the result fits into 8 bit. Test images are
    shown as they are. For more directions than K - 1 the next regression looks at what the last one left, as in
    Ravfogel et al., Null It Out, ACL 2020.

    Args:
        directions: how many to take out; K - 1 by default.
        epochs: of each logistic regression (Adam, 1e-3, batches of 128).
        seed: decides the order of their steps.
    """

    tried = ("", "100")

    def __init__(self, directions: str | int = 0, epochs: str | int = 20, seed: int = 0) -> None:
        self.seed = seed
        self.directions = whole_number("projection: directions", directions, 0, 10_000)
        self.epochs = whole_number("projection: epochs", epochs, 1, 10_000)

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        x = to_float(images.images).flatten(1)
        mean = x.mean(0)
        x = x - mean
        most = min(self.directions or images.classes - 1, x.shape[1])
        taken = x.new_zeros(x.shape[1], 0)
        while taken.shape[1] < most:
            weights, _ = logistic_regression(x, images.labels, images.classes, epochs=self.epochs, seed=self.seed)
            differences = (weights[1:] - weights[:1]).T
            taken = torch.linalg.qr(torch.cat([taken, differences], dim=1))[0][:, :most]
            x = torch.cat([part - (part @ taken) @ taken.T for part in x.split(1000)])
        return to_uint8((x + mean).view_as(images.images)), images.labels


def logistic_regression(
    x: Tensor, y: Tensor, classes: int, *, epochs: int, batch_size: int = 128, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Weights float32 [K, D] and bias [K] of a linear classifier (Adam, learning rate 1e-3, from zero).

    It learns from centred images x float32 [N, D] and labels y int64 [N], in an order that the seed decides.
    """
    weight, bias = torch.zeros(classes, x.shape[1], requires_grad=True), torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=1e-3)
    generator = generator_for(seed, "projection")
    for _ in range(epochs):
        for pick in torch.randperm(len(x), generator=generator).split(batch_size):
            optimiser.zero_grad()
            F.cross_entropy(x[pick] @ weight.T + bias, y[pick]).backward()
            optimiser.step()
    return weight.detach(), bias.detach()
