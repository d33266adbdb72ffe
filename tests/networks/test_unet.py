"""The U-Net begins as the identity, takes images of any size, and hears what it is told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from uge.networks.unet import UNet


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 17, 23), (3, 3, 9, 40)])
def test_it_begins_as_the_identity_and_what_it_is_told_changes_every_image(shape: tuple[int, ...]) -> None:
    network = UNet(shape[1], 5, width=4).eval()
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    one, other = torch.eye(5)[:2, None].expand(2, shape[0], 5)
    assert torch.equal(network(x, one), x)
    nn.init.normal_(network.last.weight, generator=torch.Generator().manual_seed(1))
    first, second = network(x, one), network(x, other)
    assert first.shape == x.shape and all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    (first - x).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    torch.testing.assert_close(network(x[:1], one[:1]), first[:1], rtol=1e-4, atol=1e-5)


def test_the_seed_alone_decides_its_weights() -> None:
    before = torch.get_rng_state()
    first, same, other = (dict(UNet(3, 4, width=4, seed=seed).named_parameters()) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
