"""Speed and memory: a first table to beat.

    python benchmarks/speed/measure.py            all parts
    python benchmarks/speed/measure.py publish    one of: help, matching, view, publish, cost, memory

Appends one row a figure to benchmarks/results/speed/records.jsonl. Timings follow a warm-up and are medians of
`repeats`; what is compared is timed in turns in one run. Nothing but the embedded images is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.data.images import ImageSet, normalisation_of, to_float
from uge.data.sources import load
from uge.keys.key import new_key, save_key
from uge.keys.keyed_view import KeyedView
from uge.keys.null_space import NullSpace
from uge.keys.reversible import Reversible
from uge.losses.gradient_matching import gradient_matching
from uge.networks import NetworkSpec, build_network, parse_network
from uge.protect import PROTECTIONS, resolve_config
from uge.protect.em import EMConfig
from uge.protect.surrogate import build_surrogate, signed_step
from uge.publish import publish, write_images
from uge.records import append_record
from uge.runtime import environment
from uge.training import Recipe, make_optimiser, recommended_recipe

RECORDS = Path(__file__).resolve().parents[1] / "results" / "speed" / "records.jsonl"
AUTHORISED = "convnet:width=32,stem=2,frozen_stem=true"
NETWORKS = ("convnet", "resnet:depth=8,width=16", "vgg:depth=8,width=16")
EPSILON = 8
SPACES: dict[str, Callable[[], KeyedView]] = {
    "null-space": NullSpace.draw,
    "reversible": partial(Reversible.draw, epsilon_255=EPSILON),
}
MEMORY_DISK = "/dev/shm"  # where Linux keeps files in memory
MEMORY_SETTINGS = {
    "encoder": "own",
    "feature_distance": 0.0,  # an encoder is a fixed cost, and training one would hide what grows with the images
    "students": ("mlp:width=8",),
    "epochs": 1,
    "run_epochs": 1,
    "generator_width": 8,
    "epsilon_255": EPSILON,
}


def record(measure: str, subject: str, values: list[float], unit: str, **more: Any) -> None:
    """Append one figure, the median of `values`, and print it."""
    value = median(values)
    row = {"measure": measure, "subject": subject, "value": value, "unit": unit, "repeats": len(values)}
    facts = environment() | {"load": round(os.getloadavg()[0], 2), "cores": os.cpu_count()}  # load: who else computed
    append_record(RECORDS, row | {"values": values, "environment": facts} | more)
    print(f"{measure:34s} {subject:44s} {value:10.4g} {unit}", flush=True)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def images_of(count: int) -> ImageSet:
    """`count` coloured 32x32 images from the embedded ones, no two the same."""
    source = load("fashion-mini", "train")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))  # they lie class after class
    pick = order[torch.arange(count) % len(source)]
    gray = F.pad(source.images[pick], (2, 2, 2, 2))
    tint = (torch.arange(count)[:, None, None, None] * torch.tensor([1, 3, 7])[None, :, None, None]) % 64
    names = tuple(f"{number:05d}" for number in range(count))
    return ImageSet((gray // 2 + tint.byte()).contiguous(), source.labels[pick], source.class_names, names)


def copies_of(images: ImageSet) -> Tensor:
    """Noise within the bound, as a protection's copies look to a compressor."""
    copies = images.images.clone()
    generator = torch.Generator().manual_seed(0)
    for part in copies.split(1000):
        noise = torch.randint(-EPSILON, EPSILON + 1, part.shape, generator=generator, dtype=torch.int16)
        part.copy_((part.short() + noise).clamp(0, 255).byte())
    return copies


def measure_help(repeats: int = 5) -> None:
    command = [Path(sys.executable).with_name("uge"), "--help"]
    times = [seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(repeats + 1)]
    record("start", "uge --help", times[1:], "s")


