"""`uge train`: train one network on a copy."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from uge.cli import options
from uge.cli.terminal import Bar, say
from uge.errors import ConfigError


def train(
    folder: options.Folder,
    out: options.Out,
    key: options.KeyFile = None,
    passphrase_file: options.PassphraseFile = None,
    network: Annotated[
        str | None, typer.Option("--network", help="What to train (vgg:depth=8,width=16); uge list.")
    ] = None,
    test: Annotated[str | None, typer.Option("--test", help="DATA whose test split measures accuracy.")] = None,
    split: options.Split = "test",
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the data (30).")] = None,
    convert: options.Convert = False,
    skip_bad: options.SkipBad = False,
    seed: options.Seed = 0,
) -> None:
    """A trained network: with the recipient's key on the opened images, without it on the copy as it is."""
    from dataclasses import replace

    from safetensors.torch import save

    from uge.audit.trainer import alike
    from uge.copy import Copy, check_outside
    from uge.data import load
    from uge.durable import check_target, new_folder
    from uge.keys import RECIPIENT_NETWORK
    from uge.networks import NetworkSpec, fresh_network, parse_network
    from uge.runtime import best_device, environment, seed_for
    from uge.training import fit, recommended_recipe

    check_outside(out, folder, test)
    check_target(out)
    place = best_device()
    owner = None if key is None else options.read_key(key, passphrase_file)
    if owner is not None and network is not None and not owner.opens:
        raise ConfigError("a key of initial weights says itself what to train; leave --network out")
    network = network or RECIPIENT_NETWORK
    parse_network(network)  # before COPY is read
    how = options.how(convert, skip_bad)
    copy = Copy.read(folder, owner, **how)
    begin = seed_for(seed, "plain", network)
    if owner is not None:
        images = copy.view(owner)
        spec, recipe = owner.spec(images, network), owner.recipe(network, epochs or options.EPOCHS)
        module = owner.module(images, network, begin)
    else:
        images = copy.images
        spec, recipe = NetworkSpec.of(network, images), recommended_recipe(network)
        module = fresh_network(network, images, begin)
    recipe = replace(recipe, epochs=epochs or recipe.epochs)
    held_out = None
    if test is not None:
        held_out = alike(images, load(test, split, **copy.seen_at, **how), "test")
        held_out = held_out if owner is None else held_out.with_images(owner.seen(held_out.images))
    with new_folder(out, private=True) as run, Bar(spec.label) as bar:  # the weights are for whoever trained them
        bar.show(0, recipe.epochs)
        history = fit(
            module,
            images,
            recipe,
            seed=seed_for(seed, "train"),
            test=held_out,
            device=place,
            on_epoch=lambda number, loss, accuracy: bar.show(
                number, recipe.epochs, note=f"test accuracy {accuracy:.1f} %" if held_out else f"loss {loss:.3f}"
            ),
        )
        measured = {"accuracy": history.accuracy, "peak_accuracy": history.peak_accuracy} if held_out else {}
        facts = {
            "network": spec.label,
            "spec": spec.to_dict(),
            "class_names": images.class_names,
            "cut": copy.seen_at["cut"],
            "data": images.digest(),
            "key": owner is not None,
            **measured,
            "train_loss": history.train_loss,
            "test_accuracy": history.test_accuracy,
            "seconds": history.seconds,
            "seed": seed,
            "recipe": recipe.to_dict(),
            "environment": environment(place),
        }
        weights = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
        (run / "weights.safetensors").write_bytes(save(weights))
        (run / "run.json").write_text(json.dumps(facts, indent=1) + "\n")
    told = f"accuracy {history.accuracy:.1f} %" if held_out else f"train loss {history.train_loss[-1]:.3f}"
    say(f"{out}: {spec.label}, {told}. In Python: uge.load_network({str(out)!r}).")
