"""What the papers say of their protections, checked on small images."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from uge.baselines import BASELINES
from uge.baselines.ar import autoregress
from uge.baselines.bait import wrong_targets
from uge.baselines.dune import DUNEConfig, best_of_swarm, penalty
from uge.baselines.learnability_lock import load_lock
from uge.baselines.pil import gradient
from uge.copy import Copy
from uge.data.images import ImageSet
from uge.errors import ConfigError, KeyFileError
from uge.networks import fresh_network
from uge.pipeline import protect_and_publish
from uge.protect import resolve_config
from uge.training import Recipe, fit

from ..images import in_turn, noise

pytestmark = pytest.mark.usefixtures("one_thread")

TINY: dict[str, dict[str, Any]] = {
    "lsp": {"patch": 4},
    "em": {"network": "convnet:width=4", "network_steps": 2, "steps": 3, "rounds": 2, "error": 0, "batch_size": 8},
}


def toy(channels: int = 3, size: tuple[int, int] = (12, 10), count: int = 24, **limits: int) -> ImageSet:
    """Random images of three classes."""
    return in_turn(noise(count, channels, *size, **limits), "ant", "bee", "cat")


def trained(images: ImageSet, name: str, **changes: Any) -> Any:
    protection = BASELINES[name](images, [], resolve_config(name, TINY.get(name, {}) | changes), seed=0)
    protection.train()
    return protection


def copies(images: ImageSet, name: str, **settings: Any) -> Tensor:
    return torch.cat(list(trained(images, name, **settings).copies()))


def changes_of(protection: Any) -> Tensor:
    """Published minus original, float32 [N, C, H, W] in 8-bit steps."""
    return torch.cat(list(protection.copies())).float() - protection.clean.images.float()


@pytest.mark.parametrize("name", ["lsp", "ar"])
def test_an_l2_bound_holds_and_is_used(name: str) -> None:
    for rms in (4.6, 2.5):
        found = changes_of(trained(toy(least=100, most=150), name, rms_255=rms)).square().mean((1, 2, 3)).sqrt()
        assert (found <= rms).all() and (found > 0.9 * rms).all()


def test_ops_changes_one_pixel() -> None:
    assert ((changes_of(trained(toy(), "ops")) != 0).any(1).sum((1, 2)) <= 1).all()


@pytest.mark.parametrize("name", ["random-noise", "em"])
def test_noise_is_of_the_image_or_of_the_class(name: str) -> None:
    images = toy(least=100, most=150)  # what is added shows unclipped
    assert len({bytes(part.to(torch.int8).numpy()) for part in changes_of(trained(images, name))}) == 24
    change = changes_of(trained(images, name, scope="class"))
    patterns = torch.stack([change[label] for label in range(3)])
    assert torch.equal(change, patterns[torch.arange(24) % 3])
    assert all(not torch.equal(patterns[i], patterns[i - 1]) for i in range(3))


@pytest.mark.parametrize("name", ["lsp", "ops", "cuda"])  # AR's classes differ in their filters alone, see below
def test_equal_images_are_changed_by_their_class(name: str) -> None:
    images = toy(least=7, most=7, count=60)
    edges = images.images.clone()
    edges[:, :, 3:8, 2:7] = 200  # something for filters to work on
    change = changes_of(trained(images.with_images(edges), name)).flatten(1)
    means = torch.stack([change[label::3].mean(0) for label in range(3)])
    spread = torch.stack([change[label::3].var(0) for label in range(3)]).mean()
    between = (means[[0, 1, 2]] - means[[1, 2, 0]]).square().mean()
    assert between > spread


def test_a_process_answers_its_own_filter_least() -> None:
    """What a convolution needs to tell AR's classes: the filter of a class predicts its signals exactly."""
    beta = trained(toy(size=(24, 24)), "ar")._processes.flatten(0, 1)
    signals = autoregress(torch.randn(9, 28, 28, generator=torch.Generator().manual_seed(0)), beta)[:, 4:, 4:]
    signals = signals / signals.square().mean((1, 2), keepdim=True).sqrt()
    filters = torch.cat([beta, -torch.ones(9, 1)], 1)
    filters = (filters / filters.norm(dim=1, keepdim=True)).view(9, 1, 3, 3)
    answers = F.conv2d(signals[:, None], filters).square().mean((2, 3)).sqrt()  # [signal, filter]
    assert (answers.diagonal() < 1e-3).all()
    assert (answers + torch.eye(9)).min() > 0.01


