"""The demo on a few small real images: what it writes, that it goes on after a kill, and its page in a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uge.audit.quality import psnr, ssim
from uge.audit.runners import Local
from uge.data.images import ImageSet
from uge.data.sources import load
from uge.demo import PLAN, Steps, run_demo
from uge.errors import KeyFileError, PublishError
from uge.protect import resolve_config
from uge.runtime import exclusive

SETTINGS = {"epochs": 2, "run_epochs": 1, "batch_size": 16, "students": "mlp:width=8", "generator_width": 8}
CELLS = 2 * (1 + len(PLAN.pairs()))  # authorised and hackers, on the copy and on the originals
FIGURES = {"network": str, "accuracy": float, "peak_accuracy": float, "clean_accuracy": float}


class Counting(Steps):
    def __init__(self) -> None:
        self.steps = 0
        self.cells: list[str] = []

    def protecting(self, row: dict[str, Any], total: int) -> None:
        self.steps += row["step"] > 0  # before them the clean run is told of

    def planned(self, trainings: int, seconds: float, skipped: Sequence[dict[str, str]]) -> None:
        assert trainings == CELLS and not skipped

    def trained(self, row: dict[str, Any], seconds: float) -> None:
        self.cells.append(row["cell"])


def demo(out: Path, data: Path, **more: Any) -> tuple[dict[str, Any], Counting]:
    steps = Counting()
    config = resolve_config("quick", SETTINGS)
    return run_demo(
        out, data=str(data), quick=True, view=None, config=config, epochs=1, steps=steps, runner=Local(1), **more
    ), steps


@pytest.fixture(scope="module")
def data(fashion: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images to train on and 24 to test on, 14x14, of three classes."""
    file = tmp_path_factory.mktemp("data") / "toy.npz"
    picks = torch.cat([(fashion.labels == label).nonzero().flatten()[:24] for label in (0, 1, 5)])
    images, labels = fashion.images[picks, 0, ::2, ::2].numpy(), np.repeat(np.arange(3), 24)
    test = np.arange(72) % 3 == 0
    names = np.array(["t-shirt", "trouser", "sandal"])
    np.savez(
        file, x_train=images[~test], y_train=labels[~test], x_test=images[test], y_test=labels[test], class_names=names
    )
    return file


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo") / "out"
    summary, steps = demo(out, data)
    assert steps.steps == 6 and len(steps.cells) == CELLS  # 48 images, 16 a step, two epochs
    return out, summary


def test_summary_keeps_its_contract(done: tuple[Path, dict[str, Any]]) -> None:
    out, summary = done
    assert json.loads((out / "audit" / "summary.json").read_text()) == summary
    assert summary["chance"] == 33.333
    user = summary["authorised"]
    assert set(user) == {*FIGURES, "interval", "span", "locked_clean_accuracy", "locked", "seeds"}
    assert user["seeds"] == [0]
    assert len(summary["hackers"]) == len(PLAN.pairs()) >= 4
    for hacker in summary["hackers"]:
        assert set(hacker) == {*FIGURES, "countermeasure", "seed", "knows"} and hacker["seed"] == 0
    for row in (user, *summary["hackers"]):
        assert all(type(row[name]) is kind for name, kind in FIGURES.items())
        assert 0 <= row["accuracy"] <= row["peak_accuracy"] <= 100
    assert {hacker["countermeasure"] for hacker in summary["hackers"]} >= {"none", "other-init", "distillation:soft"}
    assert summary["worst"] in summary["hackers"]
    assert summary["worst"]["accuracy"] == max(hacker["accuracy"] for hacker in summary["hackers"])
    assert summary["margin"] == pytest.approx(user["accuracy"] - summary["worst"]["accuracy"], abs=1e-3)


def test_every_figure_has_its_record(done: tuple[Path, dict[str, Any]]) -> None:
    out, summary = done
    rows = [json.loads(line) for line in (out / "audit" / "records.jsonl").read_text().splitlines()]
    assert len(rows) == CELLS and sum(row["trained_on"] == "clean" for row in rows) == CELLS // 2
    published = {
        (row["network"], row["countermeasure"]): row["accuracy"]
        for row in rows
        if (row["kind"], row["trained_on"]) == ("hacker", "published")
    }
    assert published == {(h["network"], h["countermeasure"]): h["accuracy"] for h in summary["hackers"]}
    for row in rows:
        assert row["test_images"] == 24 and row["images"] == 48 and row["seconds"] >= 0
        assert row["recipe"]["epochs"] == len(row["test_accuracy"]) == 1 and row["environment"]["torch"]


def test_nothing_of_the_key_or_the_originals_is_in_the_published_folder(done: tuple[Path, Any], data: Path) -> None:
    out, _ = done
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "audit", "index.html", "keys", "protect.jsonl", "published", "run.json",
    ]  # fmt: skip
    assert not [path for path in (out / "published").rglob("*") if path.suffix in (".uge", ".safetensors", ".jsonl")]
    from uge.publish import load_published

    clean, copy = load(data), load_published(out / "published")
    assert not (clean.images == copy.images).flatten(1).all(dim=1).any()


