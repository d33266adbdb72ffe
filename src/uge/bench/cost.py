"""What a protection costs: a copy is made in a fresh process, which measures itself, beside a training of ResNet-18.

Processor seconds count the work of all threads of the process, so that other programs on the machine do not change
them much; seconds are the clock's. The yardstick is one clean training of ResNet-18 on the same images: a few of its
steps are timed by the same clocks in the same run, and scaled to all of them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from uge.copy import MANIFEST
from uge.data.images import ImageSet
from uge.durable import remove_folder, write_file
from uge.keys import load_key
from uge.networks import fresh_network
from uge.outside import read_json
from uge.pipeline import protect_and_publish
from uge.protection import Settings
from uge.runners import processes
from uge.runtime import environment
from uge.training import Recipe, fit, recommended_recipe

YARDSTICK = "resnet:depth=18"
YARDSTICK_EPOCHS = 30
STEPS = 3  # of the yardstick that are timed, after one that is not
T = TypeVar("T")


@dataclass(frozen=True)
class CopyJob:
    """A copy of `clean` to make at `out`; `key` is the protector's file, where the method takes a key."""

    clean: ImageSet
    method: str
    config: Settings
    seed: int
    out: Path
    key: Path | None
    device: str
    threads: int

    @property
    def clock(self) -> Path:
        """What the copy has cost so far: it outlives a kill."""
        return self.out.with_name(f"{self.out.name}.cost.json")


def make_copy(job: CopyJob) -> None:
    """Make the copy; what it cost lies at `job.clock`, parts before a kill included."""
    torch.set_num_threads(job.threads)
    before = read_cost(job.clock)
    clock = _Clock(job.device)
    parts = before.get("parts", 0) + 1

    def note(progress: float, finished: bool) -> None:
        measured = clock.read()
        facts = {name: round(before.get(name, 0) + measured[name], 2) for name in ("seconds", "cpu_seconds")}
        peaks = before.get("peak_memory_mb"), measured["peak_memory_mb"]
        facts |= {"peak_memory_mb": max((peak for peak in peaks if peak is not None), default=None)}
        facts |= {"parts": parts, "progress": round(progress, 4), "finished": finished}
        facts |= {"environment": environment(job.device)}
        write_file(job.clock, json.dumps(facts))

    noted = time.perf_counter()

    def step(row: dict[str, Any], total: int) -> None:
        nonlocal noted
        if time.perf_counter() - noted > 1:
            note(row["step"] / total, False)
            noted = time.perf_counter()

    protect_and_publish(
        job.clean,
        [load_key(job.key)] if job.key else [],
        job.out,
        job.method,
        job.config,
        seed=job.seed,
        device=job.device,
        on_step=step,
    )
    note(1.0, True)


def was_made(job: CopyJob) -> bool:
    """Whether the copy stands and its cost is known. What stands without, for a kill came between, is removed.

    It is made again: the cost is a result like others. Where its work folder is left, that takes little.
    """
    whole, known = (job.out / MANIFEST).exists(), bool(read_cost(job.clock).get("finished"))
    if whole and known:
        return True
    remove_folder(job.out, last=(MANIFEST,))
    if not job.out.with_name(f"{job.out.name}.partial").exists():
        job.clock.unlink(missing_ok=True)
    return False


def read_cost(file: Path) -> dict[str, Any]:
    """What `make_copy` noted; nothing where there is none, or where it is damaged."""
    try:
        facts = read_json(file)
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def clock_yardstick(clean: ImageSet, device: str, threads: int) -> dict[str, Any]:
    """Seconds and processor seconds of `YARDSTICK_EPOCHS` epochs of ResNet-18 on these images, from a few steps."""
    torch.set_num_threads(threads)

    recipe = recommended_recipe(YARDSTICK, YARDSTICK_EPOCHS)
    steps = YARDSTICK_EPOCHS * max(1, len(clean) // recipe.batch_size)
    batch = min(recipe.batch_size, len(clean))
    short = Recipe(**recipe.to_dict() | {"epochs": 1})

    def train(count: int) -> dict[str, Any]:
        network, pick = fresh_network(YARDSTICK, clean, 0), torch.arange(count * batch) % len(clean)
        clock = _Clock(device)
        fit(network, clean.subset(pick), short, seed=0, device=device)
        return clock.read()

    train(1)
    timed = train(STEPS)
    return {
        "network": YARDSTICK,
        "epochs": YARDSTICK_EPOCHS,
        "steps": steps,
        "steps_timed": STEPS,
        "seconds": round(timed["seconds"] / STEPS * steps, 2),
        "cpu_seconds": round(timed["cpu_seconds"] / STEPS * steps, 2),
        "peak_memory_mb": timed["peak_memory_mb"],
        "environment": environment(device),
    }


def in_a_process(work: Callable[..., T], *arguments: Any, watch: Callable[[], None] = lambda: None) -> T:
    """Run a function in a fresh process that ends with this one; `watch` is called twice a second meanwhile.

    Raises:
        UgeError: whatever the function raises.
        PublishError: the process died.
    """
    died = "the process that makes a copy died, perhaps for want of memory; the same command goes on"
    with processes(1, get_context("spawn"), died) as pool:
        future: Future[T] = pool.submit(work, *arguments)
        while True:
            try:
                return future.result(timeout=0.5)
            except NotYet:
                watch()


def share_of(cost: dict[str, Any], yardstick: dict[str, Any]) -> float | None:
    """A copy's cost in clean trainings of ResNet-18: by processor seconds, on a GPU by the clock."""
    name = "cpu_seconds" if cost["environment"]["device"] == "cpu" else "seconds"
    return float(f"{cost[name] / yardstick[name]:.3g}") if yardstick[name] else None


class _Clock:
    """Both clocks of this process, from now on, and its largest memory so far."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.started, self.worked = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, Any]:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return {
            "seconds": time.perf_counter() - self.started,
            "cpu_seconds": time.process_time() - self.worked,
            "peak_memory_mb": peak_memory_mb(),
        }


def peak_memory_mb() -> int | None:
    """The most memory this process has had, in MB; None where the system does not say.

    Linux: the high-water mark of this program alone (`ru_maxrss` would count what started it).
    """
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s*(\d+)", status.read_text(), re.MULTILINE) if status.exists() else None
    return round(int(found[1]) / 1000) if found else None
