"""What every entry of NETWORKS promises, and models of timm with it; a new network is tested by being listed."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.nn import functional as F

from uge.errors import ConfigError
from uge.networks import NETWORKS, NetworkSpec, build_network, parse_network
from uge.outside import typed

pytestmark = pytest.mark.usefixtures("timm_where_named")

SMALL = {  # fewer filters than the defaults, so that all sizes run in seconds; the layers are the same
    "convnet": {"width": 8},
    "mlp": {"width": 16},
    "mobilenetv2": {"width_percent": 25, "repeats_percent": 25},
    "resnet": {"depth": 8, "width": 8},
    "vgg": {"depth": 8, "width": 8},
    "vit": {"width": 16, "depth": 1, "heads": 2},
}
SIZES = [(28, 28), (32, 32), (64, 64), (32, 48), (30, 20)]
TIMM = ["timm:test_vit", "timm:resnet10t"]
CASES = [(name, channels, size) for name in NETWORKS for channels in (1, 3) for size in SIZES]
CASES += [(name, 3, (32, 32)) for name in TIMM]


def build(name: str, channels: int = 3, image_size: tuple[int, int] = (32, 32), seed: int = 0) -> torch.nn.Module:
    spec = NetworkSpec(name, channels, image_size, 5, SMALL.get(name, {}))
    return build_network(spec, (0.5,) * channels, (0.25,) * channels, seed)


def batch(channels: int = 3, image_size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    return torch.rand(4, channels, *image_size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "channels", "image_size"), CASES, ids=str)
def test_images_become_logits_and_every_weight_a_finite_gradient(
    name: str, channels: int, image_size: tuple[int, int]
) -> None:
    network, x = build(name, channels, image_size), batch(channels, image_size).requires_grad_()
    logits = network(x)
    assert network.training and logits.shape == (4, 5) and logits.dtype == torch.float32
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_the_defaults_take_gray_and_colour_images_of_the_usual_sizes(name: str) -> None:
    for channels, image_size in ((1, (28, 28)), (3, (32, 32))):
        spec = NetworkSpec(name, channels, image_size, 10)
        network = build_network(spec, (0.5,) * channels, (0.25,) * channels, 0).eval()
        with torch.no_grad():
            assert network(batch(channels, image_size)).shape == (4, 10)


@pytest.mark.parametrize("name", [*NETWORKS, *TIMM])
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    torch.manual_seed(1)
    first = build(name, seed=7).state_dict()
    before = torch.get_rng_state()
    same, other = (build(name, seed=seed).state_dict() for seed in (7, 8))
    assert torch.equal(before, torch.get_rng_state()), "building a network moved torch's global generator"
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", NETWORKS)
def test_images_are_normalised_inside_the_network_in_any_memory_layout(name: str) -> None:
    network, x = build(name).eval(), batch()
    normal = build_network(NetworkSpec(name, 3, (32, 32), 5, SMALL[name]), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), 0).eval()
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1), torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1)
    torch.testing.assert_close(normal(x), network((x - mean) / std * 0.25 + 0.5), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(x), network(x.to(memory_format=torch.channels_last)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_travel_to_a_network_built_from_the_spec_as_data(name: str) -> None:
    spec = NetworkSpec(name, 3, (32, 32), 5, SMALL[name])
    again = typed(spec.to_dict(), NetworkSpec)
    assert again == spec
    source, target = build(name).eval(), build_network(again, (0.0,) * 3, (1.0,) * 3, 1).eval()
    target.load_state_dict(source.state_dict())
    assert torch.equal(source(batch()), target(batch()))


@pytest.mark.parametrize("name", NETWORKS)
def test_options_are_read_from_text_and_checked(name: str) -> None:
    assert parse_network(name) == (name, {})
    text = name + ":" + ",".join(f"{key}={value}" for key, value in SMALL[name].items())
    assert parse_network(text) == (name, SMALL[name])
    key = next(iter(SMALL[name]))
    wrong = {f"{key}={bad}": "must be a whole number from 1, got" for bad in ("-1", "0", "1.5", "many", "true", "")}
    first = list(inspect.signature(NETWORKS[name]).parameters)[3]  # after what the data decide
    wrong |= {"many": f"{first} must be", "classes=3": "unknown option", f"{key}=2,{key}=3": f"says {key} twice"}
    wrong[f"{key}x=1"] = f"unknown option of network '{name}' '{key}x'; did you mean '{key}'"
    for option, message in wrong.items():
        with pytest.raises(ConfigError, match=message):
            parse_network(f"{name}:{option}")
