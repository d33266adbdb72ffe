"""`uge demo`: the whole job on small data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from uge.cli import options
from uge.cli.audit import watching
from uge.cli.terminal import Bar, say, say_result


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo makes.")] = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="A quarter of the data: shows that it works.")] = False,
    seed: options.Seed = 0,
) -> None:
    """A page that shows what a copy is worth to the recipient and to hackers, from real small photographs.

    It makes a key and a protected copy, trains the recipient's network, and lets hackers try.
    """
    from uge.demo import DemoSteps, run_demo
    from uge.runtime import best_device

    with Bar("protecting") as bar:
        watcher = watching(bar)

        class Shown(DemoSteps):
            planned, progress, trained = watcher.planned, watcher.progress, watcher.trained

            def stage(self, text: str) -> None:
                say(text)

            def protecting(self, row: dict[str, Any], total: int) -> None:
                bar.step(row, total)

        summary = run_demo(out, quick=quick, seed=seed, device=str(best_device()), steps=Shown())
    say_result(summary)
    say("", f"Page: {out / 'index.html'}   (private: it shows originals beside copies)")
