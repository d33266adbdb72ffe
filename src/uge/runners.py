"""Where independent pieces of work are done: in worker processes here, by Ray, or by Slurm.

Every runner calls the same function with the same items, so all give the same results. What a piece of work leaves is
on disk before its worker says so; with Ray and Slurm that disk is one that all machines share.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import forkserver, get_all_start_methods, get_context, parent_process
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from uge.errors import ConfigError, PublishError
from uge.grammar import parse_named

T = TypeVar("T")  # an item
R = TypeVar("R")

More = Callable[[int], Sequence[T]]
"""Up to so many items that can be worked on now, each handed out once. None while others have to be finished first,
whose results the caller has to see: ask again after each result."""


DIED = (
    'a worker process died, perhaps for want of memory, or in a script without `if __name__ == "__main__":`; the same'
    " command goes on, with fewer workers (--runner local:workers=1) if it happens again"
)


class Runner(Protocol):
    """Does pieces of work as they become ready."""

    def prepare(self, do: Callable[..., object]) -> None:
        """Begin to load what a function needs, for a `run` that comes later."""

    def run(self, do: Callable[[T], R], more: More[T], lost: Callable[[T, Exception], R], folder: Path) -> Iterator[R]:
        """Yield the result of each item as it is finished, in any order, until there are no more and none is running.

        Args:
            do: a function of a module, or a partial of one, that is called in whatever process; what it raises in a
                process of this machine is raised here.
            more: where the items come from.
            lost: gives what stands for an item whose job has failed or died on another machine, or raises.
            folder: private and on a disk that all workers share: for the runner's own files.
        """
        ...


class Local(Runner):
    """Processes on this machine; a single worker needs none besides this one.

    Workers import the script that they belong to: one of your own calls them under `if __name__ == "__main__":`.

    Args:
        workers: how many at a time; as many as there are cores by default.
    """

    def __init__(self, workers: str | int = 0) -> None:
        self.workers = _count("local: workers", workers) or _cores()
        # Not forked from this process: torch's threads do not survive a fork.
        self.context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")

    def prepare(self, do: Callable[..., object]) -> None:
        """Begin to import the module of a function, or of that of a partial, once for all workers."""
        in_main = threading.current_thread() is threading.main_thread()  # whose signals are; else the pool starts it
        if self.workers == 1 or self.context.get_start_method() != "forkserver" or not in_main:
            return
        while isinstance(do, partial):
            do = do.func
        # The server inherits that it ignores Ctrl-C, which is for this process to answer.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            forkserver.set_forkserver_preload([do.__module__])
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, before)

    def run(self, do: Callable[[T], R], more: More[T], lost: Callable[[T, Exception], R], folder: Path) -> Iterator[R]:
        items = more(self.workers)
        with threads(None):  # as before when the work is over
            while len(items) == 1:  # nothing to share: one worker, one item, or one that all the others wait for
                yield do(items[0])
                items = more(self.workers)
        if not items:
            return
        self.prepare(do)
        with processes(self.workers, self.context, DIED) as pool:
            running = {pool.submit(do, item) for item in items}
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
                running |= {pool.submit(do, item) for item in more(self.workers - len(running))}


@contextlib.contextmanager
def processes(workers: int, context: BaseContext, died: str) -> Iterator[ProcessPoolExecutor]:
    """So many worker processes that end with this one, and at once where the block is left by an exception.

    Raises:
        PublishError: one of them died; `died` is what it says.
    """
    pool = ProcessPoolExecutor(workers, context, initializer=end_with_parent)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise PublishError(died) from error
    except BaseException:  # Ctrl-C: do not wait for what nobody will see
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def end_with_parent() -> None:
    """End this worker when the process that started it is gone, even by `kill -9`; Ctrl-C is for that one to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None, "only a worker ends with its parent"

    def look() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


class Ray(Runner):
    """A Ray cluster: the one of RAY_ADDRESS, or one on this machine. What is written must be on a shared disk.

    Args:
        workers: cores of a cluster on this machine; all by default.
    """

    def __init__(self, workers: str | int = 0) -> None:
        self.workers = _count("ray: workers", workers)
        self.ray = _optional("ray")

    def run(self, do: Callable[[T], R], more: More[T], lost: Callable[[T, Exception], R], folder: Path) -> Iterator[R]:
        ray = self.ray
        started = not ray.is_initialized()
        if started:
            local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": self.workers or _cores()}
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", **local)
        try:
            remote = ray.remote(num_cpus=1)(lambda do, item: do(item))  # Ray takes functions, and no partials
            running = {remote.remote(do, item): item for item in more(sys.maxsize)}
            while running:
                (ready,), _ = ray.wait(list(running))
                yield _answer(partial(ray.get, ready), running.pop(ready), lost)
                running |= {remote.remote(do, item): item for item in more(sys.maxsize)}
        finally:
            if started:
                ray.shutdown()


class Slurm(Runner):
    """Slurm, through submitit: one job an item. What is written must be on a shared disk.

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

    def run(self, do: Callable[[T], R], more: More[T], lost: Callable[[T, Exception], R], folder: Path) -> Iterator[R]:
        executor = self.submitit.AutoExecutor(folder=folder / "slurm", cluster=self.cluster)
        executor.update_parameters(timeout_min=self.minutes, cpus_per_task=1, name="uge")
        if self.partition:
            executor.update_parameters(slurm_partition=self.partition)
        running = [(executor.submit(do, item), item) for item in more(self.at_once)]
        while running:
            done = [(task, item) for task, item in running if task.done()]
            running = [each for each in running if each not in done]
            for task, item in done:
                yield _answer(task.result, item, lost)
            running += [(executor.submit(do, item), item) for item in more(self.at_once - len(running))]
            if not done:
                time.sleep(0.2 if self.cluster == "local" else 5)


def _answer(ask: Callable[[], R], item: T, lost: Callable[[T, Exception], R]) -> R:
    """The result of an item from another machine, or what stands for it."""
    try:
        return ask()
    except Exception as error:  # whatever the scheduler raises: out of time, out of memory, a lost machine
        return lost(item, error)


RUNNERS: dict[str, Callable[..., Runner]] = {"local": Local, "ray": Ray, "slurm": Slurm}


def build_runner(text: str) -> Runner:
    """A runner from its text: "local", "local:workers=4", "ray", "slurm:partition=gpu,minutes=60".

    Raises:
        ConfigError: an unknown name or option, or a package that is not installed.
    """
    name, options = parse_named(text, "runner", RUNNERS, lambda name: [*inspect.signature(RUNNERS[name]).parameters])
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
