"""CLIP's image encoder, the paper's common feature space, from a local folder or a Hugging Face hub id."""

from __future__ import annotations

from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from uge.errors import ConfigError
from uge.networks import Normalise

# the per-channel constants of Radford et al. 2021's preprocessing
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipEncoder(nn.Module):
    """Pooled vision features of images resized to the model's own side."""

    def __init__(self, vision: nn.Module, side: int) -> None:
        super().__init__()
        self.vision = vision
        self.side = side
        self.normalise = Normalise(MEAN, STD)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x.expand(-1, 3, -1, -1), size=(self.side, self.side), mode="bicubic", align_corners=False)
        return self.vision(pixel_values=self.normalise(x)).pooler_output


def clip_encoder(source: str) -> nn.Module:
    """The vision half of a CLIP model: a folder saved by transformers, or a hub id ("openai/clip-vit-base-patch32").

    Raises:
        ConfigError: transformers is missing or does not import, or the model cannot be found or is none of CLIP's.
    """
    try:
        from transformers import CLIPVisionModel
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: torchvision built for another torch
        raise ConfigError(f"encoder clip needs transformers, which does not import here: {error}") from error
    try:
        loaded: Any = CLIPVisionModel.from_pretrained(source, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # RuntimeError: other shapes than CLIP's
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"no CLIP model at '{source}': {reason}") from error
    vision, loading = loaded
    if loading["missing_keys"]:  # transformers would only warn, and draw them at random
        raise ConfigError(
            f"no CLIP model at '{source}': it lacks {len(loading['missing_keys'])} tensors of CLIP's image encoder;"
            " give a model of transformers' type 'clip' or 'clip_vision_model'"
        )
    return ClipEncoder(vision, int(vision.config.image_size))
