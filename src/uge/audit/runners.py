"""Where an audit's cells are trained: in worker processes here, by Ray, or by Slurm.

Every runner trains a cell by the same function, `train_cell`, from the same file, with the same number of threads; so
they give the same rows. A finished row is on disk before its worker says so.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from multiprocessing import forkserver, get_all_start_methods, get_context, parent_process
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from uge.audit.jobs import CELLS, More, Runner
from uge.audit.plan import Cell, Row
from uge.audit.run import Audit
from uge.data.images import ImageSet
from uge.durable import write_file
from uge.errors import ConfigError, PublishError, unknown_name
from uge.keys.files import key_from
from uge.outside import MOST_WEIGHTS, parse_json, read_file
from uge.training import Recipe


def load_job(job: Path) -> Audit:
    """What `save_job` wrote.

    Raises:
        PublishError: it is no job, or damaged.
    """
    try:
        tensors = load_tensors(read_file(job, MOST_WEIGHTS))
        facts = parse_json(tensors["facts"].numpy().tobytes())
        images = {
            name: ImageSet(tensors[f"{name}.images"], tensors[f"{name}.labels"], tuple(facts["classes"]), tuple(names))
            for name, names in facts["names"].items()
        }
        recipes = {network: Recipe(**recipe) for network, recipe in facts["recipes"].items()}
        audit = Audit(
            images["published"],
            images["test"],
            job.parent.parent,
            recipe=recipes.__getitem__,
            recipient=facts["recipient"],
            key_epochs=facts["key_epochs"],
            key=key_from(bytes.fromhex(facts["key"]), "of the audit") if facts["key"] else None,
            clean=images.get("clean"),
            view=images.get("view"),
            told=facts["told"],
            device=facts["device"],
            threads=facts["threads"],
        )
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise PublishError(f"cannot read the job {job}: {error}") from error
    return audit


def train_cell(job: Path, cell: Cell) -> Row:
    """Train one cell in whatever process this is and write its row; a training that fails is a row with its error."""
    audit = _audit(job)
    name = audit.cell_name(cell)
    try:
        row = audit.train(cell)
    except Exception as error:
        row = failed_row(audit, cell, error)
    write_file(audit.folder / CELLS / f"{name}.json", json.dumps(row))
    return row


def failed_row(audit: Audit, cell: Cell, error: Exception) -> Row:
    """One line in the records; the other cells go on."""
    return audit.facts(cell) | {"error": shorten(f"{type(error).__name__}: {error}", 500)}


def _answer(job: Path, cell: Cell, ask: Callable[[], Row]) -> Row:
    """The row of a cell from another machine, or one with an error where its job has died."""
    try:
        return ask()
    except Exception as error:  # whatever the scheduler raises: out of time, out of memory, a lost machine
        with threads(None):
            return failed_row(_audit(job), cell, error)


@lru_cache(maxsize=1)
def _audit(job: Path) -> Audit:
    """The audit of a file, read once in a process."""
    audit = load_job(job)
    torch.set_num_threads(audit.threads or torch.get_num_threads())
    return audit


class Local:
    """Processes on this machine; a single worker needs none besides this one.

    Workers import the script that they belong to: one of your own calls an audit under `if __name__ == "__main__":`.

    Args:
        workers: how many at a time; as many as there are cores by default.
    """

    def __init__(self, workers: str | int = 0) -> None:
        self.workers = _count("local: workers", workers) or _cores()
        # Not forked from this process: torch's threads do not survive a fork.
        self.context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
        if self.workers > 1 and self.context.get_start_method() == "forkserver":
            _start_server()

    def run(self, job: Path, more: More) -> Iterator[Row]:
        cells = more(self.workers)
        with threads(None):  # as before when the trainings are over
            while len(cells) == 1:  # nothing to share: one worker, one cell, or one that all the others wait for
                yield train_cell(job, cells[0])
                cells = more(self.workers)
        if not cells:
            return
        pool = ProcessPoolExecutor(self.workers, self.context, initializer=end_with_parent)
        try:
            running = {pool.submit(train_cell, job, cell) for cell in cells}
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
                running |= {pool.submit(train_cell, job, cell) for cell in more(self.workers - len(running))}
        except BrokenProcessPool as error:
            raise PublishError(
                "a training process died, perhaps for want of memory, or in a script without"
                ' `if __name__ == "__main__":`; the same command goes on, with fewer workers (--runner local:workers=1)'
                " if it happens again"
            ) from error
        except BaseException:  # Ctrl-C: do not wait for trainings that nobody will see
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_server() -> None:
    """Begin to import what workers need, once for all of them, while this process reads the images."""
    if threading.current_thread() is not threading.main_thread():
        return  # signals are the main thread's; the first pool starts the server
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the server inherits: Ctrl-C is the audit's to answer
    try:
        forkserver.set_forkserver_preload(["uge.audit.run"])
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def end_with_parent() -> None:
    """End this worker when the audit that started it is gone, even by `kill -9`; Ctrl-C is the audit's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None, "only a worker ends with its parent"

    def look() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


