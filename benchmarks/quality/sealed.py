"""Sealed copies: what they cost, how they look, what networks of the originals make of them, and who learns what.

    python benchmarks/quality/sealed.py DATA --seed 0 --images 3000 --work WORK

Makes a key and a copy of its own for every data set, epsilon and seed in WORK (private), audits it by the plan, and
keeps every training and the facts of the copy in `benchmarks/results/sealed/records.jsonl`. Killed at any time, the
same command goes on. Ceilings, which are trainings on the originals, are shared between all copies of one data set.
With --folder it audits what another program made of the same images. That of version 0.1 is of commit 4641023:
`uge key new --reversible --epsilon 16 --network resnet:depth=8,width=16 --data DATA`, then `uge protect DATA --key`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from uge.audit.conduct import conduct
from uge.audit.plan import read_plan
from uge.audit.quality import psnr, ssim
from uge.audit.run import read_finished
from uge.copy import Copy
from uge.data.images import ImageSet
from uge.data.sources import load
from uge.errors import ConfigError
from uge.networks import NetworkSpec, fresh_network
from uge.pipeline import key_beside, protect_and_publish
from uge.protect import resolve_config
from uge.protection import Settings
from uge.records import append_record, read_records
from uge.runners import build_runner
from uge.runtime import environment, generator_for, seed_for
from uge.training import fit, logits_of, recommended_recipe

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "sealed" / "records.jsonl"
JUDGES = ("vgg:depth=8,width=16", "resnet:depth=8,width=16", "timm:resnet10t")
JUDGE_EPOCHS = 15


def recognised(clean: ImageSet, copies: torch.Tensor) -> dict[str, dict[str, float]]:
    """Of copies and originals: network -> percent whose class it says; it learnt the other half of the originals.

    Without the judge of timm where timm does not import.
    """
    order = torch.randperm(len(clean), generator=generator_for(0, "judges"))
    known, judged = order[: len(order) // 2], order[len(order) // 2 :]
    found: dict[str, dict[str, float]] = {"recognised": {}, "recognised_originals": {}}
    for text in JUDGES:
        try:
            network, label = fresh_network(text, clean, seed_for(0, "judge", text)), NetworkSpec.of(text, clean).label
        except ConfigError as error:
            print(f"{text} judges nothing: {error}")
            continue
        fit(network, clean.subset(known), recommended_recipe(text, JUDGE_EPOCHS), seed=0)
        for what, images in (("recognised", copies), ("recognised_originals", clean.images)):
            right = logits_of(network, images[judged]).argmax(1) == clean.labels[judged]
            found[what][label] = round(100 * float(right.float().mean()), 2)
    return found


def made(clean: ImageSet, out: Path, config: Settings) -> float:
    """A key and a copy at `out`, and the seconds that this call took; 0 where the copy is there already."""
    if out.exists():
        return 0.0
    started = time.perf_counter()
    protect_and_publish(clean, [key_beside(out)], out, "sealed", config)
    return round(time.perf_counter() - started, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="DATA with a train and a test split; its file names it in the tables")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the trainings; every seed has a key and a copy of its own"
    )
    parser.add_argument("--epsilon", type=int, default=16)
    parser.add_argument("--image-size", type=int, help="resize to SIZE pixels")
    parser.add_argument("--plan", default=str(Path(__file__).with_name("sealed.toml")))
    parser.add_argument(
        "--images", type=int, default=0, help="the audit's hackers and ceilings have so many of the images"
    )
    parser.add_argument("--runner", default="local:workers=1")
    parser.add_argument("--work", type=Path, required=True, help="private folder for keys, copies and audits")
    parser.add_argument("--facts", action="store_true", help="what the copy looks like, too")
    parser.add_argument("--folder", metavar="NAME=DIR", help="images that another program protected, without a key")
    arguments = parser.parse_args()

    size = (arguments.image_size, arguments.image_size) if arguments.image_size else None
    clean, test = (load(arguments.data, split, image_size=size, convert=True) for split in ("train", "test"))
    dataset, epsilon, seed = Path(arguments.data).stem, arguments.epsilon, arguments.seed
    name, _, folder = (arguments.folder or "sealed").partition("=")
    about = {"dataset": dataset, "copy": name, "epsilon_255": epsilon}
    place = arguments.work / (f"{dataset}-{epsilon}-{seed}" + f"-{name}" * bool(folder))
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = resolve_config("sealed", {"epsilon_255": epsilon})
    seconds = 0.0 if folder else made(clean, place, config)
    key = None if folder else key_beside(place)
    copy = Copy.read(folder or place, key)
    images = copy.images.like(clean)
    if seconds or arguments.facts:
        ours: dict[str, object] = {}
        if key:
            kept = {row["seed"]: row for row in read_records(RESULTS) if row["kind"] == "copy"
                    and {name: row[name] for name in about} == about}.get(seed, {})  # fmt: skip
            ours = {"config": config.to_dict(), "protect_seconds": seconds or kept.get("protect_seconds")}
            same = key.opened(images.images) == key.seen(clean.images)
            ours["views_identical"] = int(same.flatten(1).all(1).sum())
        append_record(
            RESULTS,
            about
            | {
                "kind": "copy",
                "seed": seed,
                "images": len(clean),
                "psnr_db": round(float(psnr(clean.images, images.images).median()), 2),
                "ssim": round(float(ssim(clean.images, images.images).mean()), 4),
                "epsilon_measured_255": int((clean.images.short() - images.images).abs().max()),
                "environment": environment(),
            }
            | ours
            | recognised(clean, images.images),
        )
    plan = read_plan(arguments.plan)
    known = [row for row in read_records(RESULTS) if row.get("trained_on") == "clean" and row["dataset"] == dataset]
    audit = place.with_name(f"{place.name}.{plan.name}.audit")
    if arguments.images:
        part = clean.choose(arguments.images, generator_for(0, "audited images"))
        images, clean = images.subset(part), clean.subset(part)
        about |= {"dataset": f"{dataset}, {arguments.images} images"}
    conduct(
        images,
        test,
        audit,
        replace(plan, seeds=(seed,)),
        build_runner(arguments.runner),
        manifest=copy.manifest,
        key=key,
        clean=clean,
        known=known,
    )
    done = {row.get("cell") for row in read_records(RESULTS)}
    for row in read_finished(audit):
        if row["cell"] not in done:
            append_record(RESULTS, about | row)


if __name__ == "__main__":
    main()
