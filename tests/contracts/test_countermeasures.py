"""What every entry of COUNTERMEASURES promises; a new counter-measure is tested by being listed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack import COUNTERMEASURES, build_countermeasure
from uge.data.images import ImageSet, to_float
from uge.errors import ConfigError
from uge.training import Countermeasure

SMALL = {  # less work than the defaults; the steps are the same
    "adversarial": "adversarial:steps=2",
    "clean-only": "clean-only:6",
    "clean-mixed": "clean-mixed:6",
    "jpeg-lattice": "jpeg-lattice:20",  # told the quality, it works on images that were no JPEGs
    "own-pairs": "own-pairs:pairs=24,epochs=1,steps=60,depth=4,width=16,epsilon_255=32",
    "pairs": "pairs:6,steps=80,depth=4,width=16",
    "purify": "purify:steps=20,depth=4,width=16",
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


def built(name: str, images: ImageSet) -> Countermeasure:
    noise = torch.randint(-20, 21, images.images.shape, generator=torch.Generator().manual_seed(5))
    clean = images.with_images((images.images.int() + noise).clamp(0, 255).to(torch.uint8))
    teacher = network(images.channels, images.image_size)
    return build_countermeasure(SMALL.get(name, name), teacher=teacher, clean=clean)


def driven(name: str, images: ImageSet, seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """All hooks once, as the training loop calls them: prepared, targets, at test, batch, its targets, loss."""
    measure = built(name, images)
    prepared, targets = measure.prepare(images)
    at_test = measure.at_test(published(images.channels, images.image_size, seed=2)).images
    x, y = measure.batch(to_float(prepared[-COUNT:]), targets[-COUNT:], torch.Generator().manual_seed(seed))
    loss = measure.loss(network(images.channels, images.image_size).requires_grad_(True), x, y)
    return prepared, targets, at_test, x, y, loss


@pytest.mark.parametrize("image_size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "rgb"])
@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_images_stay_images_through_every_hook(name: str, channels: int, image_size: tuple[int, int]) -> None:
    images = published(channels, image_size)
    before = images.images.clone()
    prepared, targets, at_test, x, y, loss = driven(name, images)
    shape = (channels, *image_size)
    assert prepared.dtype == at_test.dtype == torch.uint8
    assert prepared.shape[1:] == at_test.shape[1:] == x.shape[1:] == shape
    assert len(prepared) == len(targets) >= COUNT and len(at_test) == COUNT
    assert len(x) == len(y) and len(x) % COUNT == 0  # some show each image several times
    assert x.dtype == torch.float32 and x.isfinite().all() and x.min() >= -1e-6 and x.max() <= 1 + 1e-6
    assert loss.ndim == 0 and loss.isfinite()
    loss.backward()
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
    before = torch.get_rng_state()
    prepared, targets = measure.prepare(images)
    x, y = measure.batch(to_float(prepared), targets, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())
    judge = network(3, (12, 12))
    before = torch.get_rng_state()
    measure.loss(judge, x, y)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", [name for name in COUNTERMEASURES if name != "none"])
def test_none_of_them_does_nothing(name: str) -> None:
    images = published(3, (12, 12))
    plain, changed = driven("none", images), driven(name, images)
    assert any(one.shape != two.shape or not torch.equal(one, two) for one, two in zip(plain, changed, strict=True))
    assert not torch.equal(plain[-1], changed[-1]), "the loss is that of plain training"


@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_an_unknown_option_is_one_clear_line(name: str) -> None:
    with pytest.raises(ConfigError, match=f"counter-measure '{name}'") as caught:
        build_countermeasure(f"{name}:sprokcet=3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in COUNTERMEASURES if name != "none"])
def test_each_combines_with_a_filter_on_either_side(name: str) -> None:
    """Written before or after a filter, it drives through all hooks."""
    images = published(3, (12, 12))
    text = SMALL.get(name, name)
    clean, teacher = published(3, (12, 12), seed=9), network(3, (12, 12))
    for both in (f"blur:0.8+{text}", f"{text}+blur:0.8"):
        measure = build_countermeasure(both, teacher=teacher, clean=clean)
        x, y = measure.prepare(images)
        measure.at_test(images)
        x, y = measure.batch(to_float(x), y, torch.Generator().manual_seed(0))
        assert measure.loss(teacher, x, y).isfinite()
