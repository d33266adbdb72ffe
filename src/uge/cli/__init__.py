"""The command line: parse, call, say. Heavy imports wait until a command runs, so that `--help` is instant."""

import sys

INTERRUPTED = 130  # the shell's exit code for Ctrl-C
GOES_ON = {"protect", "open", "attack", "audit", "bench", "demo"}  # what was done stays, and the rest follows


def main() -> None:
    """Entry point: Ctrl-C is one line on stderr, also while libraries are loaded, which takes a second or more."""
    try:
        from uge.cli.app import run

        code = run()
    except (Exception, KeyboardInterrupt) as error:
        if not _is_interrupt(error):
            raise
        code = INTERRUPTED
    if code == INTERRUPTED:  # some versions of typer turn Ctrl-C into this code
        again = GOES_ON.intersection(sys.argv[1:2])  # not further on: a folder may be called audit
        print("interrupted" + "; the same command goes on where it stopped" * bool(again), file=sys.stderr)
    sys.exit(code)


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or another error that a library made of it while it was loaded."""
    return isinstance(error, KeyboardInterrupt) or bool(error and _is_interrupt(error.__cause__ or error.__context__))
