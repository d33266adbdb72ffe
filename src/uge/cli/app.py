"""Every command and what is said where one fails."""

from __future__ import annotations

import os
import re
import sys
import warnings
from typing import Annotated, Any

import typer

from uge import __version__
from uge.cli import attack, audit, bench, demo, key, names, open, options, protect, report, serve, train, verify
from uge.cli.terminal import fail, note
from uge.errors import UgeError

app = typer.Typer(
    help="Publish images that people can look at and most networks learn little from.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("protect")(protect.protect)
app.command("open")(open.open_)
app.command("verify")(verify.verify)
app.command("train")(train.train)
app.command("serve")(serve.serve)
app.command("attack")(attack.attack)
app.command("audit")(audit.audit)
app.command("report")(report.report)
app.command("bench")(bench.bench)
app.command("demo")(demo.demo)
app.add_typer(key.commands, name="key")
app.command("list")(names.list_)
app.command("doctor")(names.doctor)


def run() -> Any:
    """The exit code of what the user asked for; his error, or one of his disk, is one line on stderr and code 2."""
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a letter shows its number
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # Before torch is loaded: threads that wait by spinning take turns with the thread they wait for where another
    # program holds a core, and a training takes many times as long. On idle cores sleeping costs little.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    home = os.path.expanduser("~")  # which shells put for --out ~/x, and not for --out=~/x
    sys.argv[1:] = [re.sub(r"\A(--[a-z-]+=)~(?=/|\Z)", lambda found: found[1] + home, word) for word in sys.argv[1:]]
    try:
        return app(standalone_mode=False) or 0  # typer returns the code of `typer.Exit` instead of raising it
    except (UgeError, OSError) as error:
        fail(str(error))
    except typer.Abort as error:  # Ctrl-C or the end of the input, where something was asked
        raise KeyboardInterrupt from error
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `uge` alone: typer has printed the help already
            return 2
        if hasattr(error, "format_message"):  # click's usage errors, vendored in typer or not
            fail(error.format_message())
        raise


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    from uge.data import DataWarning

    if issubclass(category, DataWarning):
        note(str(message))


@app.callback(invoke_without_command=True)
def _root(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", help="NAME=VALUE, what DATA may ask for: pixels of an image, bytes and files in all."),
    ] = None,
) -> None:
    options.set_limits(limit or [])
    if show_version:
        print(__version__)
        raise typer.Exit()
