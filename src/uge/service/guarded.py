"""The recipient's trained network as he offers it to others, and a guard before it that refuses published images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from uge.copy import Copy
from uge.data.images import to_float, to_uint8
from uge.errors import KeyFileError
from uge.keys import Key
from uge.service.detector import Detector, OnPart, train_detector


class Service(nn.Module):
    """The recipient's network, trained on views of a key: others ask with 8-bit images, and he does not open them."""

    def __init__(self, network: nn.Module, key: Key) -> None:
        super().__init__()
        self.network, self.key = network, key

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [B, C, H, W] in [0, 1] -> logits [B, K]."""
        seen = to_float(self.key.seen(to_uint8(x).cpu())).to(x.device)
        return self.network(seen.contiguous(memory_format=torch.channels_last))


class Guard(nn.Module):
    """A service that refuses published images and what was made of them.

    An opened letter tells a published image for certain. Of all others a detector says whether they come from one.
    Whoever sends images of his own is answered: that he learns from the answers nobody can prevent.

    Args:
        network: the recipient's, trained on views.
        key: the recipient's.
        detector: see `uge.service.detector`.
    """

    def __init__(self, network: nn.Module, key: Key, detector: Detector) -> None:
        super().__init__()
        self.service, self.key, self.detector = Service(network, key), key, detector

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x float32 [B, C, H, W] in [0, 1] -> logits [B, K]; no numbers (NaN) in the rows of what is refused."""
        refused = self.refuses(to_uint8(x).cpu()).to(x.device)
        return self.service(x).masked_fill(refused[:, None], torch.nan)

    def opens(self, images: Tensor) -> Tensor:
        """Which of these uint8 images [B, C, H, W] are published ones, to the last bit, bool [B]."""
        return self.key.open_each(images)[1]

    def refuses(self, images: Tensor) -> Tensor:
        """Which of these uint8 images [B, C, H, W], of the network's size, are published ones or come from one."""
        return self.opens(images) | self.detector.recognises(images)


def guard(
    network: nn.Module,
    copy: Copy | Path | str,
    key: Key,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_part: OnPart = lambda done, of: None,
) -> Guard:
    """Put a guard before the recipient's trained network; it learns to recognise the copy, which takes minutes.

    Args:
        network: maps float32 [B, C, H, W] in [0, 1] to logits [B, K]; trained on the view of the copy.
        copy: that it was trained on, or its folder.
        key: the recipient's, one that opens letters.
        seed: of the detector.
        device: where to train it.
        on_part: as `uge.service.detector.train_detector`.

    Returns:
        A module that answers as the network does, with NaN for what it refuses.

    Raises:
        KeyFileError: a key of initial weights, whose network sees copies as they are.
        PublishError: the copy cannot be read, or is not that of the key.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 2))  # yours, trained
        >>> guarded = uge.guard(network, "copy", recipient)
        >>> image, _ = uge.load_published("copy")[0]
        >>> guarded(image[None]).isnan().all()
        tensor(True)
    """
    if not key.opens:
        raise KeyFileError("the network of this key sees copies as they are; a guard needs a sealed key")
    copy = copy if isinstance(copy, Copy) else Copy.read(copy, key)
    detector = train_detector(copy.images, copy.view(key), seed=seed, device=device, on_part=on_part)
    return Guard(network, key, detector).eval().to(device)
