"""One training of an audit: its data as its network sees them, its network, its recipe, and what names it."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import torch as safetensors
from torch import nn

from uge.attack import (
    build_countermeasure,
    encoder_of,
    needs_clean,
    needs_guard,
    needs_key,
    needs_settings,
    needs_teacher,
    places_in,
    trains_key_network,
)
from uge.attack.clean_subset import subset_of
from uge.audit.plan import AUTHORISED, Cell, Row
from uge.data.images import ImageSet, class_difference, normalisation_of
from uge.durable import write_file
from uge.errors import ConfigError, DataError, told_as
from uge.keys.key import RECIPIENT_NETWORK, Key
from uge.networks import NetworkSpec, build_network
from uge.outside import MOST_WEIGHTS, open_file, read_file
from uge.records import config_hash
from uge.runtime import environment, seed_for
from uge.service import Guard, Service
from uge.service.detector import Detector, train_detector
from uge.service.runs import read_detector, save_detector
from uge.training import PlainTraining, Recipe, fit

FIRST = 100  # images that tell at once whether the key is that of the copy


def alike(published: ImageSet, other: ImageSet, what: str) -> ImageSet:
    """The other images in the order of the published ones and of their classes (see `ImageSet.like`).

    Raises:
        DataError: other classes, channels or image size, so that a network trained on the published images cannot be
            measured with them; `what` names them in it.
    """
    other = other.like(published)
    if differ := class_difference(published.class_names, other.class_names, "the copy", f"the {what} data"):
        raise DataError(f"the {what} images differ from the published ones: {differ}; give images of the same classes")
    if (other.channels, other.image_size) != (published.channels, published.image_size):
        ours, theirs = (f"{each.channels} x {each.image_size[0]} x {each.image_size[1]}" for each in (published, other))
        raise DataError(f"the {what} images differ from the published ones: they have {theirs} values, those {ours}")
    return other


@cache
def content_digest(place: str) -> str:
    """SHA-256 over the names and the content of a file or of all files of a folder; "" of what is on no disk here.

    Raises:
        DataError: a file cannot be read.
    """
    root = Path(place).expanduser()
    told: list[str] = []
    files = sorted(each for each in root.rglob("*") if each.is_file()) if root.is_dir() else [root][: root.is_file()]
    for file in files:
        with told_as(DataError, f"cannot read {file}"), open_file(file, links=True) as content:
            found = hashlib.file_digest(content, "sha256")  # type: ignore[arg-type]  # its `readinto` has no annotation
            told.append(f"{file.relative_to(root)} {found.hexdigest()}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest() if told else ""


@dataclass(eq=False, repr=False)
class Trainer:
    """What the trainings of an audit share: the data, the key and the folder.

    Args:
        published: the copy, as read from its files.
        test: clean held-out images; every accuracy is measured on them.
        folder: where `records.jsonl` and the authorised networks' trained weights go.
        key: the recipient's, where there is one.
        clean: the originals, for the ceilings and for hackers who have some of them.
        view: what the key's network sees of the copy, where that is more than the letters of `published`: photographs
            are opened at their own sizes.
        told: what the copy's manifest tells hackers who have read our pages (`Manifest.told`).
        recipe: from a network's text to how it is trained; a key that has a recipe of its own goes by that.
        recipient: the network that the recipient trains, unless the key defines it.
        key_epochs: not 0: he trains for so many epochs at most.
        device: where to train.
        threads: of every training, so that all runners and machines add up in the same order; None leaves torch's.

    Raises:
        DataError: test images or originals of another kind than the published ones.
        UgeError: the key does not fit the copy.
    """

    published: InitVar[ImageSet]
    test: ImageSet
    folder: Path
    _: KW_ONLY
    recipe: Callable[[str], Recipe]
    recipient: str = RECIPIENT_NETWORK
    key_epochs: int = 0
    key: Key | None = None
    clean: InitVar[ImageSet | None] = None
    view: ImageSet | None = None
    told: InitVar[Mapping[str, Any] | None] = None
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self, published: ImageSet, clean: ImageSet | None, told: Mapping[str, Any] | None) -> None:
        self.test = alike(published, self.test, "test")
        self.sources = {"published": published}
        if clean is not None:
            self.sources["clean"] = alike(published, clean, "clean")
        self.digests = {name: images.digest() for name, images in self.sources.items()}
        self.test_digest = self.test.digest()
        self.settings = dict(told or {})
        self._views = {} if self.view is None else {"published": self.view}  # of the recipient
        if self.key is not None:
            self.key.check_fits(published)
            if self.view is None:
                self.key.opened(published.images[:FIRST])

    def cell_name(self, cell: Cell) -> str:
        """Twelve digits over everything that decides a cell's result."""
        uses_key = cell.role == AUTHORISED or needs_key(cell.countermeasure)
        own = [digest for place in places_in(cell.countermeasure) if (digest := content_digest(place))]
        return config_hash(
            cell.to_dict()
            | {
                "data": self.digests[cell.trained_on],
                "test": self.test_digest,
                "recipe": self.recipe_of(cell).to_dict(),
                "key": self._key().digest() if uses_key else None,
                "authorised": self._spec(cell).to_dict() if cell.network == AUTHORISED else None,
            }
            | ({"clean": self.digests.get("clean")} if needs_clean(cell.countermeasure) else {})
            | ({"settings": self.settings} if self.settings and needs_settings(cell.countermeasure) else {})
            | ({"teacher": self.cell_name(self._teacher_of(cell))} if needs_teacher(cell.countermeasure) else {})
            | ({"own": own} if own else {})
        )

    @property
    def originals(self) -> int:
        """How many there are."""
        return len(self.sources.get("clean", ()))

    def is_authorised_architecture(self, network: str) -> bool:
        """Whether a network of a plan is that of the recipient."""
        return self.key is not None and self._spec(Cell("hacker", network)) == self._spec(Cell(AUTHORISED))

    def recipe_of(self, cell: Cell) -> Recipe:
        """How a cell is trained."""
        recipe = self.recipe(self.recipient if cell.network == AUTHORISED else cell.network)
        if cell.network == AUTHORISED:
            recipe = self._key().recipe(self.recipient, recipe.epochs)
        if cell.network == AUTHORISED and self.key_epochs:
            recipe = replace(recipe, epochs=min(recipe.epochs, self.key_epochs))
        # Few originals need more epochs: as many steps as the geometric mean of theirs and of all has.
        share = math.sqrt(self.originals / cell.originals) if cell.originals else cell.budget
        return replace(recipe, epochs=max(1, round(recipe.epochs * share)))

    def _key(self) -> Key:
        if self.key is None:
            raise ConfigError("this plan trains or queries the authorised network: give --key")
        return self.key

    def _spec(self, cell: Cell) -> NetworkSpec:
        images = self.sources["published"]
        if cell.network == AUTHORISED:
            return self._key().spec(images, self.recipient)
        return NetworkSpec.of(cell.network, images)

    def _seen(self, cell: Cell, name: str) -> ImageSet:
        """The images of this name ("published", "clean" or "test") as the cell's network sees them."""
        images = self.test if name == "test" else self.sources[name]
        if cell.originals and name == "clean":
            return subset_of(images, cell.originals, "a curve", cell.seed)
        if cell.role != AUTHORISED:
            return images
        if name not in self._views:
            look = self._key().opened if name == "published" else self._key().seen
            self._views[name] = images.with_images(look(images.images))
        return self._views[name]

    def network_of(self, cell: Cell) -> nn.Module:
        """The untrained network of a cell: the recipient's own, or one with weights of its own."""
        images = self._seen(cell, cell.trained_on)
        if cell.role == AUTHORISED:
            return self._key().module(images, self.recipient, seed_for(cell.seed, AUTHORISED))
        seed = seed_for(cell.seed, "hacker", cell.network)
        return build_network(self._spec(cell), *normalisation_of(images.images), seed=seed)

    def countermeasure_of(
        self, cell: Cell, teacher: nn.Module | None = None, untrained: nn.Module | None = None
    ) -> PlainTraining:
        """The counter-measure of a cell, with what it is given; the recipient's network, trained or not, if it asks.

        A trained one is as `service` gives it, guarded or not.

        Raises:
            ConfigError: as `build_countermeasure`.
        """
        return build_countermeasure(
            cell.countermeasure,
            teacher=teacher,
            guard=teacher,
            untrained=untrained,
            key=self.key,
            clean=self.sources.get("clean"),
            settings=self.settings,
            seed=cell.seed,
            device=self.device,
        )

    def _teacher_of(self, cell: Cell) -> Cell:
        """The authorised network of the same seed and source."""
        return Cell(AUTHORISED, seed=cell.seed, trained_on=cell.trained_on)

    def _teacher_file(self, teacher: Cell) -> Path:
        return self.folder / "authorised" / f"{self.cell_name(teacher)}.safetensors"

    def _trained_weights(self, cell: Cell) -> Path:
        """The file with the authorised network as trained by its own cell of the same seed and source."""
        file = self._teacher_file(self._teacher_of(cell))
        if not file.exists():
            raise ConfigError(
                f"a distilling hacker needs the authorised cell of the same seed ({cell.seed}) and images"
                f" ({cell.trained_on}) before it in the plan: {file} is missing"
            )
        return file

    def service(self, cell: Cell) -> nn.Module:
        """The trained authorised network as a hacker may query it, behind a guard for those that query that."""
        network = self.network_of(self._teacher_of(cell))
        network.load_state_dict(safetensors.load(read_file(self._trained_weights(cell), MOST_WEIGHTS)))
        if needs_guard(cell.countermeasure):
            service: nn.Module = Guard(network, self._key(), self._detector(cell))
        else:
            service = Service(network, self._key())
        return service.eval().requires_grad_(False).to(self.device)

    def _detector(self, cell: Cell) -> Detector:
        """What the guard of this copy knows; learnt by the first cell that asks it."""
        file = self.folder / AUTHORISED / f"{self._key().digest()[:12]}-{self.digests['published'][:12]}.safetensors"
        images, view = self.sources["published"], self._seen(self._teacher_of(cell), "published")
        if not file.exists():
            save_detector(train_detector(images, view, device=self.device), self._key(), file)
        return read_detector(file, self._key(), images.channels, images.image_size)

    def train(self, cell: Cell, on_epoch: Callable[[int, int, float], None] | None = None) -> Row:
        """Train one cell and return its row; an authorised network's weights are kept for those who query it."""
        started = time.perf_counter()
        recipe = self.recipe_of(cell)
        network, with_key = self.network_of(cell), trains_key_network(cell.countermeasure)
        measure = self.countermeasure_of(
            cell,
            self.service(cell) if needs_teacher(cell.countermeasure) else None,
            self.network_of(self._teacher_of(cell)) if with_key else None,
        )
        # Whoever trains with some key has the recipient's order and augmentation.
        who = (AUTHORISED, AUTHORISED, "none") if with_key else (cell.role, cell.network, cell.countermeasure)
        history = fit(
            network,
            self._seen(cell, cell.trained_on),
            recipe,
            seed=seed_for(cell.seed, *who),
            test=self._seen(cell, "test"),
            countermeasure=measure,
            device=self.device,
            only_at_end=bool(cell.originals),
            on_epoch=(lambda epoch, loss, accuracy: on_epoch(epoch, recipe.epochs, accuracy)) if on_epoch else None,
        )
        if cell.role == AUTHORISED and cell.budget == 1:
            weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
            write_file(self._teacher_file(cell), safetensors.save(weights), mode=0o600)
        return (
            self.facts(cell)
            | {
                "accuracy": history.accuracy,
                "peak_accuracy": history.peak_accuracy,
                "test_accuracy": list(history.test_accuracy),
                "train_loss": list(history.train_loss),
                "recipe": history.recipe.to_dict(),
                "seconds": round(time.perf_counter() - started, 2),  # what a counter-measure does before, too
            }
            | ({"findings": dict(measure.findings)} if measure.findings else {})
        )

    def facts(self, cell: Cell) -> Row:
        """What is known of a cell before it is trained."""
        recipe = self.recipe_of(cell)
        same = cell.role == "hacker" and cell.network == AUTHORISED
        return {
            "cell": self.cell_name(cell),
            "kind": cell.role,
            "network": encoder_of(cell.countermeasure) or self._spec(cell).label,
            "trained_on": cell.trained_on,
            "countermeasure": "other-init" if same and cell.countermeasure == "none" else cell.countermeasure,
            "knows": cell.knows,
            "locked": cell.role == AUTHORISED and self._key().opens,
            "seed": cell.seed,
            "budget": cell.budget,
            "recipe": recipe.to_dict(),
            "config_hash": config_hash(recipe.to_dict() | cell.to_dict()),
            "data": self.digests[cell.trained_on],
            "images": cell.originals or len(self.sources[cell.trained_on]),
            "test_images": len(self.test),
            "environment": environment(self.device),
        } | ({"originals": cell.originals} if cell.originals else {})
