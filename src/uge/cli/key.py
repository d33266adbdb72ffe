"""`uge key`: make a pair of key files, and show what may be told of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uge.cli import options
from uge.cli.terminal import say
from uge.errors import ConfigError

if TYPE_CHECKING:
    from uge.keys import Key


commands = typer.Typer(help="Make keys, and look at them.", no_args_is_help=True)


@commands.command("new")
def new(
    out: Annotated[Path, typer.Option("--out", help="NAME of NAME.protector.uge and NAME.recipient.uge.")],
    to: Annotated[
        list[str] | None,
        typer.Option("--to", help="Encrypt the recipient's file for age1... or an ssh public key; repeatable."),
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="Encrypts the files; a terminal asks without it.")
    ] = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the files open to whoever gets hold of them.")
    ] = False,
    initial_weights: Annotated[
        bool, typer.Option("--initial-weights", help="A key for the paper's method: a network and how it begins.")
    ] = False,
    network: Annotated[
        str | None, typer.Option("--network", help="--initial-weights: such as resnet:depth=18 (uge list).")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="--initial-weights: DATA that the network is for.")] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help=f"--initial-weights: of the training ({options.EPOCHS}).")
    ] = None,
) -> None:
    """Make two files: one to publish with, one for the recipient. The key fits any images and any network."""
    from uge.copy import check_outside
    from uge.keys import SealedKey, save_key

    check_outside(out)
    if not initial_weights and (network or data or epochs):
        raise ConfigError("--network, --data and --epochs belong to --initial-weights; other keys fit any network")
    passphrase = options.new_passphrase(passphrase_file, no_passphrase)
    made = _of_weights(network, data, epochs or options.EPOCHS) if initial_weights else SealedKey.draw()
    protector, recipient = save_key(made, out, passphrase=passphrase, to=to or ())
    say(f"{protector}  publish with this one, and keep it")
    say(f"{recipient}  give this one to the recipient, and to nobody else")


def _of_weights(network: str | None, data: str | None, epochs: int) -> Key:
    from uge.data import load
    from uge.data.images import normalisation_of
    from uge.keys import new_weights_key
    from uge.networks import NetworkSpec, parse_network
    from uge.training import recommended_recipe

    if network is None or data is None:
        raise ConfigError("--initial-weights needs --network NETWORK and --data DATA, so that the network can be built")
    parse_network(network)  # before DATA is read
    images, recipe = load(data, "train"), recommended_recipe(network, epochs)
    spec = NetworkSpec.of(network, images)
    return new_weights_key(spec, images.class_names, *normalisation_of(images.images), recipe)


@commands.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="Key file.")], passphrase_file: options.PassphraseFile = None
) -> None:
    """Show what may be told of a key: nothing secret."""
    key = options.read_key(file, passphrase_file)
    role = "recipient: give it to him" if key.signing_key is None else "protector: keep it, it signs"
    say(*json.dumps({"role": role} | key.public_facts(), indent=1).split("\n"))
