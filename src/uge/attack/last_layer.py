"""The last layer of a network, fitted anew on the features before it: what probes and refits share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from uge.attack.projection import logistic_regression
from uge.errors import ConfigError
from uge.training import logits_of

STEPS = 1000  # of the logistic regression, more for many images: at least 20 passes over them
BATCH_SIZE = 128


def last_layer(network: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds the last linear layer, and the layer's name in it.

    Raises:
        ConfigError: a network without one.
    """
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError(f"{type(network).__name__} has no linear layer that could be refit; choose another network")
    parent, _, name = linear[-1].rpartition(".")
    return network.get_submodule(parent), name


def features_before(layer: nn.Module, network: nn.Module, images: Tensor) -> Tensor:
    """What a layer that sees vectors is given, float32 [N, D] on the CPU, in eval mode; images uint8 [N, C, H, W]."""
    given: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].float().cpu()))
    try:
        logits_of(network, images, batch_size=250)
    finally:
        hook.remove()
    return torch.cat(given)


def refit_last_layer(network: nn.Module, images: Tensor, targets: Tensor, seed: int = 0) -> None:
    """Put a new last layer into the network: logistic regression on standardised features.

        z = (f(x) - m) / s,   W = argmin mean L(W z + b, y)

    Args:
        network: changed in place.
        images: uint8 [N, C, H, W].
        targets: labels, int64 [N], or a teacher's outputs [N, K], of which the largest counts.
        seed: decides the order of the regression's steps.
    """
    parent, name = last_layer(network)
    old: nn.Linear = getattr(parent, name)
    features = features_before(old, network, images)
    mean, deviation = features.mean(0), features.std(0, correction=0).clamp_min(1e-6)
    labels = targets.cpu() if targets.ndim == 1 else targets.argmax(1).cpu()
    epochs = max(20, STEPS // math.ceil(len(features) / BATCH_SIZE))
    weight, bias = logistic_regression(
        (features - mean) / deviation, labels, old.out_features, epochs=epochs, batch_size=BATCH_SIZE, seed=seed
    )
    new = nn.Linear(old.in_features, old.out_features, device="meta").to_empty(device="cpu")  # draws nothing
    with torch.no_grad():
        new.weight.copy_(weight / deviation)
        new.bias.copy_(bias - new.weight @ mean)
    setattr(parent, name, new.to(old.weight.device))
