"""The whole job on a small data set: key, protected copy, authorised training, hackers, table and page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from uge.audit.conduct import Watcher, conduct
from uge.audit.plan import AUTHORISED, Hackers, Plan
from uge.audit.runners import Local, Runner
from uge.data.sources import load
from uge.keys.key import VIEWS, load_key
from uge.keys.keyed_view import needs_headroom
from uge.pipeline import draw_key, protect_and_publish
from uge.protect import Config, resolve_config
from uge.publish import load_published, read_manifest
from uge.records import config_hash
from uge.report.audit import read_audit
from uge.report.page import write_page
from uge.runtime import claim_folder, exclusive, generator_for
from uge.training import recommended_recipe

NETWORK = "convnet:width=24,stem=2,frozen_stem=true"
VIEWING_NETWORK = "convnet:width=24"  # the view makes the key: the network needs no stem of its own
PLAN = Plan(
    "demo",
    (
        Hackers((AUTHORISED, "vgg:depth=8,width=8", "resnet:depth=8,width=8", "mlp:width=128")),
        Hackers(("vgg:depth=8,width=8",), ("distillation:soft",)),
    ),
    epochs=8,
    reason="The demo is small: one seed, few hackers, short trainings",
)


class Steps(Watcher):
    """What the demo tells while it works; the command line shows it, a script may ignore it."""

    def stage(self, text: str) -> None:
        """A new part of the job begins."""

    def protecting(self, row: dict[str, Any], total: int) -> None:
        """One step is done, or an epoch of a network that is trained before the first one."""


def run_demo(
    out: Path,
    *,
    data: str = "fashion-mini",
    quick: bool = False,
    view: str | None = "null-space",
    config: Config | None = None,
    epochs: int = PLAN.epochs,
    seed: int = 0,
    device: str = "cpu",
    runner: Runner | None = None,
    steps: Steps | None = None,
) -> dict[str, Any]:
    """Run the demo in a folder; the same call goes on where a killed one stopped.

    Args:
        out: gets keys/, published/, protect.jsonl, audit/ (see `uge.audit.folder`) and index.html. Private: the page
            shows originals beside copies.
        data: DATA with a train and a test split.
        quick: 1,500 training images and 4 epochs: shows that everything works, proves nothing.
        view: the kind of key, "null-space" or "reversible"; None for a key of initial weights, and UGE.
        config: settings of the protection, its preset "quick" by default; behind a view with headroom where needed.
        epochs: of every training.
        seed: of the trainings; the copy has its own, which comes from the key.
        device: where to compute.
        runner: trains; by default as many processes here as there are cores.
        steps: hears of progress.

    Returns:
        The summary, as in audit/summary.json.
    """
    steps = steps or Steps()
    method, text = (view, VIEWING_NETWORK) if view else ("uge", NETWORK)
    steps.stage(f"Reading {data}")
    clean, test = load(data, "train"), load(data, "test")
    if config is None:
        overrides = {"headroom": needs_headroom(clean.images)} if view else None
        config = resolve_config("quick", overrides, method=method)
    if quick:
        clean = clean.take(1500, generator_for(seed, "demo subset"))
        epochs = min(epochs, 4)
    settings = {"data": clean.digest(), "method": method, "config": config.to_dict(), "epochs": epochs, "seed": seed}
    mark = json.dumps(settings | {"run": config_hash(settings)}, indent=1) + "\n"
    claim_folder(out, "run.json", mark, "run of the demo")

    with exclusive(out / ".lock", f"another demo is running in {out}; wait for it, or give another --out"):
        out.chmod(0o700)
        name, published = out / "keys" / "authorised", out / "published"
        if not Path(f"{name}.recipient.uge").exists():
            draw_key(
                clean,
                text,
                recommended_recipe(text, epochs),
                name,
                VIEWS[view].draw() if view else None,
                copy=published,
            )

        if not published.exists():
            steps.stage("Training the generator and publishing the copy")
            key = load_key(f"{name}.protector.uge")
            protect_and_publish(
                clean,
                [key],
                published,
                config,
                log=out / "protect.jsonl",
                device=device,
                on_step=steps.protecting,
            )

        steps.stage("Training the authorised network and the hackers, on the copy and on the originals")
        key = load_key(f"{name}.recipient.uge")
        copy = load_published(published, signed_by=key.fingerprint)
        plan = replace(PLAN, epochs=epochs, seeds=(seed,))
        summary = conduct(
            copy,
            test,
            out / "audit",
            plan,
            runner or Local(),
            manifest=read_manifest(published),
            key=key,
            clean=clean,
            device=device,
            watcher=steps,
        )
        steps.stage("Writing the page")
        write_page(read_audit(out / "audit", out / "protect.jsonl"), out / "index.html")
    return summary
