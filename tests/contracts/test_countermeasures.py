"""What every entry of COUNTERMEASURES promises; a new counter-measure is tested by being listed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack import ALONE, COUNTERMEASURES, KNOWLEDGE, build_countermeasure, knowledge_of
from uge.data.images import ImageSet, to_float
from uge.errors import ConfigError
from uge.keys import NullSpace
from uge.keys.key import Key, new_key
from uge.networks import NetworkSpec
from uge.training import Countermeasure, Recipe, logits_of

SMALL = {  # less work than the defaults; the steps are the same
    "adversarial": "adversarial:steps=2",
    "clean-only": "clean-only:6",
    "clean-mixed": "clean-mixed:6",
    "jpeg-lattice": "jpeg-lattice:20",  # told the quality, it works on images that were no JPEGs
    "own-pairs": "own-pairs:pairs=24,epochs=1,steps=60,depth=4,width=16,epsilon_255=32",
    "pairs": "pairs:6,steps=80,depth=4,width=16",
    "pair-means": "pair-means:6",
    "purify": "purify:steps=20,depth=4,width=16",
    "pretrained-probe": "pretrained-probe:side=32",
    "pretrained-finetune": "pretrained-finetune:side=32",
    "refit": "refit:6",
    "projection": "projection:epochs=2",
}
SIZES = [(12, 12), (13, 17)]
COUNT, CLASSES = 12, 3


def published(channels: int, image_size: tuple[int, int], seed: int = 0) -> ImageSet:
    """Smooth pictures with noise, three classes."""
    rng = torch.Generator().manual_seed(seed)
    x = F.interpolate(torch.rand(COUNT, channels, 4, 4, generator=rng), size=image_size, mode="bilinear")
    x = (0.9 * x + 0.1 * torch.rand(x.shape, generator=rng)) * 255
    names = tuple(f"{number:02d}" for number in range(COUNT))
    return ImageSet(x.to(torch.uint8), torch.arange(COUNT) % CLASSES, ("a", "b", "c"), names)


def network(channels: int, image_size: tuple[int, int]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size[0] * image_size[1], CLASSES))


@lru_cache
def key_for(channels: int, image_size: tuple[int, int]) -> Key:
    """A null-space key, for which there is the most to see."""
    spec = NetworkSpec("mlp", channels, image_size, CLASSES, {"width": 8})
    mean, std = (0.5,) * channels, (0.2,) * channels
    return new_key(spec, ("a", "b", "c"), mean, std, Recipe(), view=NullSpace.draw())


def built(name: str, images: ImageSet) -> Countermeasure:
    noise = torch.randint(-20, 21, images.images.shape, generator=torch.Generator().manual_seed(5))
    clean = images.with_images((images.images.int() + noise).clamp(0, 255).to(torch.uint8))
    given: dict[str, Any] = {"teacher": network(images.channels, images.image_size), "clean": clean}
    return build_countermeasure(SMALL.get(name, name), **given, key=key_for(images.channels, images.image_size))


def driven(name: str, images: ImageSet, seed: int = 1) -> tuple[Tensor, ...]:
    """All hooks once, as the training loop calls them.

    Returns:
        What is prepared, its targets, at test, a batch, its targets, the loss, logits of the test images at the end.
    """
    measure = built(name, images)
    return drive(measure, images, seed)


def drive(measure: Countermeasure, images: ImageSet, seed: int) -> tuple[Tensor, ...]:
    prepared, targets = measure.prepare(images)
    at_test = measure.at_test(published(images.channels, images.image_size, seed=2)).images
    judge = network(images.channels, images.image_size)
    judge, recipe = measure.begin(judge, Recipe(4, batch_size=COUNT), torch.Generator().manual_seed(seed))
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
    prepared, targets, at_test, x, y, loss, logits = driven(name, images)
    shape = (channels, *image_size)
    view = name in ALONE  # of a null space: no image, and not in [0, 1]
    assert prepared.dtype == at_test.dtype == (torch.float32 if view else torch.uint8)
    assert prepared.shape[1:] == at_test.shape[1:] == x.shape[1:] == shape
    assert len(prepared) == len(targets) >= COUNT and len(at_test) == COUNT
    assert len(x) == len(y) and len(x) % COUNT == 0  # some show each image several times
    assert x.dtype == torch.float32 and x.isfinite().all() and (view or (x.min() >= -1e-6 and x.max() <= 1 + 1e-6))
    assert loss.ndim == 0 and loss.isfinite()
    assert logits.shape == (COUNT, CLASSES) and logits.isfinite().all()
    assert torch.equal(images.images, before)


@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_the_generator_alone_decides_what_happens(name: str) -> None:
    images = published(3, (13, 17))
    torch.manual_seed(3)
    first = driven(name, images)
    torch.manual_seed(4)
    again = driven(name, images)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_torchs_global_generator_stays_where_it_was(name: str) -> None:
    images = published(3, (12, 12))
    measure = built(name, images)
    torch.manual_seed(0)  # as `drive` does for its network, of which the first draw is taken off
    network(3, (12, 12))
    before = torch.get_rng_state()
    drive(measure, images, seed=1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", [name for name in COUNTERMEASURES if name != "none"])
def test_none_of_them_does_nothing(name: str) -> None:
    images = published(3, (12, 12))
    plain, changed = driven("none", images), driven(name, images)
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
    assert knows in KNOWLEDGE
    try:
        build_countermeasure(name)
    except ConfigError:
        assert knows != "nothing"


@pytest.mark.parametrize("name", [name for name in COUNTERMEASURES if name not in {"none", *ALONE}])
def test_each_combines_with_a_filter_on_either_side(name: str) -> None:
    """Written before or after a filter, it drives through all hooks."""
    images = published(3, (12, 12))
    text = SMALL.get(name, name)
    clean = images.with_images(images.images // 2 + 64)
    given: dict[str, Any] = {"teacher": network(3, (12, 12)), "clean": clean}
    for both in (f"blur:0.8+{text}", f"{text}+blur:0.8"):
        drive(build_countermeasure(both, **given, key=key_for(3, (12, 12))), images, seed=0)


@pytest.mark.parametrize("name", sorted(ALONE))
def test_what_sees_no_images_goes_alone(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' cannot be combined"):
        build_countermeasure(f"{name}+blur", key=key_for(3, (12, 12)))
