"""What a worker of an audit does: it reads the job from its file and trains cells.

A training that fails is a row with its error. A finished row is on disk before its worker says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from textwrap import shorten

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from uge.audit.jobs import CELLS
from uge.audit.plan import Cell, Row
from uge.audit.trainer import Trainer
from uge.data.images import ImageSet
from uge.durable import write_file
from uge.errors import PublishError
from uge.keys.files import key_from
from uge.outside import MOST_WEIGHTS, parse_json, read_file
from uge.runners import More, Runner, threads
from uge.training import Recipe


def train_cells(runner: Runner, job: Path, more: More[Cell]) -> Iterator[Row]:
    """The row of each cell as it is finished; `more` hands the cells out, `job` is the file that `save_job` wrote."""
    return runner.run(partial(train_cell, job), more, partial(_lost, job), job.parent)


def load_job(job: Path) -> Trainer:
    """What `save_job` wrote.

    Raises:
        PublishError: it is no job, or damaged.
    """
    try:
        tensors = load_tensors(read_file(job, MOST_WEIGHTS))
        facts = parse_json(tensors["facts"].numpy().tobytes())
        images = {
            name: ImageSet(tensors[f"{name}.images"], tensors[f"{name}.labels"], tuple(facts["classes"]), tuple(names))
            for name, names in facts["names"].items()
        }
        recipes = {network: Recipe(**recipe) for network, recipe in facts["recipes"].items()}
        audit = Trainer(
            images["published"],
            images["test"],
            job.parent.parent,
            recipe=recipes.__getitem__,
            recipient=facts["recipient"],
            key_epochs=facts["key_epochs"],
            key=key_from(bytes.fromhex(facts["key"]), "of the audit") if facts["key"] else None,
            clean=images.get("clean"),
            view=images.get("view"),
            told=facts["told"],
            device=facts["device"],
            threads=facts["threads"],
        )
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise PublishError(f"cannot read the job {job}: {error}") from error
    return audit


def train_cell(job: Path, cell: Cell) -> Row:
    """Train one cell in whatever process this is and write its row; a training that fails is a row with its error."""
    audit = _audit(job)
    name = audit.cell_name(cell)
    try:
        row = audit.train(cell)
    except Exception as error:
        row = failed_row(audit, cell, error)
    write_file(audit.folder / CELLS / f"{name}.json", json.dumps(row))
    return row


def failed_row(audit: Trainer, cell: Cell, error: Exception) -> Row:
    """One line in the records; the other cells go on."""
    return audit.facts(cell) | {"error": shorten(f"{type(error).__name__}: {error}", 500)}


def _lost(job: Path, cell: Cell, error: Exception) -> Row:
    """The row of a cell whose job has died on another machine."""
    with threads(None):
        return failed_row(_audit(job), cell, error)


@lru_cache(maxsize=1)
def _audit(job: Path) -> Trainer:
    """The audit of a file, read once in a process."""
    audit = load_job(job)
    torch.set_num_threads(audit.threads or torch.get_num_threads())
    return audit
