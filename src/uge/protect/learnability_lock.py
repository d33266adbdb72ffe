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
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor
from torch.nn import functional as F

from uge.data.images import ImageSet, to_float
from uge.errors import ConfigError, KeyFileError
from uge.networks import parse_network
from uge.protect.baseline import Baseline, BaselineConfig, check_epsilon
from uge.protect.protection import OnStep
from uge.protect.surrogate import SMALL_SURROGATE, build_surrogate
from uge.runtime import generator_for, repeatable, write_atomically
from uge.training import Shift

FORMAT_VERSION = 1
LONGEST_GRADIENT = 5.0  # of the network, which is cut to it


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


def save_lock(lock: Lock, file: Path) -> None:
    """Write a lock's file, readable by its owner only; a killed run may find its own file there.

    Raises:
        KeyFileError: another file is there; a key is never overwritten.
        PublishError: the place cannot be written.
    """
    content = lock.to_bytes()
    if file.exists() and file.read_bytes() != content:
        raise KeyFileError(f"{file} exists, and a key is never overwritten; choose another name or move it away")
    write_atomically(file, content, mode=0o600)


def load_lock(file: Path | str) -> Lock:
    """Read a lock's file.

    Raises:
        KeyFileError: it cannot be read, or is none.
    """
    try:
        with safe_open(str(file), "pt") as content:
            facts = json.loads((content.metadata() or {})["uge-lock"])
            tensors = {name: content.get_tensor(name) for name in ("weight", "shift")}
            version, names = facts["format_version"], tuple(map(str, facts["class_names"]))
    except FileNotFoundError as error:
        raise KeyFileError(f"cannot read lock {file}: No such file or directory") from error
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise KeyFileError(f"{file} is no lock of uge, or damaged; copy it again from its source") from error
    if version != FORMAT_VERSION:
        raise KeyFileError(
            f"lock {file} has format version {version}, this uge reads {FORMAT_VERSION}; use the uge that wrote it"
        )
    weight, shift = tensors["weight"], tensors["shift"]
    good = weight.ndim == 4 and weight.shape == shift.shape and len(weight) == len(names)
    if not good or not (weight.isfinite() & (weight > 0) & shift.isfinite()).all():
        raise KeyFileError(f"lock {file} holds values that make no sense; copy it again from its source")
    return Lock(weight, shift, names)


