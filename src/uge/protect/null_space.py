"""Protection inside the null space of a key: exact for the authorised network, a shortcut for everybody else.

The generator proposes d = G(x, y); the key's groups turn it into whole steps along their sign vectors:

    z_g = round( b_g * tanh(gain * sigma_g . d_g / sqrt(n_g)) ),   x_u,g = x_g + sigma_g * z_g

with a bound b_g drawn at random below epsilon, dithered rounding, and z_g kept where no value leaves 0..255. Whatever
the generator proposes, the view of the authorised network does not change, so L_gm = 0 at every weight and no term
for it is needed. Averaged over keys the copies still move along d: a network without the key meets d's shortcut in
noise, and learns it. d is trained on the shortcut loss of online surrogates, under filters drawn at random
(expectation over counter-measures), and on L_fd.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uge.data.images import ImageSet, normalisation_of, to_float
from uge.encoders import build_encoder, features_of
from uge.errors import ConfigError
from uge.filters import parse_filter
from uge.keys.null_space import NONCE_BYTES, Groups, NullSpace, with_headroom
from uge.losses.feature_distance import feature_distance
from uge.losses.shortcut import shortcut
from uge.networks import NetworkSpec, build_network, parse_network
from uge.protect.checkpoint import claim_workdir, load_checkpoint, save_checkpoint
from uge.protect.generator import Generator
from uge.protect.trajectory import LiveRun
from uge.records import config_hash
from uge.runtime import generator_for, seed_for
from uge.training import Shift, recommended_recipe


@dataclass(frozen=True)
class NullSpaceConfig:
    """Settings of the protection in the null space; a weight of zero switches its term off and saves its cost.

    Attributes:
        epsilon_255: L_inf bound in 8-bit steps.
        headroom: whether originals are first mapped onto epsilon..255-epsilon, so that every group can move.
        least_magnitude: the bound of a group is drawn from this share of epsilon up to epsilon; at 1 the perturbation
            would be nearly binary, and snapping to +-epsilon would help a denoiser.
        gain: how steeply z follows the proposal.
        shortcut: weight of the shortcut loss of online surrogates.
        feature_distance: weight of L_fd.
        encoder: the common feature space of L_fd, an entry of `ENCODERS`.
        feature_images: images of each batch that go through the encoder.
        surrogates: hackers in training beside the generator, in turn.
        run_epochs: length of a surrogate's run, in epochs; then it begins again.
        filters: what happens to a batch before a surrogate sees it, drawn at random; repeat a name to weigh it.
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
    least_magnitude: float = 0.5
    gain: float = 2.0
    shortcut: float = 1.0
    feature_distance: float = 0.0
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
        for name in ("shortcut", "feature_distance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("learning_rate", "gain"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.least_magnitude <= 1:
            raise ConfigError(f"least_magnitude is a share from 0 to 1, got {self.least_magnitude}")
        if self.generator_width < 4 or self.generator_width % 4:
            raise ConfigError(f"generator_width must be a multiple of 4, got {self.generator_width}")
        if self.shortcut == self.feature_distance == 0:
            raise ConfigError("both losses are switched off: nothing would be learnt")
        if self.shortcut and not self.surrogates:
            raise ConfigError("the shortcut loss needs at least one surrogate network")
        if not self.filters:
            raise ConfigError("filters is empty; give none for no filter")
        for surrogate in self.surrogates:
            parse_network(surrogate)
        for filter_ in self.filters:
            parse_filter(filter_)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"surrogates": list(self.surrogates), "filters": list(self.filters)}


