"""Run a comparison: make each copy, audit it, and say on one line what came out. Killed at any time, it goes on.

    BENCH/bench.json                    the plan and the data: one folder holds one comparison
    BENCH/DATA/copies/NAME-SEED/        the protected copies, beside each its key and what it cost
    BENCH/DATA/audits/NAME-SEED/        as `uge audit` writes them
    BENCH/records.jsonl                 everything that was measured, a row each (see `rows_of`)

Private: keys and audits are in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from uge.audit.conduct import Watcher, conduct
from uge.audit.plan import Plan, Row
from uge.bench.cost import CopyJob, clock_yardstick, in_a_process, make_copy, read_cost, share_of, was_made
from uge.bench.plan import Bench, Contender, check_name
from uge.bench.result import result_of
from uge.copy import Copy, Manifest
from uge.data.images import ImageSet, normalisation_of
from uge.data.sources import load
from uge.durable import claimed, write_file
from uge.errors import ConfigError
from uge.keys import Key, SealedKey, load_key, new_weights_key, pair_of, save_key
from uge.networks import NetworkSpec
from uge.outside import read_json
from uge.protect import PROTECTIONS
from uge.protection import NO_KEY
from uge.records import RECORDS, config_hash, line_of, read_records
from uge.runners import Runner
from uge.runtime import generator_for
from uge.training import recommended_recipe


class ComparisonSteps(Watcher):
    """What a comparison tells while it works."""

    def began(self, number: int, count: int, text: str) -> None:
        """Copy `number` of `count`, from 1."""

    def protecting(self, share: float) -> None:
        """So much of the present copy is made, 0 to 1."""


class Comparison:
    """One data set of a comparison: the arguments are those of `run_bench`, for one DATA.

    Raises:
        UgeError: the data or a folder cannot be read.
    """

    def __init__(
        self,
        bench: Bench,
        data: str,
        out: Path,
        runner: Runner,
        steps: ComparisonSteps,
        *,
        folders: Mapping[str, Path],
        convert: bool,
        split: str,
        device: str,
        threads: int,
    ) -> None:
        size = (bench.image_size, bench.image_size) if bench.image_size else None
        self.clean, self.test = (load(data, split, image_size=size, convert=convert) for split in ("train", split))
        self.bench, self.runner, self.steps, self.device, self.threads = bench, runner, steps, device, threads
        self.convert = convert
        self.dataset = dataset_name(data)
        self.out = out / self.dataset
        self.folders = {name: self._read(name, folder) for name, folder in folders.items()}
        self.clean = self._part(self.clean)
        self.ceilings: list[Row] = []  # of hackers, trained once for all copies
        self.failed = 0

    def _part(self, images: ImageSet) -> ImageSet:
        """The part of the training images that the plan takes; the same one of the originals and of a whole copy."""
        count = self.bench.images
        return images.take(count, generator_for(0, "bench images")) if 0 < count < len(images) else images

    def _read(self, name: str, folder: Path) -> tuple[ImageSet, Manifest | None]:
        """The copy in a folder, in the originals' order, and its manifest.

        Raises:
            ConfigError: it is not of the originals, so that trainings on the two could not be compared.
        """
        read = Copy.read(folder, convert=self.convert)
        copy = read.images.like(self.clean)
        for what in ("labels", "channels", "image_size", "class_names"):
            ours, theirs = getattr(self.clean, what), getattr(copy, what)
            if not (torch.equal(ours, theirs) if what == "labels" else ours == theirs):
                raise ConfigError(
                    f"--folder {name} is no copy of these {len(self.clean)} originals: its"
                    f" {what.replace('_', ' ')} differ; give a copy of all of them, under their file names"
                )
        return self._part(copy), read.manifest

    def copies(self) -> list[tuple[str, Contender | None, int]]:
        """(name, protection or None for a folder, seed): the first copy of every protection first."""
        seeds = self.bench.seeds
        own = [(each.name, each, seed) for seed in seeds for each in self.bench.protections]
        return own + [(name, None, seed) for name in self.folders for seed in seeds]

    def run(self, save: Callable[[Sequence[Row]], None]) -> list[Row]:
        """Whatever is missing; all rows, which `save` gets after every copy, too."""
        yardstick = self._yardstick()
        found: dict[str, list[Row]] = {}  # name -> the rows of its copies
        copies = self.copies()
        for number, (name, contender, seed) in enumerate(copies, 1):
            self.steps.began(number, len(copies), f"{self.dataset}: {name}, seed {seed}")
            rows = self._audit_folder(name, seed) if contender is None else self._compare(contender, seed, yardstick)
            rows = [row | {"dataset": self.dataset, "name": name, "copy_seed": seed} for row in rows]
            found.setdefault(name, []).extend(rows)
            self.ceilings += [row for row in rows if row["trained_on"] == "clean" and row["kind"] == "hacker"]
            save(self.rows_of(yardstick, found))
        return self.rows_of(yardstick, found)

    def rows_of(self, yardstick: Row, found: Mapping[str, list[Row]]) -> list[Row]:
        """Rows of the records: `kind` is "yardstick", "copy", "hacker", "authorised", and "result" for the leaderboard.

        Hackers on the originals belong to all protections and stand once, under the name "clean".
        """
        rows: list[Row] = [yardstick]
        for name, own in found.items():
            rows += own
            rows.append(self._result(name, own))
        kept: dict[tuple[Any, ...], Row] = {}
        for row in rows:
            if row["kind"] == "hacker" and row["trained_on"] == "clean":
                row = row | {"name": "clean"}
            place = (row["name"], row["kind"], "" if row["name"] == "clean" else row.get("copy_seed"), row.get("cell"))
            if place not in kept or ("error" in kept[place] and "error" not in row):
                kept[place] = row
        return list(kept.values())

    def _yardstick(self) -> Row:
        file = self.out / "yardstick.json"
        on = {"device": self.device, "threads": self.threads}
        facts = read_cost(file)
        if facts.get("on") != on:  # costs are compared with it
            facts = in_a_process(clock_yardstick, self.clean, self.device, self.threads) | {"on": on}
            write_file(file, json.dumps(facts))
        return {"kind": "yardstick", "name": "yardstick", "dataset": self.dataset, "images": len(self.clean)} | facts

    # -- one copy --------------------------------------------------------------------------------------------------

    def _compare(self, contender: Contender, seed: int, yardstick: Row) -> list[Row]:
        """Make and audit one copy of a protection; a row for the copy and one for each training."""
        place = f"{contender.name}-{seed}"
        out, config, method = self.out / "copies" / place, contender.config(), PROTECTIONS[contender.method]
        protector = recipient = None
        if method.takes != NO_KEY:
            protector, file = pair_of(out)
            if not protector.exists():
                save_key(self._drawn(method.takes), out)
            recipient = load_key(file)
        job = CopyJob(self.clean, contender.method, config, seed, out, protector, self.device, self.threads)
        if not was_made(job):
            in_a_process(make_copy, job, watch=lambda: self.steps.protecting(read_cost(job.clock).get("progress", 0.0)))
        copy = Copy.read(out, recipient)
        attacks = self.bench.attacks_on(seed)
        rows = self._audit(place, copy.images, attacks, key=recipient, manifest=copy.manifest)
        if (opened := method.opened(copy.images, out)) is not None:
            rows += self._unlocked(place, opened, seed)
        cost = read_cost(job.clock)
        cost |= {"trainings": share_of(cost, yardstick)}
        return [self._copy_row(place, contender.method, config.to_dict(), cost), *rows]

    def _drawn(self, kind: str) -> Key:
        """A new key of a kind."""
        if kind == SealedKey.kind:
            return SealedKey.draw()
        clean, text = self.clean, self.bench.attacks.authorised
        recipe = recommended_recipe(text, self.bench.attacks.epochs)
        return new_weights_key(NetworkSpec.of(text, clean), clean.class_names, *normalisation_of(clean.images), recipe)

    def _audit_folder(self, name: str, seed: int) -> list[Row]:
        copy, manifest = self.folders[name]
        place = f"{name}-{seed}"
        rows = self._audit(place, copy, self.bench.attacks_on(seed), manifest=manifest)
        return [self._copy_row(place, manifest.method if manifest else "unknown", {}, None), *rows]

    def _unlocked(self, place: str, opened: ImageSet, seed: int) -> list[Row]:
        """The user of a copy that is opened by secrets of its own: the recipient's network, on what they give back."""
        rows = self._audit(f"{place}-unlocked", opened, self.bench.unlocked(seed))
        return [row | {"kind": "authorised", "knows": "key", "locked": False, "unlocked": True} for row in rows]

    def _audit(self, place: str, copy: ImageSet, plan: Plan, **more: Any) -> list[Row]:
        folder = self.out / "audits" / place
        conduct(
            copy,
            self.test,
            folder,
            plan,
            self.runner,
            clean=self.clean,
            device=self.device,
            threads=self.threads,
            known=self.ceilings,
            watcher=self.steps,
            **more,
        )
        cells = read_json(folder / "audit.json")["cells"]
        rows = {row["cell"]: row for row in read_records(folder / RECORDS)}  # those that failed, too, with their error
        self.failed += sum("error" in rows[cell] for cell in cells)
        return [rows[cell] for cell in cells]

    def _copy_row(self, place: str, method: str, config: dict[str, Any], cost: Row | None) -> Row:
        facts = read_json(self.out / "audits" / place / "audit.json")
        return {
            "kind": "copy",
            "cell": config_hash({"copy": place, "published": facts["data"]["published"]}),
            "trained_on": "",
            "images": facts["manifest"]["count"],
            "image_size": facts["manifest"]["image_size"],
            "epsilon_asked_255": facts["manifest"]["epsilon_asked"],
            "quality": facts["quality"],
            "environment": facts["environment"],
            "method": method,
            "config": config,
            "cost": cost,
        }

    def _result(self, name: str, rows: Sequence[Row]) -> Row:
        about = {"dataset": self.dataset, "images": len(self.clean), "test_images": len(self.test)}
        about |= {"image_size": list(self.clean.image_size), "epochs": self.bench.attacks.epochs}
        return result_of(name, rows, about, self.clean.classes, self.bench.attacks.reason)


