"""From originals and keys to a published folder, in one call that can be killed and called again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack

import torch

from uge.data.images import ImageSet, batch_of, normalisation_of
from uge.errors import ConfigError, KeyFileError, UgeError
from uge.keys.key import Key, new_key, save_key
from uge.keys.keyed_view import KeyedView, derive
from uge.keys.null_space import NullSpace
from uge.keys.reversible import Reversible
from uge.networks import NetworkSpec, parse_network
from uge.protect import BASELINES, PRESETS, PROTECTIONS, Config
from uge.protect.baseline import Baseline, BaselineConfig
from uge.protect.keyed import KeyedProtection
from uge.protect.learnability_lock import LearnabilityLockConfig, LearnabilityLockProtection, save_lock
from uge.protect.null_space import NullSpaceConfig, NullSpaceProtection
from uge.protect.protection import Protection, RunOptions
from uge.protect.reversible import ReversibleConfig, ReversibleProtection, coded
from uge.protect.ungeneralizable import UngeneralizableConfig, UngeneralizableProtection
from uge.publish import Manifest, check_target, files_of, publish
from uge.runtime import check_writable, exclusive, seed_for, without_folders, write_atomically
from uge.training import Recipe

V = TypeVar("V", bound=KeyedView)


def protect_and_publish(
    clean: ImageSet,
    keys: Sequence[Key],
    out: Path,
    config: Config,
    *,
    seed: int | None = None,
    log: Path | None = None,
    lock: Path | None = None,
    device: torch.device | str = "cpu",
    checkpoint_seconds: float = 30.0,
    on_step: Callable[[dict[str, Any], int], None] | None = None,
) -> Manifest:
    """Train what the protection trains, make the copy, publish it.

    Work in progress lies in `OUT.partial` beside `out` and is removed at the end. It may hold clean checkpoints of the
    authorised network, so it is as private as the key. The same call goes on from it.

    Args:
        clean: the originals.
        keys: the authorised networks, as their protectors hold them: each signs the manifest. Baselines take none, or
            one reversible key, which their perturbation is then published behind.
        out: the folder to make; must not exist or be empty.
        config: settings of a protection; their type chooses it.
        seed: decides everything but the keys; None takes `secret_seed`. It is not published: whoever knows it can
            repeat what does not depend on the images.
        log: a JSON-lines file for the terms of the loss, one row a step; private.
        lock: where the learnability lock's own key goes, which undoes it; for no other method.
        device: where to compute.
        checkpoint_seconds: least time between two checkpoints; a killed run loses no more than this.
        on_step: called after each step with its row and the number of all steps, and as `Protection.train` says.

    Raises:
        UgeError: the first thing that is wrong; nothing is left at `out`.
    """
    check_target(out)
    files_of(clean)  # what cannot be published and keys that cannot sign fail here, not after hours of training
    for key in keys:
        key.sign(b"")
    out = Path(os.path.abspath(out))  # "." has no name to put ".partial" behind
    partial = out.with_name(f"{out.name}.partial")
    for what, file in (("lock", lock), ("log", log)):
        _check_outside(what, file, out, partial)
    _check_lock(config, lock, resumed=partial.exists())
    if seed is None:
        seed = secret_seed(clean, keys)
    protection = _protection(
        clean, keys, config, seed=seed, workdir=partial, device=device, checkpoint_seconds=checkpoint_seconds
    )
    fresh = not partial.exists()
    protection.claim()
    with exclusive(partial / ".lock", f"another run is at work in {partial}; wait for it, or give another --out"):
        try:
            protection.train(on_step)
        except UgeError:
            if fresh and not any(partial.glob("*.pt")):  # nothing worth going on from: leave no trace
                shutil.rmtree(partial, ignore_errors=True)
            raise
        if log is not None:  # before the copy: whatever fails leaves nothing at `out`, and the same call goes on
            write_atomically(log, "".join(json.dumps(row) + "\n" for row in protection.log))
        if lock is not None and isinstance(protection, LearnabilityLockProtection):  # no copy without its key
            save_lock(protection.lock, lock)
        manifest = _publish(protection, clean, keys, out)
    shutil.rmtree(partial)
    return manifest


def _publish(protection: Protection[Any], clean: ImageSet, keys: Sequence[Key], out: Path) -> Manifest:
    """Publish what a protection has learnt to make, with its settings and, behind a key with a view, the nonces."""
    settings = without_folders(protection.config.to_dict()) | {"recipients": len(keys)}  # such as that of an encoder
    epsilon_255: int | None = getattr(protection.config, "epsilon_255", None)  # a baseline may have no L_inf bound
    copies, nonces = protection.copies(batch_of(clean.images.shape[1:])), None
    if isinstance(protection, KeyedProtection):
        settings |= protection.space.layout
        nonces = protection.nonces
    elif isinstance(protection, LearnabilityLockProtection):
        settings |= {"lock": protection.lock.digest()}
    elif isinstance(protection, Baseline) and keys:
        space = _the_view(keys, Reversible, clean)
        settings |= {"bound": "L_inf: the key's epsilon_255", "view": {"kind": space.kind} | space.layout}
        epsilon_255, nonces = space.epsilon_255, space.nonces(clean.images)
        copies = coded(clean, copies, space, nonces)
    return publish(
        clean,
        copies,
        out,
        method=next(name for name, kind in PROTECTIONS.items() if isinstance(protection, kind)),
        settings=settings,
        epsilon_255=epsilon_255,
        nonces=nonces,
        signers=keys,
    )


def secret_seed(clean: ImageSet, keys: Sequence[Key]) -> int:
    """The seed of these originals and keys, in [0, 2**63): the same at every call, and nobody else can compute it."""
    secrets = (derive(key.signing_key, "uge/seed/v1") for key in keys if key.signing_key)
    return seed_for(0, "protect", clean.digest(), *(secret.hex() for secret in secrets))


def draw_key(clean: ImageSet, network: str, recipe: Recipe, name: Path, view: KeyedView | None, *, copy: Path) -> Key:
    """Draw a key for these images and write its two files, open, where a program keeps what it needs itself.

    Args:
        clean: the originals: classes, size and normalisation.
        network: the authorised one, as `uge.networks.parse_network` reads it.
        recipe: how it is trained.
        name: NAME of NAME.protector.uge and NAME.recipient.uge; half a pair, left by a kill, is replaced.
        view: what the network sees of an image; None for a key of initial weights alone.
        copy: the folder that is published with it.

    Raises:
        KeyFileError: the copy is there already, and another key would be of no use.
    """
    if copy.exists():
        raise KeyFileError(
            f"{name}.recipient.uge is missing, and {copy} was published with it: put it back, or give another --out"
        )
    kind, options = parse_network(network)
    spec = NetworkSpec(kind, clean.channels, clean.image_size, clean.classes, options)
    name.with_name(f"{name.name}.protector.uge").unlink(missing_ok=True)
    name.parent.mkdir(parents=True, exist_ok=True)
    key = new_key(spec, clean.class_names, *normalisation_of(clean.images), recipe, view=view)
    save_key(key, name)
    return key


def _check_outside(what: str, file: Path | None, out: Path, partial: Path) -> None:
    """Refuse a private file that would be published, or lost with the work in progress.

    Raises:
        ConfigError: it lies in one of the two folders.
    """
    if file is None:
        return
    place = Path(os.path.realpath(file))
    for folder in (out, partial):
        real = Path(os.path.realpath(folder))
        if place == real or real in place.parents:
            raise ConfigError(f"the {what} {file} would not stay private in {folder}; choose a place outside")


def _check_lock(config: Config, lock: Path | None, *, resumed: bool) -> None:
    """Refuse a missing or needless place for a lock's key before hours of work.

    Raises:
        ConfigError: the method needs one and none is given, or the other way round.
        KeyFileError: a file is there already, and no killed run can have written it.
    """
    if isinstance(config, LearnabilityLockConfig) != (lock is not None):
        raise ConfigError(
            "the method learnability-lock needs --lock FILE, where the key that undoes it goes"
            if lock is None
            else "--lock belongs to the method learnability-lock; leave it out"
        )
    if lock is None:
        return
    if lock.exists() and not resumed:
        raise KeyFileError(f"{lock} exists, and a key is never overwritten; choose another name or move it away")
    check_writable(lock)


def _protection(clean: ImageSet, keys: Sequence[Key], config: Config, **run: Unpack[RunOptions]) -> Protection[Any]:
    """The protection that the settings are for."""
    if isinstance(config, BaselineConfig):
        name = next(name for name, presets in PRESETS.items() if isinstance(config, type(presets["default"])))
        if keys:
            if isinstance(config, LearnabilityLockConfig):
                raise ConfigError(f"the method {name} brings a key of its own (--lock); leave --key out")
            _the_view(keys, Reversible, clean)
        return BASELINES[name](clean, config, **run)
    if isinstance(config, UngeneralizableConfig):
        return UngeneralizableProtection(clean, keys, config, **run)
    if isinstance(config, ReversibleConfig):
        return ReversibleProtection(clean, _the_view(keys, Reversible, clean), config, **run)
    assert isinstance(config, NullSpaceConfig)
    return NullSpaceProtection(clean, _the_view(keys, NullSpace, clean), config, **run)


def _the_view(keys: Sequence[Key], kind: type[V], clean: ImageSet) -> V:
    """The view of the only key, which is for images like these.

    Raises:
        ConfigError: several keys, or one of another kind.
        KeyFileError: the key is for other images.
    """
    views = [key.view for key in keys]
    if len(views) == 1 and isinstance(views[0], kind):
        keys[0].check_fits(clean)
        return views[0]
    got = ", ".join("initial weights" if view is None else view.kind for view in views)
    raise ConfigError(
        f"this method takes one {kind.kind} key, got: {got}; make one with 'uge key new --{kind.kind}' and give its"
        " recipient's file to everybody authorised"
    )
