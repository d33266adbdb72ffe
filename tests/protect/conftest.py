"""A small protection that runs in about a second, on real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from uge.data.images import ImageSet, normalisation_of, to_float
from uge.keys import WeightsKey, new_weights_key
from uge.networks import NetworkSpec, parse_network
from uge.protect.ungeneralizable import UngeneralizableConfig
from uge.training import Recipe

# Nine steps; live runs and students come to their end and start again within them. What tests rely on is named here,
# so that better defaults break none of them.
SMALL = {
    "epsilon_255": 16,
    "gradient_matching": 1.0,
    "gradient_magnitude": 0.1,
    "feature_distance": 0.3,
    "undistillation": 0.1,
    "feature_objective": "distance",
    "encoder": "own",
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "generator_width": 8,
    "label_conditional": False,
    "feature_images": 16,
    "students": ("vgg:depth=8,width=4", "convnet:width=8"),
    "clean_checkpoints": 2,
    "live_runs": 2,
    "run_epochs": 1,
}


@pytest.fixture(scope="session")
def colour(eurosat: ImageSet) -> ImageSet:
    """96 images of three classes at 12x12."""
    three = eurosat.subset((eurosat.labels < 3).nonzero().flatten()).take(96, torch.Generator().manual_seed(0))
    small = F.interpolate(to_float(three.images), size=(12, 12), mode="area").mul(255).round().to(torch.uint8)
    return ImageSet(small, three.labels, three.class_names[:3], three.names)


@pytest.fixture(scope="session")
def gray(colour: ImageSet) -> ImageSet:
    """The same images without colour."""
    return colour.with_images(colour.images.float().mean(1, keepdim=True).round().to(torch.uint8))


@pytest.fixture(scope="session")
def make_key() -> Callable[..., WeightsKey]:
    def make(images: ImageSet, network: str = "convnet:width=8", **recipe: Any) -> WeightsKey:
        name, options = parse_network(network)
        spec = NetworkSpec(name, images.channels, images.image_size, images.classes, options)
        settings = {"epochs": 2, "batch_size": 32} | recipe
        return new_weights_key(spec, images.class_names, *normalisation_of(images.images), Recipe(**settings))

    return make


@pytest.fixture(scope="session")
def key(gray: ImageSet, make_key: Callable[..., WeightsKey]) -> WeightsKey:
    return make_key(gray)


@pytest.fixture(scope="session")
def small() -> Callable[..., UngeneralizableConfig]:
    def make(**changes: Any) -> UngeneralizableConfig:
        return UngeneralizableConfig(**(SMALL | changes))

    return make
