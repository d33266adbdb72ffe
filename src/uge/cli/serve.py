"""`uge serve`: the recipient's trained network answers others, but not about the copy."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from uge.cli import options
from uge.cli.terminal import Bar, say
from uge.errors import ConfigError


def serve(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Trained network, as uge train wrote it.")],
    key: Annotated[Path, typer.Option("--key", help="NAME.recipient.uge, that RUN was trained with.")],
    copy: Annotated[
        Path | None, typer.Option("--copy", help="COPY that RUN was trained on; for the first time alone.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of this machine; 0 takes a free one.")] = 8080,
    passphrase_file: options.PassphraseFile = None,
) -> None:
    """Answers over HTTP about images that others post, and refuses the copy and what is made of it.

    The first call learns to recognise the copy, in some minutes. RUN/served.json counts answers and refusals.
    An account of which 10 images are refused gets no more answers that day. The header X-Account names it.
    Whoever sends images of his own still learns from the answers.
    """
    try:
        from uge.service.http import Desk, Log, bound
        from uge.service.http import serve as serve_on
    except ImportError as error:
        raise ConfigError("to serve needs a web server: pip install 'ungeneralizable[serve]'") from error
    from uge.locks import held
    from uge.service.runs import LOG, Run

    run = Run.read(folder)
    owner = options.read_key(key, passphrase_file)
    listening = bound(port)
    with held(folder, f"{folder} is served by"):
        with Bar("learning to recognise the copy") as bar:

            def learning(done: int, of: int) -> None:
                if not done:
                    say("Learning to recognise the copy, which takes minutes.")
                bar.show(done, of)

            guard = run.guarded(owner, copy, learning)
        desk = Desk(run, guard, Log.read(folder / LOG))
        say(f"Serving {folder} on http://127.0.0.1:{listening.getsockname()[1]}/ until Ctrl-C: POST an image file.")
        with suppress(KeyboardInterrupt):  # how it is meant to end
            serve_on(desk, listening)
        say("Stopped.")
