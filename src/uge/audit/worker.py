"""What a worker of an audit does: it reads the job from the file that the audit wrote, and trains cells.

A training that fails is a row with its error. A finished row is on disk before its worker says so.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load as load_tensors

from uge.audit.plan import Cell, Row
from uge.audit.trainer import Trainer
from uge.data.images import ImageSet
from uge.durable import write_file
from uge.errors import PublishError
from uge.keys.files import key_from
from uge.locks import private_folder
from uge.outside import MOST_WEIGHTS, parse_json, read_file
from uge.records import line_of
from uge.runners import More, Runner, threads
from uge.training import Recipe

JOB = "job"  # what the workers read; removed at the end
AS_THEY_ARE = ("recipient", "key_epochs", "device", "threads")  # of an audit's arguments, in a job
CELLS = "cells"  # finished rows that are not in records.jsonl yet, one file each


def train_cells(runner: Runner, job: Path, more: More[Cell]) -> Iterator[Row]:
    """The row of each cell as it is finished; `more` hands the cells out, `job` is the file that `save_job` wrote."""
    return runner.run(partial(train_cell, job), more, partial(_lost, job), job.parent)


def save_job(audit: Trainer, networks: Iterable[str]) -> Path:
    """Write what the workers need, data and key included, to a private file in the audit's private folder.

    It is data, images and JSON in the form of safetensors: nothing in it is run, whoever wrote it. `networks` are those
    of all cells but the recipient's.
    """
    parts = audit.sources | {"test": audit.test} | ({} if audit.view is None else {"view": audit.view})
    arrays = {f"{name}.images": np.ascontiguousarray(images.images.numpy()) for name, images in parts.items()}
    arrays |= {f"{name}.labels": np.ascontiguousarray(images.labels.numpy()) for name, images in parts.items()}
    facts = {
        "classes": audit.test.class_names,
        "names": {name: images.names for name, images in parts.items()},
        "recipes": {network: audit.recipe(network).to_dict() for network in {*networks, audit.recipient}},
        "key": audit.key.to_bytes("recipient").hex() if audit.key else None,
        "told": audit.settings,
        **{name: getattr(audit, name) for name in AS_THEY_ARE},
    }
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    private_folder(audit.folder / JOB)
    file = audit.folder / JOB / f"{secrets.token_hex(6)}.safetensors"  # a name of its own: workers keep what they read
    write_file(file, save(arrays), mode=0o600)
    return file


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
            key=key_from(bytes.fromhex(facts["key"]), "of the audit") if facts["key"] else None,
            clean=images.get("clean"),
            view=images.get("view"),
            told=facts["told"],
            **{name: facts[name] for name in AS_THEY_ARE},
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
    write_file(audit.folder / CELLS / f"{name}.json", line_of(row))
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
