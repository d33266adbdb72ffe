"""What all protections share: originals, keys, settings, one seed, a log, and a work folder to go on from."""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NotRequired, Protocol, TypedDict, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from uge.checkpoint import load_checkpoint, save_checkpoint
from uge.data.images import ImageSet
from uge.errors import ConfigError
from uge.keys.key import Key
from uge.networks import fresh_network
from uge.records import config_hash
from uge.runtime import seed_for
from uge.training import OnEpoch, Recipe, State, fit

CHECKPOINT_VERSION = 2  # another content of checkpoints is another run
NO_KEY = "none"
OnStep = Callable[[dict[str, Any], int], None]
Telling = Callable[[str], OnEpoch | None]  # from a network's name for people to what `fit` calls after each epoch
K = TypeVar("K")


def preparing(what: str, steps: int, on_step: OnStep | None) -> OnEpoch | None:
    """What `fit` calls after each epoch of a network that is trained before a run's first step.

    Args:
        what: names the network, for people.
        steps: all steps of the run.
        on_step: hears of them: {"step": 0, "preparing": "reference network, epoch 3"}.
    """
    if on_step is None:
        return None
    return lambda epoch, loss, accuracy: on_step({"step": 0, "preparing": f"{what}, epoch {epoch}"}, steps)


COUNTS = (
    *("steps", "network_steps", "surrogate_steps", "attack_steps", "epochs", "network_epochs", "reference_epochs"),
    *("passes", "rounds", "draws", "checkpoints", "clean_checkpoints", "live_runs", "batch_size", "feature_images"),
    *("reference_images", "colour_images", "width", "side", "patch", "generator_patch", "offset"),
)
POSITIVE = ("learning_rate", "network_learning_rate", "step_share", "attack_share", "separation", "temperature")
WEIGHTS = ("gradient_matching", "gradient_magnitude", "feature_distance", "undistillation", "misdirection")
RANGES: tuple[tuple[str, Callable[[Any], bool], Sequence[str]], ...] = (  # and the settings that each is for
    ("must be at least 1", lambda value: value >= 1, COUNTS),
    ("must be positive", lambda value: 0 < value < math.inf, POSITIVE),
    ("must not be negative", lambda value: 0 <= value < math.inf, (*WEIGHTS, "run_epochs")),
    ("is a share from 0 to 1", lambda value: 0 <= value <= 1, ("balance", "warm_up", "clean_share")),
    # an adversary as strong as the noise would leave none of it
    ("is a share from 0 up to 1", lambda value: 0 <= value < 1, ("error", "radius_share")),
    # below 1 rounding would take the change away
    ("must be 1..128 (8-bit steps)", lambda value: 1 <= value <= 128, ("rms_255", "noise_255")),
)


