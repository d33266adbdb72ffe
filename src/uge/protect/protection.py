"""What all protections share: the originals, one seed, a log, and a work folder with one checkpoint to go on from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, NotRequired, Protocol, TypedDict, TypeVar

import torch
from torch import Tensor

from uge.data.images import ImageSet
from uge.protect.checkpoint import claim_workdir, load_checkpoint, save_checkpoint
from uge.records import config_hash
from uge.training import OnEpoch

OnStep = Callable[[dict[str, Any], int], None]
Telling = Callable[[str], OnEpoch | None]  # from a network's name for people to what `fit` calls after each epoch


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


class Settings(Protocol):
    """Settings of a protection."""

    def to_dict(self) -> dict[str, Any]: ...


class RunOptions(TypedDict):
    """The keyword arguments of every protection, as `Protection` explains them."""

    seed: int
    workdir: NotRequired[Path | None]
    device: NotRequired[torch.device | str]
    checkpoint_seconds: NotRequired[float]


C = TypeVar("C", bound=Settings)


class Protection(ABC, Generic[C]):
    """Makes the copy of one data set.

    Args:
        clean: the originals.
        config: settings.
        seed: decides everything but keys; the same keys, settings and seed give the same copy on the same machine.
        workdir: where checkpoints go; None keeps none.
        device: where to compute.
        checkpoint_seconds: least time between two checkpoints.
    """

    def __init__(
        self,
        clean: ImageSet,
        config: C,
        *,
        seed: int,
        workdir: Path | None = None,
        device: torch.device | str = "cpu",
        checkpoint_seconds: float = 30.0,
    ) -> None:
        self.clean = clean
        self.config = config
        self.seed = seed
        self.workdir = workdir
        self.device = torch.device(device)
        self.checkpoint_seconds = checkpoint_seconds
        self.log: list[dict[str, Any]] = []

    @abstractmethod
    def train(self, on_step: OnStep | None = None) -> None:
        """Whatever comes before the copies, resuming from the work folder where it holds an unfinished run.

        Args:
            on_step: called after each step with its log row and the number of all steps; before the first one also
                as `preparing` says.

        Raises:
            PublishError: the work folder belongs to another run.
        """

    @abstractmethod
    def copies(self, batch_size: int = 250) -> Iterator[Tensor]:
        """The protected copies in order, uint8 [B, C, H, W] batch by batch, so that no second data set is held."""

    @abstractmethod
    def named(self) -> dict[str, Any]:
        """What tells this run from others besides data, settings and seed: method or public facts of the keys."""

    def identity(self) -> str:
        """Names this run."""
        return config_hash(
            {"data": self.clean.digest(), "config": self.config.to_dict(), "seed": self.seed} | self.named()
        )

    # -- the work folder -------------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Make the work folder this run's own, if there is to be one.

        Raises:
            PublishError: it belongs to another run.
        """
        if self.workdir is not None:
            claim_workdir(self.workdir, self.identity())

    def saved(self) -> Any:
        """The last checkpoint; None without one.

        Raises:
            PublishError: it is damaged.
        """
        file = self.checkpoint_file
        return load_checkpoint(file) if file is not None and file.exists() else None

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint, if there is a work folder."""
        if self.checkpoint_file is not None:
            save_checkpoint(self.checkpoint_file, state)

    @property
    def checkpoint_file(self) -> Path | None:
        """Where the checkpoint goes, if there is a work folder."""
        return None if self.workdir is None else self.workdir / "checkpoint.pt"
