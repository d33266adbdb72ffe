"""Adversarial training: small perturbations must not matter, and so a protection made of them cannot be learnt."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack.options import number, whole_number
from uge.training import PlainTraining


class Adversarial(PlainTraining):
    """Train on the worst perturbation within a budget that projected gradient ascent finds.

        min_theta mean max_{|d|_inf <= e} L(f(x + d), y),   d <- clip(d + a sign(grad_x L), -e, e)

    Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018: d begins uniform, x + d
    stays in [0, 1]. Ours: perturbations are sought in eval mode, so that normalisation statistics are those
    of the images it trains on.

    Args:
        epsilon_255: e in steps of 255. Half of a shift's own bound undoes most of it: 8 of 16, 12 of 24.
        steps: of the ascent.
        step_255: a in steps of 255; by default a quarter of e, their 2 of 8, and more for fewer than their 7 steps.
    """

    cost = 8.0
    tried = ("", "12")

    def __init__(self, epsilon_255: str | float = 8, steps: str | int = 7, step_255: str | float | None = None) -> None:
        self.epsilon = number("adversarial: epsilon_255", epsilon_255, 0.1, 255) / 255
        self.steps = whole_number("adversarial: steps", steps, 1, 1000)
        usual = self.epsilon * max(1 / 4, 7 / 4 / self.steps)
        self.step = usual if step_255 is None else number("adversarial: step_255", step_255, 0.01, 255) / 255
        self.start = torch.zeros(())

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws where the ascent begins; `loss` has the network that it needs, and no generator."""
        self.start = (2 * torch.rand(x.shape, generator=generator) - 1).to(x.device) * self.epsilon
        return x, y

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(network(self.worst(network, x, y)), y)

    def worst(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """x + d after the ascent, float32 [B, C, H, W] in [0, 1]."""
        was_training = network.training
        network.eval()
        seen = (x + self.start).clamp(0, 1).detach()
        for _ in range(self.steps):
            seen.requires_grad_(True)
            (slope,) = torch.autograd.grad(F.cross_entropy(network(seen), y), seen)
            moved = seen.detach() + self.step * slope.sign()
            seen = torch.minimum(torch.maximum(moved, x - self.epsilon), x + self.epsilon).clamp(0, 1)
        network.train(was_training)
        return seen
