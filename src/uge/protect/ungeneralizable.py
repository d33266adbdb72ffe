"""Ungeneralizable examples (UGE): Ye & Wang, CVPR 2024, arXiv 2404.14016.

A generator G makes x_u = clip(x + delta), |delta|_inf <= epsilon, and is trained on

    w_gm L_gm + w_fd L_fd + w_ud L_ud

with gradient matching along the authorised network's training (learnable for the authorised), distance in a common
feature space (unlearnable for hackers) and undistillation (distilling the authorised model through the copy fails).
The exact forms are ours; see the modules of `uge.losses`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.data.images import ImageSet, to_float, to_uint8
from uge.encoders import build_encoder, features_of
from uge.errors import ConfigError
from uge.keys.key import Key
from uge.losses.feature_distance import class_prototypes, feature_distance, misalignment
from uge.losses.gradient_matching import gradient_matching
from uge.losses.undistillation import distillation, undistillation
from uge.networks import parse_network, trainable
from uge.protect.checkpoint import load_checkpoint, save_checkpoint
from uge.protect.expectation import drawn, needs_probe, parse_measures
from uge.protect.generator_training import Advance, GeneratorTraining, Step
from uge.protect.protection import RunOptions, Telling
from uge.protect.trajectory import LiveRun, record_clean_run
from uge.runtime import generator_for, seed_for
from uge.training import Recipe, Shift

FEATURE_OBJECTIVES = ("distance", "misalignment")


@dataclass(frozen=True)
class UngeneralizableConfig:
    """Settings of UGE; a weight of zero switches its term off and saves its cost.

    The defaults are the setting whose tables are in the README, and L_ud besides.

    Attributes:
        epsilon_255: L_inf bound in 8-bit steps.
        gradient_matching: weight of L_gm (its direction term).
        gradient_magnitude: weight of L_gm's magnitude term, relative to its direction term.
        feature_distance: weight of L_fd.
        undistillation: weight of L_ud.
        feature_objective: "distance" (UGE) or "misalignment" (pull to the next class's prototype).
        encoder: the common feature space, an entry of `ENCODERS`.
        feature_images: images of each batch that go through the encoder.
        filters: what may happen to a copy before others see it, drawn at random for L_fd and L_ud, as for keys with a
            view (`KeyedConfig`); the authorised network sees copies as they are.
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
        if not 1 <= self.epsilon_255 <= 128:
            raise ConfigError(f"epsilon {self.epsilon_255} is outside 1..128 (8-bit steps)")
        if self.feature_objective not in FEATURE_OBJECTIVES:
            raise ConfigError(
                f"unknown feature objective '{self.feature_objective}'; choose from: {', '.join(FEATURE_OBJECTIVES)}"
            )
        self._check_numbers()
        if self.gradient_matching == self.feature_distance == self.undistillation == 0:
            raise ConfigError("all three losses are switched off: nothing would be learnt")
        if self.undistillation and not self.students:
            raise ConfigError("undistillation needs at least one student network")
        for student in self.students:
            parse_network(student)
        parse_measures(self.filters)
        if needs_probe(self.filters):
            raise ConfigError("filters: UGE has no linear probe beside it, so it cannot expect projection")

    def _check_numbers(self) -> None:
        for name in ("feature_images", "epochs", "batch_size", "clean_checkpoints", "live_runs", "generator_patch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        weights = ("gradient_matching", "gradient_magnitude", "feature_distance", "undistillation")
        for name in (*weights, "run_epochs"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("warm_up", "clean_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a share from 0 to 1, got {getattr(self, name)}")
        for name in ("temperature", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if self.generator_width < 4 or self.generator_width % 4:
            raise ConfigError(f"generator_width must be a multiple of 4, got {self.generator_width}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {name: list(getattr(self, name)) for name in ("students", "filters")}


PRESETS: dict[str, UngeneralizableConfig] = {
    "quick": UngeneralizableConfig(  # too short for the distance term: misalignment shows in minutes
        epsilon_255=16,
        gradient_matching=1.0,
        feature_objective="misalignment",
        encoder="own",
        feature_images=32,
        epochs=10,
        generator_width=16,
        run_epochs=8,
        clean_checkpoints=8,
    ),
    "default": UngeneralizableConfig(),
    "strong": UngeneralizableConfig(epochs=80, generator_width=48, live_runs=4, feature_images=64),
}


@dataclass
class _Prepared:
    """What is computed once before the generator learns; kept on disk, so that a resumed run does not repeat it."""

    encoder: nn.Module | None
    feature_mean: Tensor
    prototypes: Tensor
    clean_runs: list[list[dict[str, Tensor]]] = field(default_factory=list)


@dataclass(frozen=True)
class _Beside:
    """What runs beside the generator: authorised networks and students in training, teachers that have learnt."""

    prepared: _Prepared
    lives: list[list[LiveRun]]
    students: list[LiveRun]
    teachers: list[nn.Module]

    @property
    def runs(self) -> list[LiveRun]:
        return [run for runs in self.lives for run in runs] + self.students


class UngeneralizableProtection(GeneratorTraining[UngeneralizableConfig, _Beside]):
    """Trains the generator for one data set and its authorised networks, then makes the copy.

    Args:
        clean: the originals.
        keys: the authorised networks; L_gm is summed over them.
        config: settings.
        run: as for `Protection`.
    """

    def __init__(
        self, clean: ImageSet, keys: Sequence[Key], config: UngeneralizableConfig, **run: Unpack[RunOptions]
    ) -> None:
        if not keys:
            raise ConfigError("UGE needs at least one key: the authorised network defines what stays learnable")
        for key in keys:
            key.check_fits(clean)
            if key.view is not None:
                kind = key.view.kind
                raise ConfigError(f"a {kind} key protects with the method {kind}; UGE takes keys without a view")
        self.keys = list(keys)
        self.filters = parse_measures(config.filters)
        streams = ("generator", "generator training")
        super().__init__(clean, config, streams=streams, epsilon_255=config.epsilon_255, **run)

    def _begin(self, telling: Telling) -> _Beside:
        prepared = self._prepare(telling)
        students = self._start_students()
        teachers = self._trained_networks(prepared) if students else []
        return _Beside(prepared, self._start_live_runs(prepared), students, teachers)

    @torch.no_grad()
    def copies(self, batch_size: int = 250) -> Iterator[Tensor]:
        """The protected copies in order, uint8 [B, C, H, W] batch by batch, so that no second data set is held."""
        self.generator.eval()
        parts = zip(self.clean.images.split(batch_size), self.clean.labels.split(batch_size), strict=True)
        for images, labels in parts:
            x = to_float(images.to(self.device)).contiguous(memory_format=torch.channels_last)
            yield to_uint8(self.generator(x, labels.to(self.device))).cpu().contiguous()

    # -- one step ------------------------------------------------------------------------------------------------

    def _step(self, step: int, pick: Tensor, beside: _Beside, rng: torch.Generator) -> Step:
        config, prepared, lives, students = self.config, beside.prepared, beside.lives, beside.students
        x = to_float(self.clean.images[pick].to(self.device)).contiguous(memory_format=torch.channels_last)
        y = self.clean.labels[pick].to(self.device)
        x_u = self.generator(x, y)
        shift = Shift.draw(len(x), self.clean.image_size, rng)
        x_shifted, x_u_shifted = (shift(image).contiguous(memory_format=torch.channels_last) for image in (x, x_u))
        through = drawn(self.filters, rng) if len(self.filters) > 1 else self.filters[0]

        def behind(images: Tensor) -> Tensor:
            """What the filter leaves, with the same draws for originals and copies."""
            return through(images, generator_for(self.seed, "filter", step), None)

        total = x.new_zeros(())
        terms: dict[str, float | None] = dict.fromkeys(
            ("gradient_matching", "gradient_magnitude", "feature_distance", "undistillation")
        )
        advances: list[Advance] = []

        if config.gradient_matching:
            at_clean = bool(torch.rand((), generator=rng) < config.clean_share)
            direction = magnitude = x.new_zeros(())
            for runs, states in zip(lives, prepared.clean_runs, strict=True):
                live = runs[step % len(runs)]
                network = live.network
                if at_clean:
                    network = copy.deepcopy(network)  # the live run keeps its own weights
                    network.load_state_dict(states[int(torch.randint(len(states), (), generator=rng))])
                parameters = list(trainable(network).values())
                wanted = torch.autograd.grad(F.cross_entropy(network(x_shifted), y), parameters)
                got = torch.autograd.grad(F.cross_entropy(network(x_u_shifted), y), parameters, create_graph=True)
                matched = gradient_matching(wanted, got)
                direction, magnitude = direction + matched.direction, magnitude + matched.magnitude
                if not at_clean:
                    advances.append((live, got))
            ramp = min(1.0, (step + 1) / max(1.0, config.warm_up * self.total_steps))
            total = total + ramp * config.gradient_matching * (direction + config.gradient_magnitude * magnitude)
            terms["gradient_matching"] = float(direction.detach()) / len(lives)
            terms["gradient_magnitude"] = float(magnitude.detach()) / len(lives)

        if config.feature_distance and prepared.encoder is not None:
            count = min(config.feature_images, len(x))
            features_u = prepared.encoder(behind(x_u[:count]))
            if config.feature_objective == "distance":
                with torch.no_grad():
                    features = prepared.encoder(behind(x[:count]))
                distance = feature_distance(features, features_u, prepared.feature_mean)
            else:
                distance = misalignment(features_u, y[:count], prepared.prototypes, prepared.feature_mean)
            total = total + config.feature_distance * distance
            terms["feature_distance"] = float(distance.detach())

        if students:
            student = students[step % len(students)]
            with torch.no_grad():
                answer = beside.teachers[step % len(beside.teachers)](x_u_shifted)
            filtered = behind(x_u)
            seen = x_u_shifted if filtered is x_u else shift(filtered).contiguous(memory_format=torch.channels_last)
            guess = student.network(seen)
            pushed = undistillation(answer, guess, config.temperature)
            total = total + config.undistillation * pushed
            terms["undistillation"] = float(pushed.detach())
            loss = distillation(answer, guess, config.temperature)
            advances.append((student, torch.autograd.grad(loss, student.parameters, retain_graph=True)))

        return Step(total, advances, terms)

    # -- what runs beside the generator ----------------------------------------------------------------------------

    def _recipe(self, key: Key) -> Recipe:
        return replace(key.recipe, epochs=self.config.run_epochs or key.recipe.epochs)

    def _run_steps(self, recipe: Recipe) -> int:
        return max(1, recipe.epochs * len(self.clean) // min(recipe.batch_size, len(self.clean)))

    def _prepare(self, telling: Telling) -> _Prepared:
        config = self.config
        file = self.workdir / "prepared.pt" if self.workdir else None
        needs_runs = bool(config.gradient_matching or config.undistillation)
        saved = load_checkpoint(file) if file and file.exists() else None
        encoder = None
        mean, prototypes = torch.zeros(1), torch.zeros(1, 1)
        if config.feature_distance:
            encoder = build_encoder(config.encoder, self.clean, seed=self.seed, device=self.device)
            if saved:
                mean, prototypes = saved["mean"], saved["prototypes"]
            else:
                mean, prototypes = self._feature_statistics(encoder)
        runs = saved["runs"] if saved else []
        if not saved and needs_runs:
            runs = [
                record_clean_run(
                    key,
                    self.clean,
                    self._recipe(key),
                    config.clean_checkpoints,
                    seed=seed_for(self.seed, "clean run", number),
                    device=self.device,
                    on_epoch=telling("clean run of the authorised network"),
                )
                for number, key in enumerate(self.keys)
            ]
        if file and not saved:
            save_checkpoint(file, {"mean": mean, "prototypes": prototypes, "runs": runs})
        return _Prepared(encoder, mean.to(self.device), prototypes.to(self.device), runs)

    @torch.no_grad()
    def _feature_statistics(self, encoder: nn.Module, most: int = 5000) -> tuple[Tensor, Tensor]:
        """Mean feature [D] and class prototypes [K, D] over at most `most` originals, balanced over classes."""
        sample = self.clean.take(min(most, len(self.clean)), generator_for(self.seed, "feature statistics"))
        features = features_of(encoder, sample.images, device=self.device)
        return features.mean(0), class_prototypes(features, sample.labels, self.clean.classes)

    def _start_live_runs(self, prepared: _Prepared) -> list[list[LiveRun]]:
        """For each key, `live_runs` networks at evenly spread phases of a run, taken from the clean run."""
        if not self.config.gradient_matching:
            return []
        lives = []
        for key, states in zip(self.keys, prepared.clean_runs, strict=True):
            recipe = self._recipe(key)
            steps = self._run_steps(recipe)
            runs = []
            for number in range(self.config.live_runs):
                run = LiveRun(key.network_module(), recipe, steps, self.device)
                phase = number / self.config.live_runs
                run.restart(states[round(phase * (len(states) - 1))], round(phase * steps))
                runs.append(run)
            lives.append(runs)
        return lives

    def _start_students(self) -> list[LiveRun]:
        if not self.config.undistillation:
            return []
        recipe = self._recipe(self.keys[0])
        students = []
        for number, text in enumerate(self.config.students):
            network = self._network(text, "student", number)
            students.append(LiveRun(network, recipe, self._run_steps(recipe), self.device))
        return students

    def _trained_networks(self, prepared: _Prepared) -> list[nn.Module]:
        """Each authorised network as trained on the originals, in eval mode."""
        teachers = []
        for key, states in zip(self.keys, prepared.clean_runs, strict=True):
            network = key.network_module()
            network.load_state_dict(states[-1])
            teachers.append(network.eval().requires_grad_(False).to(self.device))
        return teachers

    def named(self) -> dict[str, Any]:
        return {"keys": [key.digest() for key in self.keys]}
