"""What commands say. Text that comes out of files is shown, never obeyed: a terminal takes some letters as commands."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn, Self, TextIO

from uge.outside import printable

LONGEST_LINE = 300  # letters of an error or a note


def say(*lines: object, to: TextIO | None = None) -> None:
    """Print lines; what was done is on the disk by then. Nobody who reads them is no reason to stop."""
    for line in lines:
        try:
            print(printable(str(line)), file=to, flush=True)
        except OSError:  # the reader has gone, the disk is full: what follows would fail, too
            os.dup2(os.open(os.devnull, os.O_WRONLY), (to or sys.stdout).fileno())


def note(text: str) -> None:
    """Tell on stderr what the user should hear of."""
    say("note: " + one_line(text), to=sys.stderr)


def fail(message: str) -> NoReturn:
    """End with one line on stderr."""
    say("error: " + one_line(message), to=sys.stderr)
    sys.exit(2)


def one_line(text: str) -> str:
    """Text on one line that a terminal can show, of `LONGEST_LINE` letters: the middles of long words go first."""
    words = printable(" ".join(text.split())).split(" ")
    for longest in range(LONGEST_LINE, 19, -1):
        line = " ".join(_cut(word, longest) for word in words)
        if len(line) <= LONGEST_LINE:
            return line
    return _cut(line, LONGEST_LINE)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: (most - 3) // 2]}...{text[len(text) - (most - 2) // 2 :]}"


class Bar:
    """A progress bar of something, with time left, for every command.

    Only a terminal gets one: redrawn lines spoil a log.
    """

    def __init__(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
        )
        self._console = Console(stderr=True)
        # The speed is the mean over the whole run: steps may end minutes apart.
        self._progress = Progress(
            *columns, console=self._console, disable=not self._console.is_terminal, speed_estimate_period=1e9
        )
        self._task = self._progress.add_task(printable(what), total=None, note="")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, done: float, total: float, *, note: str = "") -> None:
        """Draw the bar anew, or for the first time: what is printed before stays on stdout."""
        self._progress.start()
        self._progress.update(self._task, completed=done, total=total, note=printable(note))

    def restart(self, what: str) -> None:
        """Begin with something else."""
        self._progress.start()
        self._progress.reset(self._task, description=printable(what), total=None, note="")

    def say(self, text: str) -> None:
        """Print a line on stderr, above the bar."""
        if not self._console.is_terminal:  # rich would end the program where nobody reads
            return say(text, to=sys.stderr)
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def step(self, row: dict[str, Any], total: int) -> None:
        """Show a step of a protection, with the terms of its loss."""
        terms = (f"{name} {value:.3g}" for name, value in row.items() if isinstance(value, float) and name != "seconds")
        self.show(row["step"], total, note=row.get("preparing") or "  ".join(terms))


def trained_text(row: dict[str, Any]) -> str:
    """What is said of a finished training."""
    from uge.report.tables import countermeasure_label, trained_on

    how = "" if row["countermeasure"] == "none" else f", {countermeasure_label(row['countermeasure'])}"
    result = f"failed: {row['error']}" if "error" in row else f"{row['accuracy']:.1f} %"
    return f"  {row['kind']} on {trained_on(row)}: {row['network']}{how}, seed {row['seed']}: {result}"


def say_result(summary: dict[str, Any]) -> None:
    """The table of an audit, the verdict in a few words, and what weakens it."""
    from uge.report.tables import print_table
    from uge.report.verdict import judge

    print_table(summary)
    verdict = judge(summary)
    say("", f"{verdict.heading}.", *(f"  {caution}" for caution in verdict.cautions))