def perturb(
    images: Tensor, proposal: Tensor, groups: Groups, bound: Tensor, dither: Tensor, gain: float
) -> tuple[Tensor, Tensor]:
    """x_u for one batch with units of one kind.

    Args:
        images: x, uint8 [N, C, H, W].
        proposal: d, float32 [N, C, H, W] in [-1, 1]; gets gradients.
        groups: the groups of these images.
        bound: b, float32 [N, U] in 8-bit steps, read at the slot of each group.
        dither: float32 [N, U] in [0, 1), likewise.
        gain: how steeply z follows the proposal.

    Returns:
        x_u float32 [N, C, H, W] on the scale 0..255, whole numbers; and the share of groups that cannot move.
        The gradient goes through z as if it had not been rounded.
    """
    x = groups.arrange(images.float())  # [N, M, U]
    up, down = 255 - x.amax(1), x.amin(1)
    positive = groups.sign > 0
    rise = groups.least(torch.where(positive, up, down))
    fall = groups.least(torch.where(positive, down, up))
    units = groups.least(groups.units)  # at slots
    size = (units * x.shape[1]).clamp_min(1)
    direction = groups.sums(groups.arrange(proposal)) / size.sqrt()
    wanted = bound * (gain * direction).tanh()
    inside = torch.maximum(torch.minimum(wanted, rise), -fall)
    with torch.no_grad():
        whole = torch.maximum(torch.minimum((inside + dither).floor(), torch.minimum(rise, bound)), -fall)
        whole = torch.maximum(whole, -bound)
        used = units > 0
        still = ((rise == 0) & (fall == 0) & used).sum() / used.sum()
    z = inside + (whole - inside).detach()
    return (x + groups.spread(z)[:, None]).view(images.shape), still


