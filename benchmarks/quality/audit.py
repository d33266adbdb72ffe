"""The full audit of a protected copy of CIFAR-10 or TinyImageNet, with its records for the README.

    uge key new --null-space --no-passphrase --network convnet:width=32 --data CIFAR.zip --out carol
    uge protect CIFAR.zip --key carol.protector.uge --out locked
    python benchmarks/quality/audit.py locked --data CIFAR.zip --key carol.recipient.uge --name null-space
        [--plan benchmarks/quality/one-network.toml]

Every finished training is a row of `benchmarks/results/audit/records.jsonl`, under the name of the protection; a killed
run goes on where it stopped. The audit itself lies in `runs/`, which is not committed. What earlier audits of the same
data trained on the originals is taken from them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from uge.audit.conduct import Watcher, conduct, read_copy
from uge.audit.estimate import duration
from uge.audit.plan import read_plan
from uge.audit.run import read_finished
from uge.audit.runners import build_runner
from uge.data.sources import load
from uge.keys.key import load_key
from uge.records import append_record, read_records

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "audit" / "records.jsonl"
RUNS = ROOT / "runs" / "audit"


class Recording(Watcher):
    """Keeps each row in the results as it comes."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        self.kept = {(row["name"], row["dataset"], row["cell"]) for row in read_records(RESULTS) if "cell" in row}

    def planned(self, trainings: int, seconds: float, skipped: Any) -> None:
        print(f"{trainings} trainings, about {duration(seconds)} of one worker; left out: {skipped}", flush=True)

    def trained(self, row: dict[str, Any], seconds: float) -> None:
        result = row.get("error") or f"{row['accuracy']:.1f} in {row['seconds']:.0f} s, estimated {seconds:.0f} s"
        told = f"{row['kind']} {row['network']} {row['countermeasure']} {row['trained_on']} x{row['budget']:g}"
        print(f"{time.strftime('%H:%M:%S')} {told}: {result}", flush=True)
        self.keep(row)

    def keep(self, row: dict[str, Any]) -> None:
        place = (self.about["name"], self.about["dataset"], row["cell"])
        if "error" not in row and place not in self.kept:
            append_record(RESULTS, self.about | row)
            self.kept.add(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("published", type=Path)
    parser.add_argument("--data", required=True, help="the originals, with a test split")
    parser.add_argument("--name", required=True, help="of the protection, in the tables")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--plan", default="full")
    parser.add_argument("--reuse", type=Path, nargs="*", default=[], help="more audits with the same cells")
    parser.add_argument("--runner", default="local")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    key = load_key(arguments.key) if arguments.key else None
    copy, manifest = read_copy(arguments.published, key)
    clean, test = (load(arguments.data, split, image_size=copy.image_size, convert=True) for split in ("train", "test"))
    plan = read_plan(arguments.plan)
    about = {"name": arguments.name, "dataset": Path(arguments.data).stem, "plan": plan.name}
    folder = RUNS / about["dataset"] / about["name"]
    others = arguments.reuse + [
        place for place in folder.parent.glob("*") if (place / "records.jsonl").exists() and place != folder
    ]
    recording = Recording(about)
    conduct(
        copy,
        test,
        folder,
        plan,
        build_runner(arguments.runner),
        manifest=manifest,
        key=key,
        clean=clean,
        device=arguments.device,
        known=[row for other in others for row in read_finished(other)],
        watcher=recording,
    )
    for row in read_finished(folder):  # also what earlier audits had trained
        recording.keep(row)
    facts = json.loads((folder / "audit.json").read_text())
    facts = {entry: facts[entry] for entry in ("manifest", "quality", "settings", "skipped", "environment")}
    append_record(RESULTS, about | {"kind": "facts"} | facts)


if __name__ == "__main__":
    main()
