"""Ungeneralizable examples (UGE): Ye & Wang, CVPR 2024, arXiv 2404.14016.

A generator G makes x_u = clip(x + delta), |delta|_inf <= epsilon, and is trained on

    w_gm L_gm + w_fd L_fd + w_ud L_ud

with gradient matching along the authorised network's training (learnable for the authorised), distance in a common
feature space (unlearnable for hackers) and undistillation (distilling the authorised model through the copy fails).
The exact forms are ours; see the modules of `uge.losses`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.data.images import ImageSet, to_float, to_uint8
from uge.encoders import build_encoder, features_of
from uge.errors import ConfigError, unknown_name
from uge.filters import Filter, parse_filter
from uge.keys.key import Key
from uge.losses.feature_distance import class_prototypes, feature_distance, misalignment
from uge.losses.gradient_matching import gradient_matching
from uge.losses.undistillation import distillation, undistillation
from uge.networks import parse_network, trainable
from uge.protect.generator import Generator
from uge.protect.trajectory import LiveRun
from uge.protection import OnStep, Protection, RunOptions, Settings, Telling, preparing
from uge.runtime import generator_for, repeatable, seed_for
from uge.training import Recipe, Shift, State, recorded, snapshot

FEATURE_OBJECTIVES = ("distance", "misalignment")
TERMS = ("gradient_matching", "gradient_magnitude", "feature_distance", "undistillation")
Advance = tuple[LiveRun, Sequence[Tensor]]  # a network beside the generator, and the gradients of its next step


@dataclass(frozen=True)
class UngeneralizableConfig(Settings):
    """Settings of UGE; a weight of zero switches its term off and saves its cost.

    The defaults are those that the leaderboard was measured with.

    Attributes:
        epsilon_255: L_inf bound in 8-bit steps.
        gradient_matching: weight of L_gm (its direction term).
        gradient_magnitude: weight of L_gm's magnitude term, relative to its direction term.
        feature_distance: weight of L_fd.
        undistillation: weight of L_ud.
        feature_objective: "distance" (UGE) or "misalignment" (pull to the next class's prototype).
        encoder: the common feature space, an entry of `ENCODERS`.
        feature_images: images of each batch that go through the encoder.
        filters: of `uge.filters`, drawn at random before L_fd and L_ud: what may happen to a copy before others see
            it. The authorised network sees copies as they are.
        students: networks that are distilled during training, in turn, for L_ud.
        temperature: of the distillation inside L_ud.
        epochs: passes of the generator over the data.
        batch_size: images a step.
        warm_up: share of the steps over which the weight of L_gm rises from zero. At delta = 0 both L_gm and L_fd have
            zero gradient, and L_gm alone pulls there: without a warm-up the generator never leaves it.
        learning_rate: of the generator (Adam, falling linearly to zero).
        generator_width: filters of the generator's first level.
        generator_patch: side of the cells it works on, in pixels.
        label_conditional: whether a perturbation may depend on the label and not on the image alone. Without it the
            distance term changed the copies, but hackers learnt from them all the same (docs/method.md).
        clean_checkpoints: states kept of the clean run.
        clean_share: share of steps that match at a clean checkpoint, the others at on-policy weights.
        live_runs: authorised networks in training on the copy, at evenly spread phases.
        run_epochs: length of these runs and of the clean run, in epochs; 0 takes the key's recipe.
    """

    epsilon_255: int = 32
    gradient_matching: float = 10.0
    gradient_magnitude: float = 0.1
    feature_distance: float = 0.3
    undistillation: float = 0.1
    feature_objective: str = "distance"
    encoder: str = "efficientnet-lite0"
    feature_images: int = 24
    filters: tuple[str, ...] = ("none",)
    students: tuple[str, ...] = ("vgg:depth=8,width=16", "convnet:width=32")
    temperature: float = 4.0
    epochs: int = 12
    batch_size: int = 128
    warm_up: float = 0.2
    learning_rate: float = 2e-3
    generator_width: int = 32
    generator_patch: int = 2
    label_conditional: bool = True
    clean_checkpoints: int = 10
    clean_share: float = 0.25
    live_runs: int = 2
    run_epochs: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feature_objective not in FEATURE_OBJECTIVES:
            raise unknown_name("feature objective", self.feature_objective, FEATURE_OBJECTIVES)
        if self.generator_width < 4 or self.generator_width % 4:
            raise ConfigError(f"generator_width must be a multiple of 4, got {self.generator_width}")
        if self.gradient_matching == self.feature_distance == self.undistillation == 0:
            raise ConfigError("all three losses are switched off: nothing would be learnt")
        if self.undistillation and not self.students:
            raise ConfigError("undistillation needs at least one student network")
        if not self.filters:
            raise ConfigError("filters is empty; give none for no filter")
        for text in self.students:
            parse_network(text)
        for text in self.filters:
            parse_filter(text)


@dataclass(frozen=True)
class _Beside:
    """What runs beside the generator; a list holds nothing where no term needs it.

    Attributes:
        encoder: the common feature space of L_fd.
        feature_mean: of the originals, [D].
        prototypes: mean feature of each class, [K, D].
        clean_runs: for each key, states of its network's clean run.
        lives: for each key, its network in training on the copy.
        students: in training on the teachers' answers.
        teachers: for each key, its network as trained on the originals.
    """

    encoder: nn.Module | None
    feature_mean: Tensor
    prototypes: Tensor
    clean_runs: list[list[State]]
    lives: list[list[LiveRun]]
    students: list[LiveRun]
    teachers: list[nn.Module]

    @property
    def runs(self) -> list[LiveRun]:
        return [run for runs in self.lives for run in runs] + self.students


class _Step:
    """One batch, and what its terms add up to.

    Args:
        number: of the step, from 0.
        x: originals float32 [B, C, H, W] in [0, 1].
        x_u: copies, with gradients.
        y: labels int64 [B].
        shift: the augmentation of all networks in training.
    """

    def __init__(self, number: int, x: Tensor, x_u: Tensor, y: Tensor, shift: Shift) -> None:
        self.number, self.x, self.x_u, self.y, self.shift = number, x, x_u, y, shift
        self.loss = x.new_zeros(())
        self.terms: dict[str, float | None] = dict.fromkeys(TERMS)
        self.advances: list[Advance] = []

    def shifted(self, images: Tensor) -> Tensor:
        return self.shift(images).contiguous(memory_format=torch.channels_last)


class UngeneralizableProtection(Protection[UngeneralizableConfig]):
    """The paper's method: a generator learns for one data set and its authorised networks, then makes the copy.

    L_gm is summed over the authorised networks, which are the keys.
    """

    takes: ClassVar[str] = "initial-weights"
    Config = UngeneralizableConfig

    def __init__(
        self, clean: ImageSet, keys: Sequence[Key], config: UngeneralizableConfig, **run: Unpack[RunOptions]
    ) -> None:
        super().__init__(clean, keys, config, **run)
        self.filters = [parse_filter(text) for text in config.filters]
        self.batch_size = min(config.batch_size, len(clean))
        self.epoch_steps = len(clean) // self.batch_size
        self.total_steps = self.epoch_steps * config.epochs
        self.generator = self._new_generator()

    @repeatable()
    def train(self, on_step: OnStep | None = None) -> None:
        """Train the generator, going on from the work folder where it holds an unfinished run."""
        self.generator = self._new_generator()
        beside = self._begin(lambda what: preparing(what, self.total_steps, on_step))
        rng = generator_for(self.seed, "generator training")
        optimiser = torch.optim.Adam(self.generator.parameters(), lr=self.config.learning_rate, betas=(0.5, 0.99))
        if (state := self.resumed()) is not None:
            self.generator.load_state_dict(state["generator"])
            optimiser.load_state_dict(state["optimiser"])
            for run, saved in zip(beside.runs, state["runs"], strict=True):
                run.load(saved)
            rng.set_state(state["rng"])

        def step(number: int) -> dict[str, Any]:
            for group in optimiser.param_groups:
                group["lr"] = self.config.learning_rate * min(1.0, 1.02 * (1 - number / self.total_steps))
            done = self._step(number, beside, rng)
            self._learn(done, optimiser)
            return {"epoch": number // self.epoch_steps + 1, "loss": float(done.loss.detach()), **done.terms}

        def kept() -> dict[str, Any]:
            return {
                "generator": self.generator.state_dict(),
                "optimiser": optimiser.state_dict(),
                "runs": [run.state() for run in beside.runs],
                "rng": rng.get_state(),
            }

        self.take_steps(self.total_steps, step, kept, on_step)

    @torch.no_grad()
    def copied(self, numbers: range) -> Tensor:
        self.generator.eval()
        return to_uint8(self.generator(*self._batch(torch.arange(numbers.start, numbers.stop)))).cpu()

    def _new_generator(self) -> Generator:
        """One that has learnt nothing."""
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, "generator"))
            generator = Generator(
                self.clean.channels,
                self.clean.classes,
                config.epsilon_255,
                config.generator_width,
                config.generator_patch,
                config.label_conditional,
            )
        return generator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's annotations

    def _batch(self, pick: Tensor) -> tuple[Tensor, Tensor]:
        """x float32 [B, C, H, W] in [0, 1] and labels int64 [B] of the images numbered `pick`, on the device."""
        x = to_float(self.clean.images[pick].to(self.device)).contiguous(memory_format=torch.channels_last)
        return x, self.clean.labels[pick].to(self.device)

    # -- one step --------------------------------------------------------------------------------------------------

    def _step(self, number: int, beside: _Beside, rng: torch.Generator) -> _Step:
        epoch, place = divmod(number, self.epoch_steps)
        order = torch.randperm(len(self.clean), generator=generator_for(self.seed, "order", epoch))
        x, y = self._batch(order[place * self.batch_size :][: self.batch_size])
        step = _Step(number, x, self.generator(x, y), y, Shift.draw(len(x), self.clean.image_size, rng))
        through = self.filters[0]
        if len(self.filters) > 1:
            through = self.filters[int(torch.randint(len(self.filters), (), generator=rng))]
        if beside.lives:
            self._match(step, beside, rng)
        if beside.encoder is not None:
            self._part_features(step, through, beside.encoder, beside)
        if beside.students:
            self._mislead(step, through(step.x_u), beside)
        return step

    def _match(self, step: _Step, beside: _Beside, rng: torch.Generator) -> None:
        """L_gm, at the weights of a live run or of a clean checkpoint."""
        config = self.config
        at_clean = bool(torch.rand((), generator=rng) < config.clean_share)
        direction = magnitude = step.x.new_zeros(())
        x, x_u = step.shifted(step.x), step.shifted(step.x_u)
        for runs, states in zip(beside.lives, beside.clean_runs, strict=True):
            live = runs[step.number % len(runs)]
            network = live.network
            if at_clean:
                network = copy.deepcopy(network)  # the live run keeps its own weights
                network.load_state_dict(states[int(torch.randint(len(states), (), generator=rng))])
            parameters = list(trainable(network).values())
            wanted = torch.autograd.grad(F.cross_entropy(network(x), step.y), parameters)
            got = torch.autograd.grad(F.cross_entropy(network(x_u), step.y), parameters, create_graph=True)
            matched = gradient_matching(wanted, got)
            direction, magnitude = direction + matched.direction, magnitude + matched.magnitude
            if not at_clean:
                step.advances.append((live, got))
        ramp = min(1.0, (step.number + 1) / max(1.0, config.warm_up * self.total_steps))
        step.loss = step.loss + ramp * config.gradient_matching * (direction + config.gradient_magnitude * magnitude)
        step.terms["gradient_matching"] = float(direction.detach()) / len(beside.lives)
        step.terms["gradient_magnitude"] = float(magnitude.detach()) / len(beside.lives)

    def _part_features(self, step: _Step, through: Filter, encoder: nn.Module, beside: _Beside) -> None:
        """L_fd, on the first images of the batch."""
        count = self.config.feature_images
        features_u = encoder(through(step.x_u[:count]))
        if self.config.feature_objective == "distance":
            with torch.no_grad():
                features = encoder(through(step.x[:count]))
            distance = feature_distance(features, features_u, beside.feature_mean)
        else:
            distance = misalignment(features_u, step.y[:count], beside.prototypes, beside.feature_mean)
        step.loss = step.loss + self.config.feature_distance * distance
        step.terms["feature_distance"] = float(distance.detach())

    def _mislead(self, step: _Step, filtered: Tensor, beside: _Beside) -> None:
        """L_ud, for one student and one teacher."""
        student = beside.students[step.number % len(beside.students)]
        with torch.no_grad():
            answer = beside.teachers[step.number % len(beside.teachers)](step.shifted(step.x_u))
        guess = student.network(step.shifted(filtered))
        pushed = undistillation(answer, guess, self.config.temperature)
        step.loss = step.loss + self.config.undistillation * pushed
        step.terms["undistillation"] = float(pushed.detach())
        loss = distillation(answer, guess, self.config.temperature)
        step.advances.append((student, torch.autograd.grad(loss, student.parameters, retain_graph=True)))

    def _learn(self, step: _Step, optimiser: torch.optim.Optimizer) -> None:
        parameters = list(self.generator.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(step.loss, parameters), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        for run, gradients in step.advances:
            run.advance(gradients)

    # -- what runs beside the generator ----------------------------------------------------------------------------

    def _begin(self, telling: Telling) -> _Beside:
        config = self.config
        encoder, mean, prototypes = None, torch.zeros(1), torch.zeros(1, 1)
        if config.feature_distance:
            encoder = build_encoder(config.encoder, self.clean, seed=self.seed, device=self.device)
            mean, prototypes = self.kept("features", lambda: self._feature_statistics(encoder))
        networks = [key.module(self.clean, "", 0) for key in self.keys]
        clean_runs: list[list[State]] = []
        if config.gradient_matching or config.undistillation:
            clean_runs = [self._clean_run(number, telling) for number in range(len(self.keys))]
        students, teachers = [], []
        if config.undistillation:
            fresh = (self.network(text, "student", number) for number, text in enumerate(config.students))
            students = [self._live_run(self.keys[0], network) for network in fresh]
            for network, states in zip(copy.deepcopy(networks), clean_runs, strict=True):
                network.load_state_dict(states[-1])
                teachers.append(network.eval().requires_grad_(False).to(self.device))
        lives = []
        if config.gradient_matching:
            lives = [self._live_runs(*each) for each in zip(self.keys, networks, clean_runs, strict=True)]
        mean, prototypes = mean.to(self.device), prototypes.to(self.device)
        return _Beside(encoder, mean, prototypes, clean_runs, lives, students, teachers)

    def _recipe(self, key: Key) -> Recipe:
        recipe = key.recipe("", 0)
        return replace(recipe, epochs=self.config.run_epochs or recipe.epochs)

    @torch.no_grad()
    def _feature_statistics(self, encoder: nn.Module) -> tuple[Tensor, Tensor]:
        """Mean feature [D] and class prototypes [K, D] over at most 5,000 originals, balanced over classes."""
        sample = self.clean.take(min(5000, len(self.clean)), generator_for(self.seed, "feature statistics"))
        features = features_of(encoder, sample.images, device=self.device)
        return features.mean(0), class_prototypes(features, sample.labels, self.clean.classes)

    def _clean_run(self, number: int, telling: Telling) -> list[State]:
        """Weights of the network of the key of this number, evenly over a training on the originals.

        `clean_checkpoints + 1` states, fewer where there are fewer epochs: first the initial weights, last the trained.
        """
        key, count = self.keys[number], self.config.clean_checkpoints

        def states() -> list[State]:
            network, recipe = key.module(self.clean, "", 0), self._recipe(key)
            seed = seed_for(self.seed, "clean run", number)
            epochs = {-(-part * recipe.epochs // count) for part in range(1, count + 1)}
            first, told = snapshot(network), telling("clean run of the authorised network")
            return [first, *recorded(network, self.clean, recipe, epochs, seed=seed, device=self.device, on_epoch=told)]

        return self.kept(f"clean-run-{number}", states)

    def _live_runs(self, key: Key, network: nn.Module, states: list[State]) -> list[LiveRun]:
        """`live_runs` networks at evenly spread phases of a run, taken from the clean run."""
        runs = []
        for number in range(self.config.live_runs):
            run, phase = self._live_run(key, network), number / self.config.live_runs
            run.restart(states[round(phase * (len(states) - 1))], round(phase * run.run_steps))
            runs.append(run)
        return runs

    def _live_run(self, key: Key, network: nn.Module) -> LiveRun:
        """A network that is trained on the copy by the key's recipe."""
        recipe = self._recipe(key)
        steps = recipe.epochs * len(self.clean) // min(recipe.batch_size, len(self.clean))
        return LiveRun(network, recipe, max(1, steps), self.device)
