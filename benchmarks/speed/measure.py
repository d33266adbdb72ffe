"""Speed and memory of sealed copies, beside a float32 training of ResNet-18 on the same images in one run.

    python benchmarks/speed/measure.py [--data CIFAR.zip] [PART ...]    help, letters, protect; all by default

Appends one row a figure to benchmarks/results/speed/records.jsonl. Timings follow a warm-up and are medians of
`repeats`; what is compared is timed in turns. Without --data the embedded images serve, as often as 10,000 need.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional as F

from uge.copy import Copy, open_copy, publish, write_images
from uge.data.images import ImageSet, to_float
from uge.data.sources import load
from uge.keys import SealedKey, save_key
from uge.keys.letter import channels_equal, open_letters, seal
from uge.keys.shift import MOST_LEVEL, layout_of
from uge.networks import fresh_network
from uge.protect import resolve_config
from uge.records import append_record
from uge.runtime import environment
from uge.training import Recipe, make_optimiser

RECORDS = Path(__file__).resolve().parents[1] / "results" / "speed" / "records.jsonl"
COUNT, BATCH, EPOCHS = 10_000, 128, 30
MEMORY_DISK = "/dev/shm"  # where Linux keeps files in memory


def record(measure: str, subject: str, values: list[float], unit: str, table: str = "costs", **more: Any) -> None:
    """Append one figure, the median of `values`, and print it."""
    value = median(values)
    facts = environment() | {"load": round(os.getloadavg()[0], 2), "cores": os.cpu_count()}  # load: who else computed
    row = {"table": table, "measure": measure, "subject": subject, "value": value, "unit": unit, "values": values}
    append_record(RECORDS, row | {"repeats": len(values), "environment": facts} | more)
    print(f"{measure:40s} {subject:40s} {value:10.4g} {unit}", flush=True)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def images_of(data: str | None) -> ImageSet:
    """10,000 images, no two of one name."""
    source = load(data or "eurosat", "train", convert=True)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))  # they lie class after class
    pick = order[torch.arange(COUNT) % len(source)]
    return ImageSet(
        source.images[pick], source.labels[pick], source.class_names, tuple(f"{number:05d}" for number in range(COUNT))
    )


def subject_of(images: ImageSet) -> str:
    return f"{len(images):,} images {'x'.join(map(str, images.images.shape[1:]))}"


def measure_help(images: ImageSet, repeats: int = 5) -> None:
    command = [Path(sys.executable).with_name("uge"), "--help"]
    times = [seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(repeats + 1)]
    record("start", "uge --help", times[1:], "s")


def measure_letters(images: ImageSet, repeats: int = 5) -> None:
    """Sealing and opening on one core, in arrays and as files in memory."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images = images.subset((~channels_equal(images.images)).nonzero()[:2000, 0])  # gray ones have another layout
    key, epsilon = SealedKey.draw(), resolve_config().epsilon_255
    layout, draw = layout_of(tuple(images.images.shape[1:]), epsilon), torch.Generator().manual_seed(0)
    field, nodes = (
        torch.randint(-MOST_LEVEL, MOST_LEVEL + 1, (len(images), *shape), generator=draw, dtype=torch.int8)
        for shape in (layout.field_shape, layout.node_shape)
    )

    def sealed() -> torch.Tensor:
        return seal(images.images, field, nodes, key.secret, epsilon)

    copies, subject = sealed(), subject_of(images)
    views, opened = open_letters(copies, key.secret)
    assert opened.all() and torch.equal(views, key.seen(images.images))
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK if Path(MEMORY_DISK).is_dir() else None) as folder:
        for number in range(repeats + 1):
            out = Path(folder, str(number))

            def written(out: Path = out) -> None:
                publish(images, sealed(), out, method="sealed", settings={}, epsilon_255=epsilon, signers=[key])

            for what, action in (
                ("sealing letters", sealed),
                ("opening letters", lambda: open_letters(copies, key.secret)),
                ("sealing and publishing", written),
                ("reading and opening a copy", lambda out=out: Copy.read(out, key).view(key)),
                ("opening a copy to files", lambda out=out: open_copy(out, key, out.with_name(f"{out.name}-opened"))),
            ):
                rates.setdefault(what, []).append(len(images) / seconds(action))
    for what, values in rates.items():
        record(what, f"{subject}, one core, in memory", values[1:], "images/s")
    torch.set_num_threads(threads)


