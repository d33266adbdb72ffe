"""What learnt purification takes out of a copy, measured against the originals; 16x16 pixels, 4,000 images.

    python benchmarks/quality/purification.py --data CIFAR.zip --own CIFAR100.zip
    python benchmarks/quality/purification.py --data CIFAR.zip --own OTHER.zip --setting reversible16-full+misdirecting

One copy; for each denoiser the share of signs that it tells, what it leaves of the perturbation and of the part that a
class has in common (`uge.attack.purification`), and a vgg hacker who trains on what it made of the copy. Each is a row
of `benchmarks/results/purification/records.jsonl`; what is there is not done again. The key is made from the seed, so
that a killed run goes on with the same copy: it protects nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from uge.attack import build_countermeasure, knowledge_of
from uge.attack.denoiser import Denoised
from uge.attack.purification import left_over, shortcut_left, sign_accuracy
from uge.data.images import ImageSet, normalisation_of, to_float
from uge.data.sources import load
from uge.keys.keyed_view import KeyedView
from uge.keys.null_space import NullSpace
from uge.keys.reversible import Reversible
from uge.networks import NetworkSpec, build_network, parse_network
from uge.protect import PROTECTIONS
from uge.protect.keyed import KeyedConfig
from uge.protect.null_space import NullSpaceConfig
from uge.protect.reversible import PRESETS
from uge.records import append_record, config_hash, read_records
from uge.runtime import environment, generator_for, seed_for
from uge.training import fit, recommended_recipe

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "purification" / "records.jsonl"
RUNS = ROOT / "runs" / "purification"
VGG = "vgg:depth=8,width=16"
OWN = "OWN"  # in the place of the path of the hacker's own images
SETTINGS: dict[str, tuple[KeyedView, KeyedConfig, int]] = {  # layout, settings, most steps of a denoiser
    "null-space": (NullSpace(bytes(32)), NullSpaceConfig(), 1500),
    "reversible16+combined": (Reversible(bytes(32), 16), replace(PRESETS["combined"], epsilon_255=16), 6000),
    "reversible16-full+misdirecting": (
        Reversible(bytes(32), 16, "full"),
        replace(PRESETS["misdirecting"], epsilon_255=16),
        6000,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--own", required=True, help="other images, from which a hacker makes pairs")
    parser.add_argument("--setting", default="null-space", choices=SETTINGS)
    parser.add_argument("--only", nargs="*", help="some of the denoisers, by their text without steps")
    parser.add_argument("--steps", type=int, help="most steps of a denoiser, in the place of the settings'")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    clean, test = (load(arguments.data, split, image_size=(16, 16), convert=True) for split in ("train", "test"))
    clean = clean.take(4000, generator_for(0, "grid subset"))
    about = {
        "dataset": Path(arguments.data).stem,
        "own": Path(arguments.own).stem,
        "seed": arguments.seed,
        "setting": arguments.setting,
    }
    copy = protected(clean, arguments.setting, arguments.seed)
    space, config, steps = SETTINGS[arguments.setting]
    told = config.to_dict() | space.layout | {"method": space.kind}
    texts = ["none", "pairs:100", f"own-pairs:{OWN}", "pairs:500", "purify", "own-pairs", "pairs:10"]
    texts = [text for text in texts if not arguments.only or text in arguments.only]
    done = {
        (row.get("setting", "null-space"), row["seed"], row["countermeasure"], row["trained_on"])
        for row in read_records(RESULTS)
    }
    for text, source in [("none", clean), *((text, copy) for text in texts)]:
        name = "clean" if source is clean else "published"
        spec = text if text == "none" else f"{text}{',' if ':' in text else ':'}steps={arguments.steps or steps}"
        if (arguments.setting, arguments.seed, spec, name) not in done:
            print(f"{time.strftime('%H:%M:%S')} {name} {spec}", flush=True)
            row = attacked(spec, source, clean, test, arguments.seed, arguments.own, told)
            append_record(RESULTS, about | {"countermeasure": spec, "trained_on": name} | row)


def protected(clean: ImageSet, setting: str, seed: int) -> ImageSet:
    """The copy, under a key that the seed gives away; its generator is kept in `runs/`."""
    space, config, *_ = SETTINGS[setting]
    space = replace(space, secret=hashlib.sha256(f"purification benchmark {seed}".encode()).digest())
    workdir = RUNS / f"{config_hash(config.to_dict() | {'data': clean.digest()})}-{seed}"
    protection = PROTECTIONS[space.kind](clean, space, config, seed=seed, workdir=workdir)
    protection.train()
    return replace(clean, images=torch.cat(list(protection.copies())))


def attacked(
    spec: str, source: ImageSet, clean: ImageSet, test: ImageSet, seed: int, own: str, told: dict[str, Any]
) -> dict[str, Any]:
    """Purify, measure, train."""
    measure = build_countermeasure(spec.replace(OWN, own), clean=clean, settings=told)
    started = time.perf_counter()
    images, _ = measure.prepare(source)
    seconds = round(time.perf_counter() - started, 1)
    seen = source.with_images(images)
    truth: dict[str, Any] = {}
    if isinstance(measure, Denoised):
        truth = {
            "sign_accuracy": sign_accuracy(measure.removed, source.images, clean.images),
            "rms_left": left_over(measure.estimate, source.images, clean.images),
            "shortcut_left": shortcut_left(measure.estimate, source, clean),
        }
    elif source is not clean:  # the copy as it is, for comparison
        truth = {"shortcut_left": shortcut_left(to_float, source, clean)}
    name, options = parse_network(VGG)
    network_spec = NetworkSpec(name, clean.channels, clean.image_size, clean.classes, options)
    network = build_network(network_spec, *normalisation_of(images), seed=seed_for(seed, "hacker", VGG))
    recipe = recommended_recipe(VGG, 30)
    history = fit(network, seen, recipe, seed=seed_for(seed, "hacker", VGG), test=measure.at_test(test))
    return {
        "network": network_spec.label,
        "knows": knowledge_of(spec),
        "images": len(source),
        "image_size": list(source.image_size),
        **truth,
        "findings": dict(measure.findings),
        "purify_seconds": seconds,
        "accuracy": history.accuracy,
        "peak_accuracy": history.peak_accuracy,
        "recipe": recipe.to_dict(),
        "environment": environment(),
    }


if __name__ == "__main__":
    main()