def measure_matching(repeats: int = 7, batch_size: int = 128) -> None:
    """L_gm by the naive double backward, down to the gradient with respect to the copy, beside a training step."""
    images = images_of(batch_size)
    x, y = to_float(images.images).contiguous(memory_format=torch.channels_last), images.labels
    x_u = to_float(copies_of(images)).contiguous(memory_format=torch.channels_last).requires_grad_()
    for text in NETWORKS:
        name, options = parse_network(text)
        spec = NetworkSpec(name, 3, images.image_size, images.classes, options)
        network = build_network(spec, *normalisation_of(images.images), seed=0).train()
        parameters = list(network.parameters())
        optimiser = make_optimiser(network, Recipe(learning_rate=1e-4))

        def matching(network: torch.nn.Module = network, parameters: list[Tensor] = parameters) -> None:
            wanted = torch.autograd.grad(F.cross_entropy(network(x), y), parameters)
            got = torch.autograd.grad(F.cross_entropy(network(x_u), y), parameters, create_graph=True)
            matched = gradient_matching(wanted, got)
            torch.autograd.grad(matched.direction + 0.1 * matched.magnitude, x_u)

        def training(network: torch.nn.Module = network, optimiser: torch.optim.Optimizer = optimiser) -> None:
            optimiser.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimiser.step()

        pairs = [(seconds(matching), seconds(training)) for _ in range(repeats + 2)][2:]
        subject = f"{spec.label}, {batch_size} images 3x32x32"
        record("step of L_gm", subject, [matched for matched, _ in pairs], "s")
        record("step of training", subject, [trained for _, trained in pairs], "s")
        record("L_gm / training", subject, [matched / trained for matched, trained in pairs], "times")


def measure_view(repeats: int = 5, batch_size: int = 128) -> None:
    """The authorised view, computed anew, beside a ResNet-18 training step on the same batch; keying, publishing."""
    images = images_of(batch_size)
    large = F.interpolate(images.images[:32].float(), size=(224, 224)).to(torch.uint8)
    spec = NetworkSpec("resnet", 3, images.image_size, images.classes, {"depth": 18, "width": 64})
    network = build_network(spec, *normalisation_of(images.images), seed=0).train()
    network = network.to(memory_format=torch.channels_last)
    optimiser = make_optimiser(network, Recipe(learning_rate=1e-4))
    x = to_float(images.images).contiguous(memory_format=torch.channels_last)

    def training() -> None:
        optimiser.zero_grad()
        F.cross_entropy(network(x), images.labels).backward()
        optimiser.step()

    subject = f"{batch_size} images 3x32x32"
    for kind, draw in SPACES.items():
        space = draw()
        nonces, marks = space.nonces(images.images), space.nonces(large)

        def view(space: KeyedView = space, nonces: list[bytes] = nonces) -> Tensor:
            return space.view(images.images, nonces)

        pairs = [(seconds(view), seconds(training)) for _ in range(repeats + 1)][1:]
        record("view of a batch", f"{kind}, {subject}", [seen for seen, _ in pairs], "s")
        if kind == "null-space":
            record("step of training, ResNet-18", subject, [trained for _, trained in pairs], "s")
        record("view / training", f"{kind}, {subject}", [seen / trained for seen, trained in pairs], "times")

        def view_of_large(space: KeyedView = space, marks: list[bytes] = marks) -> Tensor:
            return space.view(large, marks)

        took = [seconds(view_of_large) for _ in range(repeats + 1)][1:]
        record("view", f"{kind}, 3x224x224, uncached", [len(large) / each for each in took], "images/s")

    many = images_of(2000)
    noise = torch.rand(250, *many.images.shape[1:], generator=torch.Generator().manual_seed(0)) * 2 - 1

    def key_and_publish(method: str, place: str | None) -> float:
        """Nonces, what the key draws, a random proposal, rounding, the PNG files: all but the generator."""
        config = resolve_config("default", {"epsilon_255": EPSILON}, method=method)
        protection = PROTECTIONS[method](many, SPACES[method](), config, seed=0)
        protection.generator.perturbation = lambda x, y: noise[: len(x)]  # no generator
        with tempfile.TemporaryDirectory(dir=place) as folder:

            def work() -> None:
                copies = torch.cat(list(protection.copies()))
                publish(
                    many,
                    copies,
                    Path(folder, "out"),
                    method=method,
                    settings=config.to_dict(),
                    epsilon_255=EPSILON,
                    nonces=protection.nonces,
                )

            return len(many) / seconds(work)

    def only_write(place: str | None) -> float:
        """As many files of about the size of such a PNG, made and written, and nothing else."""
        data = bytes(3000)
        with tempfile.TemporaryDirectory(dir=place) as folder:
            files = [Path(folder, f"{i}.png") for i in range(len(many))]
            return len(many) / seconds(lambda: [file.write_bytes(data) for file in files])

    places = {"the temporary folder": None} | ({"memory": MEMORY_DISK} if Path(MEMORY_DISK).is_dir() else {})
    for where, place in places.items():
        for method in SPACES:
            rates = [key_and_publish(method, place) for _ in range(repeats + 1)][1:]
            record(
                "keying and publishing", f"{method}, 2000 images 3x32x32 to {where}, no generator", rates, "images/s"
            )
        rates = [only_write(place) for _ in range(repeats + 1)][1:]
        record("writing files alone", f"2000 files of 3 kB to {where}", rates, "files/s")


