"""The protections of other papers on CIFAR-10: does each stop a naive hacker, and do the known breaks undo it?

    python benchmarks/quality/baselines.py --data CIFAR.zip
    python benchmarks/quality/baselines.py --data CIFAR.zip --methods lsp ops --countermeasures none grayscale

Each protection in its preset "quick" where it has one (a small surrogate, of another architecture than the hacker's),
else in its default. Hackers compute in bfloat16. The naive hacker comes first for all of them, then one counter-measure
after the other, each beside the same training on the originals. The learnability lock adds its authorised user, who
trains on the unlocked copy.

Every finished training is a row of `benchmarks/results/baselines/records.jsonl`, and so is what each copy measured and
cost; a killed run goes on where it stopped. Copies lie in `runs/`, which is not committed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from uge.audit.plan import Cell
from uge.audit.quality import psnr, ssim
from uge.audit.run import Audit
from uge.data.images import ImageSet
from uge.data.sources import load
from uge.pipeline import protect_and_publish
from uge.protect import BASELINES, PRESETS, Config, resolve_config
from uge.protect.learnability_lock import load_lock
from uge.publish import load_published, read_manifest
from uge.records import append_record, config_hash, read_records
from uge.runtime import environment
from uge.training import Recipe, recommended_recipe

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "baselines" / "records.jsonl"
RUNS = ROOT / "runs" / "baselines"
NETWORK = "resnet:depth=8,width=16"
SURROGATE = "vgg:depth=8,width=16"
COUNTERMEASURES = ("none", "grayscale", "jpeg:10", "projection", "adversarial:steps=3,step_255=4")


class Comparison:
    """One data set with its copies and trainings.

    Args:
        data: the originals, with a test split.
        runs: where copies and the audit lie.
        results: the records to append to.
        network: the hacker's.
        surrogate: of protections that train a network of their own.
        epochs: of every training.
        precision: of the hackers' arithmetic, "float32" or "bfloat16".
        image_size: None leaves the images as they are.
        configs: method -> settings in the place of its preset.
        variant: names these settings in the records.
    """

    def __init__(
        self,
        data: str,
        runs: Path,
        results: Path,
        *,
        network: str = NETWORK,
        surrogate: str = SURROGATE,
        epochs: int = 15,
        precision: str = "bfloat16",
        image_size: tuple[int, int] | None = None,
        configs: dict[str, Config] | None = None,
        variant: str = "",
    ) -> None:
        self.clean, self.test = (load(data, split, image_size=image_size, convert=True) for split in ("train", "test"))
        self.dataset = Path(data).stem
        self.runs = runs / self.dataset
        self.results = results
        self.network, self.surrogate = network, surrogate
        self.epochs, self.precision = epochs, precision
        self.configs = configs or {}
        self.variant = variant

    def config(self, method: str) -> Config:
        presets = PRESETS[method]
        if method not in self.configs and "quick" in presets:
            return replace(presets["quick"], network=self.surrogate)  # type: ignore[call-arg]  # all of these have one
        return self.configs.get(method) or presets["default"]

    def run(self, methods: Sequence[str], countermeasures: Sequence[str], seeds: Sequence[int]) -> None:
        """Whatever is missing, the first counter-measure first for all methods."""
        for how in countermeasures:
            for seed in seeds:
                for method in methods:
                    copy, about = self.copy(method, seed)
                    cells = [Cell("hacker", self.network, how, seed, source) for source in ("clean", "published")]
                    self.train(copy, about, cells)
                    if method == "learnability-lock" and how == "none":
                        self.train_unlocked(copy, about, cells[1])

    def copy(self, method: str, seed: int) -> tuple[ImageSet, dict[str, Any]]:
        """A protected copy as read from its files, made and measured where it is missing, and what names its rows."""
        config = self.config(method)
        about = {"method": method, "dataset": self.dataset, "config": config.to_dict(), "copy_seed": seed}
        about |= {"variant": self.variant} if self.variant else {}
        out = self.runs / f"{method}-{seed}-{config_hash(about)}"
        if not out.exists():
            tell(f"{method} seed {seed}: protecting")
            started, worked = time.perf_counter(), time.process_time()
            lock = self.lock(out) if method == "learnability-lock" else None
            protect_and_publish(self.clean, [], out, config, seed=seed, lock=lock, on_step=show_step)
            cost = {
                "protect_seconds": round(time.perf_counter() - started, 1),
                "protect_cpu_seconds": round(time.process_time() - worked, 1),  # what other programs cannot slow down
            }
            out.with_name(f"{out.name}.cost").write_text(json.dumps(cost))
        copy = load_published(out)
        name = f"measures-{config_hash(about)}"
        about["copy"] = out.name
        if all(row["cell"] != name for row in read_records(self.results)):
            sample = torch.arange(0, len(copy), max(1, len(copy) // 1000))
            cost = json.loads(out.with_name(f"{out.name}.cost").read_text())
            append_record(
                self.results,
                about
                | {
                    "cell": name,
                    "kind": "measures",
                    "seed": seed,
                    "epsilon_measured_255": read_manifest(out).epsilon_measured_255,
                    "psnr_db": round(float(psnr(self.clean.images[sample], copy.images[sample]).mean()), 2),
                    "ssim": round(float(ssim(self.clean.images[sample], copy.images[sample]).mean()), 4),
                    "environment": environment(),
                }
                | cost,
            )
        return copy, about

    def train(self, copy: ImageSet, about: dict[str, Any], cells: Sequence[Cell]) -> None:
        """Train what is missing; what is on the originals belongs to all methods and is trained once."""
        audit = Audit(copy, self.test, self.runs, clean=self.clean, recipe=self.recipe)
        kept = {(row["method"], row.get("variant", ""), row["cell"]) for row in read_records(self.results)}
        for cell in cells:
            row = audit.run([cell], lambda number, cell: tell(f"  {about['method']} {cell}"))[0]
            place = about["method"] if cell.trained_on == "published" else "clean"
            variant = self.variant if cell.trained_on == "published" else ""
            if (place, variant, row["cell"]) not in kept:
                named = about if cell.trained_on == "published" else {"method": "clean", "dataset": self.dataset}
                append_record(self.results, named | row)
                tell(f"  {place} {cell.countermeasure}: {row['accuracy']:.1f} in {row['seconds']:.0f} s")

    def train_unlocked(self, copy: ImageSet, about: dict[str, Any], cell: Cell) -> None:
        """The lock's authorised user: the hacker's network and recipe, on the copy as its key opens it."""
        opened = load_lock(self.lock(self.runs / about["copy"])).unlock(copy)
        audit = Audit(opened, self.test, self.runs, recipe=self.recipe)
        row = audit.run([cell], lambda number, cell: tell(f"  unlocked {cell}"))[0]
        if all(kept["cell"] != row["cell"] for kept in read_records(self.results)):
            append_record(self.results, about | row | {"kind": "authorised", "trained_on": "unlocked", "knows": "key"})
            tell(f"  unlocked: {row['accuracy']:.1f} in {row['seconds']:.0f} s")

    def lock(self, out: Path) -> Path:
        """Where the key of a locked copy lies: beside it, not in it."""
        return out.with_name(f"{out.name}.lock")

    def recipe(self, network: str) -> Recipe:
        return replace(recommended_recipe(network, self.epochs), precision=self.precision)


def show_step(row: dict[str, Any], total: int) -> None:
    if row["step"] % max(1, total // 10) == 0:
        tell(f"  step {row['step']}/{total} " + str({name: value for name, value in row.items() if name != "step"}))


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the originals, with a test split")
    parser.add_argument("--methods", nargs="*", default=list(BASELINES))
    parser.add_argument("--countermeasures", nargs="*", default=COUNTERMEASURES)
    parser.add_argument("--network", default=NETWORK, help="the hacker")
    parser.add_argument("--surrogate", default=SURROGATE, help="the network of protections that train one")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"), help="of the hackers")
    parser.add_argument("--set", nargs="*", default=[], help="NAME=VALUE: settings in the place of the defaults")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if unknown := [name for name in arguments.methods if name not in BASELINES]:
        sys.exit(f"unknown methods {unknown}; choose from {list(BASELINES)}")
    settings = dict(text.partition("=")[::2] for text in arguments.set)
    configs = {name: resolve_config("default", settings, method=name) for name in arguments.methods} if settings else {}
    comparison = Comparison(
        arguments.data,
        RUNS,
        RESULTS,
        network=arguments.network,
        surrogate=arguments.surrogate,
        epochs=arguments.epochs,
        precision=arguments.precision,
        configs=configs,
        variant=", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items()),
    )
    comparison.run(arguments.methods, arguments.countermeasures, arguments.seeds)


if __name__ == "__main__":
    main()
