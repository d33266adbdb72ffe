"""What every entry of COUNTERMEASURES promises; a new counter-measure is tested by being listed."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack import COUNTERMEASURES, KNOWLEDGE, build_countermeasure, cost_of, knowledge_of
from uge.audit.metrics import summarise
from uge.audit.plan import named_plans
from uge.copy.files import write_images
from uge.data.images import ImageSet, to_float
from uge.errors import ConfigError
from uge.keys.sealed import SealedKey
from uge.report.page import ReportInput, write_page
from uge.training import PlainTraining, Recipe, logits_of

from ..images import in_turn

SMALL = {  # less work than the defaults; the steps are the same
    "adversarial": "adversarial:steps=2",
    "clean-only": "clean-only:6",
    "clean-mixed": "clean-mixed:6",
    "candidates": "candidates:{data},steps=30,width=4",
    "averages": "averages:{folder}/{shape[0]}x{shape[1]}x{shape[2]}",
    "own-pairs": "own-pairs:{data},keys=1,steps=60,width=8",
    "pairs": "pairs:6,steps=80,depth=4,width=16",
    "pair-means": "pair-means:6",
    "purify": "purify:steps=20,depth=4,width=16",
    "d-vae": "d-vae:steps=20,width=8,pictures_milli=50",
    "pretrained-probe": "pretrained-probe:side=32",
    "pretrained-finetune": "pretrained-finetune:side=32",
    "erase": "erase:epochs=1",
    "refit": "refit:6",
    "coarse": "coarse:6",
    "projection": "projection:epochs=2",
}
SIZES = [(20, 20), (17, 23)]  # a letter fits
COUNT, CLASSES = 12, 3
SETTINGS = {"method": "random-noise", "epsilon_255": 64}
KEY = SealedKey(secret=bytes(range(32)), fingerprint="")


def published(channels: int, image_size: tuple[int, int], seed: int = 0) -> ImageSet:
    """Smooth pictures with noise, three classes."""
    rng = torch.Generator().manual_seed(seed)
    x = F.interpolate(torch.rand(COUNT, channels, 4, 4, generator=rng), size=image_size, mode="bilinear")
    x = (0.9 * x + 0.1 * torch.rand(x.shape, generator=rng)) * 255
    return in_turn(x.to(torch.uint8), *"abc")


def network(images: ImageSet) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(images.images[0].numel(), CLASSES))


@pytest.fixture(scope="module", autouse=True)
def own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Images of a hacker's own, of other classes, and other copies of those that are published."""
    file: Path = tmp_path_factory.mktemp("own") / "own.npz"
    images = published(3, (20, 20), seed=7).images.permute(0, 2, 3, 1).numpy()
    np.savez(file, images=images, labels=np.arange(COUNT) % 2)
    for channels, size in itertools.product((1, 3), SIZES):
        copy = published(channels, size)
        write_images(copy.with_images(copy.images ^ 16), file.parent / "x".join(map(str, (channels, *size))))
    GIVEN.update(data=file, folder=file.parent)


GIVEN: dict[str, Path] = {}


def text_of(name: str, images: ImageSet) -> str:
    return SMALL.get(name, name).format(**GIVEN, shape=images.images.shape[1:])