def test_the_page_opens_quietly_and_tells_the_summary(
    done: tuple[Path, dict[str, Any]], data: Path, browser: Any
) -> None:
    out, summary = done
    page, heard, requested = browser.new_page(), [], []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto((out / "index.html").as_uri())
    assert heard == [] and [url for url in requested if not url.startswith("data:")] == [(out / "index.html").as_uri()]
    table = page.inner_text("#accuracy")
    for row in (summary["authorised"], *summary["hackers"]):
        assert row["network"] in table and f"{row['accuracy']:.1f}" in table
    assert page.locator("#trainings tbody tr").count() == CELLS

    from uge.publish import load_published

    clean, copy = load(data).images, load_published(out / "published").images
    text = page.inner_text("section[aria-labelledby=protection]")
    for name, of, step in (("PSNR", psnr, 0.1), ("SSIM", ssim, 0.001)):  # over all images, not a sample
        shown = re.search(rf"{name}\s+([\d.]+)", text)
        assert shown and float(shown[1]) == pytest.approx(of(clean, copy).mean().item(), abs=0.6 * step)
    page.close()


def test_the_second_call_trains_nothing_again(done: tuple[Path, dict[str, Any]], data: Path) -> None:
    out, summary = done
    before = (out / "audit" / "records.jsonl").read_bytes()
    again, steps = demo(out, data)
    assert again == summary and steps.steps == 0 and steps.cells == []
    assert (out / "audit" / "records.jsonl").read_bytes() == before


def test_other_settings_or_a_foreign_folder_are_refused(done: tuple[Path, Any], data: Path, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="another run of the demo"):
        demo(done[0], data, seed=1)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(PublishError, match="is not empty"):
        demo(tmp_path, data)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_key_that_was_taken_away_is_not_drawn_anew(done: tuple[Path, Any], data: Path, tmp_path: Path) -> None:
    keys = done[0] / "keys"
    before = (keys / "authorised.protector.uge").read_bytes()
    (keys / "authorised.recipient.uge").rename(tmp_path / "mine")
    with pytest.raises(KeyFileError, match=r"recipient.uge is missing, and .* was published with it"):
        demo(done[0], data)
    assert (keys / "authorised.protector.uge").read_bytes() == before
    (tmp_path / "mine").rename(keys / "authorised.recipient.uge")
    assert demo(done[0], data)[0] == done[1]


def test_one_demo_at_a_time_works_in_a_folder(done: tuple[Path, Any], data: Path) -> None:
    out, _ = done
    with exclusive(out / ".lock", "nobody holds it"), pytest.raises(PublishError, match="another demo is running"):
        demo(out, data)


@pytest.mark.parametrize("kind", ["null-space", "reversible"])
def test_behind_a_view_authorised_training_is_training_on_the_originals(kind: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = {"epochs": 1, "batch_size": 16, "generator_width": 8, "surrogates": "mlp:width=8", "headroom": True}
    config = resolve_config("quick", small, method=kind)
    summary = run_demo(out, data=str(data), quick=True, view=kind, config=config, epochs=1, runner=Local(1))
    rows = [json.loads(line) for line in (out / "audit" / "records.jsonl").read_text().splitlines()]
    copy, clean = (row for row in rows if row["kind"] == "authorised")
    assert {copy["trained_on"], clean["trained_on"]} == {"published", "clean"}
    for exact in ("train_loss", "test_accuracy"):  # the same computation, to the last digit
        assert copy[exact] == clean[exact]
    assert summary["authorised"]["accuracy"] == summary["authorised"]["locked_clean_accuracy"]
    manifest = json.loads((out / "published" / "manifest.json").read_text())
    assert manifest["method"] == kind and manifest["settings"]["headroom"] is True
    text = (out / "index.html").read_text()
    assert kind in text


def test_a_killed_demo_goes_on(data: Path, tmp_path: Path) -> None:
    out, records = tmp_path / "out", tmp_path / "out" / "audit" / "records.jsonl"
    code = (
        "import sys; from pathlib import Path; from uge.audit.runners import Local; from uge.demo import run_demo\n"
        "from uge.protect import resolve_config\n"
        f"config = resolve_config('quick', {SETTINGS})\n"
        "run_demo(Path(sys.argv[1]), data=sys.argv[2], quick=True, view=None, epochs=1, config=config,"
        " runner=Local(1))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", code, out, data], env=environment) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if records.exists() and records.read_bytes().count(b"\n") >= 2:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (out / "audit" / "summary.json").exists()
    kept, key = records.read_bytes(), (out / "keys" / "authorised.recipient.uge").read_bytes()
    whole = kept.count(b"\n")

    summary, steps = demo(out, data)
    assert steps.steps == 0 and len(steps.cells) == CELLS - whole
    assert set(kept.splitlines()) <= set(records.read_bytes().splitlines()) and len(summary["hackers"]) == len(
        PLAN.pairs()
    )
    assert (out / "keys" / "authorised.recipient.uge").read_bytes() == key and (out / "index.html").exists()
