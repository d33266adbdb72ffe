"""Copies of many images: made and opened by several processes, killed on the way, the same as by one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from uge.copy import Copy, forms, inspection, open_copy, opening, verify, write_images
from uge.data import load
from uge.data.images import ImageSet
from uge.keys import SealedKey, save_key
from uge.pipeline import protect_and_publish
from uge.protect import resolve_config
from uge.runners import Runner, build_runner

COUNT, CHUNK = 120, 6
VALUES = CHUNK * 3 * 32 * 32
SETTINGS = {"epochs": 1, "references": ("mlp:width=8",), "surrogates": ("mlp:width=8",), "width": 8}
LEFT = """
import sys
from pathlib import Path
import uge
from uge.copy import forms, opening
from uge.protect import resolve_config
from uge.runners import Local
if __name__ == "__main__":
    key, place, forms.MOST_VALUES = uge.load_key(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    opening.MOST_VALUES = forms.MOST_VALUES
    clean, config = uge.load(str(place / "data")), resolve_config("sealed", eval(sys.argv[4]))
    if not (place / "copy").exists() or (place / "copy.partial").exists():
        uge.protect_and_publish(clean, [key], place / "copy", "sealed", config, seed=1, runner=Local(2))
    uge.open_copy(place / "copy", key, place / "opened", runner=Local(2))
"""  # goes on with what a kill left of it


@pytest.fixture(scope="module")
def clean(eurosat: ImageSet) -> ImageSet:
    return eurosat.subset(torch.arange(0, 3000, 3000 // COUNT)[:COUNT])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (forms, opening, inspection):
        monkeypatch.setattr(module, "MOST_VALUES", VALUES)


def copied(clean: ImageSet, key: SealedKey, out: Path, runner: Runner | None) -> Copy:
    protect_and_publish(clean, [key], out, "sealed", resolve_config("sealed", SETTINGS), seed=1, runner=runner)
    return Copy.read(out, key)


@pytest.fixture(scope="module")
def key() -> SealedKey:
    return SealedKey.draw()


@pytest.fixture(scope="module")
def alone(clean: ImageSet, key: SealedKey, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """As this process makes it."""
    return copied(clean, key, tmp_path_factory.mktemp("alone") / "copy", None)


@pytest.mark.parametrize(
    "text",
    [
        "local:workers=2",
        *(pytest.param(text, marks=pytest.mark.slow) for text in ("ray:workers=2", "slurm:cluster=local")),
    ],
)
def test_every_runner_publishes_and_opens_the_same_images(
    clean: ImageSet, key: SealedKey, alone: Copy, tmp_path: Path, text: str
) -> None:
    package = {"ray": "ray", "slurm": "submitit"}.get(text.partition(":")[0])
    if package:
        pytest.importorskip(package, reason=f"{package} is not installed")
    runner = build_runner(text)
    copy = copied(clean, key, tmp_path / "copy", runner)
    assert torch.equal(copy.images.images >> 1, alone.images.images >> 1), "letters alone may differ"
    assert copy.manifest is not None and alone.manifest is not None
    assert [entry.file for entry in copy.manifest.images] == [entry.file for entry in alone.manifest.images]
    assert verify(tmp_path / "copy", clean=clean, key=key, runner=runner).views == COUNT
    assert open_copy(tmp_path / "copy", key, tmp_path / "opened", runner=runner) == COUNT
    opened = load(tmp_path / "opened")
    assert torch.equal(opened.like(clean).images, clean.images & 0xFE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "opened"]


@pytest.mark.slow
def test_what_is_done_when_everything_is_killed_is_kept(clean: ImageSet, key: SealedKey, tmp_path: Path) -> None:
    save_key(key, tmp_path / "key")
    write_images(clean, tmp_path / "data")
    file = str(tmp_path / "key.protector.uge")
    command = [sys.executable, "-c", LEFT, file, str(tmp_path), str(VALUES), repr(SETTINGS)]
    written, done = tmp_path / "copy.partial" / "written", tmp_path / "opened.partial" / "done"
    kept: dict[str, bytes] = {}
    for folder, count in ((written, 2), (written, 6), (done, 4)):
        with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True) as process:
            deadline = time.monotonic() + 120
            while len(list(folder.glob("*.json"))) < count and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it was over before"
        for each in written.glob("*.json"):  # nonces are drawn anew: a file that is the same was not made again
            names = json.loads(each.read_text())["sums"]
            kept |= {name: (tmp_path / "copy.partial" / "copy" / name).read_bytes() for name in names}
    assert len(kept) >= 6 * CHUNK
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    assert {name: (tmp_path / "copy" / name).read_bytes() for name in kept} == kept
    assert verify(tmp_path / "copy", clean=load(str(tmp_path / "data")), key=key).views == COUNT
    assert torch.equal(load(tmp_path / "opened").like(clean).images, clean.images & 0xFE)
    assert not list(tmp_path.glob("*.partial"))
