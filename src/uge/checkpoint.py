"""Checkpoints of a protection in training: written whole or not at all."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from uge.durable import write_file
from uge.errors import PublishError
from uge.outside import open_file


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
    write_file(file, buffer.getvalue(), mode=0o600)


def load_checkpoint(file: Path) -> Any:
    """What `save_checkpoint` wrote.

    Raises:
        PublishError: the file is damaged.
    """
    try:
        with open_file(file) as stream:
            return torch.load(stream, map_location="cpu", weights_only=True)  # a run may go on without its GPU
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, pickle.UnpicklingError) as error:
        raise PublishError(f"cannot read {file}, it is damaged; delete {file.parent} and start again") from error