def dataset_name(data: str) -> str:
    """A data set's name for records and folders: the last part of its address, without its ending."""
    if data.startswith("hub:"):
        return Path(data.split(":")[1]).stem
    return Path(os.path.abspath(data)).stem


def run_bench(
    bench: Bench,
    data: Sequence[str],
    out: Path,
    runner: Runner,
    *,
    folders: Mapping[str, Path],
    convert: bool,
    split: str,
    device: str,
    threads: int,
    steps: ComparisonSteps,
    on_rows: Callable[[Sequence[Row]], Any],
) -> tuple[list[Row], int]:
    """Run a comparison in a folder; the same call goes on where a killed one stopped.

    Args:
        bench: the plan.
        data: DATA with a train and a test split each; the plan's own where empty.
        out: the comparison's folder; private.
        runner: where to train.
        folders: name -> copy of the same images that another tool made; audited like the others.
        convert: as `uge.data.sources.load` has it.
        split: of the data that everything is measured with.
        device: where to compute.
        threads: of each process.
        steps: hears of progress.
        on_rows: called with all rows whenever there are more of them.

    Returns:
        The rows, which `out/records.jsonl` holds, and how many trainings failed; the same call tries these again.

    Raises:
        UgeError: the first thing that is wrong, before anything is computed where it can be known by then.
    """
    sources = list(data) or list(bench.data)
    names = [dataset_name(source) for source in sources]
    if not sources:
        raise ConfigError(f"the plan {bench.name} names no data; give --data DATA")
    if len(set(names)) < len(names):
        raise ConfigError(f"two data sets have the same name: {', '.join(names)}")
    if folders and len(sources) > 1:
        raise ConfigError("--folder holds a copy of one data set; compare one at a time")
    if not folders and not bench.protections:
        raise ConfigError(f"the plan {bench.name} has no [[protections]], and there is no --folder")
    for name in folders:
        check_name(name)
        if name in [each.name for each in bench.protections]:
            raise ConfigError(f"--folder {name} has the name of a protection of the plan; give it another")
    how: dict[str, Any] = {"folders": folders, "convert": convert, "split": split, "device": device, "threads": threads}
    comparisons = [Comparison(bench, source, out, runner, steps, **how) for source in sources]
    used = {each.dataset: {"clean": each.clean.digest(), "test": each.test.digest()} for each in comparisons}
    mark = json.dumps({"plan": asdict(bench), "data": used}, indent=1, sort_keys=True) + "\n"
    finished: list[Row] = []

    def save(rows: Sequence[Row]) -> None:
        every = [*finished, *rows]
        write_file(out / RECORDS, "".join(line_of(row) + "\n" for row in every), mode=0o600)
        on_rows(every)

    with claimed(out, "bench.json", mark, "a comparison"):
        for comparison in comparisons:
            finished += comparison.run(save)
    return finished, sum(each.failed for each in comparisons)