CHILD = """
import json, sys, threading, time
began = time.perf_counter()
from pathlib import Path
from uge.data.sources import load
from uge.keys import load_key
from uge.pipeline import protect_and_publish
from uge.protect import resolve_config

def kilobytes(name):
    return int(Path("/proc/self/status").read_text().partition(name + ":")[2].split()[0])

def watch():
    global most
    while not done.wait(0.005):
        most = max(most, kilobytes("RssAnon"))

def ends(part):
    global last
    now = time.perf_counter()
    parts[part] = parts.get(part, 0) + now - last
    last = now

def on_step(row, total):
    ends(row.get("preparing", row.get("stage", "steps")).partition(",")[0])

most, done, parts, last = 0, threading.Event(), {}, began
threading.Thread(target=watch, daemon=True).start()
ends("starting")
folder = Path(sys.argv[1])
clean, key = load(str(folder / "images")), load_key(folder / "key.protector.uge")
ends("reading")
protect_and_publish(clean, [key], folder / "copy", "sealed", resolve_config(), on_step=on_step)
ends("letters and files")
done.set()
print(json.dumps({"resident": kilobytes("VmHWM") * 1024, "own": most * 1024, "parts": parts}))
"""  # a process of its own. Not ru_maxrss: across exec it keeps the highest memory of whoever started the process


def training_step(images: ImageSet) -> Callable[[], float]:
    """The seconds of one clean training step of ResNet-18, with all cores."""
    network = fresh_network("resnet:depth=18", images, 0).train()
    optimiser = make_optimiser(network, Recipe(learning_rate=1e-4))
    x = to_float(images.images[:BATCH]).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(network(x), images.labels[:BATCH]).backward()
        optimiser.step()

    return lambda: seconds(step)


def measure_protect(images: ImageSet, repeats: int = 1, steps: int = 5) -> None:
    """`uge protect` with its defaults, between steps of ResNet-18; its memory, and where its seconds go. Linux only."""
    torch.set_num_threads(os.cpu_count() or 1)
    step = training_step(images)
    step()
    took, timed, found = [], [step() for _ in range(steps)], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            write_images(images, Path(name, "images"))
            save_key(SealedKey.draw(), Path(name, "key"))
            began = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", CHILD, name], check=True, capture_output=True, text=True)
            took.append(time.perf_counter() - began)
            found.append(json.loads(done.stdout.splitlines()[-1]))
        timed += [step() for _ in range(steps)]
    subject, of_training = subject_of(images), EPOCHS * -(-len(images) // BATCH)
    training = of_training * median(timed)
    record("step of training ResNet-18", f"{BATCH} images 3x32x32", timed, "s")
    record(f"training ResNet-18 for {EPOCHS} epochs, scaled", subject, [training], "s", steps=of_training)
    record("protecting", subject, took, "s", settings=resolve_config().to_dict())
    record("protecting / training ResNet-18", subject, [each / training for each in took], "times")
    for name, title in (("resident", "peak resident memory"), ("own", "peak memory of its own")):
        record(f"{title} of protect", subject, [each[name] / 2**20 for each in found], "MiB")
    for part in found[0]["parts"]:
        record(part, subject, [each["parts"].get(part, 0.0) for each in found], "s", table="seconds")


PARTS = {"help": measure_help, "letters": measure_letters, "protect": measure_protect}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--data", help="the images; by default the embedded ones")
    arguments = parser.parse_args()
    chosen = arguments.parts or [*PARTS]
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"unknown part '{unknown[0]}'; choose from: {', '.join(PARTS)}")
    measured = images_of(arguments.data)
    for name in chosen:
        PARTS[name](measured)
