"""What many images cost: seconds and memory of each stage by number, size and workers, and 200,000 killed on the way.

    python benchmarks/speed/many.py [--photographs FLOWERS.zip] [PART ...]    numbers, workers, sizes, kills, formats

Appends one row a figure to benchmarks/results/many/records.jsonl. What is trained has few steps here, for that part
does not grow with the images; everything else is as `uge protect`, `uge verify` and `uge open` do it. Linux only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyarrow import parquet

from uge.cli.protect import AS_SEEN
from uge.copy import read_manifest
from uge.copy.files import png_bytes, read_png
from uge.copy.shards import schema_of
from uge.data import load, photographs
from uge.data.decoding import picture_of
from uge.keys import SealedKey, save_key
from uge.pipeline import protect_and_publish
from uge.protect import resolve_config
from uge.records import append_record
from uge.runtime import environment

RECORDS = Path(__file__).resolve().parents[1] / "results" / "many" / "records.jsonl"
STEPS = {"steps": 20, "epochs": 1, "reference_images": 200}
STAGES = """
import json, os, sys, threading, time
from pathlib import Path

def look(process):
    "Bytes that a process and its children hold, shared ones once; how long each has computed is noted."
    try:
        held = Path(f"/proc/{process}/smaps_rollup").read_text()
        spent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        computed[process] = (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")
        return 1024 * int(held.partition("Pss_Anon:")[2].split()[0]) + sum(map(look, children))
    except (OSError, ValueError, IndexError):
        return 0

def watch():
    global most
    while not done.wait(0.05):
        most = max(most, look(str(os.getpid())))

def ends(stage):
    global last, most, before
    most, now, spent = max(most, look(str(os.getpid()))), time.perf_counter(), sum(computed.values())
    found = {"seconds": now - last, "core_seconds": spent - before, "bytes": most}
    print(json.dumps({"stage": stage} | found), flush=True)
    last, most, before = time.perf_counter(), 0, spent

most, done, last, before, computed = 0, threading.Event(), time.perf_counter(), 0.0, {}
if __name__ == "__main__":
    if sys.argv[5:] == ["watched"]:
        threading.Thread(target=watch, daemon=True).start()
    from uge.cli.protect import AS_SEEN
    from uge.copy import open_copy, verify
    from uge.data import photographs
    from uge.keys import load_key
    from uge.pipeline import protect_and_publish
    from uge.protect import resolve_config
    from uge.runners import Local
    data, place, workers, steps = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
    key, runner = load_key(place / "key.protector.uge"), Local(workers)
    ends("loading the program")
    with photographs(data, **AS_SEEN, convert=True) as originals:
        ends("reading the originals")
        def step(row, total):
            if row["step"] == total and "preparing" not in row:
                ends("training")
        protect_and_publish(originals, [key], place / "copy", "sealed", resolve_config("sealed", steps),
                            runner=runner, on_step=step)
        ends("making and writing the copies")
        found = verify(place / "copy", clean=originals, key=key, runner=runner)
        assert found.ok and found.views == len(originals), found.problems[:3]
        ends("verifying every view")
    open_copy(place / "copy", key, place / "opened", runner=runner)
    ends("opening to files")
"""


def record(measure: str, subject: str, value: float, unit: str, table: str, **more: Any) -> None:
    """Append one figure, and print it."""
    facts = environment() | {"load": round(os.getloadavg()[0], 2), "cores": os.cpu_count(), "threads": 1}
    row = {"table": table, "measure": measure, "subject": subject, "value": value, "unit": unit}
    append_record(RECORDS, row | {"repeats": 1, "environment": facts} | more)
    print(f"{subject:36s} {measure:36s} {value:10.4g} {unit}", flush=True)


def write_images(file: Path, count: int) -> None:
    """So many images of 32x32 pixels in a parquet file: the embedded ones, each moved and lit in its own way."""
    source, draw = load("eurosat", "train"), torch.Generator().manual_seed(0)
    schema = pa.ipc.read_schema(pa.BufferReader(schema_of(source.class_names)))
    with parquet.ParquetWriter(file, schema, compression="none", use_dictionary=["label"]) as writer:
        for first in range(0, count, 10_000):
            pick = torch.randint(len(source), (min(10_000, count - first),), generator=draw)
            moves = torch.randint(32, (len(pick), 2), generator=draw).tolist()
            light = torch.randint(-20, 21, (len(pick), 1, 1, 1), generator=draw)
            images = (source.images[pick].short() + light).clamp(0, 255).to(torch.uint8)
            moved = (image.roll(move, (1, 2)) for image, move in zip(images, moves, strict=True))
            cells = [{"bytes": png_bytes(image), "path": f"{first + at}.png"} for at, image in enumerate(moved)]
            columns = {"image": cells, "label": source.labels[pick].tolist()}
            writer.write_table(pa.Table.from_pydict(columns, schema=schema))


def run(data: Path, place: Path, workers: int, *more: str) -> subprocess.Popen[str]:
    """Begin all stages, or go on with them, in a session of their own; the key and the copy lie in `place`.

    "watched" tells the most memory of a stage, too; who looks so often takes a part of a core.
    """
    if not (place / "key.protector.uge").exists():
        save_key(SealedKey.draw(), place / "key")
    command = [sys.executable, "-c", STAGES, str(data), str(place), str(workers), json.dumps(STEPS), *more]
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quiet, start_new_session=True)


def stages(data: Path, place: Path, workers: int, *more: str) -> dict[str, dict[str, Any]]:
    """Seconds and bytes of every stage."""
    with run(data, place, workers, *more) as process:
        assert process.stdout is not None
        rows = [json.loads(line) for line in process.stdout]
    assert process.returncode == 0
    return {row["stage"]: row for row in rows}


def measure(data: Path, subject: str, count: int, workers: int, table: str) -> dict[str, dict[str, Any]]:
    """Record every stage of a copy of these images."""
    with tempfile.TemporaryDirectory() as name:
        found = stages(data, Path(name), workers, "watched")
    about = {"images": count, "workers": workers, "settings": STEPS}
    for stage, row in found.items():
        more = about | {"megabytes": round(row["bytes"] / 2**20, 1), "core_seconds": round(row["core_seconds"], 2)}
        record(stage, subject, row["seconds"], "s", table, **more)
    return found


def measure_numbers(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        for count in (1_000, 10_000, 50_000):
            write_images(file := Path(name, f"{count}.parquet"), count)
            measure(file, f"{count:,} of 32x32", count, 2, "numbers")


def photographs_in(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if "train/" in name and not name.endswith("/")]


def measure_sizes(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        for count in (100, 600):
            file = Path(name, f"{count}.zip")
            with zipfile.ZipFile(arguments.photographs) as every, zipfile.ZipFile(file, "w") as some:
                names = photographs_in(every)
                for each in names[:: max(1, len(names) // count)][:count]:
                    some.writestr(each, every.read(each))
                kept = len(some.namelist())
            measure(file, f"{kept} photographs", kept, 2, "numbers")


def measure_workers(arguments: argparse.Namespace, count: int = 20_000, repeats: int = 3) -> None:
    """One process and two, in turns."""
    with tempfile.TemporaryDirectory() as name:
        write_images(file := Path(name, "images.parquet"), count)
        subjects = {f"{count:,} of 32x32": file}
        if arguments.photographs:
            with zipfile.ZipFile(arguments.photographs) as archive:
                subjects[f"{len(photographs_in(archive)):,} photographs"] = arguments.photographs
        for subject, data in subjects.items():
            times: dict[tuple[str, int], list[float]] = {}
            for _ in range(repeats):
                for workers in (1, 2):
                    with tempfile.TemporaryDirectory() as place:
                        for stage, row in stages(data, Path(place), workers).items():
                            times.setdefault((stage, workers), []).append(row["seconds"])
            for stage in ("making and writing the copies", "verifying every view", "opening to files"):
                ratios = [one / two for one, two in zip(times[stage, 1], times[stage, 2], strict=True)]
                more = {"one": times[stage, 1], "two": times[stage, 2]}
                record(stage, f"{subject}, two processes over one", median(ratios), "times", "workers", **more)


def measure_kills(arguments: argparse.Namespace, count: int = 200_000) -> None:
    """Everything killed twice on the way; then nothing is missing, for `load_dataset` and for the recipient."""
    from datasets import load_dataset

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_images(data := place / "images.parquet", count)
        began, subject = time.perf_counter(), f"{count:,} of 32x32 in shards, killed twice"
        for folder, chunks in (("copy.partial/written", 12), ("opened.partial/done", 100)):
            process = run(data, place, 2)
            while len(list((place / folder).glob("*.json"))) < chunks:
                assert process.poll() is None, "it was over before"
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if folder.startswith("opened"):
                shutil.move(place / "copy", place / "kept")  # what follows begins with the copy, which is whole
            else:
                kept = sorted((place / folder).glob("*.json"), key=lambda each: int(each.stem))[:10]
                before = {each.stem: json.loads(each.read_text())["sums"] for each in kept}
        shutil.move(place / "kept", place / "copy")
        command = [Path(sys.executable).with_name("uge"), "open", place / "copy", "--key", place / "key.recipient.uge"]
        command += ["--out", place / "opened"]
        opened = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - began
        assert f"{count} images opened" in opened.stdout, opened.stdout
        sums = (place / "copy" / "SHA256SUMS").read_text()
        again = sum(digest not in sums for chunk in before.values() for digest in chunk.values())
        manifest = read_manifest(place / "copy")
        originals = load(data)
        table = load_dataset(str(place / "copy"), cache_dir=str(place / "cache"))["train"]
        assert len(table) == count and table["label"][:] == originals.labels.tolist()
        folder = place / "opened"
        wrong = sum(
            not np.array_equal(np.asarray(Image.open(folder / entry.file)), image.permute(1, 2, 0).numpy() & 0xFE)
            for entry, image in zip(manifest.images, originals.images, strict=True)
        )
        shift = max(
            int(np.abs(np.asarray(row["image"]).astype(int) - originals.images[at].permute(1, 2, 0).numpy()).max())
            for at, row in zip(range(0, count, 100), table.select(range(0, count, 100)), strict=True)
        )
        size = sum(each.stat().st_size for each in (place / "copy").rglob("*.json"))
        record("images that load_dataset reads", subject, len(table), "images", "kills", largest_change=shift)
        record("images opened, all but their lowest bit", subject, count - wrong, "images", "kills")
        record("files of finished shards that were made again", subject, again, "files", "kills")
        record("manifests", subject, size / count, "bytes an image", "kills")
        record("protect, verify, open and what the kills cost", subject, seconds, "s", "kills")


def measure_formats(arguments: argparse.Namespace, most: int = 300) -> None:
    """The PNG files of a copy against lossless WebP: bytes, and milliseconds of one core to write and to read one."""
    for subject, data in (("copies of 32x32", "eurosat"), ("copies of photographs", arguments.photographs)):
        with tempfile.TemporaryDirectory() as name, photographs(data, "train", **AS_SEEN, convert=True) as originals:
            key, config, out = SealedKey.draw(), resolve_config("sealed", STEPS), Path(name, "copy")
            manifest = protect_and_publish(originals, [key], out, "sealed", config)
            chosen = manifest.images[:: max(1, len(manifest.images) // most)]
            copies = [read_png((out / entry.file).read_bytes()) for entry in chosen]
        pictures = [picture_of(copy) for copy in copies]
        ways: dict[str, Callable[[int], bytes]] = {
            "PNG, as published": lambda at, copies=copies: png_bytes(copies[at]),
            "lossless WebP, least effort": lambda at, pictures=pictures: _webp(pictures[at], quality=0, method=0),
            "lossless WebP, as usual": lambda at, pictures=pictures: _webp(pictures[at], quality=75, method=4),
        }
        for way, encode in ways.items():
            began = time.process_time()
            files = [encode(at) for at in range(len(copies))]
            written = time.process_time()
            for content in files:
                Image.open(io.BytesIO(content)).load()
            spent = {"write_ms": written - began, "read_ms": time.process_time() - written}
            each = {what: round(1000 * seconds / len(files), 3) for what, seconds in spent.items()}
            size = sum(map(len, files)) / len(files) / 1000
            record(way, subject, size, "kB an image", "formats", images=len(files), **each)


def _webp(picture: Image.Image, **effort: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, **effort)
    return buffer.getvalue()


PARTS = {
    "formats": measure_formats,
    "numbers": measure_numbers,
    "sizes": measure_sizes,
    "workers": measure_workers,
    "kills": measure_kills,
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--photographs", help="a zip of photographs of any sizes")
    arguments = parser.parse_args(words)
    chosen = arguments.parts or [*PARTS]
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"unknown part '{unknown[0]}'; choose from: {', '.join(PARTS)}")
    for name in chosen:
        PARTS[name](arguments)


if __name__ == "__main__":
    main()
