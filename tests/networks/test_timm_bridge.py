from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from torch.nn import functional as F

from uge.errors import ConfigError
from uge.networks import NetworkSpec, build_network, parse_network

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


def build(model: str, image_size: tuple[int, int] = (32, 32), seed: int = 0) -> torch.nn.Module:
    name, options = parse_network(f"timm:{model}")
    return build_network(NetworkSpec(name, 3, image_size, 5, options), (0.5,) * 3, (0.25,) * 3, seed)


def test_without_timm_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # what Python itself does for a module that must not import
    with pytest.raises(ConfigError, match="pip install timm with a torchvision") as caught:
        build("resnet10t")
    assert "\n" not in str(caught.value)


@needs_timm
@pytest.mark.usefixtures("torchvision_operators")
@pytest.mark.parametrize("model", ["test_vit", "resnet10t"])
def test_a_timm_model_is_a_network_like_any_other(model: str) -> None:
    before = torch.get_rng_state()
    network, same, other = build(model), build(model), build(model, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert network.training
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = network(x)
    assert logits.shape == (2, 5)
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    weights = [dict(n.named_parameters()) for n in (network, same, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert any(not torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


@needs_timm
@pytest.mark.usefixtures("torchvision_operators")
@pytest.mark.parametrize(
    ("model", "image_size", "message"),
    [
        ("resnet10x", (32, 32), "timm has no model 'resnet10x'"),
        ("test_vit", (33, 33), r"does not take 33x33 pixels: .*; resize"),
    ],
)
def test_what_timm_cannot_build_is_one_line(model: str, image_size: tuple[int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(model, image_size)
    assert "\n" not in str(caught.value)
