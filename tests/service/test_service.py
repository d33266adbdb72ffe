"""The guard before the recipient's network: what it refuses, what it answers, and what is kept of it."""

from __future__ import annotations

import json
import math
import stat
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.copy.copies import published_sealed
from uge.attack.filtered import Filtered
from uge.copy import Copy
from uge.data.images import ImageSet
from uge.errors import ConfigError, KeyFileError, PublishError
from uge.keys import SealedKey
from uge.networks import NetworkSpec, fresh_network
from uge.service import Guard, guard
from uge.service.accounts import DAILY_ACCOUNTS, DAILY_REFUSALS, Account
from uge.service.detector import Detector, train_detector
from uge.service.disguises import disguised
from uge.service.http import Log
from uge.service.runs import DETECTOR, FACTS, WEIGHTS, Run, read_detector, save_detector
from uge.service.thumbnails import Thumbnails, vectors
from uge.training import logits_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images(two_classes: tuple[ImageSet, ImageSet]) -> tuple[ImageSet, ImageSet]:
    """96 originals and 64 that nobody publishes."""
    return two_classes[0].subset(torch.arange(96)), two_classes[1].subset(torch.arange(64))


@pytest.fixture(scope="module")
def key() -> SealedKey:
    return SealedKey.draw()


@pytest.fixture(scope="module")
def copy(images: tuple[ImageSet, ...], key: SealedKey, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    out = tmp_path_factory.mktemp("service") / "copy"
    published_sealed(out, images[0], key)
    return Copy.read(out, key)


@pytest.fixture(scope="module")
def network(images: tuple[ImageSet, ...]) -> nn.Module:
    return fresh_network("convnet:width=4", images[0], 0).eval()


@pytest.fixture(scope="module")
def detector(copy: Copy, key: SealedKey) -> Detector:
    """It has hardly learnt."""
    return train_detector(copy.images, copy.view(key), steps=6)


@pytest.mark.parametrize("shape", [(7, 3, 16, 16), (5, 1, 17, 23)])
def test_disguises_are_images_that_the_generator_alone_decides(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    one, same, other = (
        [disguised(x, x.flip(0), rng) for _ in range(6)]
        for rng in (torch.Generator().manual_seed(seed) for seed in (1, 1, 2))
    )
    assert torch.equal(torch.get_rng_state(), before)
    for first, second in zip(one, same, strict=True):
        assert first.shape == x.shape and first.min() >= 0 and first.max() <= 1 and torch.equal(first, second)
        torch.testing.assert_close(first * 255, (first * 255).round())
    assert not all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


def test_a_thumbnail_is_the_luma_of_boxes_without_its_mean_and_of_length_one(images: tuple[ImageSet, ...]) -> None:
    image = images[0].images[0].double() / 255
    gray = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    boxes = np.array([[gray[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(16)] for i in range(16)])
    expected = (boxes - boxes.mean()) / np.linalg.norm(boxes - boxes.mean())
    np.testing.assert_allclose(vectors(images[0].images[:1])[0].numpy(), expected.ravel(), atol=1e-5)


@pytest.mark.parametrize("way", ["none", "grayscale", "blur:0.8", "jpeg:50", "mirrored", "contrast"])
def test_published_pictures_are_known_small_and_in_gray(copy: Copy, images: tuple[ImageSet, ...], way: str) -> None:
    thumbnails = Thumbnails.of(copy.images.images, images[0].images, torch.Generator().manual_seed(0))
    published = copy.images.images
    others = {"mirrored": published.flip(3), "contrast": published // 2 + 60}
    sent = others[way] if way in others else Filtered(way).pixels(published)
    assert thumbnails.recognise(sent).float().mean() > 0.95
    assert thumbnails.recognise(images[1].images).float().mean() < 0.1


def test_the_threshold_refuses_the_stated_share_of_originals_that_were_held_out(
    images: tuple[ImageSet, ...], detector: Detector
) -> None:
    score = detector.score(images[0].images)
    assert 0 < int((score > detector.threshold).sum()) <= len(score)  # of 16 held out the highest sets it
    assert torch.equal(detector.score(images[0].images | 1), score), "lowest bits say nothing to it"


def test_a_guard_answers_as_the_network_does_or_gives_no_number(
    images: tuple[ImageSet, ...], copy: Copy, key: SealedKey, network: nn.Module, detector: Detector
) -> None:
    lenient = Guard(network, key, replace(detector, threshold=torch.inf))
    answers = logits_of(lenient, torch.cat([copy.images.images[:8], images[1].images[:8]]))
    assert answers[:8].isnan().all(), "letters open"
    torch.testing.assert_close(answers[8:], logits_of(network, key.seen(images[1].images[:8])))
    strict = Guard(network, key, replace(detector, threshold=-torch.inf))
    assert logits_of(strict, images[1].images[:8]).isnan().all()


def test_a_guard_is_made_of_network_copy_and_key(
    images: tuple[ImageSet, ...], copy: Copy, key: SealedKey, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uge.service.detector.STEPS", 2)
    parts: list[tuple[int, int]] = []
    made = guard(network, copy.folder, key, on_part=lambda done, of: parts.append((done, of)))
    assert parts[-1][0] == parts[-1][1] == len(parts)
    assert made.refuses(copy.images.images).all()
    logits_of(made, images[1].images[:8])  # which leaves a network as it found it
    assert not any(module.training for module in made.modules())


def test_a_key_that_opens_nothing_has_no_guard(copy: Copy, key: SealedKey, network: nn.Module) -> None:
    class Blind(SealedKey):
        opens = False

    with pytest.raises(KeyFileError, match="a guard needs a sealed key"):
        guard(network, copy, Blind(secret=key.secret, fingerprint=key.fingerprint))


def test_an_account_has_ten_tries_a_day_whatever_was_answered() -> None:
    """What has passed once passes again: if answers earned tries, one image would earn as many as are wanted."""
    hacker = Account()
    answers = [hacker.admits(number % 100 == 0, "2026-01-01") for number in range(2000)]
    assert answers.count(True) == 9 * 99 and hacker.closed("2026-01-01")
    assert not hacker.closed("2026-01-02") and hacker.admits(False, "2026-01-02")
    assert hacker.refused == 2000 - 9 * 99 and Account(**asdict(hacker)) == hacker


def test_false_alarms_close_hardly_any_account_of_a_thousand_images_a_day() -> None:
    """The exact chance that 0.35 %, refused by mistake, make ten of a thousand."""
    few = sum(math.comb(1000, k) * 0.0035**k * 0.9965 ** (1000 - k) for k in range(DAILY_REFUSALS))
    assert 1 - few < 0.004


def test_a_day_has_so_many_new_accounts(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.json")
    assert all(log.account(f"{number}") for number in range(DAILY_ACCOUNTS))
    assert log.account("another") is None and log.account("3")
    for account in log.accounts.values():
        account.since = "2026-01-01"
    assert log.account("another")


def test_a_detector_comes_back_from_its_file_as_it_was(
    images: tuple[ImageSet, ...], detector: Detector, key: SealedKey, tmp_path: Path
) -> None:
    save_detector(detector, key, tmp_path / DETECTOR)
    assert stat.S_IMODE((tmp_path / DETECTOR).stat().st_mode) == 0o600
    again = read_detector(tmp_path / DETECTOR, key, 3, (32, 32))
    with pytest.raises(KeyFileError, match="was trained with another key"):
        read_detector(tmp_path / DETECTOR, SealedKey.draw(), 3, (32, 32))
    assert (again.threshold, again.thumbnails.threshold) == (detector.threshold, detector.thumbnails.threshold)
    assert torch.equal(again.score(images[1].images), detector.score(images[1].images))
    assert torch.equal(again.thumbnails.kept, detector.thumbnails.kept)
    (tmp_path / DETECTOR).write_bytes((tmp_path / DETECTOR).read_bytes()[:-9])
    with pytest.raises(PublishError, match="damaged; delete it, and it is made again"):
        read_detector(tmp_path / DETECTOR, key, 3, (32, 32))


def test_a_run_knows_what_it_was_trained_on(
    copy: Copy, key: SealedKey, network: nn.Module, detector: Detector, tmp_path: Path
) -> None:
    spec = NetworkSpec.of("convnet:width=4", copy.images).to_dict()
    facts = {"spec": spec, "class_names": copy.images.class_names, "cut": True, "data": "elsewhere"}
    (tmp_path / FACTS).write_text(json.dumps(facts))
    save_file({name: each.contiguous() for name, each in network.state_dict().items()}, tmp_path / WEIGHTS)
    run = Run.read(tmp_path)
    assert torch.equal(logits_of(run.network, copy.images.images[:4]), logits_of(network, copy.images.images[:4]))
    with pytest.raises(ConfigError, match="was not trained on"):
        run.guarded(key, copy.folder)
    save_detector(detector, key, tmp_path / DETECTOR)
    assert run.guarded(key, None).refuses(copy.images.images).all()
    (tmp_path / WEIGHTS).write_bytes(b"")
    with pytest.raises(PublishError, match="cannot read the trained network"):
        Run.read(tmp_path)
