"""The audit's folder: what is in it besides the records, and that one folder holds one audit.

    AUDIT/data.json        whose audit it is: digests of the copy and the test images
    AUDIT/records.jsonl    one row a training
    AUDIT/summary.json     what they say together
    AUDIT/audit.json       the plan, the copy, its quality, what was left out
    AUDIT/examples.npz     a few images, for the page
    AUDIT/authorised/      trained authorised networks

Private: it holds originals beside copies, and networks trained with the key.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uge import durable
from uge.attack import COUNTERMEASURES
from uge.audit.metrics import stronger, summarise
from uge.audit.plan import Plan, Row
from uge.audit.quality import quality
from uge.audit.run import Audit, read_finished
from uge.copy import Manifest
from uge.data.images import ImageSet
from uge.durable import write_file
from uge.records import AUDIT_VERSION
from uge.runtime import environment

DATA, FACTS, SUMMARY, EXAMPLES = "data.json", "audit.json", "summary.json", "examples.npz"
MOST_EXAMPLES = 10


def claimed_for_audit(folder: Path, data: dict[str, str]) -> AbstractContextManager[None]:
    """Hold a folder for one audit of one copy and these test images, private from the beginning (`durable.claimed`)."""
    return durable.claimed(folder, DATA, json.dumps(data, sort_keys=True) + "\n", "an audit", "images")


def facts_of(
    audit: Audit, plan: Plan, skipped: Sequence[dict[str, str]], manifest: Manifest | None, data: dict[str, str]
) -> dict[str, Any]:
    """Of `audit.json` everything that is known before the first training.

    `skipped` is what is left out, as {"what", "why"}; without a manifest the folder is one of another program.
    """
    published, clean = audit.sources["published"], audit.sources.get("clean")
    own_sizes = manifest is not None and manifest.own_sizes
    unknown = {"l_inf_255"} if own_sizes else set()  # resizing has changed the values since they were published
    return {
        "format_version": AUDIT_VERSION,
        "data": data,
        "plan": asdict(plan),
        "manifest": {
            "method": manifest.method if manifest else "unknown",
            "epsilon_asked": manifest.epsilon_255 if manifest else None,
            "epsilon_measured": manifest.epsilon_measured_255 if manifest else None,
            "count": len(published),
            "channels": published.channels,
            "image_size": list(published.image_size),
            "own_sizes": own_sizes,
            "classes": published.classes,
            "class_names": list(published.class_names),
            "sha256": hashlib.sha256("".join(manifest.json_parts()).encode()).hexdigest() if manifest else None,
        },
        "settings": manifest.settings if manifest else {},
        "quality": {name: value for name, value in quality(published, clean).items() if name not in unknown},
        "skipped": list(skipped),
        "offered": [name for name in COUNTERMEASURES if name != "none"],
        "environment": environment(audit.device),
    }


def write_examples(folder: Path, published: ImageSet, clean: ImageSet | None) -> None:
    """The first image of each class, with its original where there is one."""
    first = torch.tensor([int((published.labels == label).nonzero()[0]) for label in published.labels.unique()])
    first = first[:MOST_EXAMPLES]
    arrays: dict[str, Any] = {
        "copies": published.images[first].numpy(),
        "labels": published.labels[first].numpy(),
        "class_names": np.array(published.class_names),
    }
    if clean is not None and clean.aligned(published):
        arrays["originals"] = clean.images[first].numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_file(folder / EXAMPLES, buffer.getvalue(), mode=0o600)


def write_summary(
    folder: Path, facts: dict[str, Any], rows: Sequence[Row], plan: Plan, following: Sequence[str]
) -> dict[str, Any]:
    """Write `summary.json`; and `audit.json`: the facts, which records it is about, and who would be tried next.

    Both at the end: an audit that goes on leaves what the last one found, until it has found more.

    Hackers of another plan in the same folder who learnt more than all of these count, too: no audit gets better by
    trying weaker ones.
    """
    rows = [*rows, *stronger(rows, read_finished(folder))]
    summary = summarise(rows, facts["manifest"]["classes"], plan.reason)
    write_file(folder / SUMMARY, json.dumps(summary, indent=1) + "\n")
    facts |= {"cells": [row["cell"] for row in rows], "following": list(following)}
    write_file(folder / FACTS, json.dumps(facts, indent=1) + "\n")
    return summary
