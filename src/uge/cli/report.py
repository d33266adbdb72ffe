"""`uge report`: the pages of an audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uge.cli.terminal import say
from uge.errors import ConfigError

NAME = "protected-images"


def report(
    folder: Annotated[Path, typer.Argument(metavar="AUDIT", help="Folder of an audit.")],
    public: Annotated[
        bool, typer.Option("--public", help="For everybody: without originals and differences, with a data card.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", help=f"--public: of the data set, for its card ({NAME}).")
    ] = None,
    license_: Annotated[str | None, typer.Option("--license", help="--public: URL of the copy's licence.")] = None,
) -> None:
    """Write an audit's pages into its folder: report.html and report.md.

    With --public they are public.html, public.md and a card (Croissant).
    """
    from uge.report.audit import write_reports

    if not public and (name or license_):
        raise ConfigError("--name and --license are for the data card of --public; add it, or leave them out")
    say(*write_reports(folder, public=public, name=name or NAME, license_url=license_))
