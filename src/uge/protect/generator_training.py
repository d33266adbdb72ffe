"""What the protections that train a generator share: the run over the data, and going on from its checkpoints."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, Unpack

import torch
from torch import Tensor, nn

from uge.data.images import ImageSet, normalisation_of
from uge.errors import PublishError
from uge.networks import NetworkSpec, build_network, parse_network
from uge.protect.generator import Generator
from uge.protect.protection import OnStep, Protection, RunOptions, Settings, Telling, preparing
from uge.protect.trajectory import LiveRun
from uge.runtime import generator_for, repeatable, seed_for

Advance = tuple[LiveRun, tuple[Tensor, ...]]  # a network beside the generator, and the gradients of its next step


class GeneratorSettings(Settings, Protocol):
    """Those that the run itself reads."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def generator_width(self) -> int: ...
    @property
    def generator_patch(self) -> int: ...
    @property
    def label_conditional(self) -> bool: ...


class Beside(Protocol):
    """What a run keeps beside the generator, until it ends."""

    @property
    def runs(self) -> Sequence[LiveRun]:
        """The networks in training: checkpoints hold them."""


B = TypeVar("B", bound=Beside)
G = TypeVar("G", bound=GeneratorSettings)


@dataclass(frozen=True)
class Step:
    """One batch: what the generator is to lower, how the networks beside it go on, and the terms of the log row."""

    loss: Tensor
    advances: Sequence[Advance]
    terms: dict[str, float | None]


class GeneratorTraining(Protection[G], Generic[G, B]):
    """Trains a generator for one data set. Subclasses say what a step is.

    Args:
        clean: the originals.
        config: settings of the subclass.
        streams: names of the random streams: of the generator's first weights, and of all draws of the training.
        epsilon_255: L_inf bound of the generator, in 8-bit steps.
        class_patterns: side of the learnt tile of each class, as for `Generator`.
        run: as for `Protection`.
    """

    def __init__(
        self,
        clean: ImageSet,
        config: G,
        *,
        streams: tuple[str, str],
        epsilon_255: int,
        class_patterns: int = 0,
        **run: Unpack[RunOptions],
    ) -> None:
        super().__init__(clean, config, **run)
        self.streams = streams
        self._bound, self._patterns = epsilon_255, class_patterns
        self.batch_size = min(config.batch_size, len(clean))
        self.epoch_steps = len(clean) // self.batch_size
        self.total_steps = self.epoch_steps * config.epochs
        self._start()

    @abstractmethod
    def _begin(self, telling: Telling) -> B:
        """What a run keeps beside the generator, at its start; tells of the networks that are trained for it."""

    @abstractmethod
    def _step(self, step: int, pick: Tensor, beside: B, rng: torch.Generator) -> Step:
        """The losses on the images numbered `pick`; draws come from `rng` alone."""

    @repeatable()
    def train(self, on_step: OnStep | None = None) -> None:
        self.claim()
        self._start()
        beside = self._begin(lambda what: preparing(what, self.total_steps, on_step))
        rng = generator_for(self.seed, self.streams[1])
        optimiser = torch.optim.Adam(self.generator.parameters(), lr=self.config.learning_rate, betas=(0.5, 0.99))
        step = self._resume(optimiser, beside, rng)
        saved = time.perf_counter()
        started = saved - (self.log[-1]["seconds"] if self.log else 0.0)
        while step < self.total_steps:
            order = torch.randperm(
                len(self.clean), generator=generator_for(self.seed, "order", step // self.epoch_steps)
            )
            pick = order[(step % self.epoch_steps) * self.batch_size :][: self.batch_size]
            for group in optimiser.param_groups:
                group["lr"] = self.config.learning_rate * min(1.0, 1.02 * (1 - step / self.total_steps))
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
        self.log = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, self.streams[0]))
            generator = Generator(
                self.clean.channels,
                self.clean.classes,
                self._bound,
                self.config.generator_width,
                self.config.generator_patch,
                self.config.label_conditional,
                self._patterns,
            )
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
        if self.workdir is None:  # the states of the runs are copies
            return
        self.save(
            {
                "step": step,
                "generator": self.generator.state_dict(),
                "optimiser": optimiser.state_dict(),
                "runs": [run.state() for run in beside.runs],
                "rng": rng.get_state(),
                "log": self.log,
            }
        )

    def _resume(self, optimiser: torch.optim.Optimizer, beside: B, rng: torch.Generator) -> int:
        state = self.saved()
        if state is None:
            return 0
        if "runs" not in state:
            file, folder = self.checkpoint_file, self.workdir
            raise PublishError(f"{file} is of another version of this program; delete {folder} and start again")
        self.generator.load_state_dict(state["generator"])
        optimiser.load_state_dict(state["optimiser"])
        for run, saved in zip(beside.runs, state["runs"], strict=True):
            run.load(saved)
        rng.set_state(state["rng"])
        self.log = state["log"]
        return int(state["step"])
