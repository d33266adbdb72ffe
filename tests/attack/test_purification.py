"""Learnt purification takes real perturbations out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uge.attack import build_countermeasure, why_unfit
from uge.attack.denoiser import Denoiser, fit_denoiser
from uge.attack.purification import left_over
from uge.data import load
from uge.data.images import ImageSet, to_uint8
from uge.errors import ConfigError
from uge.networks import fresh_network
from uge.training import fit, recommended_recipe

from ..copy.copies import copied_by
from ..images import in_turn

SMALL = "steps=150,depth=4,width=16"


def pictures(count: int, seed: int) -> ImageSet:
    """Smooth colours with one hard edge each, three classes."""
    rng = torch.Generator().manual_seed(seed)
    x = F.interpolate(torch.rand(count, 3, 4, 4, generator=rng), size=(16, 16), mode="bicubic")
    place = torch.randint(2, 14, (count, 1, 1, 1), generator=rng)
    return in_turn(to_uint8(0.2 + 0.5 * x + 0.15 * (torch.arange(16) < place)), *"abc")


@pytest.fixture(scope="module")
def clean() -> ImageSet:
    return pictures(200, 0)


@pytest.fixture(scope="module")
def copy(clean: ImageSet) -> ImageSet:
    """A fine pattern a class, and some noise."""
    rng = torch.Generator().manual_seed(5)
    pattern, noise = (
        8 * (2 * torch.randint(2, shape, generator=rng) - 1) for shape in ((3, 3, 16, 16), clean.images.shape)
    )
    return clean.with_images((clean.images.int() + pattern[clean.labels] + noise // 2).clamp(0, 255).to(torch.uint8))


def test_a_denoiser_ends_on_a_plateau_with_its_best_weights() -> None:
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def error(network: nn.Module, pick: Tensor, rng: torch.Generator) -> Tensor:
        return (network(x[pick]) - 0.5).square().mean()  # a constant is soon learnt

    network = Denoiser(1, depth=3, width=4)
    fitted = fit_denoiser(network, error, len(x), 60, "test")
    assert not fitted.plateau and fitted.steps == 60 and len(fitted.held_out) == 4
    with torch.no_grad():
        assert fitted.error == pytest.approx(float(error(network, fitted.held_out, torch.Generator())), rel=1e-3)
    assert fitted.error < 0.85 * float((x - 0.5).square().mean())
    done = fit_denoiser(network, lambda network, pick, rng: 0 * network(x[pick]).mean(), len(x), 5000, "test")
    assert done.plateau and done.steps < 1000  # nothing to gain


def test_pairs_teach_a_denoiser_that_serves_the_other_images(clean: ImageSet, copy: ImageSet) -> None:
    few, many = (build_countermeasure(f"pairs:{count},{SMALL}", clean=clean) for count in (5, 100))
    seen, labels = many.prepare(copy)
    left, by_few = (left_over(each, copy.images, clean.images) for each in (seen, few.prepare(copy)[0]))
    assert labels is copy.labels and left < 0.85 and left < by_few
    assert many.findings["rms_left"] < 0.85 and few.findings["denoiser_steps"] <= 150
    test = pictures(20, 7)
    assert not torch.equal(many.at_test(test).images, test.images)  # the network is tested on what it learnt from


def test_pairs_need_the_copies_of_these_originals(clean: ImageSet) -> None:
    """Fewer, or the same ones in another order within their classes, make no pairs; an audit leaves them out."""
    members = [(clean.labels == label).nonzero()[:, 0] for label in clean.labels.unique()]
    originals, others = (clean.subset(torch.cat([each.roll(by) for each in members])) for by in (0, 1))
    for wrong in (clean.subset(torch.arange(20)), others):
        with pytest.raises(ConfigError, match="the originals are not those of the copies one by one"):
            build_countermeasure("pairs:5", clean=originals).prepare(wrong)
        assert why_unfit("jpeg:30+pairs:5", wrong, clean=originals)
    assert not why_unfit("pairs:5", originals, clean=originals) and not why_unfit("pairs:5", others)


def test_purification_without_pairs_takes_out_what_is_independent_from_pixel_to_pixel(clean: ImageSet) -> None:
    rng = torch.Generator().manual_seed(1)
    signs = 2 * torch.randint(0, 2, clean.images.shape, generator=rng) - 1
    noisy = clean.with_images((clean.images.int() + 16 * signs).clamp(0, 255).to(torch.uint8))
    seen, _ = build_countermeasure(f"purify:{SMALL}").prepare(noisy)
    assert left_over(seen, noisy.images, clean.images) < 0.75


def test_what_is_left_is_one_for_who_does_nothing_and_zero_for_who_undoes_all(clean: ImageSet, copy: ImageSet) -> None:
    assert left_over(copy.images, copy.images, clean.images) == 1
    assert left_over(clean.images, copy.images, clean.images) == 0
    assert left_over(clean.images, clean.images, clean.images) is None


@pytest.mark.slow
def test_an_autoencoder_takes_a_pattern_of_every_class_out_of_real_pictures(eurosat: ImageSet) -> None:
    """LSP on photographs: half of what it costs a hacker is his again."""
    clean = eurosat.take(1500, torch.Generator().manual_seed(0))
    copy = copied_by("lsp", clean, seed=1)

    def accuracy(images: ImageSet, text: str) -> float:
        network, recipe = fresh_network("vgg:depth=8,width=8", images, 0), recommended_recipe("vgg", 14)
        measure = build_countermeasure(text)
        return fit(network, images, recipe, seed=0, test=load("eurosat", "test"), countermeasure=measure).accuracy

    plain, seen, ceiling = accuracy(copy, "none"), accuracy(copy, "d-vae:steps=600"), accuracy(clean, "none")
    assert plain < ceiling - 15
    assert seen > (plain + ceiling) / 2
