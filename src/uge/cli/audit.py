"""`uge audit`: many hackers, one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from uge.cli import options
from uge.cli.terminal import Bar, say, say_result, trained_text

MOST_LEFT_OUT = 5  # hackers that are named for one reason


def audit(
    folder: options.Folder,
    test: options.Test,
    out: Annotated[Path, typer.Option("--out", help="Folder of the audit; the same command goes on in it.")],
    plan: Annotated[str, typer.Option("--plan", help="worst-case, full or FILE.toml.")] = "worst-case",
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="worst-case: the time of all trainings together, as in 90s or 2h (30m)."),
    ] = None,
    key: options.KeyFile = None,
    clean: options.Clean = None,
    split: options.Split = "test",
    passphrase_file: options.PassphraseFile = None,
    runner: options.RunnerText = "local",
    convert: options.Convert = False,
    skip_bad: options.SkipBad = False,
) -> None:
    """One page that says how well a copy protects, after many hackers have tried it.

    The worst case searches for the strongest hacker until its budget is spent. A larger budget goes on.
    Originals (--clean) give every hacker his ceiling, and a key the recipient. What is left out is named.
    Killed at any time, the same command goes on where it stopped.
    """
    from uge.audit.conduct import conduct
    from uge.audit.plan import read_plan
    from uge.copy import Copy, check_outside
    from uge.data import load
    from uge.report.audit import write_reports
    from uge.runners import build_runner
    from uge.runtime import best_device

    check_outside(out, folder, test, clean)
    chosen, where = read_plan(plan), build_runner(runner)
    if budget is not None:
        chosen = chosen.within(options.seconds(budget, "--budget"))
    owner = options.read_key(key, passphrase_file) if key else None
    how = options.how(convert, skip_bad)
    copy = Copy.read(folder, owner, **how)
    with Bar("trainings") as bar:
        watcher = watching(bar)
        summary = conduct(
            copy.images,
            load(test, split, **copy.seen_at, **how),
            out,
            chosen,
            where,
            manifest=copy.manifest,
            key=owner,
            view=copy.resized_view(owner),
            clean=load(clean, "train", **copy.seen_at, **how) if clean else None,
            device=str(best_device()),
            watcher=watcher,
        )
    page = write_reports(out)[0]  # before a line is printed
    say_result(summary)
    if watcher.following:
        say("", f"A larger --budget would go on with: {'; '.join(watcher.following)}")
    say("", f"Page: {page}   (private; 'uge report {out} --public' writes one for everybody)")
    if watcher.failed:
        say(f"{watcher.failed} trainings failed; the same command tries them again")
        raise typer.Exit(1)


def left_out(skipped: Sequence[dict[str, str]]) -> list[str]:
    """A line a hacker, or one for all of them where many share a reason; the page names each."""
    reasons: dict[str, list[str]] = {}
    for each in skipped:
        reasons.setdefault(each["why"], []).append(each["what"])
    return [
        f"left out: {what} ({why})"
        for why, whats in reasons.items()
        for what in (whats if len(whats) <= MOST_LEFT_OUT else [f"{len(whats)} hackers"])
    ]


def watching(bar: Bar) -> Any:
    """A watcher of an audit that shows it on a bar, and counts what failed."""
    from uge.audit.conduct import Watcher
    from uge.audit.estimate import duration

    class Shown(Watcher):
        failed = 0
        done = seconds = 0.0
        following: Sequence[str] = ()

        def planned(self, trainings: int, seconds: float, skipped: Any) -> None:
            say(f"{trainings} trainings, about {duration(seconds)} of one worker")
            say(*left_out(skipped))

        def progress(self, missing: int, seconds_done: float, seconds_all: float) -> None:
            self.done, self.seconds = seconds_done, seconds_all
            bar.show(self.done, self.seconds)

        def trained(self, row: dict[str, Any], seconds: float) -> None:
            self.done += seconds
            self.failed += "error" in row
            bar.show(self.done, self.seconds)
            bar.say(trained_text(row))

        def ended(self, following: Sequence[str]) -> None:
            self.following = following

    return Shown()