def test_ar_covers_large_images_with_signals_of_one_process() -> None:
    protection = trained(toy(1, (40, 70), count=3, least=128, most=128), "ar", rms_255=15)  # nothing is clipped
    change = changes_of(protection)
    for label in range(3):
        kernel = torch.cat([protection._processes[label, 0], -torch.ones(1)]).view(1, 1, 3, 3)
        answer = F.conv2d(change[label][None], kernel / kernel.norm())[0, 0]  # position i, j sees pixels up to i + 2
        for inside in (answer[:30, :30], answer[32:38, 32:62], answer[:30, 64:68]):
            assert inside.abs().max() < 2, "more than rounding"
        assert answer[:, 30:32].abs().max() > 5, "where two signals meet"


def test_ops_takes_the_pixel_that_changes_most_and_most_evenly() -> None:
    images = toy(1, least=100, most=255)
    images.images[images.labels == 0, :, 4, 5] = torch.arange(8, dtype=torch.uint8).view(8, 1) % 2  # nearly black
    images.images[images.labels == 1, :, 2, 3] = 250
    found = copies(images, "ops")
    assert (found[images.labels == 0, 0, 4, 5] == 255).all()
    assert (found[images.labels == 1, 0, 2, 3] == 0).all()


def test_ops_gives_classes_with_equal_borders_different_pixels() -> None:
    found = copies(toy(least=0, most=0), "ops")
    assert len({bytes(found[label].numpy()) for label in range(3)}) == 3


def test_lsp_can_be_told_by_a_linear_classifier(eurosat: ImageSet) -> None:
    images = eurosat.subset(torch.arange(0, 3000, 3))
    patches = F.avg_pool2d(changes_of(trained(images, "lsp", patch=8)), 8).flatten(1)
    wanted = F.one_hot(images.labels, 10).float()
    weights = torch.linalg.lstsq(patches[::2], wanted[::2]).solution
    right = (patches[1::2] @ weights).argmax(1) == images.labels[1::2]
    assert right.double().mean() > 0.8


def test_cuda_with_one_filter_is_the_convolution_of_the_paper() -> None:
    protection = trained(toy(), "cuda")
    x, weights = protection.clean.images[4].double() / 255, protection._filters[1].double()
    padded = F.pad(x, (1, 1, 1, 1))
    blurred = sum(weights[i, j] * padded[:, i : i + 12, j : j + 10] for i in range(3) for j in range(3))
    wanted = (255 * blurred / blurred.max()).round()
    assert (torch.cat(list(protection.copies()))[4].double() - wanted).abs().max() <= 1
    assert weights[1, 1] == 1 and weights.flatten().sort().values[-2] <= 0.3


