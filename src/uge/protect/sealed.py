"""The sealed protection: a generator makes a shift that is easy to learn and misleads; its key undoes it exactly.

    minimise over G   E_{f, h} CE(h(f(x_u)), y) + w E_{f, r} CE(r(f(x_u)), t_y),   x_u = 2 (floor(x / 2) + d) + coin

d is made of the levels that G(x, y) proposes, as a letter tells them (`uge.keys.shift`): a gray field of one value a
pixel, and coarse colour nodes. f is what a hacker may do first: a random member of `uge.protect.family`, a flip, a
move. h is a surrogate, a hacker in training on the copies; r a reference, which knows the originals and is frozen; t_y
is another class than y, from the key. Who finds the shift easy has little reason to learn the picture; what he learns
of the picture all the same, he learns under a wrong name. Generator and surrogates begin from a secret seed: whoever
trains another generator has another shift, and a denoiser learnt from it undoes that one.

Sources: surrogates as in Huang et al., "Unlearnable Examples", ICLR 2021; targets as in Fowl et al., "Adversarial
Examples Make Strong Poisons", NeurIPS 2021; a generator in the place of noise as in Feng et al., "Learning to Confuse",
NeurIPS 2019. Ours: the letter's shift, the filters, and the key's targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.data.decoding import shrunk
from uge.data.images import ImageSet, to_float
from uge.errors import ConfigError
from uge.keys.key import Key
from uge.keys.letter import channels_equal
from uge.keys.shift import MOST_LEVEL, Layout
from uge.networks import parse_network
from uge.networks.unet import UNet
from uge.protect.family import filtered
from uge.protect.letters import LetterConfig, LetterProtection, drawn_order, rendered, resized_levels
from uge.protect.trajectory import LiveRun
from uge.protection import OnStep, RunOptions, preparing
from uge.runtime import generator_for, quick, repeatable, seed_for
from uge.training import PlainTraining, Recipe, Shift, recommended_recipe

TARGETS = "uge/targets/1"
GAIN = 2.5  # of a proposal of mean square 1, before it is bent into the range of levels
LEAST_BATCH, USUAL_BATCH = 32, 64  # images a step
USUAL_CLASSES = 10  # of more references learn for longer, and edges alone are expected, which would teach most there
FEW_IMAGES = 1800  # references learn from fewer for longer, in smaller batches
SMALL_SIDE = 32  # pixels
MANY_STEPS = 2000  # for which batches of small data sets become smaller
LEARNING_RATE = 2e-3  # of the generator (Adam), falling linearly to zero


@dataclass(frozen=True)
class SealedConfig(LetterConfig):
    """Settings of the sealed protection.

    Attributes:
        epsilon_255: L_inf bound of the copies in 8-bit steps.
        steps: of the generator at most.
        epochs: passes of the generator over the originals at most.
        batch_size: images a step at most; fewer of small data sets, so that there are many steps all the same.
        width: filters of the generator's first level.
        surrogates: hackers in training, in turn; each begins anew after `surrogate_steps`.
        surrogate_steps: of one surrogate.
        references: networks that know the originals.
        reference_epochs: how long they learn; longer of more than ten classes or from fewer images than `FEW_IMAGES`,
            at most as many epochs as `epochs`.
        reference_images: how many originals they learn from at most.
        misdirection: w, the weight of what references see.
    """

    steps: int = 4000
    epochs: int = 40
    batch_size: int = USUAL_BATCH
    width: int = 24
    surrogates: tuple[str, ...] = ("vgg:depth=8,width=16", "convnet:width=32", "mlp")
    surrogate_steps: int = 240
    references: tuple[str, ...] = ("vgg:depth=8,width=16", "resnet:depth=8,width=16", "convnet:width=32", "mlp")
    reference_epochs: int = 12
    reference_images: int = 4000
    misdirection: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.surrogates or (self.misdirection and not self.references):
            raise ConfigError("surrogates and references are lists of one network at least")
        for network in (*self.surrogates, *self.references):
            parse_network(network)


class SealedProtection(LetterProtection[SealedConfig]):
    """Makes sealed copies.

    Raises:
        ConfigError: as for `LetterProtection`; a single class.
    """

    Config = SealedConfig

    def __init__(self, clean: ImageSet, keys: Sequence[Key], config: SealedConfig, **run: Unpack[RunOptions]) -> None:
        super().__init__(clean, keys, config, **run)
        if clean.classes < 2:
            raise ConfigError(f"all images are of the class {clean.class_names[0]!r}; sealed copies need two at least")
        self.targets = draw_targets(self.secret, clean.classes)
        self.edges = clean.classes > USUAL_CLASSES
        self.generator = UNet(clean.channels, clean.classes, config.width, seed_for(self.seed, "generator"))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, "first proposals"))
            nn.init.normal_(self.generator.last.weight, std=0.02)
        self.generator.to(self.device)
        self.batch_size = min(config.batch_size, max(LEAST_BATCH, config.epochs * len(clean) // MANY_STEPS))
        epoch = sum(-(-len(kind) // self.batch_size) for kind in self.kinds)
        self.steps = min(config.steps, config.epochs * epoch)

    @classmethod
    def seen(cls, clean: ImageSet) -> ImageSet:
        """Many images of up to 64 pixels at 32: shifts made there hold as well at 64 (docs/results/photographs.md)."""
        small = max(clean.image_size) <= 2 * min(SMALL_SIDE, *clean.image_size)
        return shrunk(clean, SMALL_SIDE) if small and len(clean) >= FEW_IMAGES else clean

    def told(self) -> dict[str, Any]:
        return {"seen_at": max(self.clean.image_size)}  # pixels: whoever makes such copies himself has to know

    @repeatable()
    def train(self, on_step: OnStep | None = None) -> None:
        """Train references, then the generator, going on from the work folder where it holds an unfinished run."""
        config = self.config
        references = self._references(on_step)
        rng = generator_for(self.seed, "sealed")
        optimiser = torch.optim.Adam(self.generator.parameters(), lr=LEARNING_RATE)
        runs = [self._surrogate(turn, 0) for turn in range(len(config.surrogates))]
        queue: list[Tensor] = []
        if (state := self.resumed()) is not None:
            self.generator.load_state_dict(state["generator"])
            optimiser.load_state_dict(state["optimiser"])
            rng.set_state(state["rng"])
            for run, kept in zip(runs, state["surrogates"], strict=True):
                run.load(kept)
            queue = state["queue"]

        def step(number: int) -> dict[str, Any]:
            nonlocal queue
            queue = queue or self._shuffled(rng)
            turn, age = number % len(runs), number // len(runs)
            apart = turn * config.surrogate_steps // len(runs)  # or all would begin at once
            if age and (age + apart) % config.surrogate_steps == 0:
                runs[turn] = self._surrogate(turn, age)
            optimiser.param_groups[0]["lr"] = LEARNING_RATE * (1 - number / self.steps)
            return self._step(queue.pop(), runs[turn], references, optimiser, rng)

        def reached() -> dict[str, Any]:
            return {
                "generator": self.generator.state_dict(),
                "optimiser": optimiser.state_dict(),
                "rng": rng.get_state(),
                "surrogates": [run.state() for run in runs],
                "queue": queue,
            }

        self.take_steps(self.steps, step, reached, on_step)

    @torch.no_grad()
    def copied(self, numbers: range) -> Tensor:
        """The sealed copies; every call seals them anew."""
        pick = torch.arange(numbers.start, numbers.stop)
        images = self.clean.images[pick]
        copies, equal = torch.empty_like(images), channels_equal(images)
        for gray in equal.unique():
            rows = (equal == gray).nonzero()[:, 0]
            copies[rows] = self._copied(pick[rows], images[rows])
        return copies

    @torch.no_grad()
    def enlarged(self, number: int, photograph: Tensor) -> Tensor:
        """The generator's proposal for what networks see, enlarged to the photograph, and sealed there."""
        return self._copied(torch.tensor([number]), photograph[None])[0]

    def _copied(self, pick: Tensor, images: Tensor) -> Tensor:
        """The copies of images of one layout, uint8 [B, C, H, W], which stand under these numbers."""
        self.generator.to(self.device).eval()
        return self.sealed(images, *self._proposed(pick, self.layout(images)))

    def part(self, numbers: range, turn: int = 0) -> Self:
        part = super().part(numbers, turn)
        self.generator.cpu()
        return part

    # -- one step --------------------------------------------------------------------------------------------------

    def _step(
        self,
        pick: Tensor,
        run: LiveRun,
        references: Sequence[nn.Module],
        optimiser: torch.optim.Optimizer,
        rng: torch.Generator,
    ) -> dict[str, Any]:
        """One step of the generator and of one surrogate on the images of these numbers."""
        images, labels = self.clean.images[pick], self.clean.labels[pick]
        layout = self.layout(images)
        self.generator.train()
        x_u = filtered(rendered(images, *self._proposed(pick, layout), layout, rng), rng, edges=self.edges)
        seen = Shift.draw(len(pick), self.clean.image_size, rng)(x_u).contiguous(memory_format=torch.channels_last)
        shown = seen.detach().requires_grad_()
        learnt = F.cross_entropy(_answer(run.network, shown), labels.to(self.device))
        pull, *own = torch.autograd.grad(learnt, [shown, *run.parameters])
        run.advance(own)
        terms: dict[str, Any] = {"shortcut": round(float(learnt.detach()), 4)}
        if references:
            reference = references[int(torch.randint(len(references), (), generator=rng))]
            misled = F.cross_entropy(_answer(reference, shown), self.targets[labels].to(self.device))
            pull = pull + self.config.misdirection * torch.autograd.grad(misled, shown)[0]
            terms["misdirection"] = round(float(misled.detach()), 4)
        optimiser.zero_grad(set_to_none=True)
        seen.backward(pull)
        optimiser.step()
        return terms

    def _proposed(self, pick: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """What the generator proposes for images of one layout, in levels before they are rounded.

        Field float32 [B, rows, columns] and nodes float32 [B, C, rows, columns], empty where there are none. A layout
        of another size than the images' is that of the photographs which they stand for.
        """
        x = to_float(self.clean.images[pick].to(self.device))
        told = F.one_hot(self.clean.labels[pick], self.clean.classes).float().to(self.device)
        with quick(self.device):
            proposal = self.generator.residual(x, told).float()
        field = _bent(_at_nodes(proposal[:, :1], layout.shape, layout.field_step))[:, 0]
        nodes = proposal.new_empty(len(x), 0, 0, 0)
        if layout.node_step:
            nodes = _bent(_at_nodes(proposal, layout.shape, layout.node_step))
        return field, nodes

    def _shuffled(self, rng: torch.Generator) -> list[Tensor]:
        """The numbers of all images, in batches of one layout each, in a new order.

        An image alone is there twice: a network that normalises batches learns nothing from one.
        """
        batches: list[Tensor] = []
        for kind in self.kinds:
            parts = kind[torch.randperm(len(kind), generator=rng)].split(self.batch_size)
            batches += [part.repeat(2) if len(part) == 1 else part for part in parts]
        return [batches[at] for at in torch.randperm(len(batches), generator=rng).tolist()]

    # -- who looks at the copies -----------------------------------------------------------------------------------

    def _surrogate(self, turn: int, age: int) -> LiveRun:
        """A new hacker, who is to be replaced before he has learnt all that he could."""
        text = self.config.surrogates[turn]
        steps = round(1.3 * self.config.surrogate_steps)
        recipe = recommended_recipe(text)
        recipe = replace(recipe, learning_rate=recipe.learning_rate * min(1, self.batch_size / USUAL_BATCH))
        return LiveRun(self.network(text, "surrogate", turn, age), recipe, steps, self.device)

    def _references(self, on_step: OnStep | None) -> list[nn.Module]:
        """The reference networks, frozen; each is trained once and kept."""
        config = self.config
        originals = self.clean.take(config.reference_images, generator_for(self.seed, "reference images"))
        share = min(1.0, len(originals) / FEW_IMAGES)
        epochs = round(config.reference_epochs * math.sqrt(max(1, self.clean.classes / USUAL_CLASSES)) / share)
        epochs = max(1, min(epochs, config.epochs))
        networks = []
        for number, text in enumerate(config.references if config.misdirection else ()):
            network = self.network(text, "reference", number)
            self.teach_once(
                f"reference-{number}",
                network,
                originals,
                smaller(recommended_recipe(text, epochs), share),
                seed=seed_for(self.seed, "reference training", number),
                countermeasure=_Filtered(self.edges),
                on_epoch=preparing(f"reference {text.partition(':')[0]}", self.steps, on_step),
            )
            networks.append(network.eval().requires_grad_(False))
        return networks


def smaller(recipe: Recipe, share: float) -> Recipe:
    """A recipe for so small a share of the images that it is for: smaller batches, and so more steps.

    The learning rate falls with the root of the batch size, so that the noise of the steps stays about the same.
    """
    batch_size = max(LEAST_BATCH, round(share * recipe.batch_size))
    if batch_size >= recipe.batch_size:
        return recipe
    rate = recipe.learning_rate * math.sqrt(batch_size / recipe.batch_size)
    return replace(recipe, batch_size=batch_size, learning_rate=rate)


class _Filtered(PlainTraining):
    """How references learn: every batch behind filters drawn for it."""

    def __init__(self, edges: bool) -> None:
        self.edges = edges

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return filtered(x, generator, edges=self.edges), y


def draw_targets(secret: bytes, classes: int) -> Tensor:
    """Another class for every class, from the key alone: int64 [K], each class once, nowhere the class itself.

    The key puts the classes in a circle; the target of each is the next one.

    Args:
        secret: of the key.
        classes: K, two at least.
    """
    circle = drawn_order(secret, TARGETS, classes)
    targets = torch.empty_like(circle)
    targets[circle] = circle.roll(-1)
    return targets


def _answer(network: nn.Module, shown: Tensor) -> Tensor:
    """Logits float32 [B, K]."""
    with quick(shown.device):
        return network(shown).float()


def _bent(proposal: Tensor) -> Tensor:
    """A proposal [B, C, rows, columns] within the range of levels, whatever its size: its mean square becomes one.

    Without that a generator grows until every level is the largest, where it learns no more.
    """
    size = (proposal.square().mean((1, 2, 3), keepdim=True) + 1e-4).sqrt()
    return MOST_LEVEL * (GAIN * proposal / size).tanh()


def _at_nodes(proposal: Tensor, shape: tuple[int, int, int], step: int) -> Tensor:
    """A proposal [B, C, h, w] at the nodes, `step` pixels apart, of images of this shape: [B, C, rows, columns].

    Means over squares of step x step pixels, cut off at the lower and right edges; for images of another size than the
    proposal's, bilinear, antialiased.
    """
    if proposal.shape[2:] == shape[1:]:
        return F.avg_pool2d(proposal, step, ceil_mode=True, count_include_pad=False)
    return resized_levels(proposal, [-(-side // step) for side in shape[1:]])
