"""Photographs at their own sizes: who learns what from a copy, at the size it was protected for and at others.

    python benchmarks/quality/photographs.py DATA --seed 0 --work WORK [--side 64] [--train-sizes 64 32 96]

Makes a key and a copy in WORK (private) and audits it at each size; every training and the facts of the copy go to
`benchmarks/results/photographs/records.jsonl`. Killed at any time, the same command goes on.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from uge.audit.conduct import conduct
from uge.audit.plan import read_plan
from uge.audit.run import read_finished
from uge.copy import Copy, verify
from uge.data import load, photographs
from uge.pipeline import key_beside, protect_and_publish
from uge.protect import resolve_config
from uge.records import append_record, read_records
from uge.runners import build_runner
from uge.runtime import environment

RESULTS = Path(__file__).resolve().parents[1] / "results" / "photographs" / "records.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="DATA with a train and a test split; its file names it in the tables")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings; every seed has a key of its own")
    parser.add_argument("--side", type=int, default=64, help="pixels that the copy is protected at")
    parser.add_argument("--train-sizes", type=int, nargs="+", default=[64, 32, 96])
    parser.add_argument("--plan", default=str(Path(__file__).with_suffix(".toml")))
    parser.add_argument("--work", type=Path, required=True, help="private folder for keys, copies and audits")
    arguments = parser.parse_args()

    dataset = Path(arguments.data).stem
    place = arguments.work / f"{dataset}-{arguments.side}-{arguments.seed}"
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = {"dataset": dataset, "side": arguments.side}
    config = resolve_config("sealed", {})
    with photographs(arguments.data, working_size=arguments.side, convert=True) as originals:
        if not place.exists():
            started = time.perf_counter()
            protect_and_publish(originals, [key_beside(place)], place, "sealed", config)
            seconds = time.perf_counter() - started
            found = verify(place, clean=originals, key=key_beside(place))
            facts = {"images": found.images, "views_identical": found.views, "epsilon_measured_255": found.epsilon_255}
            own = {"sizes": len(set(originals.sizes or ())), "protect_seconds": round(seconds, 1)}
            append_record(
                RESULTS, about | facts | own | {"kind": "copy", "seed": arguments.seed, "environment": environment()}
            )
    key = key_beside(place)
    for size in arguments.train_sizes:
        copy = Copy.read(place, key, size=size)
        plan = replace(read_plan(arguments.plan), seeds=(arguments.seed,))
        audit = place.with_name(f"{place.name}.{size}.audit")
        conduct(
            copy.images,
            load(arguments.data, "test", **copy.seen_at, convert=True),
            audit,
            plan,
            build_runner("local:workers=1"),
            manifest=copy.manifest,
            key=key,
            clean=load(arguments.data, "train", **copy.seen_at, convert=True),
            view=copy.resized_view(key),
        )
        done = {row.get("cell") for row in read_records(RESULTS)}
        for row in read_finished(audit):
            if row["cell"] not in done:
                append_record(RESULTS, about | {"train_size": size} | row)


if __name__ == "__main__":
    main()
