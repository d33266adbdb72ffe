"""Learnability lock, linear form: Peng & Chen, "Learnability Lock", ICLR 2022, arXiv 2202.03576.

Every class k has an affine map of each value of an image, learnt beside a network f so that it lowers its loss,

    x_u = W_k * x + b_k,   min_theta min_(W, b) mean CE(f_theta(W_y * x + b_y), y),
    |W - 1| <= epsilon / 2,   |b| <= epsilon / 2      on the scale [0, 1], so that |x_u - x| <= epsilon.

In turn the network takes a few steps on the locked images and W, b take a few passes over the data; it ends when the
network errs on a small share of the locked images. Whoever has W and b undoes it: x = (x_u - b_y) / W_y. They are the
secret, and the labels say which to use, so a training set can be unlocked; test images are never locked.

The settings are those of the authors' public code (github.com/jinghuichen/Learnability-Lock). Deviations: rounds of a
network's steps begin at a random batch; W and b are kept in their bounds after every step, not after all; copies are
rounded to 8 bits, so that unlocking finds each value to within one step, and values that the map would have led out of
0..255 to within epsilon.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor
from torch.nn import functional as F

from uge.baselines.baseline import LearntBaseline, LinfConfig
from uge.data.images import ImageSet, to_float
from uge.errors import KeyFileError
from uge.outside import MOST_WEIGHTS, parse_json, read_file
from uge.protection import Telling

FORMAT_VERSION = 1
ENDING = ".lock"  # of the private file beside a copy


@dataclass(frozen=True, eq=False)
class Lock:
    """What locks and unlocks images: an affine map of each value, one a class.

    Attributes:
        weight: W, float32 [K, C, H, W], above 0.
        shift: b, float32 [K, C, H, W], on the scale [0, 1].
        class_names: one name a class, in label order.
    """

    weight: Tensor
    shift: Tensor
    class_names: tuple[str, ...]

    def lock(self, x: Tensor, labels: Tensor) -> Tensor:
        """W_y * x + b_y, float32 [B, C, H, W] on the scale [0, 1]; not clipped."""
        return self.weight[labels] * x + self.shift[labels]

    def unlock(self, images: ImageSet) -> ImageSet:
        """The originals of locked images, (x_u - b_y) / W_y rounded to 8 bits.

        Raises:
            KeyFileError: the lock is of other images.
        """
        shape = images.images.shape[1:]
        if (self.class_names, self.weight.shape[1:]) != (images.class_names, shape):
            raise KeyFileError(
                f"the lock is for {len(self.class_names)} classes of images {list(self.weight.shape[1:])}, the data has"
                f" {images.classes} of {list(shape)} or other names; use the lock that this copy was made with"
            )
        opened = torch.empty_like(images.images)
        for pick in torch.arange(len(images)).split(1000):
            labels = images.labels[pick]
            x = (to_float(images.images[pick]) - self.shift[labels]) / self.weight[labels]
            opened[pick] = (255 * x).round().clamp(0, 255).to(torch.uint8)
        return images.with_images(opened)

    def to_bytes(self) -> bytes:
        """A safetensors file; the same lock gives the same bytes."""
        facts = {"format_version": FORMAT_VERSION, "class_names": self.class_names}
        tensors = {"weight": self.weight.contiguous(), "shift": self.shift.contiguous()}
        return safetensors.save(tensors, {"uge-lock": json.dumps(facts, sort_keys=True)})

    def digest(self) -> str:
        """Which lock it is, in 32 hexadecimal digits; the manifest of its copy says them, too."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:32]


def load_lock(file: Path | str) -> Lock:
    """Read a lock's file.

    Raises:
        KeyFileError: it cannot be read, or is none.
    """
    try:
        content = read_file(file, MOST_WEIGHTS, links=True)
        tensors = safetensors.load(content)
        header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
        facts = parse_json(header["__metadata__"]["uge-lock"])
        version, names = facts["format_version"], tuple(map(str, facts["class_names"]))
    except FileNotFoundError as error:
        raise KeyFileError(f"cannot read lock {file}: No such file or directory") from error
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise KeyFileError(f"{file} is no lock of uge, or damaged; copy it again from its source") from error
    if version != FORMAT_VERSION:
        raise KeyFileError(
            f"lock {file} has format version {version}, this uge reads {FORMAT_VERSION}; use the uge that wrote it"
        )
    weight, shift = (tensors.get(name, torch.empty(0)) for name in ("weight", "shift"))
    good = weight.ndim == 4 and weight.shape == shift.shape and len(weight) == len(names)
    if not good or not (weight.isfinite() & (weight > 0) & shift.isfinite()).all():
        raise KeyFileError(f"lock {file} holds values that make no sense; copy it again from its source")
    return Lock(weight, shift, names)


