"""Changed keys, copies, sources, audits and plans: each is read rightly or refused in one line.

    python -m benchmarks.fuzz [--count 2000] [--first 0] [TARGET ...]

Each change runs in a process of its own, forked from one that has loaded everything. A fault is: another error than a
`UgeError`, a message of several lines, more than 20 seconds, more than 2 GiB of memory, a crash, another view than the
original's, another key, or a changed copy that `verify` calls whole. Appends a row a target to
benchmarks/results/fuzz/records.jsonl, the seeds of faults among them: `--first SEED --count 1 TARGET` shows one again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyarrow import parquet

from benchmarks.fuzz.mutations import mutate, safetensors_header
from uge.audit.conduct import conduct
from uge.audit.plan import Hackers, Plan, read_plan
from uge.bench.plan import read_bench
from uge.copy import Copy, open_copy, publish, verify
from uge.data.decoding import picture_of
from uge.data.images import ImageSet, normalisation_of
from uge.data.sources import load
from uge.errors import UgeError
from uge.keys import SealedKey, load_key, new_weights_key, save_key
from uge.keys.age import encrypt_for
from uge.keys.letter import seal
from uge.keys.shift import layout_of
from uge.locks import LOCK
from uge.networks import NetworkSpec
from uge.records import append_record
from uge.report.audit import write_reports
from uge.runners import Local
from uge.runtime import environment
from uge.training import Recipe

RECORDS = Path(__file__).resolve().parents[1] / "results" / "fuzz" / "records.jsonl"
MOST_SECONDS, MOST_BYTES = 20, 2 * 2**30
FINE = ("read", "refused")
PLAN = 'epochs = 1\nseeds = [0]\nceilings = false\nstrongest = 0\n[[hackers]]\nnetworks = ["mlp:width=8", "vgg"]\n'


@dataclass(frozen=True)
class Target:
    """What is changed, and who reads it.

    Attributes:
        files: one of these is changed, relative to a fresh copy of `folder`.
        read: reads the folder; True where what it read is what there was before, or nothing can tell.
        folder: with whole files.
    """

    folder: Path
    files: tuple[str, ...]
    read: Callable[[Path], bool]


def targets(place: Path) -> dict[str, Target]:
    """Every target, made in `place`."""
    images = load("eurosat", "train").take(20, torch.Generator().manual_seed(0))
    key, layout = SealedKey.draw(), layout_of((3, 32, 32), 16)
    rng = torch.Generator().manual_seed(0)
    field, nodes = (
        torch.randint(-2, 3, (len(images), *shape), generator=rng).to(torch.int8)
        for shape in (layout.field_shape, layout.node_shape)
    )
    copies = images.with_images(seal(images.images, field, nodes, key.secret, 16))
    return {
        **_keys(place / "keys", key, images),
        **_copies(place / "copy", key, images, copies.images),
        **_sources(place / "sources", images),
        **_audits(place / "audit", images, copies),
        **_plans(place / "plans"),
    }


def _keys(folder: Path, key: SealedKey, images: ImageSet) -> dict[str, Target]:
    folder.mkdir()
    save_key(key, folder / "sealed")
    spec = NetworkSpec.of("mlp:width=8", images)
    weights = new_weights_key(spec, images.class_names, *normalisation_of(images.images), Recipe(epochs=1))
    save_key(weights, folder / "weights")
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    (folder / "identity").write_text(f"{identity}\n")
    (folder / "age.uge").write_bytes(encrypt_for(key.to_bytes("recipient"), [str(identity.to_public())]))

    def same(name: str, digest: str) -> Callable[[Path], bool]:
        return lambda place: load_key(place / name, identity=folder / "identity").digest() == digest

    return {
        "key": Target(folder, ("sealed.recipient.uge",), same("sealed.recipient.uge", key.digest())),
        "weights key": Target(folder, ("weights.recipient.uge",), same("weights.recipient.uge", weights.digest())),
        "age key": Target(folder, ("age.uge",), same("age.uge", key.digest())),
    }


def _copies(folder: Path, key: SealedKey, images: ImageSet, copies: torch.Tensor) -> dict[str, Target]:
    publish(images, copies, folder, method="sealed", settings={"a": 1}, epsilon_255=16, signers=[key])
    files = {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    pictures = tuple(name for name in files if name.endswith(".png"))
    rest = tuple(name for name in files if not name.endswith(".png"))
    view = Copy.read(folder, key).view(key)

    def is_whole(place: Path) -> bool:
        found = verify(place, key=key)
        unlike = [name for name, content in files.items() if not _like(place / name, content)]
        print(f"verify calls it whole: {unlike[:3]}")
        return not (found.ok and unlike)

    def is_right(place: Path) -> bool:
        seen = Copy.read(place, key).view(key)
        if seen.class_names != view.class_names or not set(seen.names) <= set(view.names):
            return False
        at = torch.tensor([view.names.index(name) for name in seen.names], dtype=torch.int64)
        return torch.equal(seen.images, view.images[at]) and torch.equal(seen.labels, view.labels[at])

    def opens(place: Path) -> bool:
        open_copy(place, key, place / "opened", skip_bad=True)
        kept = {each.tobytes() for each in view.images.numpy()}
        pictures = (np.asarray(Image.open(each)).transpose(2, 0, 1) for each in (place / "opened").rglob("*.png"))
        return all(np.ascontiguousarray(each).tobytes() in kept for each in pictures)

    def without_key(place: Path) -> bool:
        Copy.read(place)
        return True

    return {
        "manifest, verified": Target(folder, rest, is_whole),
        "manifest, read": Target(folder, rest, is_right),
        "manifest, read without a key": Target(folder, rest, without_key),
        "pictures, verified": Target(folder, pictures, is_whole),
        "pictures, read": Target(folder, pictures, is_right),
        "pictures, opened": Target(folder, pictures, opens),
    }


def _like(file: Path, content: bytes) -> bool:
    """Whether a file holds what was published: the same pixels, or the same text whatever its ends of lines."""
    if file.name == ".gitattributes":  # for git alone
        return True
    if not file.exists():
        return False
    found = file.read_bytes()
    if found == content:
        return True
    if file.suffix == ".png":
        try:
            pair = [np.asarray(Image.open(io.BytesIO(each))) for each in (found, content)]
        except Exception:
            return False
        return pair[0].shape == pair[1].shape and bool((pair[0] == pair[1]).all())
    return found.replace(b"\r\n", b"\n") == content


def _sources(folder: Path, images: ImageSet) -> dict[str, Target]:
    folder.mkdir()
    rows = []
    for name, label, image in zip(images.names, images.labels.tolist(), images.images, strict=True):
        file = folder / "tree" / "train" / images.class_names[label] / f"{Path(name).name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture_of(image).save(file)
        rows.append({"image": {"bytes": file.read_bytes(), "path": file.name}, "label": label})
    (folder / "tree" / "train" / "metadata.csv").write_text(
        "file_name,label\n" + "".join(f"{f.parent.name}/{f.name},x\n" for f in (folder / "tree").rglob("*.png"))
    )
    shutil.make_archive(str(folder / "packed"), "zip", folder / "tree")
    parquet.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    np.savez(folder / "arrays.npz", x_train=images.images.permute(0, 2, 3, 1).numpy(), y_train=images.labels.numpy())

    def reads(name: str) -> Callable[[Path], bool]:
        return lambda place: bool(load(place / name, "train", convert=True))

    tree = tuple(str(each.relative_to(folder)) for each in (folder / "tree").rglob("*") if each.is_file())
    return {
        "folder": Target(folder, tree, reads("tree")),
        "zip": Target(folder, ("packed.zip",), reads("packed.zip")),
        "parquet": Target(folder, ("train.parquet",), reads("train.parquet")),
        "npz": Target(folder, ("arrays.npz",), reads("arrays.npz")),
    }


def _audits(folder: Path, images: ImageSet, copies: ImageSet) -> dict[str, Target]:
    plan = Plan("fuzz", (Hackers(("mlp:width=8",), ("none", "grayscale")),), epochs=1, strongest=0, budget_check=False)
    conduct(copies, images, folder, plan, Local(1), clean=images)
    files = tuple(each.name for each in folder.iterdir() if each.is_file() and each.name != LOCK)

    def reports(place: Path) -> bool:
        write_reports(place)
        return True

    def goes_on(place: Path) -> bool:
        conduct(copies, images, place, plan, Local(1), clean=images)
        return True

    return {"audit, reported": Target(folder, files, reports), "audit, gone on with": Target(folder, files, goes_on)}


def _plans(folder: Path) -> dict[str, Target]:
    folder.mkdir()
    (folder / "plan.toml").write_text(PLAN)
    (folder / "bench.toml").write_text(PLAN + '[[protections]]\nmethod = "em"\nsettings = {epsilon_255 = 8}\n')
    return {
        "plan": Target(folder, ("plan.toml",), lambda place: bool(read_plan(str(place / "plan.toml")))),
        "comparison": Target(folder, ("bench.toml",), lambda place: bool(read_bench(str(place / "bench.toml")))),
    }


def tried(target: Target, name: str, seed: int, place: Path) -> tuple[str, str]:
    """What comes of one change: how it ended, and what was said."""
    rng = random.Random(f"{name} {seed}")
    shutil.copytree(target.folder, place)
    file = place / rng.choice(target.files)
    before = file.read_bytes()
    change = safetensors_header if name == "weights key" and rng.random() < 0.4 else mutate
    after = change(before, rng)
    file.write_bytes(after)
    if os.environ.get("KEEP"):
        print(file, len(before), len(after))
        shutil.copytree(place, os.environ["KEEP"], dirs_exist_ok=True)
        Path(os.environ["KEEP"] + ".before").write_bytes(before)
        Path(os.environ["KEEP"] + ".after").write_bytes(after)
    if rng.random() < 0.02:
        file.unlink()
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            _read_and_end(target, place, said.fileno())
        _, status, used = os.wait4(child, 0)
        said.seek(0)
        text = said.read().decode(errors="replace")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return ("hang" if number == signal.SIGALRM else f"signal {number}"), text
    if used.ru_maxrss * 1024 > MOST_BYTES:
        return "memory", f"{used.ru_maxrss // 1024} MiB"
    return ("read", "refused", "wrong", "message", "traceback")[os.WEXITSTATUS(status)], text


def _read_and_end(target: Target, place: Path, said: int) -> None:
    os.dup2(said, 1)
    os.dup2(said, 2)
    signal.alarm(MOST_SECONDS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    code = 4
    try:
        code = 0 if target.read(place) else 2
    except UgeError as error:
        print(error, flush=True)
        code = 1 if len(str(error).splitlines()) == 1 else 3
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    faults = 0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as made:
        place = Path(made)
        every = targets(place)
        for name in options.targets or every:
            assert every[name].read(Path(shutil.copytree(every[name].folder, place / "changed"))), f"{name}, unchanged"
            shutil.rmtree(place / "changed")
            started, ends, told = time.perf_counter(), Counter[str](), {}
            for seed in range(options.first, options.first + options.count):
                end, text = tried(every[name], name, seed, place / "changed")
                shutil.rmtree(place / "changed")
                ends[end] += 1
                if end not in FINE:
                    told[seed] = f"{end}: {text.strip().splitlines()[-1][:200] if text.strip() else ''}"
                    if options.count == 1:
                        print(text)
            faults += len(told)
            seconds = round(time.perf_counter() - started, 1)
            print(
                f"{name:30s} {options.count} changes, {seconds} s: {dict(ends)}", *told.items(), sep="\n  ", flush=True
            )
            if options.count > 1:
                row = {"target": name, "changes": options.count, "first": options.first, "ends": dict(ends)}
                row |= {"faults": {str(seed): what for seed, what in told.items()}, "seconds": seconds}
                append_record(RECORDS, row | {"environment": environment()})
    print(json.dumps({"faults": faults}))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
