"""Pictures of one kind, protected without classes: what networks that the protector did not use see in them.

    python benchmarks/quality/pictures.py DATA CLASS --seed 0

The pictures of CLASS are protected as `uge protect` does it. A held-out encoder, EfficientNet-Lite1, looks at each copy
beside its original, behind filters. Then a hacker fits its last layer to all classes, with the copies in the place of
the originals, and is asked for CLASS among clean test images. Rows go to `benchmarks/results/pictures/records.jsonl`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack.pretrained import PretrainedProbe
from uge.audit.quality import psnr
from uge.cli.protect import AS_SEEN
from uge.data import load
from uge.data.images import ImageSet, to_float
from uge.encoders import build_encoder
from uge.encoders.efficientnet_lite import EfficientNetLite
from uge.filters import parse_filter
from uge.keys import SealedKey
from uge.protect.pictures import PicturesConfig, PicturesProtection
from uge.records import append_record
from uge.runtime import environment
from uge.training import logits_of, recommended_recipe

RESULTS = Path(__file__).resolve().parents[1] / "results" / "pictures" / "records.jsonl"
HELD_OUT = "efficientnet-lite1"
FILTERS = ("none", "grayscale", "blur:1", "pool:2", "jpeg:30", "jpeg:10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="DATA with a train and a test split")
    parser.add_argument("kind", metavar="CLASS", help="the class whose pictures are protected")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    side = (AS_SEEN["picture_size"],) * 2
    train, test = (load(arguments.data, split, image_size=side, cut=False, convert=True) for split in ("train", "test"))
    label = train.class_names.index(arguments.kind)
    chosen = (train.labels == label).nonzero()[:, 0]
    originals = train.subset(chosen)
    started = time.perf_counter()
    protection = PicturesProtection(originals, [SealedKey.draw()], PicturesConfig(), seed=arguments.seed)
    protection.train()
    copies = torch.cat(list(protection.copies()))
    facts = {
        "kind": "pictures",
        "dataset": Path(arguments.data).stem,
        "class": arguments.kind,
        "seed": arguments.seed,
        "images": len(originals),
        "epsilon_255": protection.epsilon_255,
        "psnr_db": round(float(psnr(originals.images, copies).median()), 2),
        "seconds": round(time.perf_counter() - started, 1),
        "encoder": HELD_OUT,
        "environment": environment(),
    }
    encoder = build_encoder(HELD_OUT, originals, seed=0)
    assert isinstance(encoder, EfficientNetLite)
    for name in FILTERS:
        append_record(RESULTS, facts | {"filter": name} | seen(encoder, originals.images, copies, name))
    for who, images in (
        ("originals", train.images),
        ("copies", train.images.index_copy(0, chosen, copies)),
        ("none", None),
    ):
        rest = train.subset((train.labels != label).nonzero()[:, 0]) if images is None else train.with_images(images)
        append_record(RESULTS, facts | {"learnt_from": who, "recall": recall(rest, test, label)})


@torch.no_grad()
def seen(encoder: EfficientNetLite, originals: Tensor, copies: Tensor, name: str) -> dict[str, Any]:
    """What the encoder sees in copies beside originals, both behind a filter: mean cosine, and how often one class."""
    apply = (lambda x: x) if name == "none" else parse_filter(name)
    logits, features = [], []
    for images in (originals, copies):
        x = torch.cat([apply(to_float(part)) for part in images.split(50)])
        features.append(torch.cat([encoder(part) for part in x.split(50)]))
        logits.append(encoder.network._fc(features[-1]))
    cosine, between = (
        float(F.cosine_similarity(features[0], other).mean()) for other in (features[1], features[0].roll(1, 0))
    )
    same = float((logits[0].argmax(1) == logits[1].argmax(1)).float().mean())
    return {"cosine": round(cosine, 3), "cosine_between": round(between, 3), "same": round(100 * same, 1)}


def recall(images: ImageSet, test: ImageSet, label: int) -> float:
    """The share of clean test images of a class that a probe on the held-out encoder's features finds, in percent."""
    probe = PretrainedProbe(HELD_OUT)
    pixels, labels = probe.prepare(images)
    network, _ = probe.begin(nn.Identity(), recommended_recipe("mlp"), torch.Generator())
    probe.finish(network, pixels, labels, lambda each: each)
    found = logits_of(network, test.images[test.labels == label]).argmax(1) == label
    return round(100 * float(found.float().mean()), 1)


if __name__ == "__main__":
    main()
