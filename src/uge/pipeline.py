"""From originals and keys to a published folder, in one call that can be killed and called again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial as bind
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uge.copy import MANIFEST, Manifest, files_of, read_manifest
from uge.copy.chunks import LEAST_SPREAD, cut, work_through
from uge.copy.files import MOST_PIXELS
from uge.copy.forms import form_of
from uge.copy.publishing import Chunk, Facts, finish, write_chunk
from uge.data import Photographs
from uge.data.entries import Pixels
from uge.data.images import ImageSet, Packed, batch_of
from uge.durable import check_target, claimed, hidden_path, is_bare, move_into_place, remove_folder, write_file
from uge.errors import ConfigError, KeyFileError, PublishError, UgeError, told_as, unknown_name
from uge.keys import Key, SealedKey, load_key, pair_of, save_key
from uge.keys.letter import derive
from uge.outside import MOST_FACTS, read_file
from uge.protect import DEFAULT, PROTECTIONS, resolve_config
from uge.protection import Copier, OnStep, Protection, Settings
from uge.runners import Runner
from uge.runtime import seed_for, without_folders


def protect_and_publish(
    originals: ImageSet | Photographs,
    keys: Sequence[Key],
    out: Path | str,
    method: str = DEFAULT,
    config: Settings | None = None,
    *,
    seed: int | None = None,
    device: torch.device | str = "cpu",
    checkpoint_seconds: float = 30.0,
    runner: Runner | None = None,
    on_step: OnStep | None = None,
    on_copy: Callable[[Manifest], None] = lambda manifest: None,
) -> Manifest:
    """Train what the protection trains, make the copy, publish it.

    Work in progress lies in `OUT.partial` beside `out` and is removed at the end. It is as private as the originals and
    the key. The same call goes on from it. Private files that a protection makes itself (`Protection.secrets`) are
    written beside `out` before the copy appears.

    Args:
        originals: of one size, or photographs of any, which are then published at their own.
        keys: as their protectors hold them, of the kind that the protection takes: each signs the manifest.
        out: the folder to make; must not exist or be empty.
        method: an entry of `uge.protect.PROTECTIONS`.
        config: settings of that protection; None for the defaults.
        seed: decides everything but the keys; None takes `secret_seed`. It is not published: whoever knows it can
            repeat what does not depend on the images.
        device: where to compute.
        checkpoint_seconds: least time between two checkpoints; a killed run loses no more than this.
        runner: makes and writes the copies of many images; without one this process does. What is trained is trained
            here.
        on_copy: called when the copy is there and a killed run would still go on: for what is to lie beside it.
        on_step: called after each step with its row and the number of all steps, and as `Protection.train` says.

    Raises:
        UgeError: the first thing that is wrong; nothing is left at `out`.

    Example:
        >>> manifest = uge.protect_and_publish(images, [key], "copy")
        >>> manifest.method, len(manifest.images), manifest.epsilon_measured_255 <= 16
        ('sealed', 12, True)
    """
    out = Path(out)
    if not was_published(out):
        check_target(out)
    if method not in PROTECTIONS:
        raise unknown_name("method", method, PROTECTIONS)
    config = config or resolve_config(method)
    clean, sizes = originals.small, originals.sizes
    files_of(clean)  # what cannot be published and keys that cannot sign fail here, not after hours of training
    for key in keys:
        key.sign(b"")
    seen = clean if sizes is not None else PROTECTIONS[method].seen(clean)
    if seen is not clean:
        sizes = (clean.image_size,) * len(clean)
    out = Path(os.path.abspath(out))  # "." has no name to put ".partial" behind
    partial = out.with_name(f"{out.name}.partial")
    seed = secret_seed(clean, keys) if seed is None else seed
    protection = PROTECTIONS[method](
        seen, keys, config, seed=seed, workdir=partial, device=device, checkpoint_seconds=checkpoint_seconds
    )
    if sizes is not None:
        _check_pixels(sizes, clean.names)
        protection.check_sizes(sizes)
    fresh, mark = not partial.exists(), protection.mark()
    with claimed(partial, *mark):
        if was_published(out):  # and killed before it could tidy up
            on_copy(manifest := read_manifest(out))
            remove_folder(partial, last=mark[:1])
            return manifest
        chunks = _Chunks(originals, sizes, protection)
        if runner is not None and len(chunks.numbers) >= LEAST_SPREAD:
            runner.prepare(write_chunk)
        try:
            protection.train(on_step)
        except UgeError:
            if fresh and is_bare(partial, mark[0]):  # nothing to go on from
                remove_folder(partial, last=mark[:1])
            raise
        for suffix, content in protection.secrets().items():  # no copy without them
            file = out.with_name(out.name + suffix)
            if file.exists() and read_file(file, MOST_FACTS) != content:  # a killed run may find its own there
                raise KeyFileError(
                    f"{file} exists, and a key is never overwritten; choose another --out or move it away"
                )
            write_file(file, content, mode=0o600)
        settings = without_folders(protection.config.to_dict()) | {"recipients": len(keys)} | protection.told()
        facts = Facts(method=method, settings=settings, epsilon_255=protection.epsilon_255, signers=keys)
        manifest = _write_copy(chunks, partial, out, facts, runner, on_step)
        on_copy(manifest)
        remove_folder(partial, last=mark[:1])
    return manifest


def _check_pixels(sizes: Sequence[tuple[int, int]], names: Sequence[str]) -> None:
    """Refuse photographs (height, width) that are larger than what readers of a copy take, before any training."""
    for (height, width), name in zip(sizes, names, strict=True):
        if height * width > MOST_PIXELS:
            raise ConfigError(
                f"{name} has {height}x{width} pixels, an image of a copy at most {MOST_PIXELS:,}; make it smaller"
            )


def _write_copy(
    chunks: _Chunks, partial: Path, out: Path, facts: Facts, runner: Runner | None, on_step: OnStep | None
) -> Manifest:
    """Write the chunks that a killed run has not written, and what `finish` writes with these facts, to `out`."""
    folder = hidden_path(partial / out.name) / out.name
    do, count = bind(write_chunk, folder), len(chunks.numbers)
    with told_as(PublishError, f"cannot write {out}"):
        folder.mkdir(parents=True, exist_ok=True)
        written = work_through(count, chunks.of, do, partial / "written", runner, chunks.telling(on_step))
        manifest = finish(folder, chunks.clean, written, **facts)
        move_into_place(folder, out)
    return manifest


class _Chunks:
    """The chunks of a copy: parts of the originals, each with what makes its copies."""

    def __init__(
        self,
        originals: ImageSet | Photographs,
        sizes: Sequence[tuple[int, int]] | None,
        protection: Protection[Any],
    ) -> None:
        self.originals, self.protection = originals, protection
        self.one_by_one = sizes is not None  # at sizes that the protection did not work at
        self.clean = originals.small
        self.files, self.labels = files_of(self.clean), self.clean.labels.tolist()
        own = sizes or repeat(self.clean.image_size, len(self.clean))
        self.form = form_of(len(self.clean), self.clean.class_names)
        self.numbers = cut((self.clean.channels * height * width for height, width in own), self.form.most)

    def of(self, number: int) -> Chunk:
        """The chunk of a number."""
        numbers = self.numbers[number]
        chosen = slice(numbers.start, numbers.stop)
        copier = self.protection.part(numbers, number)
        images: Pixels | list[Packed] = self.clean.images[chosen].numpy()
        if self.one_by_one:
            images = [self.originals.packed(at) for at in numbers]
        facts = number, self.form, self.files[chosen], self.labels[chosen]
        return Chunk(*facts, _Pairs(copier, images), self.clean.image_size, self.protection.epsilon_255)

    def telling(self, on_step: OnStep | None) -> Callable[[int, int], None]:
        """Tells how many chunks are done; few are done at once."""
        if on_step is None or len(self.numbers) < LEAST_SPREAD:
            return lambda done, count: None
        return lambda done, count: on_step({"step": done, "preparing": f"copies, part {done} of {count}"}, count)


@dataclass(frozen=True)
class _Pairs:
    """Originals and their copies, made where they are asked for.

    Images uint8 [N, C, H, W] come batch by batch, photographs one by one, each decoded here.
    """

    copier: Copier
    originals: Pixels | list[Packed]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if isinstance(self.originals, list):
            for number, photograph in enumerate(self.originals):
                image = photograph()
                yield image[None], self.copier.enlarged(number, image)[None]
        else:
            size = batch_of(self.originals.shape[1:])
            yield from zip(torch.from_numpy(self.originals).split(size), self.copier.copies(size), strict=True)


def was_published(out: Path) -> bool:
    """Whether a run ended between its copy and its work folder: the copy is whole, for it appears by one rename."""
    return (out / MANIFEST).exists() and Path(f"{out}.partial").exists()


def key_beside(name: Path, passphrase: bytes | None = None) -> Key:
    """The sealed key NAME.protector.uge, NAME.recipient.uge: that of a killed run, or else a new one, written first.

    Args:
        name: of the pair, usually that of the copy.
        passphrase: of both files; None leaves them open.

    Raises:
        KeyFileError: the files cannot be read or written, or one of them is missing.
    """
    protector, recipient = pair_of(name)
    if protector.exists() and recipient.exists():
        return load_key(protector, role="protector", passphrase=passphrase)
    key = SealedKey.draw()
    save_key(key, name, passphrase=passphrase)
    return key


def secret_seed(clean: ImageSet, keys: Sequence[Key]) -> int:
    """The seed of these originals and keys, in [0, 2**63): the same at every call.

    torch's generator uses 32 bits of it, few enough to try them all: a pattern that comes from the seed alone, as that
    of `random-noise`, can be searched for. A sealed copy's shift cannot, for it comes from the originals, too.
    """
    secrets = (derive(key.signing_key, "uge/seed/v1") for key in keys if key.signing_key)
    return seed_for(0, "protect", clean.digest(), *(secret.hex() for secret in secrets))
