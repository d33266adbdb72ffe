"""The whole job on small data: key, protected copy, the recipient's training, hackers, table and page."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from uge.audit.conduct import Watcher, conduct
from uge.audit.plan import AUTHORISED, Hackers, Plan
from uge.copy import Copy
from uge.data import load
from uge.durable import claimed
from uge.keys import load_key, pair_of
from uge.pipeline import key_beside, protect_and_publish
from uge.protect import resolve_config
from uge.records import config_hash
from uge.report.audit import read_audit
from uge.report.page import write_page
from uge.runners import Local, Runner
from uge.runtime import generator_for

DATA, METHOD = "eurosat", "sealed"
PLAN = Plan(
    "demo",
    (
        Hackers((AUTHORISED, "resnet:depth=8,width=8", "convnet:width=16", "mlp:width=128")),
        Hackers((AUTHORISED,), ("grayscale", "jpeg:10", "distillation:soft")),
    ),
    epochs=14,
    subsets=1,
    reason="The demo is small: one seed, few hackers, short trainings",
)
IMAGES = 1850  # of the training split: what two cores protect, and train seven hackers on, in five minutes
QUICK_IMAGES, QUICK_EPOCHS, QUICK_SETTINGS = 400, 2, {"epochs": 1}


class DemoSteps(Watcher):
    """What the demo tells while it works; the command line shows it, a script may ignore it."""

    def stage(self, text: str) -> None:
        """A new part of the job begins."""

    def protecting(self, row: dict[str, Any], total: int) -> None:
        """A part of the protection is done; see `uge.protection.Protection.train`."""


def run_demo(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    device: str = "cpu",
    runner: Runner | None = None,
    steps: DemoSteps | None = None,
) -> dict[str, Any]:
    """Run the demo in a folder; the same call goes on where a killed one stopped.

    Args:
        out: gets published/ with its two key files beside it, audit/ (see `uge.audit.folder`) and index.html. Private:
            the page shows originals beside copies.
        quick: a few hundred images and two epochs: shows that everything works, proves nothing.
        seed: of the trainings; the copy has its own, which comes from the key.
        device: where to compute.
        runner: trains; by default as many processes here as there are cores.
        steps: hears of progress.

    Returns:
        The summary, as in audit/summary.json.
    """
    steps = steps or DemoSteps()
    steps.stage(f"Reading {DATA}")
    clean, test = load(DATA, "train"), load(DATA, "test")
    clean = clean.take(QUICK_IMAGES if quick else IMAGES, generator_for(seed, "demo subset"))
    plan, config = replace(PLAN, seeds=(seed,)), resolve_config(METHOD)
    if quick:
        plan, config = replace(plan, epochs=QUICK_EPOCHS), resolve_config(METHOD, QUICK_SETTINGS)
    settings = {"data": clean.digest(), "method": METHOD, "config": config.to_dict(), "plan": asdict(plan)}
    with claimed(out, "run.json", json.dumps({"run": config_hash(settings)}) + "\n", "a run of the demo"):
        published = out / "published"
        if not published.exists():
            steps.stage("Making the protected copy")
            key = key_beside(published)
            protect_and_publish(clean, [key], published, METHOD, config, device=device, on_step=steps.protecting)

        steps.stage("Training the recipient and the hackers, on the copy and on the originals")
        key = load_key(pair_of(published)[1], role="recipient")
        copy = Copy.read(published, key)
        summary = conduct(
            copy.images,
            test,
            out / "audit",
            plan,
            runner or Local(),
            manifest=copy.manifest,
            key=key,
            clean=clean,
            device=device,
            watcher=steps,
        )
        steps.stage("Writing the page")
        write_page(read_audit(out / "audit"), out / "index.html")
    return summary
