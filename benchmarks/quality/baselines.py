"""The protections of other papers on CIFAR-10: does each stop a naive hacker, and do the known breaks undo it?

    python benchmarks/quality/baselines.py --data CIFAR.zip
    python benchmarks/quality/baselines.py --data CIFAR.zip --methods lsp ops --countermeasures none grayscale

Each protection with `SETTINGS`, which two cores can afford, and a small surrogate of another architecture than the
hacker's. Hackers compute in bfloat16. The naive hacker comes first for all of them, then one counter-measure after the
other, each beside the same training on the originals.

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
from uge.baselines import BASELINES
from uge.copy import Copy
from uge.data.images import ImageSet
from uge.data.sources import load
from uge.pipeline import protect_and_publish
from uge.protect import resolve_config
from uge.protection import Settings
from uge.records import append_record, config_hash, read_records
from uge.runtime import environment, generator_for
from uge.training import Recipe, recommended_recipe

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "baselines" / "records.jsonl"
RUNS = ROOT / "runs" / "baselines"
NETWORK = "resnet:depth=8,width=16"
SURROGATE = {"network": "vgg:depth=8,width=16"}
SETTINGS: dict[str, dict[str, Any]] = {
    "em": SURROGATE | {"steps": 10, "rounds": 20},
    "rem": SURROGATE
    | {"network_steps": 400, "steps": 5, "step_share": 0.4, "draws": 1, "attack_steps": 2, "attack_share": 0.75},
    "tap": SURROGATE | {"network_epochs": 20, "steps": 60},
    "dune": SURROGATE | {"network_epochs": 20},
    "learnability-lock": SURROGATE | {"rounds": 20},
}
COUNTERMEASURES = ("none", "grayscale", "jpeg:10", "projection", "adversarial:steps=3,step_255=4")


class BaselineRuns:
    """One data set with its copies and trainings; the hackers compute in `precision`, "float32" or "bfloat16".

    `images` is how many of the originals take part, 0 for all. Copies and the audit lie in `runs`.
    """

    def __init__(
        self,
        data: str,
        runs: Path = RUNS,
        results: Path = RESULTS,
        *,
        images: int = 0,
        network: str = NETWORK,
        epochs: int = 15,
        precision: str = "bfloat16",
    ) -> None:
        self.clean, self.test = (load(data, split, convert=True) for split in ("train", "test"))
        self.dataset, self.size = Path(data).stem, {}
        self.runs = runs / self.dataset
        if images:
            self.clean = self.clean.take(images, generator_for(0, "baselines"))
            self.size, self.runs = {"originals": images}, self.runs.with_name(f"{self.dataset}-{images}")
        self.results = results
        self.network, self.epochs, self.precision = network, epochs, precision

    def run(self, methods: Sequence[str], countermeasures: Sequence[str], seeds: Sequence[int]) -> None:
        """Whatever is missing, the first counter-measure first for all methods."""
        for how in countermeasures:
            for seed in seeds:
                for method in methods:
                    copy, about = self.copy(method, seed)
                    cells = [Cell("hacker", self.network, how, seed, source) for source in ("clean", "published")]
                    self.train(copy, about, cells)

    def copy(self, method: str, seed: int) -> tuple[ImageSet, dict[str, Any]]:
        """A protected copy as read from its files, made and measured where it is missing, and what names its rows."""
        config = resolve_config(method, SETTINGS.get(method))
        about = {"method": method, "dataset": self.dataset, "config": config.to_dict(), "copy_seed": seed}
        about |= self.size
        out = self.runs / f"{method}-{seed}-{config_hash(about)}"
        if not out.exists():
            self.protect(method, config, seed, out)
        copy = Copy.read(out)
        name = f"measures-{config_hash(about)}"
        if copy.manifest and all(row["cell"] != name for row in read_records(self.results)):
            sample = torch.arange(0, len(copy.images), max(1, len(copy.images) // 1000))
            pairs = self.clean.images[sample], copy.images.images[sample]
            found = {
                "cell": name,
                "kind": "measures",
                "seed": seed,
                "epsilon_measured_255": copy.manifest.epsilon_measured_255,
                "psnr_db": round(float(psnr(*pairs).mean()), 2),
                "ssim": round(float(ssim(*pairs).mean()), 4),
                "environment": environment(),
            }
            cost = json.loads(out.with_name(f"{out.name}.cost").read_text())
            append_record(self.results, about | {"copy": out.name} | found | cost)
        return copy.images, about | {"copy": out.name}

    def protect(self, method: str, config: Settings, seed: int, out: Path) -> None:
        """Make a copy, and keep what it cost beside it."""
        tell(f"{method} seed {seed}: protecting")
        started, worked = time.perf_counter(), time.process_time()
        protect_and_publish(self.clean, [], out, method, config, seed=seed, on_step=show_step)
        cost = {
            "protect_seconds": round(time.perf_counter() - started, 1),
            "protect_cpu_seconds": round(time.process_time() - worked, 1),  # what other programs cannot slow down
        }
        out.with_name(f"{out.name}.cost").write_text(json.dumps(cost))

    def train(self, copy: ImageSet, about: dict[str, Any], cells: Sequence[Cell]) -> None:
        """Train what is missing; what is on the originals belongs to all methods and is trained once."""
        audit = Audit(copy, self.test, self.runs, clean=self.clean, recipe=self.recipe)
        kept = {(row["method"], row["cell"]) for row in read_records(self.results)}
        for cell in cells:
            row = audit.run([cell], lambda number, cell: tell(f"  {about['method']} {cell}"))[0]
            named = about if cell.trained_on == "published" else {"method": "clean", "dataset": self.dataset}
            if (named["method"], row["cell"]) not in kept:
                append_record(self.results, named | row)
                tell(f"  {named['method']} {cell.countermeasure}: {row['accuracy']:.1f} in {row['seconds']:.0f} s")

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
    parser.add_argument("--images", type=int, default=0, help="so many of the originals; all by default")
    parser.add_argument("--methods", nargs="*", default=list(BASELINES))
    parser.add_argument("--countermeasures", nargs="*", default=COUNTERMEASURES)
    parser.add_argument("--network", default=NETWORK, help="the hacker")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"), help="of the hackers")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if unknown := [name for name in arguments.methods if name not in BASELINES]:
        sys.exit(f"unknown methods {unknown}; choose from {list(BASELINES)}")
    options = {
        "images": arguments.images,
        "network": arguments.network,
        "epochs": arguments.epochs,
        "precision": arguments.precision,
    }
    BaselineRuns(arguments.data, **options).run(arguments.methods, arguments.countermeasures, arguments.seeds)


if __name__ == "__main__":
    main()
