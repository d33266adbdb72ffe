"""What the protections that train a generator share: the run over the data, its checkpoints, and going on from them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from uge.data.images import ImageSet, normalisation_of
from uge.errors import PublishError
from uge.networks import NetworkSpec, build_network, parse_network
from uge.protect.checkpoint import claim_workdir, load_checkpoint, save_checkpoint
from uge.protect.generator import Generator
from uge.protect.trajectory import LiveRun
from uge.runtime import generator_for, seed_for

Advance = tuple[LiveRun, tuple[Tensor, ...]]  # a network beside the generator, and the gradients of its next step
CHECKPOINT = "checkpoint.pt"


class GeneratorConfig(Protocol):
    """The settings that the run itself reads."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...


class Beside(Protocol):
    """What a run keeps beside the generator, until it ends."""

    @property
    def runs(self) -> Sequence[LiveRun]:
        """The networks in training: checkpoints hold them."""


B = TypeVar("B", bound=Beside)


@dataclass(frozen=True)
class Step:
    """One batch: what the generator is to lower, how the networks beside it go on, and the terms of the log row."""

    loss: Tensor
    advances: Sequence[Advance]
    terms: dict[str, float | None]


class GeneratorTraining(ABC, Generic[B]):
    """Trains a generator for one data set. Subclasses say what a step is.

    Args:
        clean: the originals.
        config: settings of the subclass.
        seed: decides everything but keys; the same keys and seed give the same copy on the same machine.
        streams: names of the random streams: of the generator's first weights, and of all draws of the training.
        workdir: where checkpoints go; None keeps none.
        device: where to compute.
        checkpoint_seconds: least time between two checkpoints.
    """

    def __init__(
        self,
        clean: ImageSet,
        config: GeneratorConfig,
        *,
        seed: int,
        streams: tuple[str, str],
        workdir: Path | None,
        device: torch.device | str,
        checkpoint_seconds: float,
    ) -> None:
        self.clean = clean
        self.seed = seed
        self.streams = streams
        self.workdir = workdir
        self.device = torch.device(device)
        self.checkpoint_seconds = checkpoint_seconds
        self.batch_size = min(config.batch_size, len(clean))
        self.epoch_steps = len(clean) // self.batch_size
        self.total_steps = self.epoch_steps * config.epochs
        self.learning_rate = config.learning_rate
        self._start()

    @abstractmethod
    def identity(self) -> str:
        """Names this run: data, keys, settings and seed."""

    @abstractmethod
    def _new_generator(self) -> Generator:
        """One that has learnt nothing; weights are drawn from torch's global stream, which the caller has seeded."""

    @abstractmethod
    def _begin(self) -> B:
        """What a run keeps beside the generator, at its start."""

    @abstractmethod
    def _step(self, step: int, pick: Tensor, beside: B, rng: torch.Generator) -> Step:
        """The losses on the images numbered `pick`; draws come from `rng` alone."""

    def train(self, on_step: Callable[[dict[str, Any], int], None] | None = None) -> None:
        """Train the generator, resuming from the work folder where it holds an unfinished run of the same settings.

        Args:
            on_step: called after each step with the log row and the number of all steps.

        Raises:
            PublishError: the work folder belongs to another run.
        """
        if self.workdir is not None:
            claim_workdir(self.workdir, self.identity())
        self._start()
        beside = self._begin()
        rng = generator_for(self.seed, self.streams[1])
        optimiser = torch.optim.Adam(self.generator.parameters(), lr=self.learning_rate, betas=(0.5, 0.99))
        step = self._resume(optimiser, beside, rng)
        saved = time.perf_counter()
        started = saved - (self.log[-1]["seconds"] if self.log else 0.0)
        while step < self.total_steps:
            order = torch.randperm(
                len(self.clean), generator=generator_for(self.seed, "order", step // self.epoch_steps)
            )
            pick = order[(step % self.epoch_steps) * self.batch_size :][: self.batch_size]
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * min(1.0, 1.02 * (1 - step / self.total_steps))
            done = self._step(step, pick, beside, rng)
            self._learn(done, optimiser)
            step += 1
            epoch, seconds = (step - 1) // self.epoch_steps + 1, round(time.perf_counter() - started, 2)
            row = {"step": step, "epoch": epoch, "loss": float(done.loss.detach()), **done.terms, "seconds": seconds}
            self.log.append(row)
            if on_step:
                on_step(row, self.total_steps)
            if time.perf_counter() - saved > self.checkpoint_seconds:
                self._checkpoint(step, optimiser, beside, rng)
                saved = time.perf_counter()
        self._checkpoint(step, optimiser, beside, rng)

    def _start(self) -> None:
        """A generator that has learnt nothing, and an empty log."""
        self.log: list[dict[str, Any]] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, self.streams[0]))
            generator = self._new_generator()
        self.generator = generator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's annotations

    def _learn(self, step: Step, optimiser: torch.optim.Optimizer) -> None:
        parameters = list(self.generator.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(step.loss, parameters), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        for run, gradients in step.advances:
            run.advance(gradients)

    def _network(self, text: str, purpose: str, number: int) -> nn.Module:
        """A network of the protector's own, from its name."""
        name, options = parse_network(text)
        spec = NetworkSpec(name, self.clean.channels, self.clean.image_size, self.clean.classes, options)
        return build_network(spec, *normalisation_of(self.clean.images), seed=seed_for(self.seed, purpose, number))

    def _checkpoint(self, step: int, optimiser: torch.optim.Optimizer, beside: B, rng: torch.Generator) -> None:
        if self.workdir is None:
            return
        state = {
            "step": step,
            "generator": self.generator.state_dict(),
            "optimiser": optimiser.state_dict(),
            "runs": [run.state() for run in beside.runs],
            "rng": rng.get_state(),
            "log": self.log,
        }
        save_checkpoint(self.workdir / CHECKPOINT, state)

    def _resume(self, optimiser: torch.optim.Optimizer, beside: B, rng: torch.Generator) -> int:
        file = self.workdir / CHECKPOINT if self.workdir else None
        if file is None or not file.exists():
            return 0
        state = load_checkpoint(file)
        if "runs" not in state:
            raise PublishError(f"{file} is of another version of this program; delete {file.parent} and start again")
        self.generator.load_state_dict(state["generator"])
        optimiser.load_state_dict(state["optimiser"])
        for run, saved in zip(beside.runs, state["runs"], strict=True):
            run.load(saved)
        rng.set_state(state["rng"])
        self.log = state["log"]
        return int(state["step"])