def measure_publish(repeats: int = 3, count: int = 10_000) -> None:
    images = images_of(count)
    copies = copies_of(images)
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats + 1):
            out = Path(folder, str(number))
            took = seconds(
                lambda out=out: publish(images, copies, out, method="noise", settings={}, epsilon_255=EPSILON)
            )
            rates.append(count / took)
    record("publishing", f"{count} images 3x32x32", rates[1:], "images/s")


def measure_cost(repeats: int = 3, count: int = 10_000, steps: int = 12) -> None:
    """Hours that UGE, EM and REM ask by their defaults, on the same images: a few steps of each, times all its steps.

    EM and REM consist of passes of a batch through a surrogate and back to the images; nothing else in them takes long.
    EM may stop before its last round: it is counted whole, and after a single round, too.
    """
    images = images_of(count)
    name, options = parse_network(AUTHORISED)
    recipe = recommended_recipe(AUTHORISED)
    spec = NetworkSpec(name, 3, images.image_size, images.classes, options)
    key = new_key(spec, images.class_names, *normalisation_of(images.images), recipe)
    config = resolve_config("default", {"warm_up": 0})  # all terms from the first step on
    clock: list[float] = []
    total = 0

    def on_step(row: dict[str, Any], all_steps: int) -> None:
        nonlocal total
        clock.append(time.perf_counter())
        total = all_steps
        if row["step"] > steps:
            raise StopIteration

    began = time.perf_counter()
    with contextlib.suppress(StopIteration):
        PROTECTIONS["uge"](images, [key], config, seed=0).train(on_step)
    each = [after - before for before, after in itertools.pairwise(clock)]
    start = clock[0] - began - median(each)
    subject = f"{count} images 3x32x32"
    ours = [(start + total * step) / 3600 for step in each]
    record("protecting, from a few steps", f"uge, preset default, {total} steps, {subject}", ours, "h")

    for preset in ("default", "quick"):
        for method in ("em", "rem"):
            config = resolve_config(preset, method=method)
            network = build_surrogate(config.network, images, 0, torch.device("cpu")).eval()
            x = to_float(images.images[: config.batch_size])
            y = images.labels[: config.batch_size]

            def one(network: torch.nn.Module = network, x: Tensor = x, y: Tensor = y) -> None:
                signed_step(network, x, torch.zeros_like(x), y, 0.001, EPSILON / 255)

            passes = [seconds(one) for _ in range(repeats + 1)][1:]
            for part, number in passes_of(config, count).items():
                found = [number * taken / 3600 for taken in passes]
                about = f"{method}, preset {preset}, {part}, {config.network}, {number} passes, {subject}"
                record("protecting, from a few passes", about, found, "h")
                record("uge / other", about, [median(ours) / median(found)], "times")


