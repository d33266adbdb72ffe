"""Before and after at three epsilons: pictures of copies of the embedded images, and what hackers learn from them.

    python benchmarks/quality/gallery.py --work WORK

Copies 600 images of `eurosat`, drawn by seed 0, at each epsilon. The same seven are shown, of seven classes, in
`docs/gallery/EPSILON.webp`. Small hackers try each copy; rows go to `benchmarks/results/gallery/records.jsonl`. Keys
come from the operating system, so another run makes other shifts. Killed at any time, the same command goes on.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import torch
from PIL import Image

from uge.audit.conduct import conduct
from uge.audit.plan import AUTHORISED, Hackers, Plan
from uge.audit.quality import psnr, ssim
from uge.audit.run import read_finished
from uge.copy import Copy
from uge.data.images import ImageSet
from uge.data.sources import load
from uge.durable import write_file
from uge.pipeline import key_beside, protect_and_publish
from uge.protect import resolve_config
from uge.records import append_record, read_records
from uge.report.figures import comparison_picture
from uge.runners import Local
from uge.runtime import environment, generator_for

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gallery" / "records.jsonl"
PICTURES = ROOT / "docs" / "gallery"
DATA, IMAGES, SEED, SHOWN = "eurosat", 600, 0, 7
EPSILONS = (16, 8, 24)
VGG = "vgg:depth=8,width=16"
PLAN = Plan(
    "gallery",
    (Hackers((VGG, AUTHORISED)), Hackers((VGG,), ("grayscale", "jpeg:10"))),
    authorised="resnet:depth=8,width=16",
    epochs=20,
    subsets=0,
    seeds=(SEED,),
)


def shown(images: ImageSet) -> torch.Tensor:
    """The places of the first image of each of the first classes."""
    firsts = [int((images.labels == label).nonzero()[0]) for label in range(SHOWN)]
    return torch.tensor(firsts)


def picture(clean: ImageSet, copies: ImageSet) -> bytes:
    """Seven originals, copies and differences, as a lossless WebP."""
    places, buffer = shown(clean), io.BytesIO()
    with Image.open(io.BytesIO(comparison_picture(clean.images[places], copies.images[places]))) as drawn:
        drawn.save(buffer, "WEBP", lossless=True, method=6)
    return buffer.getvalue()


def made(epsilon: int, work: Path, clean: ImageSet) -> Copy:
    """One copy, with its picture and its facts."""
    place, about = work / f"gallery-{epsilon}", {"dataset": DATA, "epsilon_255": epsilon, "kind": "copy"}
    key, config = key_beside(place), resolve_config("sealed", {"epsilon_255": epsilon})
    if not place.exists():
        protect_and_publish(clean, [key], place, "sealed", config, seed=SEED)
    copy = Copy.read(place, key)
    copies = copy.images.like(clean)
    write_file(PICTURES / f"{epsilon}.webp", picture(clean, copies))
    if not any(about.items() <= row.items() for row in read_records(RESULTS)):
        looks = {
            "psnr_db": round(float(psnr(clean.images, copies.images).median()), 2),
            "ssim": round(float(ssim(clean.images, copies.images).mean()), 4),
        }
        more = {"images": len(clean), "seed": SEED, "config": config.to_dict(), "environment": environment()}
        append_record(RESULTS, about | looks | more)
    return copy


def tried(epsilon: int, work: Path, clean: ImageSet, copy: Copy) -> None:
    """The recipient and the hackers of one copy; trainings on the originals are shared."""
    known = [row for row in read_records(RESULTS) if row.get("trained_on") == "clean"]
    audit, key = work / f"gallery-{epsilon}.audit", key_beside(work / f"gallery-{epsilon}")
    told = {"manifest": copy.manifest, "key": key, "clean": clean, "known": known}
    conduct(copy.images.like(clean), load(DATA, "test"), audit, PLAN, Local(1), **told)
    done = {(row["epsilon_255"], row.get("cell")) for row in read_records(RESULTS)}
    for row in read_finished(audit):
        if (epsilon, row["cell"]) not in done:
            append_record(RESULTS, {"dataset": DATA, "epsilon_255": epsilon} | row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="private folder for keys, copies and audits")
    arguments = parser.parse_args()
    arguments.work.mkdir(mode=0o700, parents=True, exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    clean = load(DATA, "train").take(IMAGES, generator_for(SEED, "gallery"))
    copies = {epsilon: made(epsilon, arguments.work, clean) for epsilon in EPSILONS}
    for epsilon, copy in copies.items():
        tried(epsilon, arguments.work, clean, copy)


if __name__ == "__main__":
    main()
