"""`uge bench`: protections side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from uge.cli import options
from uge.cli.terminal import Bar, say, trained_text
from uge.errors import ConfigError


def bench(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="quick, leaderboard or FILE.toml.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the comparison; the same command goes on in it.")],
    data: Annotated[
        list[str] | None, typer.Option("--data", help="DATA with a train and a test split; default: the plan's own.")
    ] = None,
    folder: Annotated[
        list[str] | None, typer.Option("--folder", help="NAME=DIR: a copy of the data that another tool made.")
    ] = None,
    split: options.Split = "test",
    convert: options.Convert = False,
    runner: options.RunnerText = "local",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of each process; decides the last digits.")] = 1,
) -> None:
    """A leaderboard of protections: each makes a copy of the same data, each copy meets the same hackers.

    It states accuracies, picture quality and costs (HTML, Markdown, CSV), beside the records.
    Killed at any time, the same command goes on where it stopped.
    """
    from uge.bench.plan import read_bench
    from uge.bench.run import run_bench
    from uge.copy import check_outside
    from uge.report.leaderboard import print_leaderboard, write_leaderboards
    from uge.runners import build_runner
    from uge.runtime import best_device

    chosen, where = read_bench(plan), build_runner(runner)
    copies = _folders(folder or [])
    check_outside(out, *(data or []), *copies.values())
    with Bar("copies") as bar:
        rows, failed = run_bench(
            chosen,
            data or [],
            out,
            where,
            folders=copies,
            split=split,
            convert=convert,
            device=str(best_device()),
            threads=threads,
            steps=_steps(bar),
            on_rows=lambda _: write_leaderboards(out),
        )
    print_leaderboard(rows)
    say("", f"Leaderboard: {out / 'leaderboard.html'}, .md and .csv")
    if failed:
        say(f"{failed} trainings failed; the same command tries them again")
        raise typer.Exit(1)


def _steps(bar: Bar) -> Any:
    """Shows the steps of a comparison on a bar that counts copies."""
    from uge.bench.run import ComparisonSteps

    class Shown(ComparisonSteps):
        number = count = 0
        seconds = done = 0.0

        def _show(self, share: float, note: str = "") -> None:
            bar.show(self.number - 1 + min(1.0, share), self.count, note=note)

        def began(self, number: int, count: int, text: str) -> None:
            self.number, self.count = number, count
            bar.say(f"[{number}/{count}] {text}")
            self._show(0.0)

        def protecting(self, share: float) -> None:
            self._show(0.0, f"this one is {100 * share:.0f} % made")

        def progress(self, missing: int, seconds_done: float, seconds_all: float) -> None:
            self.done, self.seconds = seconds_done, seconds_all
            self._show(self.done / max(self.seconds, 1e-9))

        def trained(self, row: dict[str, Any], seconds: float) -> None:
            self.done += seconds
            self._show(self.done / max(self.seconds, 1e-9))
            bar.say(trained_text(row))

    return Shown()


def _folders(texts: list[str]) -> dict[str, Path]:
    folders = {}
    for text in texts:
        name, equals, place = text.partition("=")
        if not equals or not name or not place:
            raise ConfigError(f"--folder '{text}' is not NAME=DIR, as in --folder apbench-em=copies/em")
        if name in folders:
            raise ConfigError(f"--folder {name} is given twice; give each copy a name of its own")
        if not Path(place).is_dir():
            raise ConfigError(f"--folder {name}: {place} is no folder")
        folders[name] = Path(place)
    return folders
