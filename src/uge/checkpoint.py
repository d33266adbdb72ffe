"""Checkpoints of a protection in training: written whole or not at all."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from uge.errors import PublishError
from uge.runtime import write_atomically


def save_checkpoint(file: Path, content: object) -> None:
    """torch.save, atomically; Ctrl-C within torch's writer comes out of it as a RuntimeError.

    Raises:
        PublishError: the disk is full or the place cannot be written.
    """
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
    except RuntimeError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    write_atomically(file, buffer.getvalue(), mode=0o600)


def load_checkpoint(file: Path) -> Any:
    """What `save_checkpoint` wrote.

    Raises:
        PublishError: the file is damaged.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)  # a run may go on without its GPU
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, pickle.UnpicklingError) as error:
        raise PublishError(f"cannot read {file}, it is damaged; delete {file.parent} and start again") from error


def claim_workdir(workdir: Path, identity: str) -> None:
    """Make the work folder of a run, or find that it is this run's own.

    Raises:
        PublishError: it belongs to a run with other data, keys or settings, or is no work folder, or cannot be written.
    """
    mark = workdir / "run"
    try:
        if mark.exists():
            if mark.read_text() != identity:
                raise PublishError(
                    f"{workdir} holds an unfinished run with other data, keys or settings; finish it with its own"
                    " command, or delete the folder"
                )
        elif workdir.exists() and any(not file.name.startswith((".run.", ".lock")) for file in workdir.iterdir()):
            raise PublishError(f"{workdir} holds other files, and work in progress is to go there; move them away")
        workdir.mkdir(mode=0o700, parents=True, exist_ok=True)  # checkpoints are as private as the key
        write_atomically(mark, identity)
    except OSError as error:
        raise PublishError(f"cannot write {workdir}: {error.strerror or error}") from error
