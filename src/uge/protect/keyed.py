"""What protections behind a keyed view share: a generator that teaches everybody else a shortcut.

Whatever a generator proposes, the view of the authorised network is that of the original, so L_gm = 0 at every weight
and no term for it is needed. d = G(x, y) is trained on the shortcut loss of online surrogates, under filters drawn at
random (expectation over counter-measures), and on L_fd; the key's kind decides how a copy follows d.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Generic, Self, TypeVar, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.data.images import ImageSet, ImageView, to_float
from uge.encoders import build_encoder, features_of
from uge.errors import ConfigError
from uge.keys.keyed_view import NONCE_BYTES, KeyedView, channels_equal, with_headroom
from uge.losses.feature_distance import feature_distance
from uge.losses.misdirection import misdirection
from uge.losses.shortcut import shortcut
from uge.losses.undistillation import distillation
from uge.networks import parse_network
from uge.protect.checkpoint import load_checkpoint, save_checkpoint
from uge.protect.expectation import PROBE_RECIPE, Expected, drawn, linear_probe, needs_probe, parse_measures
from uge.protect.generator_training import Advance, GeneratorTraining, Step
from uge.protect.protection import RunOptions, Telling
from uge.protect.trajectory import LiveRun
from uge.runtime import generator_for, seed_for
from uge.training import OnEpoch, Shift, fit, logits_of, recommended_recipe

V = TypeVar("V", bound=KeyedView)
K = TypeVar("K")

TERMS = ("shortcut", "feature_distance", "misdirection", "undistillation")  # of the loss, each with a weight


@dataclass(frozen=True)
class KeyedConfig:
    """Settings of a protection behind a keyed view; a weight of zero switches its term off and saves its cost.

    Attributes:
        epsilon_255: L_inf bound in 8-bit steps.
        headroom: whether originals are first mapped onto epsilon..255-epsilon, so that every value can move.
        gain: how steeply the perturbation follows the proposal.
        shortcut: weight of the shortcut loss of online surrogates.
        feature_distance: weight of L_fd.
        misdirection: weight of the loss that leads networks which know the originals to take every copy for one of
            the next class.
        references: those networks, as the protector trains them for himself, under the filters.
        undistillation: weight of the shortcut to a teacher's answers, the L_ud of keyed views: students of a network
            trained on the originals' views are led by the perturbation, and away from the picture.
        teacher: that network, as the protector trains it for himself.
        temperature: of the distillation inside L_ud.
        encoder: the common feature space of L_fd, an entry of `ENCODERS`.
        feature_images: images of each batch that go through the encoder.
        surrogates: hackers in training beside the generator, in turn; for L_ud as many students are.
        run_epochs: length of a surrogate's run, in epochs; then it begins again.
        filters: what happens to a batch before a surrogate sees it, drawn at random: filters of `uge.filters`, and
            jitter and projection (`uge.protect.expectation`); repeat a name to weigh it, join names with "+" to have
            one after the other.
        epochs: passes of the generator over the data.
        batch_size: images a step.
        learning_rate: of the generator (Adam, falling linearly to zero).
        generator_width: filters of the generator's first level.
        generator_patch: side of the cells it works on, in pixels.
        label_conditional: whether a proposal may depend on the label and not on the image alone.
        class_patterns: side of the learnt tile of each class that proposals start from; 1 is a tint, 0 for none.
    """

    epsilon_255: int = 8
    headroom: bool = False
    gain: float = 2.0
    shortcut: float = 1.0
    feature_distance: float = 0.0
    misdirection: float = 0.0
    references: tuple[str, ...] = ("vgg:depth=8,width=16", "convnet:width=32", "mlp:width=128", "mlp:width=256")
    undistillation: float = 0.0
    teacher: str = "convnet:width=32"
    temperature: float = 4.0
    encoder: str = "efficientnet-lite0"
    feature_images: int = 32
    surrogates: tuple[str, ...] = ("vgg:depth=8,width=16", "convnet:width=32", "mlp:width=128")
    run_epochs: int = 6
    filters: tuple[str, ...] = ("none", "none", "none", "grayscale", "grayscale", "blur")
    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 2e-3
    generator_width: int = 32
    generator_patch: int = 2
    label_conditional: bool = True
    class_patterns: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.epsilon_255 <= 64:
            raise ConfigError(f"epsilon {self.epsilon_255} is outside 1..64 (8-bit steps)")
        for name in ("feature_images", "epochs", "batch_size", "generator_patch", "run_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in TERMS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("learning_rate", "gain", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if self.class_patterns < 0:
            raise ConfigError(f"class_patterns must not be negative, got {self.class_patterns}")
        if self.generator_width < 4 or self.generator_width % 4:
            raise ConfigError(f"generator_width must be a multiple of 4, got {self.generator_width}")
        if not any(getattr(self, name) for name in TERMS):
            raise ConfigError("all losses are switched off: nothing would be learnt")
        if (self.shortcut or self.undistillation) and not self.surrogates:
            raise ConfigError("the shortcut loss and undistillation need at least one surrogate network")
        parse_measures(self.filters)
        if self.misdirection and not self.references:
            raise ConfigError("misdirection needs at least one reference network")
        for network in (*self.surrogates, *self.references, self.teacher):
            parse_network(network)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {name: list(getattr(self, name)) for name in ("surrogates", "references", "filters")}


@dataclass(frozen=True)
class _Beside:
    """What runs beside the generator.

    Attributes:
        surrogates: hackers in training.
        references: networks that know the originals, frozen.
        probe: what the counter-measure projection takes out of the copies.
        students: of a teacher, in training.
        answers: the teacher's, float32 [N, K].
        encoder: the common feature space of L_fd.
        feature_mean: of the originals, [D].
    """

    surrogates: list[LiveRun]
    references: list[nn.Module]
    probe: LiveRun | None
    students: list[LiveRun]
    answers: Tensor
    encoder: nn.Module | None
    feature_mean: Tensor

    @property
    def runs(self) -> list[LiveRun]:
        return self.surrogates + ([self.probe] if self.probe else []) + self.students


class KeyedProtection(GeneratorTraining[KeyedConfig, _Beside], Generic[V]):
    """Trains the generator for one data set, then makes the copy that the key's view undoes.

    While it learns, every batch is keyed afresh by throw-away secrets: the generator learns what survives any key,
    and the one of the protector is used for the copies alone.

    Args:
        clean: the originals.
        space: the secret of the key's view.
        config: settings.
        run: as for `Protection`.
    """

    def __init__(self, clean: ImageSet, space: V, config: KeyedConfig, **run: Unpack[RunOptions]) -> None:
        self.space = space
        self.filters = parse_measures(config.filters)
        images = with_headroom(clean.images, config.epsilon_255) if config.headroom else clean.images
        super().__init__(
            clean.with_images(images),
            config,
            streams=(f"{space.kind} generator", f"{space.kind} training"),
            epsilon_255=255,  # a proposal in [-1, 1]: the key sets the size
            class_patterns=config.class_patterns,
            **run,
        )

    def _begin(self, telling: Telling) -> _Beside:
        config = self.config
        surrogates = self._start_runs("surrogate") if config.shortcut else []
        students = self._start_runs("student") if config.undistillation else []
        references, answers = self._references(telling), self._answers(telling)
        return _Beside(surrogates, references, self._start_probe(), students, answers, *self._common_space())

    @cached_property
    def nonces(self) -> list[bytes]:
        """One an image, to be published with it."""
        return self.space.nonces(self.clean.images)

    def rekeyed(self, space: V) -> Self:
        """The same images and trained generator under another secret of the same layout."""
        other = type(self)(
            self.clean, space, replace(self.config, headroom=False), seed=self.seed, device=self.device
        )  # these images have their headroom already
        other.generator = self.generator
        return other

    @torch.no_grad()
    def copies(self, batch_size: int = 250) -> Iterator[Tensor]:
        """The protected copies in order, uint8 [B, C, H, W] batch by batch."""
        self.generator.eval()
        yield from one_copy_each(self._copies(batch_size), self.nonces)

    def _copies(self, batch_size: int) -> Iterator[Tensor]:
        for begin in range(0, len(self.clean), batch_size):
            chosen = slice(begin, begin + batch_size)
            images, labels = self.clean.images[chosen], self.clean.labels[chosen]
            copies, _ = self._perturbed(images, labels, self.space, self.nonces[chosen])
            yield copies.to(torch.uint8).cpu().contiguous()

    # -- one step ------------------------------------------------------------------------------------------------

    @abstractmethod
    def _perturbed(self, images: Tensor, labels: Tensor, space: V, nonces: Sequence[bytes]) -> tuple[Tensor, Tensor]:
        """x_u float32 [B, C, H, W] on the scale 0..255 with gradients, and the share that cannot move as it likes."""

    def _proposal(self, images: Tensor, labels: Tensor) -> Tensor:
        """d float32 [B, C, H, W] in [-1, 1], with gradients."""
        x = to_float(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        return self.generator.perturbation(x, labels.to(self.device)).contiguous()

    def _step(self, step: int, pick: Tensor, beside: _Beside, rng: torch.Generator) -> Step:
        config = self.config
        images, labels = self.clean.images[pick], self.clean.labels[pick]
        throw_away = type(self.space)(random_bytes(32, rng), **self.space.layout)
        nonces = _random_nonces(images, rng)
        x_u, still = self._perturbed(images, labels, throw_away, nonces)
        x_u = x_u / 255
        y = labels.to(self.device)
        terms: dict[str, float | None] = dict.fromkeys(TERMS)
        total = x_u.new_zeros(())  # its gradient is that of the loss; its value is not
        advances: list[Advance] = []
        if beside.surrogates or beside.references or beside.students:
            shift = Shift.draw(len(images), self.clean.image_size, rng)
            through = drawn(self.filters, rng)
            filtered = through(x_u, rng, beside.probe.parameters[0].detach() if beside.probe else None)
            seen = shift(filtered).contiguous(memory_format=torch.channels_last)
            shown = seen.detach().requires_grad_()
            pull = torch.zeros_like(seen)

            def learn(name: str, run: LiveRun, loss: Tensor) -> None:
                """One way back through a network serves its own weights and, from what it was shown, the generator."""
                gradient, *own = torch.autograd.grad(loss, [shown, *run.parameters])
                pull.add_(gradient, alpha=getattr(config, name))
                advances.append((run, tuple(own)))
                terms[name] = float(loss.detach())

            if beside.surrogates:
                surrogate = beside.surrogates[step % len(beside.surrogates)]
                learn("shortcut", surrogate, shortcut(surrogate.network(shown), y))
            if beside.students:
                student = beside.students[step % len(beside.students)]
                answers, guess = beside.answers[pick].to(self.device), student.network(shown)
                learn("undistillation", student, distillation(answers, guess, config.temperature))
            if beside.references:
                loss = misdirection(beside.references[step % len(beside.references)](shown), y)
                pull.add_(torch.autograd.grad(loss, shown)[0], alpha=config.misdirection)
                terms["misdirection"] = float(loss.detach())
            total = total + (seen * pull).sum()
        if beside.probe is not None:
            read = F.cross_entropy(beside.probe.network(x_u.detach()), y)
            advances.append((beside.probe, torch.autograd.grad(read, beside.probe.parameters)))
        if beside.encoder is not None:
            count = min(config.feature_images, len(images))
            with torch.no_grad():
                features = beside.encoder(to_float(images[:count].to(self.device)))
            distance = feature_distance(features, beside.encoder(x_u[:count]), beside.feature_mean)
            terms["feature_distance"] = float(distance.detach())
            total = total + config.feature_distance * distance
        value = sum(getattr(config, name) * term for name, term in terms.items() if term is not None)
        return Step(total + (value - total.detach()), advances, terms | {"still": round(float(still), 4)})

    # -- what runs beside the generator ----------------------------------------------------------------------------

    def _start_runs(self, purpose: str) -> list[LiveRun]:
        """One of each surrogate network."""
        runs = []
        for number, text in enumerate(self.config.surrogates):
            recipe = recommended_recipe(text, self.config.run_epochs)
            steps = max(1, self.config.run_epochs * self.epoch_steps)
            runs.append(LiveRun(self._network(text, purpose, number), recipe, steps, self.device))
        return runs

    def _references(self, telling: Telling) -> list[nn.Module]:
        """The reference networks, frozen; each is trained once and kept."""
        if not self.config.misdirection:
            return []
        networks = []
        for number, text in enumerate(self.config.references):
            network = self._network(text, "reference", number).to(self.device)

            def trained(network: nn.Module = network, text: str = text, number: int = number) -> dict[str, Tensor]:
                fit(
                    network,
                    self.clean,
                    recommended_recipe(text),
                    seed=seed_for(self.seed, "reference", number),
                    countermeasure=Expected(self.config.filters),
                    device=self.device,
                    on_epoch=telling(f"reference network {number + 1} of {len(self.config.references)}"),
                )
                return network.state_dict()

            network.load_state_dict(self._kept(f"reference-{number}", trained))
            networks.append(network.eval().requires_grad_(False))
        return networks

    def _kept(self, name: str, make: Callable[[], K]) -> K:
        """What `make` gives, computed once and kept in the work folder, where there is one."""
        file = self.workdir / f"{name}.pt" if self.workdir else None
        if file and file.exists():
            return cast(K, load_checkpoint(file))
        made = make()
        if file:
            save_checkpoint(file, made)
        return made

    def _answers(self, telling: Telling) -> Tensor:
        """What the teacher says of each original, float32 [N, K]; it is trained once and its answers are kept."""
        if not self.config.undistillation:
            return torch.zeros(0)
        return self._kept("answers", lambda: self._asked(telling("teacher")))

    def _asked(self, on_epoch: OnEpoch | None) -> Tensor:
        """The answers of a teacher that is trained now."""
        teacher = self._network(self.config.teacher, "teacher", 0)
        rng = generator_for(self.seed, "teacher")
        throw_away = type(self.space)(random_bytes(32, rng), **self.space.layout)
        clean = self.clean
        views = ImageView(throw_away.view_of_originals(clean.images), clean.labels, clean.class_names, clean.names)
        recipe = recommended_recipe(self.config.teacher)
        fit(teacher, views, recipe, seed=self.seed, device=self.device, on_epoch=on_epoch)
        return logits_of(teacher, views.images, device=self.device)

    def _start_probe(self) -> LiveRun | None:
        """The linear probe, learning from the first step to the last."""
        config = self.config
        if not (config.shortcut or config.misdirection or config.undistillation) or not needs_probe(config.filters):
            return None  # nobody is shown what the filters make
        probe = linear_probe(self.clean.images[0].numel(), self.clean.classes)
        return LiveRun(probe, PROBE_RECIPE, self.total_steps + 1, self.device)

    def _common_space(self, most: int = 2000) -> tuple[nn.Module | None, Tensor]:
        """The encoder of L_fd and the mean feature [D] of the originals."""
        if not self.config.feature_distance:
            return None, torch.zeros(1)
        encoder = build_encoder(self.config.encoder, self.clean, seed=self.seed, device=self.device)
        sample = self.clean.take(min(most, len(self.clean)), generator_for(self.seed, "feature statistics"))
        return encoder, features_of(encoder, sample.images, device=self.device).mean(0).to(self.device)

    def named(self) -> dict[str, Any]:
        return {"layout": {"kind": self.space.kind} | self.space.layout}  # nothing secret


def one_copy_each(copies: Iterator[Tensor], nonces: Sequence[bytes]) -> Iterator[Tensor]:
    """The same copies, but equal originals share the first one's, whatever their labels.

    Equal originals share their nonce and with it what is secret about them: two different copies would give it away.

    Args:
        copies: in order, uint8 [B, C, H, W] batch by batch; changed in place.
        nonces: one an image.
    """
    first: dict[bytes, Tensor | None] = {nonce: None for nonce, count in Counter(nonces).items() if count > 1}
    begin = 0
    for part in copies:
        for copy, nonce in zip(part, nonces[begin : begin + len(part)], strict=True):
            if nonce in first:
                known = first[nonce]
                first[nonce] = copy.clone() if known is None else copy.copy_(known)
        begin += len(part)
        yield part


def random_bytes(count: int, rng: torch.Generator) -> bytes:
    """For throw-away secrets alone: they repeat with the seed."""
    return bytes(torch.randint(256, (count,), generator=rng, dtype=torch.uint8).tolist())


def _random_nonces(images: Tensor, rng: torch.Generator) -> list[bytes]:
    """Nonces of a throw-away key, each marked as its image's channels demand."""
    values = torch.randint(256, (len(images), NONCE_BYTES), generator=rng, dtype=torch.uint8)
    values[:, 0] = values[:, 0] & 0xFE | channels_equal(images).to(torch.uint8)
    return [bytes(row) for row in values.tolist()]
