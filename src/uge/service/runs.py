"""The folder of a trained network (`uge train`), and the detector that is kept in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from uge.copy import Copy
from uge.durable import write_file
from uge.errors import ConfigError, KeyFileError, PublishError
from uge.keys import Key
from uge.networks import NetworkSpec, build_network
from uge.outside import MOST_WEIGHTS, read_file, read_json, typed
from uge.service.detector import Detector, OnPart, spec_of_detector
from uge.service.guarded import Guard, guard
from uge.service.thumbnails import Thumbnails

WEIGHTS, FACTS, DETECTOR, LOG = "weights.safetensors", "run.json", "detector.safetensors", "served.json"


@dataclass(frozen=True)
class Run:
    """A trained network and what is known of it.

    Attributes:
        folder: that `uge train` wrote.
        network: maps float32 [B, C, H, W] in [0, 1] to logits.
        spec: its architecture.
        class_names: in the order of its logits.
        cut: whether other sizes are cut to their centre before they are resized, or resized whole.
        data: digest of the images that it was trained on.
    """

    folder: Path
    network: nn.Module
    spec: NetworkSpec
    class_names: tuple[str, ...]
    cut: bool
    data: str

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a folder that `uge train` wrote with the recipient's key.

        Raises:
            PublishError: there is no such folder, or it is damaged.
        """
        try:
            facts = read_json(folder / FACTS)
            spec = typed(facts["spec"], NetworkSpec)
            network = _network(spec, _tensors(folder / WEIGHTS))
            return cls(folder, network, spec, tuple(facts["class_names"]), bool(facts["cut"]), str(facts["data"]))
        except (OSError, SafetensorError, RuntimeError, LookupError, TypeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "damaged, or written by another version"
            raise PublishError(f"cannot read the trained network {folder}: {reason}; train it ('uge train')") from error

    def guarded(self, key: Key, copy: Path | None, on_part: OnPart = lambda done, of: None) -> Guard:
        """The network behind its guard; a detector that is not there yet is trained on the copy and kept.

        Raises:
            ConfigError: there is neither detector nor copy, or the network was trained on something else.
            UgeError: as `guard` and `read_detector`.
        """
        file = self.folder / DETECTOR
        if file.exists():
            detector = read_detector(file, key, self.spec.channels, self.spec.image_size)
            return Guard(self.network, key, detector).eval()
        if copy is None:
            raise ConfigError(f"{self.folder} cannot recognise its copy yet: give --copy COPY, once")
        published = Copy.read(copy, key)
        if published.view(key).digest() != self.data:
            raise ConfigError(f"{self.folder} was not trained on {copy} with this key; give the copy that it was")
        if key.opens:  # or `guard` refuses it at once
            on_part(0, 1)
        guarded = guard(self.network, published, key, on_part=on_part)
        save_detector(guarded.detector, key, file)
        return guarded


def load_network(folder: Path | str) -> nn.Module:
    """The network that `uge train` wrote, to answer or to train further.

    Args:
        folder: the --out of `uge train`.

    Returns:
        The trained module in evaluation mode, frozen: float32 [B, C, H, W] in [0, 1] -> logits, in the order of the
        classes in `run.json`. A recipient's shows it `key.seen(images)`.

    Raises:
        PublishError: there is no such folder, or it is damaged.

    Example:
        >>> network = uge.load_network("run")  # uge train copy --key copy.recipient.uge --out run
        >>> network(recipient.seen(uge.load("photos", "test").images) / 255).shape
        torch.Size([4, 2])
    """
    return Run.read(Path(folder)).network


def read_detector(file: Path, key: Key, channels: int, image_size: tuple[int, int]) -> Detector:
    """What `save_detector` wrote, for images of this kind.

    Raises:
        PublishError: the file is damaged.
        KeyFileError: it goes with another key.
    """
    try:
        tensors = _tensors(file)
        thresholds, made_with = tensors.pop("thresholds").tolist(), bytes(tensors.pop("key").tolist())
        thumbnails = Thumbnails(tensors.pop("thumbnails"), thresholds[1])
        detector = Detector(_network(spec_of_detector(channels, image_size), tensors), thresholds[0], thumbnails)
    except (OSError, SafetensorError, RuntimeError, LookupError, ValueError) as error:
        raise PublishError(f"cannot read {file}, it is damaged; delete it, and it is made again") from error
    if made_with.hex() != key.digest():
        raise KeyFileError(f"{file.parent} was trained with another key; give the one that it was trained with")
    return detector


def save_detector(detector: Detector, key: Key, file: Path) -> None:
    """Write a detector and which key it goes with, for its owner alone.

    Raises:
        PublishError: the place cannot be written.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in detector.network.state_dict().items()}
    thresholds = detector.threshold, detector.thumbnails.threshold
    tensors |= {"thumbnails": detector.thumbnails.kept, "thresholds": torch.tensor(thresholds, dtype=torch.float64)}
    tensors |= {"key": torch.tensor([*bytes.fromhex(key.digest())], dtype=torch.uint8)}
    write_file(file, safetensors.save(tensors), mode=0o600)


def _tensors(file: Path) -> dict[str, Tensor]:
    return safetensors.load(read_file(file, MOST_WEIGHTS))


def _network(spec: NetworkSpec, weights: dict[str, Tensor]) -> nn.Module:
    nothing = (0.0,) * spec.channels  # mean and deviation come with the weights
    network = build_network(spec, nothing, nothing, seed=0)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)
