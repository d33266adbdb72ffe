"""Networks by name. A new one is one file and one line in `NETWORKS`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from uge.data.images import ImageSet, normalisation_of
from uge.errors import ConfigError, unknown_name
from uge.grammar import parse_named
from uge.networks.convnet import ConvNet
from uge.networks.mlp import MLP
from uge.networks.mobilenet import MobileNetV2
from uge.networks.resnet import ResNet
from uge.networks.timm_bridge import build_timm
from uge.networks.vgg import VGG
from uge.networks.vit import ViT

_OF_THE_DATA = ("channels", "image_size", "classes")
# Each takes channels, (height, width) in pixels and the number of outputs, which the data decide, and its own options.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "convnet": ConvNet,
    "mlp": MLP,
    "mobilenetv2": MobileNetV2,
    "resnet": ResNet,
    "vgg": VGG,
    "vit": ViT,
}


class Normalise(nn.Module):
    """(x - mean) / std a channel; the constants travel with the network as buffers."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


@dataclass(frozen=True)
class NetworkSpec:
    """An architecture as data: enough to build the same layers again.

    Attributes:
        name: an entry of `NETWORKS`, or "timm:MODEL".
        channels: image channels, 1 or 3.
        image_size: (height, width) in pixels.
        classes: number of outputs.
        options: keyword options of that architecture, such as `{"width": 64}`.
    """

    name: str
    channels: int
    image_size: tuple[int, int]
    classes: int
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, images: ImageSet) -> NetworkSpec:
        """A network for these images from its text; ConfigError as `parse_network`."""
        name, options = parse_network(text)
        return cls(name, images.channels, images.image_size, images.classes, options)

    @property
    def label(self) -> str:
        """Name and options in one word for tables: `resnet(depth=18)`; an option that is true is only named."""
        options = ",".join(key if value is True else f"{key}={value}" for key, value in sorted(self.options.items()))
        return f"{self.name}({options})" if options else self.name

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"image_size": list(self.image_size)}


def parse_network(text: str) -> tuple[str, dict[str, Any]]:
    """Read "resnet" or "resnet:depth=18,width=64" (for timm: "timm:NAME") into a name and options.

    Raises:
        ConfigError: as for `parse_named`, or a value is of another type or range.
    """
    if text.partition(":")[0] == "timm":
        return text, {}
    name, written = parse_named(text, "network", [*NETWORKS, "timm:NAME"], _options_of)
    options: dict[str, Any] = {
        option: {"true": True, "false": False}.get(value.lower(), int(value) if value.isdecimal() else value)
        for option, value in written.items()
    }
    _check_options(name, options)
    return name, options


def _options_of(name: str) -> list[str]:
    """What may be chosen of a network, beside what its data decide."""
    return [option for option in inspect.signature(NETWORKS[name]).parameters if option not in _OF_THE_DATA]


def _check_options(name: str, options: dict[str, Any]) -> None:
    """Raise ConfigError unless each option exists in `NETWORKS[name]` and is of its default's type.

    Whole numbers are at least 1, or 0 where the default is 0 (which then means "choose for me" or "none").
    """
    known = _options_of(name)
    for key, value in options.items():
        if key not in known:
            raise unknown_name(f"option of network '{name}'", key, known)
        default = inspect.signature(NETWORKS[name]).parameters[key].default
        if isinstance(default, bool):
            if not isinstance(value, bool):
                raise ConfigError(f"network option {name}:{key} must be true or false, got '{value}'")
        elif type(value) is not int or value < min(default, 1):
            raise ConfigError(
                f"network option {name}:{key} must be a whole number from {min(default, 1)}, got '{value}'"
            )


def build_network(spec: NetworkSpec, mean: tuple[float, ...], std: tuple[float, ...], seed: int) -> nn.Module:
    """Build a network with freshly drawn weights, without touching torch's global random state.

    Args:
        spec: what to build.
        mean: channel means of the images it will see, on the scale [0, 1].
        std: channel standard deviations, same scale.
        seed: seed of the initial weights.

    Returns:
        A module that maps float32 [N, C, H, W] in [0, 1] to logits [N, classes].

    Raises:
        ConfigError: unknown name or option, or an option that this image size does not allow.
    """
    size: dict[str, Any] = {"channels": spec.channels, "image_size": spec.image_size, "classes": spec.classes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.name.startswith("timm:"):
            body = build_timm(spec.name.removeprefix("timm:"), **size)
        elif spec.name in NETWORKS:
            _check_options(spec.name, spec.options)
            body = NETWORKS[spec.name](**size, **spec.options)
        else:
            raise unknown_name("network", spec.name, [*NETWORKS, "timm:NAME"])
    network = nn.Sequential(Normalise(mean, std), body)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's annotations


def fresh_network(text: str, images: ImageSet, seed: int) -> nn.Module:
    """A network for these images from its text, such as "vgg:depth=8", as `build_network` makes it."""
    return build_network(NetworkSpec.of(text, images), *normalisation_of(images.images), seed)


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name; a frozen stem is not among them."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}
