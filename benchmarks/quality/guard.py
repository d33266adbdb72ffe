"""The recipient's guarded service: what it refuses, what that costs others, and what its students learn.

    python -m benchmarks.quality.guard DATA --seed 0 --work WORK

Makes a key and a sealed copy in WORK (private) unless they are there, trains the recipient, the guard and students, and
keeps every training and the facts of the guard in `benchmarks/results/guard/records.jsonl`. Killed at any time, the
same command goes on. Half of the test images are the students' own; every student is measured on the other half.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.sealed import made
from uge.attack.distillation import Distillation
from uge.audit.plan import AUTHORISED, Cell
from uge.audit.run import Audit
from uge.copy import Copy
from uge.data.images import ImageSet, to_float, to_uint8
from uge.data.sources import load
from uge.filters import parse_filter
from uge.pipeline import key_beside
from uge.protect import resolve_config
from uge.records import append_record, read_records
from uge.runtime import environment, generator_for
from uge.service import Guard
from uge.service.disguises import cropped, disguised, mixed
from uge.training import Shift, fit, logits_of, recommended_recipe

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "guard" / "records.jsonl"
STUDENT = "vgg:depth=8,width=16"
STUDENTS = ("none", "distillation:soft", "guarded", "guarded:accounts=560", "guarded:accounts=10000", "purify+guarded")
FILTERS = (
    "grayscale",
    "blur:1",
    "jpeg:10",
    "jpeg:75",
    "high-pass",
    "chroma",
    "wavelet:16",
    "equalise",
    "local-contrast",
)
ASKED = 1000  # images a way of asking


class OwnImages(Distillation):
    """Asks about images of his own, alone or averaged with the published ones, and learns what is answered."""

    def __init__(self, guard: Guard, own: ImageSet, with_copies: bool) -> None:
        super().__init__(guard)
        self.own, self.with_copies = own.images, with_copies

    def prepare(self, images: ImageSet) -> tuple[Tensor, Tensor]:
        sent = self.own
        if self.with_copies:
            repeated = self.own.repeat(-(-len(images) // len(self.own)), 1, 1, 1)[: len(images)]
            sent = to_uint8((to_float(repeated) + to_float(images.images)) / 2)
        answers = logits_of(self.teacher, sent)
        answered = ~answers.isnan().any(1)
        self.findings = {"asked": len(sent), "answered": int(answered.sum())}
        return sent[answered], answers[answered]


def ways(copies: Tensor, others: Tensor) -> dict[str, Tensor]:
    """What is sent, by how it is made of published images [N, C, H, W]; `others` are images of one's own."""
    x, y = to_float(copies), to_float(others)
    size, rng = (x.shape[2], x.shape[3]), generator_for(0, "guard", "ways")
    sent = {
        "as they are": x,
        "mirrored": x.flip(3),
        "moved": Shift.draw(len(x), size, rng)(x),
        "cropped": cropped(x, rng),
        "two mixed": mixed(x, x.roll(1, dims=0), rng),
        "several at random": disguised(x, x.roll(1, dims=0), rng),
        "averaged with own": (x + y) / 2,
    }
    return {name: to_uint8(each) for name, each in (sent | {name: parse_filter(name)(x) for name in FILTERS}).items()}


def facts_of(guard: Guard, copies: ImageSet, test: ImageSet) -> dict[str, Any]:
    """Percentages: what is refused, and the accuracy with and without the guard, where a refusal counts as wrong."""
    answers = logits_of(guard, test.images)
    right = {"accuracy": logits_of(guard.service, test.images).argmax(1) == test.labels}
    right |= {"accuracy_guarded": ~answers.isnan().any(1) & (answers.argmax(1) == test.labels)}
    chosen = torch.randperm(len(copies), generator=generator_for(0, "guard", "asked"))[: min(ASKED, len(test))]
    mine = test.images[: len(chosen)]
    sent = {"refused": ways(copies.images[chosen], mine), "refused_clean": ways(mine, mine.roll(1, dims=0))}
    return {
        "kind": "guard",
        "false_alarms": _percent(answers.isnan().any(1)),
        **{name: _percent(each) for name, each in right.items()},
        **{what: {name: _percent(guard.refuses(each)) for name, each in made.items()} for what, made in sent.items()},
        "test_images": len(test),
        "asked": len(chosen),
    }


def _percent(which: Tensor) -> float:
    return round(100 * float(which.float().mean()), 2)


def with_own(audit: Audit, guard: Guard, own: ImageSet, seed: int, with_copies: bool, name: str) -> dict[str, Any]:
    """The row of a student with images of his own; he takes as many steps as the others."""
    cell = Cell("hacker", STUDENT, seed=seed)
    student, measure = audit.network_of(cell), OwnImages(guard, own, with_copies)
    count = len(measure.prepare(audit.sources["published"])[0])
    epochs = round(audit.recipe_of(cell).epochs * max(1.0, (len(audit.sources["published"]) / count) ** 0.5))
    history = fit(
        student,
        audit.sources["published"],
        recommended_recipe(STUDENT, epochs),
        seed=seed,
        test=audit.test,
        countermeasure=measure,
    )
    told = {"countermeasure": name, "knows": "model outputs", "findings": measure.findings, "cell": f"{name} {seed}"}
    told |= {"accuracy": history.accuracy, "peak_accuracy": history.peak_accuracy, "recipe": history.recipe.to_dict()}
    return audit.facts(cell) | told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="DATA with a train and a test split; its file names it in the tables")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings; every seed has a copy of its own")
    parser.add_argument("--epochs", type=int, default=8, help="of the recipient and of every student")
    parser.add_argument("--students", nargs="*", default=STUDENTS, help="counter-measures")
    parser.add_argument("--work", type=Path, required=True, help="private folder for key, copy and audit")
    arguments = parser.parse_args()

    clean, test = (load(arguments.data, split, convert=True) for split in ("train", "test"))
    dataset, seed = Path(arguments.data).stem, arguments.seed
    place = arguments.work / f"{dataset}-16-{seed}"
    made(clean, place, resolve_config("sealed"))
    key = key_beside(place).recipients_part()
    copy = Copy.read(place, key)
    order = torch.randperm(len(test), generator=generator_for(0, "guard", "own images"))
    own, judged = (test.subset(part) for part in order.tensor_split(2))
    audit = Audit(
        copy.images,
        judged,
        place.with_name(f"{place.name}.guard"),
        key=key,
        recipe=lambda network: recommended_recipe(network, arguments.epochs),
        key_epochs=arguments.epochs,
        threads=1,
    )
    about = {"dataset": dataset, "epsilon_255": 16}
    done = {(row["cell"], row["seed"]) for row in read_records(RESULTS)}

    def keep(row: dict[str, Any]) -> None:
        if (row["cell"], row["seed"]) not in done:
            append_record(RESULTS, about | row)

    keep(audit.run([Cell(AUTHORISED, seed=seed)])[0])
    guard = audit.service(Cell("hacker", STUDENT, "guarded", seed))
    assert isinstance(guard, Guard)
    facts = {"cell": "guard", "seed": seed, "images": len(clean), "environment": environment()}
    keep(facts_of(guard, copy.images, test) | facts)
    for student in arguments.students:
        keep(audit.run([Cell("hacker", STUDENT, student, seed)])[0])
    for name, with_copies in (("own images", False), ("own images averaged with copies", True)):
        keep(with_own(audit, guard, own, seed, with_copies, name))


if __name__ == "__main__":
    main()