@dataclass(frozen=True)
class LearnabilityLockConfig(BaselineConfig):
    """Settings of the linear learnability lock; the defaults are the public code's.

    Attributes:
        epsilon_255: L_inf bound in 8-bit steps.
        network: f.
        network_steps: I, batches that the network learns from in each round.
        passes: J, passes over the data in which W and b learn in each round.
        learning_rate: of W and b (SGD with momentum 0.9).
        network_learning_rate: of the network (SGD with momentum 0.9, no weight decay).
        error: stop when the network errs on less than this share of the locked images.
        rounds: stop after as many at the latest.
        batch_size: images a step.
    """

    bound = "L_inf: epsilon_255"
    epsilon_255: int = 8
    network: str = "resnet:depth=18"
    network_steps: int = 30
    passes: int = 2
    learning_rate: float = 0.01
    network_learning_rate: float = 0.01
    error: float = 0.1
    rounds: int = 50
    batch_size: int = 256

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon_255)
        parse_network(self.network)
        for name in ("network_steps", "passes", "rounds", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "network_learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.error < 1:
            raise ConfigError(f"error is a share from 0 up to 1, got {self.error}")


class LearnabilityLockProtection(Baseline[LearnabilityLockConfig]):
    """Learns the lock beside a network that learns from locked images; `lock` is what its owner keeps."""

    @repeatable()
    def train(self, on_step: OnStep | None = None) -> None:
        """Learn the lock, going on from the work folder where it holds an unfinished run of the same settings."""
        super().train(on_step)
        config = self.config
        self.log = []
        rng = generator_for(self.seed, "learnability-lock")
        network = build_surrogate(config.network, self.clean, self.seed, self.device)
        optimiser = torch.optim.SGD(network.parameters(), lr=config.network_learning_rate, momentum=0.9)
        shape = (self.clean.classes, *self.clean.images.shape[1:])
        self.lock = Lock(torch.ones(shape), torch.zeros(shape), self.clean.class_names)
        if (state := self.saved()) is not None:
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            rng.set_state(state["rng"])
            self.lock = Lock(state["weight"], state["shift"], self.clean.class_names)
            self.log = state["log"]
        saved = time.perf_counter()
        started = saved - (self.log[-1]["seconds"] if self.log else 0.0)
        while len(self.log) < config.rounds and not (self.log and self.log[-1]["error"] < config.error):
            loss = self._teach(network, optimiser, rng)
            error = self._learn(network, rng)
            step, seconds = len(self.log) + 1, round(time.perf_counter() - started, 2)
            self.log.append({"step": step, "epoch": step, "loss": loss, "error": error, "seconds": seconds})
            if on_step:
                on_step(self.log[-1], config.rounds)
            if time.perf_counter() - saved > self.checkpoint_seconds:
                state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "rng": rng.get_state()}
                state |= {"weight": self.lock.weight, "shift": self.lock.shift, "log": self.log}
                self.save(state)
                saved = time.perf_counter()

    def protected(self, images: Tensor, labels: Tensor, numbers: range) -> Tensor:
        x_u = 255 * self.lock.lock(to_float(images), labels)
        return x_u.round().clamp(0, 255).to(torch.uint8)

    def _batch(self, pick: Tensor) -> tuple[Tensor, Tensor]:
        """x float32 [B, C, H, W] in [0, 1] and labels int64 [B]."""
        return to_float(self.clean.images[pick].to(self.device)), self.clean.labels[pick].to(self.device)

    def _teach(self, network: torch.nn.Module, optimiser: torch.optim.Optimizer, rng: torch.Generator) -> float:
        """The network learns from some batches of locked images; the mean of its losses."""
        network.train()
        lock, total = self._on_device(), 0.0
        for _ in range(self.config.network_steps):
            x, y = self._batch(torch.randperm(len(self.clean), generator=rng)[: self.config.batch_size])
            seen = Shift.draw(len(x), self.clean.image_size, rng)(lock.lock(x, y))
            loss = F.cross_entropy(network(seen), y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), LONGEST_GRADIENT)
            optimiser.step()
            total += float(loss.detach())
        return total / self.config.network_steps

    def _learn(self, network: torch.nn.Module, rng: torch.Generator) -> float:
        """W and b learn against the network as it is; the share of images it errs on in the last pass."""
        config = self.config
        network.eval()
        lock, half = self._on_device(), config.epsilon_255 / 255 / 2
        weight, shift = lock.weight.requires_grad_(), lock.shift.requires_grad_()
        optimiser = torch.optim.SGD([weight, shift], lr=config.learning_rate, momentum=0.9)
        wrong = 0
        for _ in range(config.passes):
            wrong = 0
            for pick in torch.randperm(len(self.clean), generator=rng).split(config.batch_size):
                x, y = self._batch(pick)
                logits = network(lock.lock(x, y))
                wrong += int((logits.argmax(1) != y).sum())
                optimiser.zero_grad(set_to_none=True)
                weight.grad, shift.grad = torch.autograd.grad(F.cross_entropy(logits, y), (weight, shift))
                optimiser.step()
                with torch.no_grad():
                    weight.clamp_(1 - half, 1 + half)
                    shift.clamp_(-half, half)
        self.lock = Lock(weight.detach().cpu(), shift.detach().cpu(), lock.class_names)
        return wrong / len(self.clean)

    def _on_device(self) -> Lock:
        weight, shift = (tensor.to(self.device, copy=True) for tensor in (self.lock.weight, self.lock.shift))
        return Lock(weight, shift, self.lock.class_names)


PRESETS = {
    "default": LearnabilityLockConfig(),
    "quick": LearnabilityLockConfig(network=SMALL_SURROGATE, rounds=20),
}
