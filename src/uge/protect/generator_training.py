"""What the protections that train a generator share: the run over the data, its checkpoints, and going on from them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from uge.data.images import ImageSet, normalisation_of
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


class GeneratorTraining(ABC):
    """Trains a generator for one data set. Subclasses say what a step is.

    Args:
        clean: the originals.
        config: settings of the subclass.
        seed: decides everything but keys; the same keys and seed give the same copy on the same machine.
        purpose: what the draws are for: names the random streams of the run.
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
        purpose: str,
        workdir: Path | None,
        device: torch.device | str,
        checkpoint_seconds: float,
    ) -> None:
        self.clean = clean
        self.seed = seed
        self.purpose = purpose
        self.workdir = workdir
        self.device = torch.device(device)
        self.checkpoint_seconds = checkpoint_seconds
        self.batch_size = min(config.batch_size, len(clean))
        self.epoch_steps = len(clean) // self.batch_size
        self.total_steps = self.epoch_steps * config.epochs
        self._learning_rate = config.learning_rate
        self._start()

    @abstractmethod
    def identity(self) -> str:
        """Names this run: data, keys, settings and seed."""

    @abstractmethod
    def _new_generator(self) -> Generator:
        """One that has learnt nothing; weights are drawn from torch's global stream, which is seeded here."""

    @abstractmethod
    def _begin(self) -> Sequence[LiveRun]:
        """Make ready what a step needs; returns the networks in training beside the generator, for the checkpoints."""

    @abstractmethod
    def _step(self, step: int, pick: Tensor) -> dict[str, float | None]:
        """Train the generator on the images numbered `pick`, once; returns the terms of the log row."""

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
        runs = self._begin()
        step = self._resume(runs)
        saved = time.perf_counter()
        started = saved - (self.log[-1]["seconds"] if self.log else 0.0)
        while step < self.total_steps:
            order = torch.randperm(
                len(self.clean), generator=generator_for(self.seed, "order", step // self.epoch_steps)
            )
            for group in self.optimiser.param_groups:
                group["lr"] = self._learning_rate * min(1.0, 1.02 * (1 - step / self.total_steps))
            terms = self._step(step, order[(step % self.epoch_steps) * self.batch_size :][: self.batch_size])
            step += 1
            seconds = round(time.perf_counter() - started, 2)
            row = {"step": step, "epoch": (step - 1) // self.epoch_steps + 1, **terms, "seconds": seconds}
            self.log.append(row)
            if on_step:
                on_step(row, self.total_steps)
            if time.perf_counter() - saved > self.checkpoint_seconds:
                self._checkpoint(step, runs)
                saved = time.perf_counter()
        self._checkpoint(step, runs)

    def _start(self) -> None:
        """A generator that has learnt nothing, its optimiser, the stream of all draws, and an empty log."""
        self.log: list[dict[str, Any]] = []
        self.rng = generator_for(self.seed, f"{self.purpose} training")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, f"{self.purpose} generator"))
            generator = self._new_generator()
        self.generator = generator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's annotations
        self.optimiser = torch.optim.Adam(self.generator.parameters(), lr=self._learning_rate, betas=(0.5, 0.99))

    def _learn(self, loss: Tensor, advances: Sequence[Advance]) -> None:
        """One step of the generator down `loss`; then one of each network beside it along its own gradients."""
        parameters = list(self.generator.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimiser.step()
        for run, gradients in advances:
            run.advance(gradients)

    def _network(self, text: str, purpose: str, number: int) -> nn.Module:
        """A network of the protector's own, from its name."""
        name, options = parse_network(text)
        spec = NetworkSpec(name, self.clean.channels, self.clean.image_size, self.clean.classes, options)
        return build_network(spec, *normalisation_of(self.clean.images), seed=seed_for(self.seed, purpose, number))

    def _checkpoint(self, step: int, runs: Sequence[LiveRun]) -> None:
        if self.workdir is None:
            return
        state = {
            "step": step,
            "generator": self.generator.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "runs": [run.state() for run in runs],
            "rng": self.rng.get_state(),
            "log": self.log,
        }
        save_checkpoint(self.workdir / CHECKPOINT, state)

    def _resume(self, runs: Sequence[LiveRun]) -> int:
        file = self.workdir / CHECKPOINT if self.workdir else None
        if file is None or not file.exists():
            return 0
        state = load_checkpoint(file)
        self.generator.load_state_dict(state["generator"])
        self.optimiser.load_state_dict(state["optimiser"])
        for run, saved in zip(runs, state["runs"], strict=True):
            run.load(saved)
        self.rng.set_state(state["rng"])
        self.log = state["log"]
        return int(state["step"])
