"""The paper's method on CIFAR-10: which terms matter, at which epsilon, against whom.

    python benchmarks/quality/uge_cifar.py --data CIFAR.zip --stage grid
    python benchmarks/quality/uge_cifar.py --data CIFAR.zip --stage finalists --settings NAME NAME NAME
    python benchmarks/quality/uge_cifar.py --data CIFAR.zip --stage students --settings NAME NAME [--small]
    python benchmarks/quality/uge_cifar.py --data CIFAR.zip --stage filters --settings NAME NAME [--small]
    python benchmarks/quality/uge_cifar.py --data CIFAR.zip --stage seeds --settings NAME
    python benchmarks/quality/uge_cifar.py --data OTHER.zip --stage transfer --settings NAME
    python benchmarks/quality/uge_cifar.py --data CIFAR.zip --stage two-keys --settings NAME [--pair stems] [--small]

Stages of a search: a small grid (16x16, 4,000 images, own encoder, three hackers), the three best settings at full
size with efficientnet-lite0 and all hackers, then three seeds of one; `students` asks what L_ud does, `filters` whether
a copy outlives a hacker who filters it. Settings are chosen by hand from the table of the stage before: the accuracies
there are measured on the test split, so the choice favours nobody in particular but is not blind; the later stages draw
new keys, copies and seeds. `--small` gives a later stage the size of the grid.

Every finished training is a row of `benchmarks/results/uge_cifar/records.jsonl`; a killed run goes on where it
stopped. Copies and keys lie in `runs/`, which is not committed. `--stage check` trains the clean networks for twice
the budget: a hacker counts only where the budget reaches 95% of that.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.audit.plan import AUTHORISED, Cell, grid
from uge.audit.quality import psnr, ssim
from uge.audit.run import Audit
from uge.copy import Copy
from uge.data.images import ImageSet, normalisation_of, to_float
from uge.data.sources import load
from uge.encoders import build_encoder, features_of
from uge.keys import load_key, save_key
from uge.keys.weights import WeightsKey, new_weights_key
from uge.losses.feature_distance import feature_distance
from uge.losses.gradient_matching import gradient_matching
from uge.networks import NetworkSpec, trainable
from uge.pipeline import protect_and_publish
from uge.protect import resolve_config
from uge.records import append_record, config_hash, read_records
from uge.runtime import environment, generator_for
from uge.training import Recipe, fit, recommended_recipe

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "uge_cifar" / "records.jsonl"
RUNS = ROOT / "runs" / "uge_cifar"

AUTHORISED_NETWORK = "convnet:width=32,stem=2,frozen_stem=true"
PAIRS = {  # two authorised networks of one copy
    "vgg": (AUTHORISED_NETWORK, "vgg:depth=8,width=16"),
    "stems": (  # two thirds of each patch are lost: a third of a 4x4 block is lost to both
        "convnet:width=32,stem=2,stem_width=4,frozen_stem=true",
        "convnet:width=48,stem=4,stem_width=16,frozen_stem=true",
    ),
}
EXPECTED = ("none", "blur", "grayscale", "jpeg:30")
TERMS = {
    "gm": {"gradient_matching": 1, "feature_distance": 0, "undistillation": 0},
    "gm+fd": {"gradient_matching": 1, "undistillation": 0, "feature_objective": "distance"},
    "2gm+fd": {"gradient_matching": 2, "undistillation": 0, "feature_objective": "distance"},
    "3gm+fd": {"gradient_matching": 3, "undistillation": 0, "feature_objective": "distance"},
    "10gm+fd": {"gradient_matching": 10, "undistillation": 0, "feature_objective": "distance"},
    "gm+fd+ud": {"gradient_matching": 1, "feature_objective": "distance"},
    "10gm+fd+ud": {"gradient_matching": 10, "feature_objective": "distance"},
    "gm+fd+0.03ud": {"gradient_matching": 1, "undistillation": 0.03, "feature_objective": "distance"},
    "gm+fd, filters": {"gradient_matching": 1, "undistillation": 0, "filters": EXPECTED},
    "10gm+fd, filters": {"gradient_matching": 10, "undistillation": 0, "filters": EXPECTED},
    "fd": {"gradient_matching": 0, "undistillation": 0, "feature_objective": "distance"},
    "gm+mis": {"gradient_matching": 1, "undistillation": 0, "feature_objective": "misalignment"},
    "gm+mis+ud": {"gradient_matching": 1, "feature_objective": "misalignment"},
    "3gm+mis": {"gradient_matching": 3, "undistillation": 0, "feature_objective": "misalignment"},
    "3gm+mis+ud": {"gradient_matching": 3, "feature_objective": "misalignment"},
}
EPSILONS = (8, 16, 32, 64)
SMALL = {"encoder": "own", "generator_width": 24, "epochs": 24, "feature_images": 64}
FULL = {
    "encoder": "efficientnet-lite0",
    "label_conditional": True,
    "generator_width": 32,
    "epochs": 12,
    "feature_images": 24,
}
SMALL_HACKERS = (AUTHORISED, "vgg:depth=8,width=16", "resnet:depth=8,width=16")
FULL_HACKERS = (*SMALL_HACKERS, "mlp", "convnet:width=32", "vit:width=64,depth=3")
STUDENTS = tuple(
    (network, how)
    for network in (AUTHORISED, "vgg:depth=8,width=16")
    for how in ("distillation:soft", "distillation:hard", "distillation:soft,queries=any")
)
LATER_STUDENTS = tuple(student for student in STUDENTS if "queries=any" not in student[1])


def settings_by_name() -> dict[str, dict[str, Any]]:
    """Ablation x epsilon: name -> settings in the place of the defaults."""
    return {
        f"{name}@{epsilon}": terms | {"epsilon_255": epsilon} for name, terms in TERMS.items() for epsilon in EPSILONS
    }


class Stage:
    """One data set at one size with its key, hackers and budget."""

    def __init__(self, name: str, data: str, *, small: bool, seeds: tuple[int, ...] = (0,)) -> None:
        self.name = name
        self.small = small
        self.seeds = seeds
        side = (16, 16) if small else None
        self.clean = load(data, "train", image_size=side, convert=True)  # TinyImageNet mixes gray and colour
        self.test = load(data, "test", image_size=side, convert=True)
        self.data = Path(data).stem
        if small:
            self.clean = self.clean.take(4000, generator_for(0, "grid subset"))
        self.epochs = 40 if small else 30
        self.folder = RUNS / self.data / ("small" if small else "full")

    def recipe(self, network: str) -> Recipe:
        return recommended_recipe(network, self.epochs)

    def key(self, network: str, draw: int) -> WeightsKey:
        """The authorised network, drawn once for all settings so that they differ in the protection alone."""
        name = self.folder / "keys" / f"{network.replace(':', '-')}-{draw}"
        file = Path(f"{name}.protector.uge")
        if not file.exists():
            spec = NetworkSpec.of(network, self.clean)
            name.parent.mkdir(parents=True, exist_ok=True)
            classes, normalisation = self.clean.class_names, normalisation_of(self.clean.images)
            save_key(new_weights_key(spec, classes, *normalisation, self.recipe(network)), name)
        key = load_key(file)
        assert isinstance(key, WeightsKey)
        return key

    def audit(self, published: ImageSet, key: WeightsKey, epochs: int | None = None) -> Audit:
        return Audit(
            published,
            self.test,
            self.folder,
            key=replace(key, own_recipe=replace(key.own_recipe, epochs=epochs or self.epochs)),
            clean=self.clean,
            recipe=lambda network: recommended_recipe(network, epochs or self.epochs),
        )

    def cells(self, seed: int) -> list[Cell]:
        hackers = [(network, "none") for network in (SMALL_HACKERS if self.small else FULL_HACKERS)]
        if self.name in ("grid", "two-keys"):
            return grid(hackers, [seed])
        if self.name == "filters":
            filtered = [("vgg:depth=8,width=16", how) for how in ("blur:1", "grayscale", "jpeg:30")]
            return grid([*hackers, *filtered], [seed])
        students = STUDENTS if self.name in ("check", "finalists") else LATER_STUDENTS
        return grid([*hackers, *students], [seed])


def run_setting(stage: Stage, name: str, overrides: dict[str, Any], networks: tuple[str, ...]) -> None:
    """Protect, publish, train everybody, measure every term; append what is missing to the records."""
    config = resolve_config("uge", (SMALL if stage.small else FULL) | overrides)
    done = {(row["stage"], row["setting"], row["cell"]) for row in read_records(RESULTS)}
    for seed in stage.seeds:
        keys = [stage.key(network, seed) for network in networks]
        out = stage.folder / f"{stage.name}-{name.replace(', ', '-')}-{seed}-{config_hash(config.to_dict())}"
        took = out.with_name(f"{out.name}.seconds")
        if not out.exists():

            def step(row: dict[str, Any], total: int, took: Path = took) -> None:
                if row["step"] % 200 == 0:
                    tell(f"  step {row['step']}/{total} " + str({k: v for k, v in row.items() if k != "step"}))
                if row["step"] == total:
                    took.write_text(str(row["seconds"]))  # of all steps, whatever interrupted them

            tell(f"{name} seed {seed}: protecting")
            protect_and_publish(stage.clean, keys, out, "uge", config, seed=seed, on_step=step)
        seconds = float(took.read_text())
        copy = Copy.read(out).images
        about = {"stage": stage.name, "setting": name, "dataset": stage.data, "config": config.to_dict()}
        about |= {"small": True} if stage.small and stage.name != "grid" else {}
        measured = f"measures-{config_hash(about)}-{seed}"
        if (stage.name, name, measured) not in done:
            append_record(
                RESULTS, about | {"cell": measured, "seed": seed} | measures(stage, copy, keys[0], seed, seconds)
            )
        for key, network in zip(keys, networks, strict=True):
            audit = stage.audit(copy, key)
            cells = stage.cells(seed) if key is keys[0] else grid([(AUTHORISED, "none")], [seed])
            for cell in cells:  # each is on disk before the next begins
                row = audit.run([cell], lambda number, cell: tell(f"  {name} {cell}"))[0]
                if (stage.name, name, row["cell"]) not in done:
                    append_record(RESULTS, about | {"authorised_network": network} | row)


def measures(stage: Stage, copy: ImageSet, key: WeightsKey, seed: int, seconds: float) -> dict[str, Any]:
    """What each term did to this copy."""
    matching = on_policy_matching(key, stage.clean, copy, seed=seed + 1000)
    sample = torch.arange(0, len(copy), max(1, len(copy) // 1000))
    return {
        "kind": "measures",
        "on_policy_direction": round(matching["direction"], 4),
        "on_policy_magnitude": round(matching["magnitude"], 4),
        "similarity_efficientnet_lite1": round(encoder_similarity(stage.clean, copy), 4),
        "psnr_db": round(float(psnr(stage.clean.images[sample], copy.images[sample]).mean()), 2),
        "ssim": round(float(ssim(stage.clean.images[sample], copy.images[sample]).mean()), 4),
        "protect_seconds": seconds,
        "environment": environment(),
    }


def on_policy_matching(
    key: WeightsKey, clean: ImageSet, copy: ImageSet, *, seed: int, batches: int = 8
) -> dict[str, float]:
    """L_gm at fresh on-policy weights: those of a new authorised training on the copy, at every quarter of it.

    Returns:
        Means over points and batches: `direction` and `magnitude` as in `gradient_matching`.
    """
    network, recipe = key.module(clean, "", 0), key.own_recipe
    generator = generator_for(seed, "on-policy matching")
    size = min(recipe.batch_size, len(clean))
    picks = [torch.randperm(len(clean), generator=generator)[:size] for _ in range(batches)]
    found: list[tuple[float, float]] = []
    points = {max(1, round(recipe.epochs * share)) for share in (0.25, 0.5, 0.75, 1.0)}

    def measure(epoch: int, loss: float, accuracy: float) -> None:
        if epoch in points:
            for pick in picks:
                wanted, got = (gradients(network, images, pick) for images in (clean, copy))
                matched = gradient_matching(wanted, got)
                found.append((float(matched.direction), float(matched.magnitude)))

    fit(network, copy, recipe, seed=seed, on_epoch=measure)
    return {"direction": fmean(d for d, _ in found), "magnitude": fmean(m for _, m in found)}


def gradients(network: nn.Module, images: ImageSet, pick: Tensor) -> tuple[Tensor, ...]:
    loss = F.cross_entropy(network(to_float(images.images[pick])), images.labels[pick])
    return torch.autograd.grad(loss, list(trainable(network).values()))


def encoder_similarity(clean: ImageSet, copy: ImageSet, encoder: str = "efficientnet-lite1", most: int = 500) -> float:
    """Mean centred cosine of originals and copies in an encoder that the protection did not use; 1: all alike."""
    pick = torch.randperm(len(clean), generator=generator_for(0, "encoder similarity"))[:most]
    module = build_encoder(encoder, clean, seed=0)
    a, b = (features_of(module, images.images[pick]) for images in (clean, copy))
    return float(feature_distance(a, b, a.mean(0)))


def check_budget(stage: Stage) -> None:
    """Train every clean network for the budget and for twice as long."""
    key = stage.key(AUTHORISED_NETWORK, 0)
    done = {(row["stage"], row["cell"]) for row in read_records(RESULTS)}
    for factor in (1, 2):
        audit = stage.audit(stage.clean, key, stage.epochs * factor)
        cells = [cell for cell in stage.cells(0) if cell.trained_on == "clean"]
        for cell in cells:
            row = audit.run([cell], lambda number, cell, factor=factor: tell(f"  clean x{factor} {cell}"))[0]
            if ("check", row["cell"]) not in done:
                about = {"stage": "check", "setting": "clean", "dataset": stage.data, "small": stage.small}
                append_record(RESULTS, about | {"budget_factor": factor} | row)


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument(
        "--stage",
        required=True,
        choices=("grid", "check", "students", "filters", "finalists", "seeds", "transfer", "two-keys"),
    )
    parser.add_argument("--settings", nargs="*", help="names such as gm+fd@32; all of the grid by default")
    parser.add_argument("--full-size", action="store_true", help="with --stage check: the networks of the later stages")
    parser.add_argument("--small", action="store_true", help="the size, encoder and hackers of the grid")
    parser.add_argument("--pair", choices=PAIRS, default="vgg", help="with --stage two-keys: the authorised networks")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    known = settings_by_name()
    wanted = arguments.settings or (list(known) if arguments.stage == "grid" else [])
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"unknown settings {unknown}; choose from {list(known)}")
    if arguments.stage == "check":
        check_budget(Stage("check", arguments.data, small=not arguments.full_size))
        return
    if not wanted:
        sys.exit("name the --settings of this stage")
    seeds = (0, 1, 2) if arguments.stage == "seeds" else (0,)
    small = arguments.small or arguments.stage == "grid"
    stage = Stage(arguments.stage, arguments.data, small=small, seeds=seeds)
    networks = PAIRS[arguments.pair] if arguments.stage == "two-keys" else (AUTHORISED_NETWORK,)
    pair = f", {arguments.pair}" if arguments.stage == "two-keys" and arguments.pair != "vgg" else ""
    for name in wanted:
        run_setting(stage, name + pair, known[name], networks)


if __name__ == "__main__":
    main()
