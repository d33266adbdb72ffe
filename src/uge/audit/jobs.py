"""What an audit hands to its workers: one file of data."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save

from uge.durable import write_file
from uge.locks import private_folder

if TYPE_CHECKING:
    from uge.audit.trainer import Trainer

JOB = "job"  # what the workers read; removed at the end
CELLS = "cells"  # finished rows that are not in records.jsonl yet, one file each


def save_job(audit: Trainer, networks: Iterable[str]) -> Path:
    """Write what the workers need, data and key included, to a private file in the audit's private folder.

    It is data, images and JSON in the form of safetensors: nothing in it is run, whoever wrote it.

    Args:
        audit: what the cells share.
        networks: of all cells but the recipient's.
    """
    parts = audit.sources | {"test": audit.test} | ({} if audit.view is None else {"view": audit.view})
    arrays = {f"{name}.images": np.ascontiguousarray(images.images.numpy()) for name, images in parts.items()}
    arrays |= {f"{name}.labels": np.ascontiguousarray(images.labels.numpy()) for name, images in parts.items()}
    facts = {
        "classes": audit.test.class_names,
        "names": {name: images.names for name, images in parts.items()},
        "recipes": {network: audit.recipe(network).to_dict() for network in {*networks, audit.recipient}},
        "key": audit.key.to_bytes("recipient").hex() if audit.key else None,
        "recipient": audit.recipient,
        "key_epochs": audit.key_epochs,
        "told": audit.settings,
        "device": audit.device,
        "threads": audit.threads,
    }
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    private_folder(audit.folder / JOB)
    file = audit.folder / JOB / f"{secrets.token_hex(6)}.safetensors"  # a name of its own: workers keep what they read
    write_file(file, save(arrays), mode=0o600)
    return file
