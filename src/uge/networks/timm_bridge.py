"""Any model of the timm library, where timm works: `timm:NAME`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from uge.errors import ConfigError


def build_timm(name: str, channels: int, image_size: tuple[int, int], classes: int) -> nn.Module:
    """Build a timm model without pretrained weights.

    Raises:
        ConfigError: timm is missing or does not import here, or has no such model, or the model refuses this size.
    """
    try:
        import timm
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: torchvision built for another torch
        raise ConfigError(
            f"timm does not import here ({type(error).__name__}: {error}); pip install timm with a torchvision that"
            " matches this torch, or use a built-in network (uge list)"
        ) from error
    if name not in timm.list_models():
        raise ConfigError(f"timm has no model '{name}'; see timm.list_models('*{name[:6]}*')")
    arguments: dict[str, Any] = {"pretrained": False, "in_chans": channels, "num_classes": classes}
    try:
        try:
            network = timm.create_model(name, img_size=image_size, **arguments)
        except TypeError:  # convolutional models take any size and know no img_size
            network = timm.create_model(name, **arguments)
        with torch.no_grad():  # some models refuse a size only when they see an image
            network.eval()(torch.zeros(1, channels, *image_size))
    except (ValueError, AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"timm model '{name}' does not take {image_size[0]}x{image_size[1]} pixels: {reason}; resize the images"
            " (--image-size) or choose another model"
        ) from error
    return network.train()