class Ray:
    """A Ray cluster: the one of RAY_ADDRESS, or one on this machine. The audit's folder must be on a shared disk.

    Args:
        workers: cores of a cluster on this machine; all by default.
    """

    def __init__(self, workers: str | int = 0) -> None:
        self.workers = _count("ray: workers", workers)
        self.ray = _optional("ray")

    def run(self, job: Path, more: More) -> Iterator[Row]:
        ray = self.ray
        started = not ray.is_initialized()
        if started:
            local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": self.workers or _cores()}
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", **local)
        try:
            remote = ray.remote(num_cpus=1)(train_cell)
            running = {remote.remote(job, cell): cell for cell in more(sys.maxsize)}
            while running:
                (ready,), _ = ray.wait(list(running))
                yield _answer(job, running.pop(ready), partial(ray.get, ready))
                running |= {remote.remote(job, cell): cell for cell in more(sys.maxsize)}
        finally:
            if started:
                ray.shutdown()


class Slurm:
    """Slurm, through submitit: one job a cell. The audit's folder must be on a shared disk.

    Args:
        partition: where jobs go.
        minutes: time limit of a job.
        cluster: "slurm", or "local" for submitit's processes on this machine.
        at_once: most jobs in the queue at a time.
    """

    def __init__(
        self, partition: str = "", minutes: str | int = 240, cluster: str = "slurm", at_once: str | int = 64
    ) -> None:
        self.submitit = _optional("submitit")
        if cluster not in ("slurm", "local"):
            raise ConfigError(f"slurm: cluster is slurm or local, got '{cluster}'")
        self.cluster, self.partition = cluster, partition
        self.minutes, self.at_once = _count("slurm: minutes", minutes), _count("slurm: at_once", at_once)
        if not self.at_once:
            raise ConfigError("slurm: at_once must be at least 1, got 0")

    def run(self, job: Path, more: More) -> Iterator[Row]:
        executor = self.submitit.AutoExecutor(folder=job.parent / "slurm", cluster=self.cluster)
        executor.update_parameters(timeout_min=self.minutes, cpus_per_task=1, name="uge-audit")
        if self.partition:
            executor.update_parameters(slurm_partition=self.partition)
        running = [(executor.submit(train_cell, job, cell), cell) for cell in more(self.at_once)]
        while running:
            done = [(task, cell) for task, cell in running if task.done()]
            running = [each for each in running if each not in done]
            for task, cell in done:
                yield _answer(job, cell, task.result)
            running += [(executor.submit(train_cell, job, cell), cell) for cell in more(self.at_once - len(running))]
            if not done:
                time.sleep(0.2 if self.cluster == "local" else 5)


RUNNERS: dict[str, Callable[..., Runner]] = {"local": Local, "ray": Ray, "slurm": Slurm}


def build_runner(text: str) -> Runner:
    """A runner from its text: "local", "local:workers=4", "ray", "slurm:partition=gpu,minutes=60".

    Raises:
        ConfigError: an unknown name or option, or a package that is not installed.
    """
    name, _, tail = text.partition(":")
    if name not in RUNNERS:
        raise unknown_name("runner", name, RUNNERS)
    options = dict(item.partition("=")[::2] for item in filter(None, tail.split(",")))
    known = list(inspect.signature(RUNNERS[name]).parameters)
    for option in options:
        if option not in known:
            raise unknown_name(f"option of runner '{name}'", option, known)
    return RUNNERS[name](**options)


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """This many torch threads inside, as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(what: str, value: str | int) -> int:
    if not str(value).isdecimal():
        raise ConfigError(f"{what}: expected a whole number, got '{value}'")
    return int(value)


def _optional(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f"the runner needs {package}: pip install {package}, or use --runner local") from error
