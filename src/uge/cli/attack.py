"""`uge attack`: one hacker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uge.cli import options
from uge.cli.terminal import Bar, note, say


def attack(
    folder: options.Folder,
    test: options.Test,
    out: Annotated[Path, typer.Option("--out", help="Folder of records; further attacks are added to it.")],
    hacker: Annotated[str, typer.Option("--hacker", help="A network, or 'authorised'.")] = "vgg:depth=8,width=16",
    countermeasure: Annotated[str, typer.Option("--countermeasure", help="Such as jpeg:30+cutmix; uge list.")] = "none",
    key: options.KeyFile = None,
    clean: options.Clean = None,
    split: options.Split = "test",
    passphrase_file: options.PassphraseFile = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help=f"Passes over the data ({options.EPOCHS}).")
    ] = None,
    convert: options.Convert = False,
    skip_bad: options.SkipBad = False,
    seed: options.Seed = 0,
) -> None:
    """How well one hacker learns from a copy, measured on clean images.

    A key is for hackers who query or copy the recipient's network, originals for those who have some.
    """
    from uge.attack import needs_teacher, why_unfit
    from uge.audit.plan import AUTHORISED, Cell
    from uge.audit.run import Audit
    from uge.copy import Copy, check_outside
    from uge.data import load
    from uge.runtime import best_device
    from uge.training import recommended_recipe

    check_outside(out, folder, test, clean)
    owner = options.read_key(key, passphrase_file) if key else None
    how = options.how(convert, skip_bad)
    copy = Copy.read(folder, owner, **how)
    audit = Audit(
        copy.images,
        load(test, split, **copy.seen_at, **how),
        out,
        key=owner,
        view=copy.resized_view(owner),
        clean=load(clean, "train", **copy.seen_at, **how) if clean else None,
        told=copy.manifest.told if copy.manifest else None,
        recipe=lambda network: recommended_recipe(network, epochs or options.EPOCHS),
        key_epochs=epochs or 0,
        device=str(best_device()),
    )
    cell = Cell("hacker", hacker, countermeasure, seed)
    cells = [Cell(AUTHORISED, seed=seed), cell] if needs_teacher(countermeasure) else [cell]
    with Bar("training") as bar:
        rows = audit.run(
            cells,
            lambda number, each: bar.restart(f"{each.role} {each.network}"),
            lambda epoch, of, accuracy: bar.show(epoch, of, note=f"test accuracy {accuracy:.1f} %"),
        )
    row = rows[-1]
    say(f"{row['network']} ({row['countermeasure']}): {row['accuracy']:.1f} %, peak {row['peak_accuracy']:.1f} %")
    if why := why_unfit(countermeasure, copy.images, audit.settings, key=owner):
        note(f"{countermeasure} is of no use here: {why}")
