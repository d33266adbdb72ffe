import math
from dataclasses import replace

import pytest
import torch

from uge.audit.quality import psnr, quality, ssim
from uge.data.images import ImageSet

from ..images import in_turn, noise


def test_psnr_of_known_errors() -> None:
    clean = torch.full((3, 3, 4, 4), 100, dtype=torch.uint8)
    copies = clean.clone()
    copies[1] += 10  # mean squared difference 100
    copies[2, :, 0, 0] = 104  # one pixel of 16 by 4: mean squared difference 1
    values = psnr(clean, copies)
    assert values.shape == (3,)
    assert math.isinf(values[0])
    assert values[1].item() == pytest.approx(20 * math.log10(255 / 10), abs=1e-4)
    assert values[2].item() == pytest.approx(20 * math.log10(255), abs=1e-4)


def test_ssim_of_flat_images_is_the_luminance_term() -> None:
    a, b = torch.full((1, 1, 16, 16), 51, dtype=torch.uint8), torch.full((1, 1, 16, 16), 204, dtype=torch.uint8)
    expected = (2 * 0.2 * 0.8 + 0.01**2) / (0.2**2 + 0.8**2 + 0.01**2)  # no variance: the other factor is 1
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-4)


def test_ssim_falls_with_the_noise_and_batches_change_nothing(eurosat: ImageSet) -> None:
    clean = eurosat.images[:20]
    generator = torch.Generator().manual_seed(0)
    means = []
    for epsilon in (0, 8, 32):
        change = torch.randint(-epsilon, epsilon + 1, clean.shape, generator=generator)
        copies = (clean.int() + change).clamp(0, 255).byte()
        values = ssim(clean, copies, batch_size=7)
        assert values.shape == (20,)
        torch.testing.assert_close(values, ssim(clean, copies))
        means.append(values.mean().item())
    assert means[0] == pytest.approx(1, abs=1e-5)
    assert means[0] > means[1] > means[2]


@pytest.mark.parametrize("size", [(5, 9), (8, 8), (10, 64)])
def test_ssim_of_images_smaller_than_the_window(size: tuple[int, int]) -> None:
    image = noise(2, 3, *size)
    torch.testing.assert_close(ssim(image, image), torch.ones(2))


def test_noise_is_not_separable_because_a_folder_is_read_class_by_class() -> None:
    images = in_turn(noise(4000, 1, 4, 4), *"abcd")
    images = replace(images, labels=images.labels.sort().values)
    assert quality(images, None, most=2000)["held_out_separability_published"] < 40  # 25 by chance; of two classes 50


def test_separability_is_no_matter_of_having_more_values_than_images() -> None:
    """Noise of its own for each image says nothing of labels; a pattern a class says all."""
    rng = torch.Generator().manual_seed(0)
    clean = in_turn(torch.full((400, 3, 32, 32), 128).byte(), *"abcd")
    single, pattern = (torch.randint(-8, 9, (count, 3, 32, 32), generator=rng) for count in (400, 4))
    for change, least, most in ((single, 15, 35), (pattern[clean.labels] + single, 95, 100)):
        copy = clean.with_images((clean.images.int() + change).byte())
        assert least <= quality(copy, clean)["held_out_separability_difference"] <= most