def passes_of(config: Any, count: int) -> dict[str, int]:
    """Passes of a batch, forward and back, that EM or REM ask for so many images: at most, and at least."""
    batches = math.ceil(count / config.batch_size)
    if isinstance(config, EMConfig):
        a_round = config.network_steps + config.steps * batches
        return {"all rounds": config.rounds * a_round, "one round": a_round}
    noise = config.steps * config.draws * (config.attack_steps + 1)
    return {"all steps": config.network_steps * (noise + config.attack_steps + 1) + batches * noise}


CHILD = """
import sys, threading
from pathlib import Path
from uge.data.sources import load
from uge.keys.key import load_key
from uge.pipeline import protect_and_publish
from uge.protect import resolve_config

def kilobytes(name):
    return int(Path("/proc/self/status").read_text().partition(name + ":")[2].split()[0])

def watch():
    global most
    while not done.wait(0.005):
        most = max(most, kilobytes("RssAnon"))

most, done = 0, threading.Event()
folder, settings = Path(sys.argv[1]), eval(sys.argv[2])
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
clean, key = load(folder / "images"), load_key(folder / "key.protector.uge")
protect_and_publish(clean, [key], folder / "copy", resolve_config("quick", settings))
done.set()
watcher.join()
print(kilobytes("VmHWM") * 1024, most * 1024)
"""  # a process of its own. Not ru_maxrss: across exec it keeps the highest memory of whoever started the process


def measure_memory(counts: tuple[int, ...] = (1000, 10_000), repeats: int = 3) -> None:
    """Highest memory of reading, protecting and publishing; its growth, against what is published. Linux only.

    Resident memory counts the pages of mapped files, which the system drops when others need the room: the originals
    among them. Memory of its own is what only swapping could take away; it is sampled every 5 ms.
    """
    peaks: dict[str, dict[int, list[float]]] = {"resident memory": {}, "memory of its own": {}}
    published: dict[int, int] = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_images(images_of(count), folder / "images")
            images = load(folder / "images")
            network, options = parse_network("convnet:width=8")
            spec = NetworkSpec(network, 3, images.image_size, images.classes, options)
            save_key(new_key(spec, images.class_names, *normalisation_of(images.images), Recipe(1)), folder / "key")
            for _ in range(repeats):
                child = [sys.executable, "-c", CHILD, name, repr(MEMORY_SETTINGS)]
                done = subprocess.run(child, check=True, capture_output=True, text=True)
                for found, value in zip(peaks.values(), done.stdout.split()[-2:], strict=True):
                    found.setdefault(count, []).append(int(value) / 1e6)
                published[count] = sum(f.stat().st_size for f in (folder / "copy").rglob("*") if f.is_file())
                subprocess.run(["rm", "-r", folder / "copy"], check=True)
        facts = {"published_bytes": published[count], "pixel_bytes": images.images.numel(), "settings": MEMORY_SETTINGS}
        for what, found in peaks.items():
            record(f"peak {what} of protect", f"{count} images 3x32x32", found[count], "MB", **facts)
    small, large = counts
    subject = f"{small} to {large} images 3x32x32"
    for what, found in peaks.items():
        grown = [b - a for a, b in zip(sorted(found[small]), sorted(found[large]), strict=True)]
        record(f"growth of peak {what}", subject, grown, "MB")
    record("growth of the originals' pixels", subject, [(large - small) * 3 * 32 * 32 / 1e6], "MB")
    record("growth of published bytes", subject, [(published[large] - published[small]) / 1e6], "MB")


PARTS = {
    "help": measure_help,
    "matching": measure_matching,
    "view": measure_view,
    "publish": measure_publish,
    "cost": measure_cost,
    "memory": measure_memory,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], metavar="PART", help=", ".join(PARTS))
    chosen = parser.parse_args().parts or [*PARTS]
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        parser.error(f"unknown part '{unknown[0]}'; choose from: {', '.join(PARTS)}")
    for name in chosen:
        PARTS[name]()
