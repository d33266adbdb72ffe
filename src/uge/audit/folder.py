"""The audit's folder: what is in it besides the records, and that one folder holds one audit.

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
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uge.attack import COUNTERMEASURES
from uge.audit.metrics import summarise
from uge.audit.plan import Plan, Row
from uge.audit.quality import quality
from uge.audit.run import Audit
from uge.copy import Manifest
from uge.data.images import ImageSet
from uge.errors import PublishError
from uge.runtime import check_writable, environment, exclusive, write_atomically

FORMAT_VERSION = 1
FACTS, SUMMARY, EXAMPLES = "audit.json", "summary.json", "examples.npz"
MOST_EXAMPLES = 10


@contextmanager
def claimed(folder: Path, data: dict[str, str]) -> Iterator[None]:
    """Hold a folder for one audit of one copy.

    Args:
        folder: new, empty, or of an audit of the same data.
        data: digests of the copy and the test images.

    Raises:
        PublishError: the folder holds something else, or another process works in it.
    """
    facts = folder / FACTS
    if facts.exists():
        if _data_of(facts) not in (data, None):
            raise PublishError(f"{folder} holds an audit of other images; give a new folder as --out, or remove it")
    elif folder.exists() and (not folder.is_dir() or any(file.name != ".lock" for file in folder.iterdir())):
        raise PublishError(f"{folder} is not empty and holds no audit; give a new folder as --out, or remove it")
    check_writable(facts)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with exclusive(folder / ".lock", f"another audit is running in {folder}; wait for it, or give another --out"):
        yield


def _data_of(facts: Path) -> dict[str, str] | None:
    """Whose audit it is; None if the file is cut short: it is written anew, and each record names its data itself."""
    try:
        content = json.loads(facts.read_text())
    except ValueError:
        return None
    return content.get("data", {}) if isinstance(content, dict) else {}


def write_facts(
    audit: Audit, plan: Plan, skipped: Sequence[dict[str, str]], manifest: Manifest | None, data: dict[str, str]
) -> None:
    """Write `audit.json` and `examples.npz`: everything that is known before the first training.

    Args:
        audit: the images.
        plan: what is tried.
        skipped: what is left out, as {"what", "why"}.
        manifest: of the copy; None for a folder of another program.
        data: as in `claimed`.
    """
    published, clean = audit.sources["published"], audit.sources.get("clean")
    facts = {
        "format_version": FORMAT_VERSION,
        "data": data,
        "plan": plan.to_dict(),
        "manifest": {
            "method": manifest.method if manifest else "unknown",
            "epsilon_asked": manifest.epsilon_255 if manifest else None,
            "epsilon_measured": manifest.epsilon_measured_255 if manifest else None,
            "count": len(published),
            "channels": published.channels,
            "image_size": list(published.image_size),
            "classes": published.classes,
            "class_names": list(published.class_names),
            "sha256": hashlib.sha256("".join(manifest.json_parts()).encode()).hexdigest() if manifest else None,
        },
        "settings": manifest.settings if manifest else {},
        "quality": quality(published, clean),
        "skipped": list(skipped),
        "offered": [name for name in COUNTERMEASURES if name != "none"],
        "environment": environment(audit.device),
    }
    write_atomically(audit.folder / FACTS, json.dumps(facts, indent=1) + "\n")
    write_examples(audit.folder, published, clean)


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
    write_atomically(folder / EXAMPLES, buffer.getvalue(), mode=0o600)


def write_summary(folder: Path, rows: Sequence[Row], classes: int, plan: Plan) -> dict[str, Any]:
    """Write `summary.json`, and which of the records it is about into `audit.json`."""
    summary = summarise(rows, classes, plan.reason)
    write_atomically(folder / SUMMARY, json.dumps(summary, indent=1) + "\n")
    facts = json.loads((folder / FACTS).read_text())
    facts["cells"] = [row["cell"] for row in rows]
    write_atomically(folder / FACTS, json.dumps(facts, indent=1) + "\n")
    os.chmod(folder, 0o700)
    return summary