def gratings(count: int, seed: int) -> ImageSet:
    """Faint gratings of four directions in any phase, [N, 3, 16, 16]: what a network has to look for."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    angle, phase = labels * torch.pi / 4, 2 * torch.pi * torch.rand(count, generator=generator)
    down, right = torch.arange(16).view(1, 16, 1), torch.arange(16).view(1, 1, 16)
    distance = down * angle.cos().view(-1, 1, 1) + right * angle.sin().view(-1, 1, 1)
    x = 128 + 9 * (1.3 * distance + phase.view(-1, 1, 1)).sin()[:, None]
    x = (x + 6 * torch.randn(count, 3, 16, 16, generator=generator)).round().clamp(0, 255)
    return in_turn(x.to(torch.uint8), "n", "ne", "e", "se")


def test_a_naive_hacker_falls_to_shortcuts_and_not_to_random_noise() -> None:
    clean, test = gratings(512, 0), gratings(400, 1)
    surrogate = {"network": "convnet:width=8", "batch_size": 32, "network_steps": 10, "steps": 10, "error": 0.01}
    lock = {"network": "convnet:width=8", "batch_size": 32, "network_steps": 10, "learning_rate": 0.1, "rounds": 8}

    def accuracy(images: Tensor) -> float:
        published, recipe = clean.with_images(images), Recipe(epochs=6, batch_size=32, augmentation="none")
        return fit(fresh_network("convnet:width=8", published, 1), published, recipe, seed=0, test=test).accuracy

    assert accuracy(clean.images) > 95
    assert accuracy(copies(clean, "random-noise")) > 95
    assert accuracy(copies(clean, "lsp")) < 65  # chance is 25
    assert accuracy(copies(clean, "em", **surrogate, rounds=30)) < 65
    assert accuracy(copies(clean, "pil", batch_size=64)) < 65
    assert accuracy(copies(clean, "dune", **DUNE)) < 65
    assert accuracy(copies(clean, "learnability-lock", **lock)) < 65


def test_em_ends_when_the_network_errs_no_more_or_after_its_rounds() -> None:
    for error, rounds in ((0.0, 3), (0.999, 1)):
        log = trained(toy(), "em", error=error, rounds=3).log
        assert len(log) == rounds and all(0 <= row["error"] <= 1 for row in log)


def test_pil_follows_the_gradient_of_its_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 10, generator=generator, dtype=torch.float64)
    x, delta = torch.rand(2, 4, 10, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 1])
    for balance in (0.0, 0.3, 1.0):
        delta.requires_grad_()
        left = ((x - delta) @ weight.T).log_softmax(1)
        uniform = torch.full_like(left, 1 / 3)
        loss = balance * F.cross_entropy(delta @ weight.T, y, reduction="sum")
        loss = loss + (1 - balance) * F.kl_div(left, uniform, reduction="sum")  # KL(uniform || softmax)
        (wanted,) = torch.autograd.grad(loss, delta)
        delta = delta.detach()
        assert torch.allclose(gradient(weight, x, delta, y, balance), wanted)


def test_rem_resists_its_adversary() -> None:
    """What the method is for: the network that it was learnt with knows the classes of attacked copies, too."""
    both = gratings(256, 0)
    pick = (both.labels % 2 == 0).nonzero().flatten()  # upright and level: the augmentation's flip keeps them apart
    images = in_turn(both.images[pick], "n", "e")
    settings = {"network_steps": 10, "steps": 4, "step_share": 0.4, "attack_steps": 2, "attack_share": 0.75}
    protection = trained(images, "rem", network="convnet:width=8", draws=2, batch_size=32, **settings)
    rng = torch.Generator().manual_seed(1)

    def error(x: Tensor) -> float:
        attacked = protection._attacked(x, images.labels, rng)
        return float((protection.surrogate(attacked).argmax(1) != images.labels).float().mean())

    x = images.images.float() / 255
    found = error(x), error((x + protection.delta).clamp(0, 1))
    assert found[1] < found[0] / 2


def test_a_lock_opens_to_within_a_step_and_no_other_does(tmp_path: Path) -> None:
    images = gratings(128, 0)
    extremes = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(64, 3, 16, 16)
    images = images.with_images(torch.cat([images.images[:64], extremes]))
    settings = {"network": "convnet:width=8", "batch_size": 32, "learning_rate": 1.0, "rounds": 2, "error": 0}
    config = resolve_config("learnability-lock", settings)
    for seed in (0, 1):
        protect_and_publish(images, [], tmp_path / f"copy-{seed}", "learnability-lock", config, seed=seed)
    locks = [load_lock(tmp_path / f"copy-{seed}.lock") for seed in (0, 1)]
    read = [Copy.read(tmp_path / f"copy-{seed}") for seed in (0, 1)]
    assert [copy.manifest.settings["lock"] for copy in read] == [lock.digest() for lock in locks]
    assert locks[0].digest() != locks[1].digest() and not [*(tmp_path / "copy-0").rglob("*lock*")]
    published = read[0].images
    order = [images.names.index(name.rpartition("/")[2]) for name in published.names]
    clean = images.images[order].short()
    opened = BASELINES["learnability-lock"].opened(published, tmp_path / "copy-0")
    error = (opened.images.short() - clean).abs()
    inside = (published.images > 0) & (published.images < 255)
    assert (published.images.short() - clean).abs().float().mean() > 3
    assert error[inside].max() <= 1 and (error[inside] == 0).float().mean() > 0.95
    assert error[~inside].max() <= 8, "values that were cut off at black or white"
    assert (locks[1].unlock(published).images.short() - clean)[inside].abs().float().mean() > 1
    # as the equations say, without the class
    k, lock = int(published.labels[0]), locks[0]
    wanted = (lock.weight[k] * clean[0] / 255 + lock.shift[k]) * 255
    assert (published.images[0] - wanted.clamp(0, 255)).abs().max() <= 0.5001
    assert (lock.weight - 1).abs().max() <= 4 / 255 + 1e-6 and lock.shift.abs().max() <= 4 / 255 + 1e-6
    with pytest.raises(KeyFileError, match="the lock is for 4 classes"):
        lock.unlock(toy())
    (tmp_path / "copy-0.lock").write_bytes(b"no lock")
    with pytest.raises(KeyFileError, match="is no lock of uge, or damaged"):
        load_lock(tmp_path / "copy-0.lock")


DUNE = {"network": "convnet:width=8", "network_epochs": 4, "checkpoints": 2, "batch_size": 64, "colour_images": 20}


def test_dune_is_bounded_noise_that_misleads_and_one_colour_a_class_on_top() -> None:
    images = gratings(128, 0)
    protection = trained(images, "dune", **DUNE | {"steps": 12, "step_share": 0.15})
    change = changes_of(protection)
    colours = torch.stack([change[label::4].mean((0, 2, 3)) for label in range(4)])  # deltas are even about zero
    assert (change - colours[images.labels][:, :, None, None]).abs().max() <= DUNEConfig.noise_255 + 2
    assert colours.abs().max() > 5 and len(colours.round().unique(dim=0)) == 4
    assert fmean(row["reached"] for row in protection.log) > 0.4


def test_a_colour_costs_what_it_hides_of_the_picture() -> None:
    x = torch.tensor([0.5, 0.1]).view(2, 1, 1, 1).expand(2, 3, 8, 8).contiguous()
    nothing, light = penalty(x, torch.stack([x, x + 0.2])).tolist()
    # PSNR is 13.98 dB in both; of what is flat SSIM is 2ab / (a^2 + b^2), here 0.946 and 0.6
    assert nothing == 0 and light == pytest.approx(20 + 20 * math.log10(0.2) + (0.8 - 0.6) / 2, abs=1e-3)


def test_a_swarm_finds_the_lowest_place() -> None:
    lowest = torch.tensor([0.05, -0.02])
    found = best_of_swarm(lambda places: (places - lowest).square().sum(1), 2, torch.Generator().manual_seed(1))
    assert (found - lowest).abs().max() < 0.01


def test_bait_lays_the_hardest_then_any_then_the_least_likely_class_on_an_image_and_never_its_own() -> None:
    logits = torch.tensor([[3.0, 1, 2], [3, 1, 2], [0, 1, 2], [5, 5, 5]])
    labels, rng = torch.tensor([0, 1, 2, 2]), torch.Generator().manual_seed(0)
    assert wrong_targets(logits, labels, 0, rng).tolist() == [2, 0, 1, 0]
    assert wrong_targets(logits, labels, 2, rng).tolist() == [1, 2, 0, 0]
    many = torch.arange(3).repeat(100)
    drawn = wrong_targets(torch.zeros(300, 3), many, 1, rng)
    assert (drawn != many).all() and torch.bincount(3 * many + drawn, minlength=9).tolist().count(0) == 3
    assert (wrong_targets(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), 1, rng) == 0).all()


def test_bait_overrules_what_its_network_knows_with_one_perturbation_a_class() -> None:
    settings = {"encoder": "own", "rounds": 18, "batch_size": 32, "learning_rate": 0.01, "epsilon_255": 16}
    protection = trained(gratings(64, 0), "bait", **settings)
    assert fmean(row["overruled"] for row in protection.log[-6:]) > 0.6  # chance is 1 in 4
    change = changes_of(protection)
    assert torch.equal(change, change[:4].repeat(16, 1, 1, 1))


@pytest.mark.parametrize("targeted", [True, False])
def test_tap_makes_its_network_err_as_it_should(targeted: bool) -> None:
    settings = {"network": "convnet:width=8", "network_epochs": 4, "batch_size": 32, "steps": 20, "targeted": targeted}
    log = trained(gratings(256, 0), "tap", **settings).log
    assert fmean(row["reached"] for row in log) > 0.4  # the augmentation's flip confuses two of the four directions


def test_too_few_or_too_many_patches_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot tell 3 classes; lower patch"):
        copies(toy(1, (8, 8)), "lsp", patch=8)
    with pytest.raises(ConfigError, match="at most 4096; raise patch"):
        copies(toy(3, (64, 64), 3), "lsp", patch=1)