class NullSpaceProtection:
    """Trains the generator for one data set, then makes the copy inside the key's null space.

    While it learns, every batch is keyed afresh by throw-away secrets: the generator learns what survives any key,
    and the one of the protector is used for the copies alone.

    Args:
        clean: the originals.
        space: the null space of the key.
        config: settings.
        seed: decides everything but the key; the same key and seed give the same copy on the same machine.
        workdir: where checkpoints go; None keeps none.
        device: where to compute.
        checkpoint_seconds: least time between two checkpoints.
    """

    def __init__(
        self,
        clean: ImageSet,
        space: NullSpace,
        config: NullSpaceConfig,
        *,
        seed: int,
        workdir: Path | None = None,
        device: torch.device | str = "cpu",
        checkpoint_seconds: float = 30.0,
    ) -> None:
        images = with_headroom(clean.images, config.epsilon_255) if config.headroom else clean.images
        self.clean = clean.with_images(images)
        self.space = space
        self.config = config
        self.seed = seed
        self.workdir = workdir
        self.device = torch.device(device)
        self.checkpoint_seconds = checkpoint_seconds
        self.batch_size = min(config.batch_size, len(clean))
        self.epoch_steps = len(clean) // self.batch_size
        self.total_steps = self.epoch_steps * config.epochs
        self.filters = [parse_filter(text) for text in config.filters]
        self._start()

    def _start(self) -> None:
        """A generator that has learnt nothing, and an empty log."""
        self.log: list[dict[str, Any]] = []
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, "null-space generator"))
            generator = Generator(
                self.clean.channels,
                self.clean.classes,
                255,  # a proposal in [-1, 1]: the key's groups set the size
                config.generator_width,
                config.generator_patch,
                config.label_conditional,
                config.class_patterns,
            )
        self.generator = generator.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's annotations

    # -- the whole run -------------------------------------------------------------------------------------------

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
        rng = generator_for(self.seed, "null-space training")
        optimiser = torch.optim.Adam(self.generator.parameters(), lr=self.config.learning_rate, betas=(0.5, 0.99))
        surrogates = self._start_surrogates()
        encoder, mean = self._common_space()
        step = self._resume(optimiser, surrogates, rng)
        saved = time.perf_counter()
        started = saved - (self.log[-1]["seconds"] if self.log else 0.0)
        while step < self.total_steps:
            order = torch.randperm(
                len(self.clean), generator=generator_for(self.seed, "order", step // self.epoch_steps)
            )
            pick = order[(step % self.epoch_steps) * self.batch_size :][: self.batch_size]
            for group in optimiser.param_groups:
                group["lr"] = self.config.learning_rate * min(1.0, 1.02 * (1 - step / self.total_steps))
            surrogate = surrogates[step % len(surrogates)] if surrogates else None
            terms = self._step(pick, surrogate, encoder, mean, rng, optimiser)
            step += 1
            seconds = round(time.perf_counter() - started, 2)
            row = {"step": step, "epoch": (step - 1) // self.epoch_steps + 1, **terms, "seconds": seconds}
            self.log.append(row)
            if on_step:
                on_step(row, self.total_steps)
            if time.perf_counter() - saved > self.checkpoint_seconds:
                self._checkpoint(step, optimiser, surrogates, rng)
                saved = time.perf_counter()
        self._checkpoint(step, optimiser, surrogates, rng)

    @cached_property
    def nonces(self) -> list[bytes]:
        """One an image, to be published with it."""
        return self.space.nonces(self.clean.images)

    @torch.no_grad()
    def copies(self, batch_size: int = 250) -> Iterator[Tensor]:
        """The protected copies in order, uint8 [B, C, H, W] batch by batch.

        Equal originals share their groups, and two different copies of one would give the sign vectors away: they share
        the first one's copy, whatever their labels.
        """
        self.generator.eval()
        first: dict[bytes, Tensor | None] = {nonce: None for nonce, n in Counter(self.nonces).items() if n > 1}
        for begin in range(0, len(self.clean), batch_size):
            chosen = slice(begin, begin + batch_size)
            images, labels = self.clean.images[chosen], self.clean.labels[chosen]
            copies, _ = self._perturbed(images, labels, self.space, self.nonces[chosen])
            copies = copies.to(torch.uint8).cpu().contiguous()
            for copy, nonce in zip(copies, self.nonces[chosen], strict=True):
                if nonce in first:
                    known = first[nonce]
                    first[nonce] = copy.clone() if known is None else copy.copy_(known)
            yield copies

    # -- one step ------------------------------------------------------------------------------------------------

    def _perturbed(
        self, images: Tensor, labels: Tensor, space: NullSpace, nonces: Sequence[bytes]
    ) -> tuple[Tensor, Tensor]:
        """x_u float32 [B, C, H, W] on the scale 0..255 with gradients, and the share of groups that cannot move."""
        config = self.config
        x = to_float(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        proposal = self.generator.perturbation(x, labels.to(self.device)).contiguous()
        result, still = [], x.new_zeros(())
        kinds = space.kinds(nonces)
        shape = images.shape[1:]
        for tied, members in kinds:
            chosen = [nonces[i] for i in members.tolist()]
            groups = space.groups(chosen, shape, tied=tied).to(self.device)
            stream = space.key_stream("rounding", chosen, shape, groups.group.shape[1])
            words = torch.from_numpy(stream.astype(np.int64))
            share = ((words >> 32) & 0xFFFFFF).to(self.device) / 2**24  # two independent numbers from each word
            dither = (words & 0xFFFFFF).to(self.device) / 2**24
            least = config.least_magnitude * config.epsilon_255
            bound = (least + (config.epsilon_255 - least) * share).round().clamp_min(1)
            part, fixed = perturb(
                images[members].to(self.device), proposal[members], groups, bound, dither, config.gain
            )
            result.append(part)
            still = still + fixed * len(members) / len(images)
        if len(kinds) == 1:
            return result[0], still
        back = torch.cat([members for _, members in kinds]).argsort()
        return torch.cat(result)[back], still

    def _step(
        self,
        pick: Tensor,
        surrogate: LiveRun | None,
        encoder: nn.Module | None,
        mean: Tensor,
        rng: torch.Generator,
        optimiser: torch.optim.Optimizer,
    ) -> dict[str, float | None]:
        config = self.config
        images, labels = self.clean.images[pick], self.clean.labels[pick]
        throw_away = NullSpace(_random_bytes(32, rng), **self.space.layout)
        nonces = _random_nonces(images, rng)
        x_u, still = self._perturbed(images, labels, throw_away, nonces)
        x_u = x_u / 255
        y = labels.to(self.device)
        terms: dict[str, float | None] = dict.fromkeys(("shortcut", "feature_distance"))
        total = x_u.new_zeros(())

        gradients: tuple[Tensor, ...] | None = None
        if surrogate is not None:
            shift = Shift.draw(len(images), self.clean.image_size, rng)
            through = self.filters[int(torch.randint(len(self.filters), (), generator=rng))]
            seen = shift(through(x_u)).contiguous(memory_format=torch.channels_last)
            logits = surrogate.network(seen)
            loss = shortcut(logits, y)
            total = total + config.shortcut * loss
            terms["shortcut"] = float(loss.detach())
            gradients = torch.autograd.grad(loss, surrogate.parameters, retain_graph=True)
        if encoder is not None:
            count = min(config.feature_images, len(images))
            with torch.no_grad():
                features = encoder(to_float(images[:count].to(self.device)))
            distance = feature_distance(features, encoder(x_u[:count]), mean)
            total = total + config.feature_distance * distance
            terms["feature_distance"] = float(distance.detach())

        wanted = torch.autograd.grad(total, list(self.generator.parameters()))
        for parameter, gradient in zip(self.generator.parameters(), wanted, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(self.generator.parameters(), 1.0)
        optimiser.step()
        if surrogate is not None and gradients is not None:
            surrogate.advance(gradients)
        return {"loss": float(total.detach()), **terms, "still": round(float(still), 4)}

    # -- what runs beside the generator ----------------------------------------------------------------------------

    def _start_surrogates(self) -> list[LiveRun]:
        if not self.config.shortcut:
            return []
        normalisation = normalisation_of(self.clean.images)
        runs = []
        for number, text in enumerate(self.config.surrogates):
            name, options = parse_network(text)
            spec = NetworkSpec(name, self.clean.channels, self.clean.image_size, self.clean.classes, options)
            network = build_network(spec, *normalisation, seed=seed_for(self.seed, "surrogate", number))
            recipe = recommended_recipe(text, self.config.run_epochs)
            steps = max(1, self.config.run_epochs * self.epoch_steps)
            runs.append(LiveRun(network, recipe, steps, self.device))
        return runs

    def _common_space(self, most: int = 2000) -> tuple[nn.Module | None, Tensor]:
        """The encoder of L_fd and the mean feature [D] of the originals."""
        if not self.config.feature_distance:
            return None, torch.zeros(1)
        encoder = build_encoder(self.config.encoder, self.clean, seed=self.seed, device=self.device)
        sample = self.clean.take(min(most, len(self.clean)), generator_for(self.seed, "feature statistics"))
        return encoder, features_of(encoder, sample.images, device=self.device).mean(0).to(self.device)

    # -- resuming --------------------------------------------------------------------------------------------------

    def identity(self) -> str:
        """Names this run: data, public layout of the key, settings and seed."""
        return config_hash(
            {
                "data": self.clean.digest(),
                "layout": self.space.layout,
                "config": self.config.to_dict(),
                "seed": self.seed,
            }
        )

    def _checkpoint(
        self, step: int, optimiser: torch.optim.Optimizer, surrogates: list[LiveRun], rng: torch.Generator
    ) -> None:
        if self.workdir is None:
            return
        state = {
            "step": step,
            "generator": self.generator.state_dict(),
            "optimiser": optimiser.state_dict(),
            "surrogates": [run.state() for run in surrogates],
            "rng": rng.get_state(),
            "log": self.log,
        }
        save_checkpoint(self.workdir / "checkpoint.pt", state)

    def _resume(self, optimiser: torch.optim.Optimizer, surrogates: list[LiveRun], rng: torch.Generator) -> int:
        file = self.workdir / "checkpoint.pt" if self.workdir else None
        if file is None or not file.exists():
            return 0
        state = load_checkpoint(file)
        self.generator.load_state_dict(state["generator"])
        optimiser.load_state_dict(state["optimiser"])
        for run, saved in zip(surrogates, state["surrogates"], strict=True):
            run.load(saved)
        rng.set_state(state["rng"])
        self.log = state["log"]
        return int(state["step"])


def _random_bytes(count: int, rng: torch.Generator) -> bytes:
    return bytes(torch.randint(256, (count,), generator=rng, dtype=torch.uint8).tolist())


def _random_nonces(images: Tensor, rng: torch.Generator) -> list[bytes]:
    """Nonces of a throw-away key, each marked as its image's channels demand."""
    equal = (images == images[:, :1]).flatten(1).all(1) if images.shape[1] > 1 else torch.zeros(len(images))
    values = torch.randint(256, (len(images), NONCE_BYTES), generator=rng, dtype=torch.uint8)
    values[:, 0] = values[:, 0] & 0xFE | equal.to(torch.uint8)
    return [bytes(row) for row in values.tolist()]


PRESETS: dict[str, NullSpaceConfig] = {
    "quick": NullSpaceConfig(epochs=6, generator_width=16, surrogates=("vgg:depth=8,width=8", "convnet:width=16")),
    "default": NullSpaceConfig(),
    "strong": NullSpaceConfig(epochs=60, generator_width=48, run_epochs=20),
}
