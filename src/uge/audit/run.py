"""Run the missing cells of a plan. Every finished cell is on disk, so any run can be killed and started again."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import torch as safetensors
from torch import nn

from uge.attack import build_countermeasure, needs_clean, needs_teacher
from uge.audit.plan import AUTHORISED, Cell
from uge.data.images import ImageSet, normalisation_of
from uge.errors import ConfigError, DataError
from uge.keys.key import Key
from uge.networks import NetworkSpec, build_network, parse_network
from uge.records import append_record, config_hash, read_records
from uge.runtime import check_writable, environment, seed_for, write_atomically
from uge.training import Recipe, fit
from uge.views import Viewing, check_nonces, original_view, view_of


class Audit:
    """The data, the key and the folder that a plan's cells share.

    Args:
        published: the copy, as read from its files.
        test: clean held-out images; every accuracy is measured on them.
        folder: where `records.jsonl` and the authorised networks' trained weights go.
        key: the authorised network, where there is one.
        clean: the originals, for the ceilings and for hackers who have some of them.
        headroom_255: of the copy's manifest; a null-space key maps test images and originals alike.
        recipe: from a network's text to how it is trained; the key's own recipe trains its architecture.
        device: where to train.
    """

    def __init__(
        self,
        published: ImageSet,
        test: ImageSet,
        folder: Path,
        *,
        recipe: Callable[[str], Recipe],
        key: Key | None = None,
        clean: ImageSet | None = None,
        headroom_255: int = 0,
        device: str = "cpu",
    ) -> None:
        for other, what in ((test, "test"), (clean, "clean")):
            if other is not None and (other.class_names, other.channels, other.image_size) != (
                published.class_names,
                published.channels,
                published.image_size,
            ):
                raise DataError(f"the {what} images differ from the published ones in classes, channels or image size")
        self.sources = {"published": published} | ({"clean": clean} if clean is not None else {})
        self.digests = {name: images.digest() for name, images in self.sources.items()}
        self.test = test
        self.test_digest = test.digest()
        self.folder = folder
        self.recipe = recipe
        self.key = key
        self.headroom_255 = headroom_255
        self.device = device
        self._views: dict[str, ImageSet] = {}
        if key is not None:
            check_nonces(published, key)

    def run(
        self,
        cells: Sequence[Cell],
        on_cell: Callable[[int, Cell], None] | None = None,
        on_epoch: Callable[[int, int, float], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Train what is missing and return the rows of all cells, in the order of `cells`.

        Args:
            cells: the plan; an authorised cell must precede the hackers that query its trained network.
            on_cell: called with (number from 0, cell) before each missing cell.
            on_epoch: called with (epoch from 1, epochs, test accuracy) during each missing cell.

        Raises:
            ConfigError: a cell that cannot run, before the first one is trained.
            PublishError: the folder cannot be written.
        """
        done = {row["cell"]: row for row in read_records(self.folder / "records.jsonl")}
        self._check(cells, done)
        check_writable(self.folder / "records.jsonl")
        rows = []
        for number, cell in enumerate(cells):
            name = self.cell_name(cell)
            if name not in done:
                if on_cell:
                    on_cell(number, cell)
                done[name] = self._train(cell, name, on_epoch)
                append_record(self.folder / "records.jsonl", done[name])
            rows.append(done[name])
        return rows

    def cell_name(self, cell: Cell) -> str:
        """Twelve digits over everything that decides a cell's result."""
        return config_hash(
            asdict(cell)
            | {
                "data": self.digests[cell.trained_on],
                "test": self.test_digest,
                "recipe": self._recipe(cell).to_dict(),
                "key": self._key_part(cell),
            }
            | ({"clean": self.digests.get("clean")} if needs_clean(cell.countermeasure) else {})
        )

    def _key_part(self, cell: Cell) -> str | dict[str, Any] | None:
        """What a cell takes from the key: all of it, the architecture alone, or nothing."""
        if self._uses_key(cell):
            return self._key().digest()
        return self._key().network.to_dict() if cell.network == AUTHORISED else None

    def _check(self, cells: Sequence[Cell], done: Container[str]) -> None:
        """Fail before hours of training where a later cell is bound to fail."""
        teachers = set()  # those that this run trains
        for cell in cells:
            if cell.trained_on not in self.sources:
                raise ConfigError("this plan trains on the originals: give --clean, or leave those cells out")
            self._spec(cell)
            # The teacher is a stand-in: the text is judged, and whether there are originals.
            build_countermeasure(cell.countermeasure, teacher=nn.Identity(), clean=self.sources.get("clean"))
            if self.cell_name(cell) in done:
                continue
            if self._queries(cell) and (cell.seed, cell.trained_on) not in teachers:
                self._trained_weights(cell)
            if cell.role == AUTHORISED:
                teachers.add((cell.seed, cell.trained_on))

    def _uses_key(self, cell: Cell) -> bool:
        return cell.role == AUTHORISED or self._queries(cell)

    def _queries(self, cell: Cell) -> bool:
        return needs_teacher(cell.countermeasure)

    def _recipe(self, cell: Cell) -> Recipe:
        return self._key().recipe if cell.network == AUTHORISED else self.recipe(cell.network)

    def _key(self) -> Key:
        if self.key is None:
            raise ConfigError("this plan trains or queries the authorised network: give --key")
        return self.key

    def _spec(self, cell: Cell) -> NetworkSpec:
        if cell.network == AUTHORISED:
            return self._key().network
        name, options = parse_network(cell.network)
        images = self.sources["published"]
        return NetworkSpec(name, images.channels, images.image_size, images.classes, options)

    def _seen(self, cell: Cell, name: str) -> ImageSet:
        """The images of this name ("published", "clean" or "test") as the cell's network sees them."""
        images = self.test if name == "test" else self.sources[name]
        if cell.role != AUTHORISED:
            return images
        if name not in self._views:
            make = original_view if name == "clean" else view_of
            self._views[name] = make(images, self._key(), headroom_255=self.headroom_255)
        return self._views[name]

    def _network(self, cell: Cell) -> nn.Module:
        if cell.role == AUTHORISED:
            return self._key().network_module()
        seed = seed_for(cell.seed, "hacker", cell.network)
        return build_network(self._spec(cell), *normalisation_of(self.sources[cell.trained_on].images), seed=seed)

    def _teacher_file(self, seed: int, trained_on: str) -> Path:
        name = self.cell_name(Cell(AUTHORISED, seed=seed, trained_on=trained_on))
        return self.folder / "authorised" / f"{name}.safetensors"

    def _trained_weights(self, cell: Cell) -> Path:
        """The file with the authorised network as trained by its own cell of the same seed and source."""
        file = self._teacher_file(cell.seed, cell.trained_on)
        if not file.exists():
            raise ConfigError(
                f"a distilling hacker needs the authorised cell of the same seed ({cell.seed}) and images"
                f" ({cell.trained_on}) before it in the plan: {file} is missing"
            )
        return file

    def _teacher(self, cell: Cell) -> nn.Module:
        network = self._key().network_module()
        network.load_state_dict(safetensors.load_file(self._trained_weights(cell)))
        return Viewing(network, self._key(), self.headroom_255).eval().requires_grad_(False).to(self.device)

    def _train(self, cell: Cell, name: str, on_epoch: Callable[[int, int, float], None] | None) -> dict[str, Any]:
        recipe = self._recipe(cell)
        network = self._network(cell)
        history = fit(
            network,
            self._seen(cell, cell.trained_on),
            recipe,
            seed=seed_for(cell.seed, cell.role, cell.network, cell.countermeasure),
            test=self._seen(cell, "test"),
            countermeasure=build_countermeasure(
                cell.countermeasure,
                teacher=self._teacher(cell) if self._queries(cell) else None,
                clean=self.sources.get("clean"),
            ),
            device=self.device,
            on_epoch=(lambda epoch, loss, accuracy: on_epoch(epoch, recipe.epochs, accuracy)) if on_epoch else None,
        )
        if cell.role == AUTHORISED:
            weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
            write_atomically(self._teacher_file(cell.seed, cell.trained_on), safetensors.save(weights), mode=0o600)
        same = cell.role == "hacker" and cell.network == AUTHORISED
        return {
            "cell": name,
            "kind": cell.role,
            "network": self._spec(cell).label,
            "trained_on": cell.trained_on,
            "countermeasure": "other-init" if same and cell.countermeasure == "none" else cell.countermeasure,
            "knows": cell.knows,
            "locked": cell.role == AUTHORISED and self._key().null_space is not None,
            "seed": cell.seed,
            "accuracy": history.accuracy,
            "peak_accuracy": history.peak_accuracy,
            "test_accuracy": list(history.test_accuracy),
            "train_loss": list(history.train_loss),
            "seconds": history.seconds,
            "recipe": recipe.to_dict(),
            "config_hash": config_hash(recipe.to_dict() | asdict(cell)),
            "data": self.digests[cell.trained_on],
            "images": len(self.sources[cell.trained_on]),
            "test_images": len(self.test),
            "environment": environment(),
        }