@dataclass(frozen=True)
class LearnabilityLockConfig(LinfConfig):
    """Settings of the linear learnability lock; the defaults are the public code's.

    Attributes:
        network_steps: I, batches that the network learns from in each round.
        passes: J, passes over the data in which W and b learn in each round.
        learning_rate: of W and b (SGD with momentum 0.9).
        network_learning_rate: of the network (SGD with momentum 0.9, no weight decay).
        error: stop when the network errs on less than this share of the locked images.
        rounds: stop after as many at the latest.
    """

    network: str = "resnet:depth=18"
    network_steps: int = 30
    passes: int = 2
    learning_rate: float = 0.01
    network_learning_rate: float = 0.01
    error: float = 0.1
    rounds: int = 50
    batch_size: int = 256


class LearnabilityLockProtection(LearntBaseline[LearnabilityLockConfig]):
    """Learns the lock beside a network that learns from locked images; `lock` is what its owner keeps.

    The perturbations are W and b, float32 [2, K, C, H, W].
    """

    Config = LearnabilityLockConfig
    stream = "learnability-lock"
    longest = 5.0

    @property
    def lock(self) -> Lock:
        """As it is learnt so far."""
        weight, shift = self.delta
        return Lock(weight, shift, self.clean.class_names)

    def told(self) -> dict[str, Any]:
        return {"lock": self.lock.digest()}

    def secrets(self) -> dict[str, bytes]:
        return {ENDING: self.lock.to_bytes()}

    @classmethod
    def opened(cls, copy: ImageSet, out: Path) -> ImageSet:
        return load_lock(out.with_name(out.name + ENDING)).unlock(copy)

    def begin(self, telling: Telling) -> None:
        config, shape = self.config, (self.clean.classes, *self.clean.images.shape[1:])
        self.delta = torch.stack([torch.ones(shape), torch.zeros(shape)])
        self.surrogate = self.network(config.network, "surrogate", config.network)
        self.optimiser = torch.optim.SGD(self.surrogate.parameters(), lr=config.network_learning_rate, momentum=0.9)

    def round(self, number: int, rng: torch.Generator) -> dict[str, float]:
        weight, shift = (part.to(self.device, copy=True) for part in self.delta)
        lock = Lock(weight, shift, self.clean.class_names)
        return {"loss": self._teach(lambda x, y, pick: lock.lock(x, y), rng), "error": self._improve(lock, rng)}

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        x_u = 255 * self.lock.lock(to_float(images), labels)
        return x_u.round().clamp(0, 255).to(torch.uint8)

    def _improve(self, lock: Lock, rng: torch.Generator) -> float:
        """W and b learn against the network as it is; the share of images it errs on in the last pass."""
        config, half = self.config, self.config.epsilon_255 / 255 / 2
        self.surrogate.eval()
        weight, shift = lock.weight.requires_grad_(), lock.shift.requires_grad_()
        optimiser = torch.optim.SGD([weight, shift], lr=config.learning_rate, momentum=0.9)
        wrong = 0
        for _ in range(config.passes):
            wrong = 0
            for pick in self._pick(len(self.clean), rng).split(config.batch_size):
                x, y = self._batch(pick)
                logits = self.surrogate(lock.lock(x, y))
                wrong += int((logits.argmax(1) != y).sum())
                optimiser.zero_grad(set_to_none=True)
                weight.grad, shift.grad = torch.autograd.grad(F.cross_entropy(logits, y), (weight, shift))
                optimiser.step()
                with torch.no_grad():
                    weight.clamp_(1 - half, 1 + half)
                    shift.clamp_(-half, half)
        self.delta = torch.stack([weight, shift]).detach().cpu()
        return wrong / len(self.clean)
