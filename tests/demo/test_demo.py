"""The quick demo: what it writes, that it goes on after a kill, and its page in a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from uge.audit.quality import psnr, ssim
from uge.copy import Copy
from uge.data.images import ImageSet
from uge.demo import PLAN, QUICK_EPOCHS, QUICK_IMAGES, DemoSteps, run_demo
from uge.errors import KeyFileError, PublishError
from uge.keys import load_key
from uge.locks import held
from uge.records import read_records
from uge.runners import Local
from uge.runtime import generator_for

CELLS = 2 * (1 + len(PLAN.pairs()))  # the recipient and the hackers, on the copy and on the originals; curves besides

KILLED = """
import os, sys
from pathlib import Path
from uge.demo import DemoSteps, run_demo
from uge.runners import Local
class Killed(DemoSteps):
    trainings = 0
    def trained(self, row, seconds):
        self.trainings += 1
        if self.trainings == 2:
            os.kill(os.getpid(), 9)
run_demo(Path(sys.argv[1]), quick=True, runner=Local(1), steps=Killed())
"""


class Counting(DemoSteps):
    def __init__(self) -> None:
        self.protected = 0
        self.cells: list[str] = []

    def protecting(self, row: dict[str, Any], total: int) -> None:
        self.protected += row["step"] > 0  # before the first one networks are prepared

    def planned(self, trainings: int, seconds: float, skipped: Sequence[dict[str, str]]) -> None:
        assert trainings > CELLS and not skipped

    def trained(self, row: dict[str, Any], seconds: float) -> None:
        if "originals" not in row:
            self.cells.append(row["cell"])


def demo(out: Path, **more: Any) -> tuple[dict[str, Any], Counting]:
    steps = Counting()
    return run_demo(out, quick=True, steps=steps, runner=Local(1), **more), steps


@pytest.fixture(scope="module")
def clean(eurosat: ImageSet) -> ImageSet:
    """The originals of the quick demo."""
    return eurosat.take(QUICK_IMAGES, generator_for(0, "demo subset"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo") / "out"
    summary, steps = demo(out)
    assert steps.protected > 0 and len(steps.cells) == CELLS
    return out, summary


def test_the_summary_names_the_recipient_and_seven_hackers(done: tuple[Path, dict[str, Any]]) -> None:
    out, summary = done
    assert json.loads((out / "audit" / "summary.json").read_text()) == summary
    assert summary["chance"] == 10 and summary["authorised"]["seeds"] == [0]
    hackers = {(hacker["network"], hacker["countermeasure"]) for hacker in summary["hackers"]}
    his = summary["authorised"]["network"]
    assert hackers == {
        (his, "other-init"),
        ("resnet(depth=8,width=8)", "none"),
        ("convnet(width=16)", "none"),
        ("mlp(width=128)", "none"),
        (his, "grayscale"),
        (his, "jpeg:10"),
        (his, "distillation:soft"),
    }
    for row in (summary["authorised"], *summary["hackers"]):
        assert 0 <= row["accuracy"] <= row["peak_accuracy"] <= 100
    assert summary["authorised"]["accuracy"] == summary["authorised"]["locked_clean_accuracy"]
    assert all(hacker["clean_accuracy"] is not None for hacker in summary["hackers"])
    (student,) = [each for each in summary["hackers"] if each["knows"] == "model outputs"]
    assert student["countermeasure"] == "distillation:soft"
    assert not summary["evidence"] and "The demo is small" in summary["why_no_evidence"][0]


def test_every_figure_has_its_record(done: tuple[Path, dict[str, Any]]) -> None:
    out, summary = done
    rows = [row for row in read_records(out / "audit" / "records.jsonl") if "originals" not in row]
    assert len(rows) == CELLS and sum(row["trained_on"] == "clean" for row in rows) == CELLS // 2
    published = {
        (row["network"], row["countermeasure"]): row["accuracy"]
        for row in rows
        if (row["kind"], row["trained_on"]) == ("hacker", "published")
    }
    assert published == {(h["network"], h["countermeasure"]): h["accuracy"] for h in summary["hackers"]}
    for row in rows:
        assert row["test_images"] == 1000 and row["images"] == QUICK_IMAGES and row["seconds"] >= 0
        assert row["recipe"]["epochs"] == len(row["test_accuracy"]) == QUICK_EPOCHS


def test_the_copy_opens_with_the_key_beside_it_and_holds_nothing_of_it(
    done: tuple[Path, dict[str, Any]], clean: ImageSet
) -> None:
    out, _ = done
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "audit", "index.html", "published", "published.protector.uge", "published.recipient.uge", "run.json",
    ]  # fmt: skip
    assert {path.suffix for path in (out / "published" / "train").rglob("*.*")} == {".png"}
    key = load_key(out / "published.recipient.uge")
    copy = Copy.read(out / "published", key)
    assert torch.equal(copy.view(key).images, clean.images & 0xFE)
    assert not (clean.images == copy.images.images).flatten(1).all(dim=1).any()


def test_the_page_opens_quietly_and_tells_the_summary(
    done: tuple[Path, dict[str, Any]], clean: ImageSet, browser: Any
) -> None:
    out, summary = done
    page, heard, requested = browser.new_page(), [], []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto((out / "index.html").as_uri())
    assert heard == [] and [url for url in requested if not url.startswith("data:")] == [(out / "index.html").as_uri()]
    assert page.locator("#bars .bar").count() == 8 and "no evidence of protection" in page.inner_text("body")
    table = page.inner_text("#accuracy")
    for row in (summary["authorised"], *summary["hackers"]):
        assert row["network"] in table and f"{row['accuracy']:.1f}" in table
    assert page.locator("#trainings tbody tr").count() > CELLS
    worth = page.inner_text("[aria-labelledby=worth]")
    assert re.search(r"400 copies are worth ((more|fewer) than )?\d+ originals", worth)

    copy = Copy.read(out / "published").images.images
    text = page.inner_text("section[aria-labelledby=protection]")
    for name, of, step in (("PSNR", psnr, 0.1), ("SSIM", ssim, 0.001)):  # over all images, not a sample
        shown = re.search(rf"{name}\s+([\d.]+)", text)
        assert shown and float(shown[1]) == pytest.approx(of(clean.images, copy).mean().item(), abs=0.6 * step)
    page.close()


def test_the_second_call_trains_nothing_again(done: tuple[Path, dict[str, Any]]) -> None:
    out, summary = done
    before = (out / "audit" / "records.jsonl").read_bytes()
    again, steps = demo(out)
    assert again == summary and steps.protected == 0 and steps.cells == []
    assert (out / "audit" / "records.jsonl").read_bytes() == before


def test_other_settings_another_demo_or_a_foreign_folder_are_refused(done: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="a run of the demo with other data or settings"):
        demo(done[0], seed=1)
    with held(done[0]), pytest.raises(PublishError, match="is in use by process"):
        demo(done[0])
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(PublishError, match="is not empty"):
        demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_key_that_was_taken_away_is_not_drawn_anew(done: tuple[Path, Any], tmp_path: Path) -> None:
    recipient, protector = (done[0] / f"published.{role}.uge" for role in ("recipient", "protector"))
    before = protector.read_bytes()
    recipient.rename(tmp_path / "mine")
    with pytest.raises(KeyFileError, match=r"recipient\.uge"):
        demo(done[0])
    assert protector.read_bytes() == before and not recipient.exists()
    (tmp_path / "mine").rename(recipient)
    assert demo(done[0])[0] == done[1]


def test_a_killed_demo_goes_on(tmp_path: Path) -> None:
    out, records = tmp_path / "out", tmp_path / "out" / "audit" / "records.jsonl"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", KILLED, out], env=environment)
    assert killed.returncode == -signal.SIGKILL and not (out / "audit" / "summary.json").exists()
    kept, key = records.read_bytes(), (out / "published.recipient.uge").read_bytes()

    summary, steps = demo(out)
    assert steps.protected == 0 and len(steps.cells) == CELLS - kept.count(b"\n") == CELLS - 2
    assert set(kept.splitlines()) <= set(records.read_bytes().splitlines())
    assert len(summary["hackers"]) == len(PLAN.pairs())
    assert (out / "published.recipient.uge").read_bytes() == key and (out / "index.html").exists()