@dataclass(frozen=True)
class Settings:
    """Settings of a protection: the defaults are what to use.

    Those of a name are checked alike in all protections; subclasses check what is theirs alone in `__post_init__`.

    Attributes:
        most_epsilon: up to which an `epsilon_255` makes sense.
    """

    most_epsilon: ClassVar[int] = 128

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        epsilon = getattr(self, "epsilon_255", 1)
        if not (isinstance(epsilon, int) and 1 <= epsilon <= self.most_epsilon):
            raise ConfigError(f"epsilon {epsilon} is outside 1..{self.most_epsilon} (8-bit steps)")
        for words, good, names in RANGES:
            for name in names:
                if hasattr(self, name) and not good(value := getattr(self, name)):
                    raise ConfigError(f"{name} {words}, got {value}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


class RunOptions(TypedDict):
    """The keyword arguments of every protection, as `Protection` explains them."""

    seed: int
    workdir: NotRequired[Path | None]
    device: NotRequired[torch.device | str]
    checkpoint_seconds: NotRequired[float]


C = TypeVar("C", bound=Settings)


class Copier(Protocol):
    """What makes the copies of some originals, whatever process it is sent to."""

    def copies(self, batch_size: int = 250) -> Iterator[Tensor]:
        """As for `Protection`, of its own images."""

    def enlarged(self, number: int, photograph: Tensor) -> Tensor:
        """As for `Protection`; `number` is the image's place among its own."""


@dataclass(frozen=True)
class Made:
    """Copies that are made already: uint8 [N, C, H, W]."""

    images: np.ndarray[Any, np.dtype[np.uint8]]

    def copies(self, batch_size: int = 250) -> Iterator[Tensor]:
        return iter(torch.from_numpy(self.images).split(batch_size))

    def enlarged(self, number: int, photograph: Tensor) -> Tensor:
        raise NotImplementedError  # what makes copies of one size is asked for no other


class Protection(ABC, Generic[C]):
    """Makes the copy of one data set.

    Args:
        clean: the originals.
        keys: of those who may learn from the copy; none where the class takes none.
        config: settings.
        seed: decides everything but keys; the same keys, settings and seed give the same copy on the same machine.
        workdir: where checkpoints go, a folder claimed for this run (`mark`); None keeps none.
        device: where to compute.
        checkpoint_seconds: least time between two checkpoints.

    Attributes:
        takes: the kind of key, or "none".
        enlarges: whether copies of photographs can be made at their own sizes (`enlarged`).
        Config: the type of the settings.

    Raises:
        ConfigError: a key of another kind, or none where one is needed.
        KeyFileError: a key is for other images.
    """

    takes: ClassVar[str]
    enlarges: ClassVar[bool] = False
    Config: ClassVar[type[Settings]]

    def __init__(
        self,
        clean: ImageSet,
        keys: Sequence[Key],
        config: C,
        *,
        seed: int,
        workdir: Path | None = None,
        device: torch.device | str = "cpu",
        checkpoint_seconds: float = 30.0,
    ) -> None:
        self._check_keys(keys, clean)
        self.clean = clean
        self.keys = list(keys)
        self.config = config
        self.seed = seed
        self.workdir = workdir
        self.device = torch.device(device)
        self.checkpoint_seconds = checkpoint_seconds
        self.log: list[dict[str, Any]] = []

    @classmethod
    def seen(cls, clean: ImageSet) -> ImageSet:
        """What the protection works on in the place of such images, whose copies `enlarged` makes then."""
        return clean

    def _check_keys(self, keys: Sequence[Key], clean: ImageSet) -> None:
        if self.takes == NO_KEY and keys:
            raise ConfigError("this method takes no key; leave --key out")
        got = sorted({key.kind for key in keys}) or [NO_KEY]
        if got != [self.takes]:
            raise ConfigError(
                f"this method takes a key of the kind {self.takes}, got {', '.join(got)}; 'uge key new' makes one"
            )
        for key in keys:
            key.check_fits(clean)

    # -- what a protection says ------------------------------------------------------------------------------------

    @abstractmethod
    def train(self, on_step: OnStep | None = None) -> None:
        """Whatever comes before the copies, resuming from the work folder where it holds an unfinished run.

        Args:
            on_step: called after each step with its log row and the number of all steps; before the first one also
                as `preparing` says.

        Raises:
            PublishError: what was kept in the work folder is damaged.
        """

    @abstractmethod
    def copied(self, numbers: range) -> Tensor:
        """The protected copies of the originals of these numbers, uint8 [B, C, H, W], whatever others are made with."""

    @torch.no_grad()
    def copies(self, batch_size: int = 250) -> Iterator[Tensor]:
        """The protected copies in order, uint8 [B, C, H, W] batch by batch, so that no second data set is held."""
        for begin in range(0, len(self.clean), batch_size):
            yield self.copied(range(begin, min(begin + batch_size, len(self.clean)))).contiguous()

    def part(self, numbers: range, turn: int = 0) -> Copier:
        """What makes the copies of these originals elsewhere, once this is trained.

        Args:
            numbers: of the originals.
            turn: of the part: several GPUs take parts in turn.
        """
        return Made(self.copied(numbers).contiguous().numpy())

    def check_sizes(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Refuse photographs of sizes (height, width) that `enlarged` cannot make.

        Raises:
            ConfigError: one of them is too small, or the method makes no sizes but that of its originals.
        """
        raise ConfigError("this method makes copies of one size; choose one with --image-size")

    def enlarged(self, number: int, photograph: Tensor) -> Tensor:
        """The protected copy of one image at its own size; `clean` holds what networks see of it.

        Args:
            number: in `clean`.
            photograph: uint8 [C, H, W].

        Returns:
            The same shape.
        """
        raise NotImplementedError  # `check_sizes` has refused them

    @property
    def epsilon_255(self) -> int | None:
        """The L_inf bound of the copies in 8-bit steps; None without one."""
        return getattr(self.config, "epsilon_255", None)

    def told(self) -> dict[str, Any]:
        """What the manifest tells besides the settings."""
        return {}

    def secrets(self) -> dict[str, bytes]:
        """Private files of this copy alone, by the ending that goes behind the copy's name: {".lock": content}."""
        return {}

    @classmethod
    def opened(cls, copy: ImageSet, out: Path) -> ImageSet | None:
        """The originals, as nearly as the files of `secrets` give them back; None where there are none.

        Args:
            copy: as published.
            out: the copy's folder, beside which the files lie.

        Raises:
            KeyFileError: one of them cannot be read, or is of another copy.
        """
        return None

    def identity(self) -> str:
        """Names this run: other images, names of files, settings or keys make it another one."""
        names = hashlib.sha256()
        for name in self.clean.names:
            names.update(name.encode("utf-8", "surrogatepass") + b"\0")
        return config_hash(
            {
                "version": CHECKPOINT_VERSION,
                "method": type(self).__name__,
                "data": self.clean.digest(),
                "names": names.hexdigest(),
                "config": self.config.to_dict(),
                "seed": self.seed,
                "keys": [key.digest() for key in self.keys],
            }
        )

    def network(self, text: str, *purpose: object) -> nn.Module:
        """A network of the protector's own for these images, such as "vgg:depth=8"; seed and purpose decide it."""
        return fresh_network(text, self.clean, seed_for(self.seed, *purpose)).to(self.device)

    # -- the work folder -------------------------------------------------------------------------------------------

    def mark(self) -> tuple[str, str, str, str]:
        """What says that a work folder is this run's, as `uge.durable.claim` takes it."""
        return "run", self.identity(), "an unfinished run", "data, keys or settings"

    def kept(self, name: str, make: Callable[[], K]) -> K:
        """What `make` gives, computed once and kept in the work folder, where there is one.

        Raises:
            PublishError: what was kept is damaged.
        """
        file = self.workdir / f"{name}.pt" if self.workdir else None
        if file and file.exists():
            return cast(K, load_checkpoint(file))
        made = make()
        if file:
            save_checkpoint(file, made)
        return made

    def teach_once(self, name: str, network: nn.Module, images: ImageSet, recipe: Recipe, **options: Any) -> None:
        """Train a network as `fit` does with these options, once: its weights are kept under this name (`kept`)."""

        def trained() -> State:
            fit(network, images, recipe, device=self.device, **options)
            return network.state_dict()

        network.load_state_dict(self.kept(name, trained))

    def resumed(self) -> dict[str, Any] | None:
        """What the last checkpoint holds, None without one; the log goes on from it.

        Raises:
            PublishError: it is damaged.
        """
        self.log = []
        if self.workdir is None or not (file := self.workdir / "checkpoint.pt").exists():
            return None
        state: dict[str, Any] = load_checkpoint(file)
        self.log = state["log"]
        return state

    def take_steps(
        self,
        total: int,
        step: Callable[[int], dict[str, Any]],
        state: Callable[[], dict[str, Any]],
        on_step: OnStep | None,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take the steps that the log lacks, with a checkpoint now and then and one at the end.

        Args:
            total: all steps.
            step: takes the one of this number, from 0, and gives its log row.
            state: what a checkpoint holds besides the log.
            on_step: as for `train`.
            enough: asked before each step whether to end here.
        """

        def save() -> None:
            if self.workdir is not None:
                save_checkpoint(self.workdir / "checkpoint.pt", state() | {"log": self.log})

        saved = time.perf_counter()
        started = saved - (self.log[-1]["seconds"] if self.log else 0.0)
        while len(self.log) < total and not enough():
            terms = step(len(self.log))
            seconds = round(time.perf_counter() - started, 2)
            self.log.append({"step": len(self.log) + 1, **terms, "seconds": seconds})
            if on_step:
                on_step(self.log[-1], total)
            if time.perf_counter() - saved > self.checkpoint_seconds:
                save()
                saved = time.perf_counter()
        save()