def given_for(images: ImageSet) -> dict[str, Any]:
    """What an audit gives."""
    clean = images.with_images(images.images // 2 + 64)
    asked = network(images)
    return {"teacher": asked, "guard": asked, "untrained": asked, "clean": clean, "settings": SETTINGS, "key": KEY}


def built(name: str, images: ImageSet) -> PlainTraining:
    return build_countermeasure(text_of(name, images), **given_for(images))


def drive(measure: PlainTraining, images: ImageSet, seed: int = 1) -> tuple[Tensor, ...]:
    """All hooks once, as the training loop calls them.

    Returns:
        What is prepared, its targets, at test, a batch, its targets, the loss, logits of the test images at the end.
    """
    prepared, targets = measure.prepare(images)
    at_test = measure.at_test(published(images.channels, images.image_size, seed=2)).images
    judge, recipe = measure.begin(network(images), Recipe(4, batch_size=COUNT), torch.Generator().manual_seed(seed))
    assert 0 <= recipe.epochs <= 100
    x, y = measure.batch(to_float(prepared[-COUNT:]), targets[-COUNT:], torch.Generator().manual_seed(seed))
    loss = measure.loss(judge.train(), x, y)
    loss.backward()
    judge.eval()
    before = logits_of(judge, at_test)
    changed = measure.finish(judge, prepared, targets, measure.at_test)
    after = logits_of(judge, at_test)
    assert changed == (not torch.equal(before, after)), "it must say whether it changed the network"
    return prepared, targets, at_test, x, y, loss.detach(), after


@pytest.mark.parametrize("image_size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "rgb"])
@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_images_stay_images_through_every_hook(name: str, channels: int, image_size: tuple[int, int]) -> None:
    images = published(channels, image_size)
    before = images.images.clone()
    prepared, targets, at_test, x, y, loss, logits = drive(built(name, images), images)
    shape = (channels, *image_size)
    assert prepared.dtype == at_test.dtype == torch.uint8
    assert prepared.shape[1:] == at_test.shape[1:] == x.shape[1:] == shape
    assert len(prepared) == len(targets) >= COUNT and len(at_test) == COUNT
    assert len(x) == len(y) and len(x) % COUNT == 0  # some show each image several times
    assert x.dtype == torch.float32 and x.isfinite().all() and x.min() >= -1e-6 and x.max() <= 1 + 1e-6
    assert loss.ndim == 0 and loss.isfinite()
    assert logits.shape == (COUNT, CLASSES) and logits.isfinite().all()
    assert torch.equal(images.images, before)


@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_the_generator_alone_decides_what_happens_and_torchs_own_stays_where_it_was(name: str) -> None:
    images, results = published(3, (17, 23)), []
    for seed in (3, 4):
        torch.manual_seed(seed)
        before, measure = torch.get_rng_state(), built(name, images)
        results.append(drive(measure, images))
        assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize("name", [name for name in COUNTERMEASURES if name != "none"])
def test_none_of_them_does_nothing(name: str) -> None:
    images = published(3, (20, 20))
    plain, changed = drive(built("none", images), images), drive(built(name, images), images)
    assert any(one.shape != two.shape or not torch.equal(one, two) for one, two in zip(plain, changed, strict=True))
    (loss, logits), (other_loss, other_logits) = plain[-2:], changed[-2:]
    assert not torch.equal(loss, other_loss) or not torch.equal(logits, other_logits), "it trains as plain training"


@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_an_unknown_option_is_one_clear_line(name: str) -> None:
    with pytest.raises(ConfigError, match=f"counter-measure '{name}'") as caught:
        build_countermeasure(f"{name}:sprokcet=3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_it_says_what_it_knows(name: str) -> None:
    """Whoever is given something must know something."""
    knows = knowledge_of(name)
    cost, before = cost_of(name)
    assert knows in KNOWLEDGE and cost >= 1 and before >= 0
    try:
        build_countermeasure(name)
    except ConfigError:
        assert knows != "nothing"


@pytest.mark.parametrize("name", [name for name in COUNTERMEASURES if name != "none"])
def test_each_combines_with_a_filter_on_either_side(name: str) -> None:
    """Written before or after a filter, it drives through all hooks."""
    images = published(3, (20, 20))
    text = text_of(name, images)
    for both in (f"blur:0.8+{text}", f"{text}+blur:0.8"):
        drive(build_countermeasure(both, **given_for(images)), images, seed=0)


def test_a_new_one_is_tried_as_it_says_itself_and_the_page_draws_how_much_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Mirrored(PlainTraining):
        cost, tried, amount = 2.0, ("1", "3"), "mirrors"

        def __init__(self, every: str = "1") -> None:
            self.every = int(every)

    monkeypatch.setitem(COUNTERMEASURES, "mirrored", Mirrored)
    for plan in named_plans().values():
        assert {how for _, how in plan.pairs() if "mirrored" in how} == {"mirrored:1", "mirrored:3"}
    assert cost_of("mirrored:3") == (2.0, 0.0)
    who = {"kind": "hacker", "network": "mlp", "knows": "nothing", "trained_on": "published", "seed": 0}
    rows = [
        who | {"countermeasure": f"mirrored:{every}", "accuracy": 50.0 + every, "peak_accuracy": 60.0}
        for every in (1, 3)
    ]
    manifest = {"method": "uge", "epsilon_asked": 16, "epsilon_measured": 16, "count": 4, "image_size": (8, 8)}
    write_page(ReportInput(summarise(rows, classes=2), [], {}, manifest | {"classes": 2}), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "The more a hacker has" in page and "mirrored, mlp: accuracy with mirrors 1: 51.0 %; 3: 53.0 %" in page
