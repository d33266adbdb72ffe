"""Images that lack a random band of frequencies, so that no perturbation can live in one band alone."""

from __future__ import annotations

import torch
from torch import Tensor

from uge.attack.options import number
from uge.filters import cosines
from uge.training import PlainTraining


class BandStop(PlainTraining):
    """Train on images of which each lacks a contiguous band of frequencies, drawn anew every time.

        x <- Dh' (M * (Dh x Dw')) Dw,   M = 0 where a <= r < a + b, else 1,   a ~ U[0, 1 - b]

    D is the cosine basis, r the distance of a pair of frequencies from the lowest, 1 at the highest of both. The mean
    stays. FUSE (ICML 2026) finds so that protections which live in one band fall.

    Args:
        width: b.
    """

    def __init__(self, width: str | float = 0.3) -> None:
        self.width = number("band-stop: width", width, 0.01, 0.99)

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        first = (1 - self.width) * torch.rand(len(x), generator=generator)
        return without_band(x, first, first + self.width), y


def without_band(x: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """x [B, C, H, W] without the frequencies whose distance r in [0, 1] lies in [first, last), each float32 [B]."""
    rows, columns = (cosines(side).to(x.device) for side in x.shape[2:])
    shares = [torch.linspace(0, 1, len(basis)) for basis in (rows, columns)]
    r = ((shares[0][:, None].square() + shares[1].square()) / 2).sqrt()
    gone = (r >= first.view(-1, 1, 1)) & (r < last.view(-1, 1, 1))
    gone[:, 0, 0] = False
    kept = (rows @ x @ columns.T) * ~gone[:, None].to(x.device)
    return (rows.T @ kept @ columns).clamp(0, 1)
