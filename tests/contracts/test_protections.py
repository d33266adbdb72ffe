"""What every entry of BASELINES promises; a new baseline is tested by being listed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from uge import runtime
from uge.data.images import ImageSet, normalisation_of
from uge.errors import ConfigError, PublishError
from uge.keys import Key, Reversible
from uge.keys.key import new_key
from uge.networks import NetworkSpec, build_network
from uge.pipeline import protect_and_publish, secret_seed
from uge.protect import BASELINES, PRESETS, PROTECTIONS, Config, resolve_config
from uge.protect.baseline import Baseline, add_within_linf, add_within_rms
from uge.protect.checkpoint import load_checkpoint
from uge.protect.learnability_lock import load_lock
from uge.protect.surrogate import build_surrogate, signed_step
from uge.publish import read_manifest, verify
from uge.training import Recipe, fit
from uge.views import load_published

TINY: dict[str, dict[str, Any]] = {  # settings for the toy size
    "lsp": {"patch": 4},
    "em": {"network": "convnet:width=4", "network_steps": 2, "steps": 3, "rounds": 2, "error": 0, "batch_size": 8},
    "tap": {"network": "convnet:width=4", "network_epochs": 1, "steps": 5, "batch_size": 8},
    "rem": {
        "network": "convnet:width=4",
        "network_steps": 3,
        "steps": 3,
        "draws": 2,
        "attack_steps": 2,
        "batch_size": 8,
    },
    "pil": {"epochs": 2, "steps": 5},
    "learnability-lock": {
        "network": "convnet:width=4",
        "network_steps": 2,
        "learning_rate": 1.0,
        "rounds": 2,
        "error": 0,
        "batch_size": 8,
    },
}
SCOPED = ["random-noise", "em"]
CASES = [(name, {}) for name in BASELINES]
CASES += [(name, {"scope": "class"}) for name in SCOPED] + [("tap", {"targeted": False})]
every = pytest.mark.parametrize(("name", "settings"), CASES, ids=lambda part: part if isinstance(part, str) else "")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Batches are tiny here, and threads would cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings_of(name: str, **changes: Any) -> Config:
    return resolve_config(overrides=TINY.get(name, {}) | changes, method=name)


def toy(
    channels: int = 3, size: tuple[int, int] = (12, 10), count: int = 24, least: int = 0, most: int = 255
) -> ImageSet:
    """Random images of three classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(least, most + 1, (count, channels, *size), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 3
    return ImageSet(images, labels, ("ant", "bee", "cat"), tuple(f"{number:03d}" for number in range(count)))


def copies(images: ImageSet, name: str, seed: int = 0, batch_size: int = 250, **changes: Any) -> Tensor:
    protection = BASELINES[name](images, settings_of(name, **changes), seed=seed)
    protection.train()
    return torch.cat(list(protection.copies(batch_size)))


def changes_of(images: ImageSet, name: str, **options: Any) -> Tensor:
    """Published minus original, float32 [N, C, H, W] in 8-bit steps."""
    return copies(images, name, **options).float() - images.images.float()


@every
@pytest.mark.parametrize(("channels", "size"), [(1, (12, 10)), (3, (12, 10)), (3, (9, 17)), (1, (8, 8))], ids=str)
def test_shape_and_type_are_kept_and_every_image_changes(
    name: str, settings: dict[str, Any], channels: int, size: tuple[int, int]
) -> None:
    images = toy(channels, size)
    before = images.images.clone()
    found = copies(images, name, **settings)
    assert found.shape == images.images.shape and found.dtype == torch.uint8 and found.is_contiguous()
    assert torch.equal(images.images, before), "the originals were written to"
    assert (found != before).flatten(1).any(1).all()
    assert (found.flatten(1).float().std(1) > 1).all(), "a copy without a picture"


@every
def test_the_bound_holds_in_whole_steps(name: str, settings: dict[str, Any]) -> None:
    images = toy()
    config = settings_of(name, **settings)
    change = changes_of(images, name, **settings)
    bound = config.to_dict()["bound"]
    if bound.startswith("L_inf"):
        assert 1 <= change.abs().max() <= config.epsilon_255  # type: ignore[union-attr]
        assert changes_of(images, name, epsilon_255=3, **settings).abs().max() <= 3
    elif bound.startswith("L2"):
        for rms in (config.rms_255, 2.5):  # type: ignore[union-attr]
            found = changes_of(toy(least=100, most=150), name, rms_255=rms, **settings).square().mean((1, 2, 3)).sqrt()
            assert (found <= rms).all() and (found > 0.9 * rms).all()
    elif bound.startswith("L0: one pixel"):
        assert ((change != 0).any(1).sum((1, 2)) <= 1).all()
    else:
        assert bound == "none"


@every
def test_the_seed_alone_decides_the_copy(name: str, settings: dict[str, Any]) -> None:
    images = toy()
    torch.manual_seed(1)
    first = copies(images, name, **settings)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(copies(images, name, batch_size=7, **settings), first), "batches or a global state decide too"
    assert torch.equal(torch.get_rng_state(), before)
    if name != "ops":  # nothing in it is drawn
        assert not torch.equal(copies(images, name, seed=1, **settings), first)


@pytest.mark.parametrize("name", [*SCOPED, "lsp", "ar", "tap", "rem", "pil", "learnability-lock"])
def test_sample_wise_noise_is_of_the_image(name: str) -> None:
    change = changes_of(toy(least=100, most=150), name)  # what is added shows unclipped
    assert len({bytes(part.to(torch.int8).numpy()) for part in change}) == 24


@pytest.mark.parametrize("name", SCOPED)
def test_class_wise_noise_is_of_the_class(name: str) -> None:
    change = changes_of(toy(least=100, most=150), name, scope="class")
    patterns = torch.stack([change[label] for label in range(3)])
    assert torch.equal(change, patterns[torch.arange(24) % 3])
    assert all(not torch.equal(patterns[i], patterns[i - 1]) for i in range(3))


@pytest.mark.parametrize("name", ["lsp", "ops", "cuda"])  # AR's classes differ in their filters alone, see below
def test_equal_images_are_changed_by_their_class(name: str) -> None:
    images = toy(least=7, most=7, count=60)
    edges = images.images.clone()
    edges[:, :, 3:8, 2:7] = 200  # something for filters to work on
    change = changes_of(images.with_images(edges), name).flatten(1)
    means = torch.stack([change[label::3].mean(0) for label in range(3)])
    spread = torch.stack([change[label::3].var(0) for label in range(3)]).mean()
    between = (means[[0, 1, 2]] - means[[1, 2, 0]]).square().mean()
    assert between > spread


def test_a_process_answers_its_own_filter_least() -> None:
    """What a convolution needs to tell AR's classes: the filter of a class predicts its signals exactly."""
    from uge.protect.ar import ARConfig, ARProtection, autoregress

    protection = ARProtection(toy(size=(24, 24)), ARConfig(), seed=0)
    beta = protection._processes.flatten(0, 1)
    signals = autoregress(torch.randn(9, 28, 28, generator=torch.Generator().manual_seed(0)), beta)[:, 4:, 4:]
    signals = signals / signals.square().mean((1, 2), keepdim=True).sqrt()
    filters = torch.cat([beta, -torch.ones(9, 1)], 1)
    filters = (filters / filters.norm(dim=1, keepdim=True)).view(9, 1, 3, 3)
    answers = F.conv2d(signals[:, None], filters).square().mean((2, 3)).sqrt()  # [signal, filter]
    own = answers.diagonal()
    assert (own < 1e-3).all()
    assert (answers + torch.eye(9)).min() > 0.01


def test_ar_covers_large_images_with_signals_of_one_process() -> None:
    from uge.protect.ar import ARConfig, ARProtection

    images = toy(1, (40, 70), count=3, least=128, most=128)
    protection = ARProtection(images, ARConfig(rms_255=15), seed=0)  # nothing is clipped
    change = torch.cat(list(protection.copies())).float() - 128
    for label in range(3):
        kernel = torch.cat([protection._processes[label, 0], -torch.ones(1)]).view(1, 1, 3, 3)
        answer = F.conv2d(change[label][None], kernel / kernel.norm())[0, 0]  # position i, j sees pixels up to i + 2
        for rows, columns in (
            (slice(0, 30), slice(0, 30)),
            (slice(32, 38), slice(32, 62)),
            (slice(0, 30), slice(64, 68)),
        ):
            assert answer[rows, columns].abs().max() < 2, "more than rounding"
        assert answer[:, 30:32].abs().max() > 5, "where two signals meet"


def test_ops_takes_the_pixel_that_changes_most_and_most_evenly() -> None:
    images = toy(1, least=100, most=255)
    images.images[images.labels == 0, :, 4, 5] = torch.arange(8, dtype=torch.uint8).view(8, 1) % 2  # nearly black
    images.images[images.labels == 1, :, 2, 3] = 250
    found = copies(images, "ops")
    assert (found[images.labels == 0, 0, 4, 5] == 255).all()
    assert (found[images.labels == 1, 0, 2, 3] == 0).all()


def test_ops_gives_classes_with_equal_borders_different_pixels() -> None:
    images = toy(least=0, most=0)
    found = copies(images, "ops")
    assert len({bytes(found[label].numpy()) for label in range(3)}) == 3


def test_lsp_can_be_told_by_a_linear_classifier(fashion: ImageSet) -> None:
    images = fashion.subset(torch.arange(0, 6000, 6))
    patches = F.avg_pool2d(changes_of(images, "lsp"), 8, ceil_mode=True).flatten(1)
    wanted = F.one_hot(images.labels, 10).float()
    weights = torch.linalg.lstsq(patches[::2], wanted[::2]).solution
    right = (patches[1::2] @ weights).argmax(1) == images.labels[1::2]
    assert right.double().mean() > 0.8  # clipping at black takes some of it


def test_cuda_with_one_filter_is_the_convolution_of_the_paper() -> None:
    from uge.protect.cuda import CUDAConfig, CUDAProtection

    images = toy()
    protection = CUDAProtection(images, CUDAConfig(), seed=0)
    x, weights = images.images[4].double() / 255, protection._filters[1].double()
    padded = F.pad(x, (1, 1, 1, 1))
    blurred = sum(weights[i, j] * padded[:, i : i + 12, j : j + 10] for i in range(3) for j in range(3))
    wanted = (255 * blurred / blurred.max()).round()  # type: ignore[union-attr,operator]
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
    return ImageSet(x.to(torch.uint8), labels, ("n", "ne", "e", "se"), tuple(map(str, range(count))))


def test_a_naive_hacker_falls_to_shortcuts_and_not_to_random_noise() -> None:
    clean, test = gratings(512, 0), gratings(400, 1)
    surrogate = {"network": "convnet:width=8", "batch_size": 32, "network_steps": 10, "steps": 10, "error": 0.01}
    lock = {"network": "convnet:width=8", "batch_size": 32, "network_steps": 10, "learning_rate": 0.1, "rounds": 8}

    def accuracy(images: Tensor) -> float:
        spec = NetworkSpec("convnet", 3, (16, 16), 4, {"width": 8})
        network = build_network(spec, *normalisation_of(images), seed=1)
        recipe = Recipe(epochs=6, batch_size=32, augmentation="none")
        return fit(network, clean.with_images(images), recipe, seed=0, test=test).accuracy

    assert accuracy(clean.images) > 95
    assert accuracy(copies(clean, "random-noise")) > 95
    assert accuracy(copies(clean, "lsp")) < 65  # chance is 25
    assert accuracy(copies(clean, "em", **surrogate)) < 65
    assert accuracy(copies(clean, "pil", epochs=30, steps=30, batch_size=64)) < 65
    assert accuracy(copies(clean, "learnability-lock", **lock)) < 65


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("em", {"rounds": 4}),
        ("em", {"rounds": 4, "scope": "class"}),
        ("tap", {}),
        ("rem", {}),
        ("rem", {"network_steps": 1}),  # killed while the noise for the final network is found
        ("learnability-lock", {"rounds": 4}),
    ],
)
def test_a_killed_run_goes_on_to_the_same_copy(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    def kill(row: dict[str, Any], total: int) -> None:
        if row["step"] == 2:
            raise KeyboardInterrupt

    def make() -> Baseline[Any]:
        config = settings_of(name, **changes)
        return BASELINES[name](toy(), config, seed=0, workdir=tmp_path / "partial", checkpoint_seconds=0)

    with pytest.raises(KeyboardInterrupt):
        make().train(kill)
    protection = make()
    steps: list[int] = []
    protection.train(lambda row, total: steps.append(row["step"]))
    assert steps[0] == 2, "the checkpoint after the first step was not found"
    assert torch.equal(torch.cat(list(protection.copies())), copies(toy(), name, **changes))


def test_em_ends_when_the_network_errs_no_more_or_after_its_rounds() -> None:
    for error, rounds in ((0.0, 3), (0.999, 1)):
        config = settings_of("em", error=error, rounds=3)
        protection = BASELINES["em"](toy(), config, seed=0)
        protection.train()
        assert len(protection.log) == rounds
        assert all(0 <= row["error"] <= 1 for row in protection.log)


@pytest.mark.parametrize("owners", [None, torch.tensor([0, 1, 0, 1])], ids=["sample", "class"])
def test_a_signed_step_goes_downhill_within_its_bounds(owners: Tensor | None) -> None:
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    x, y = torch.rand(4, 3, 2, 2, generator=generator), torch.tensor([0, 1, 0, 1])
    delta = torch.zeros(4 if owners is None else 2, 3, 2, 2)

    def loss(delta: Tensor) -> float:
        return F.cross_entropy(network((x + (delta if owners is None else delta[owners])).clamp(0, 1)), y).item()

    down = signed_step(network, x, delta, y, 0.03, 0.1, owners=owners)
    up = signed_step(network, x, delta, y, -0.03, 0.1, owners=owners)
    assert loss(down) < loss(delta) < loss(up)
    for _ in range(5):
        down = signed_step(network, x, down, y, 0.03, 0.1, owners=owners)
    assert down.abs().max() == pytest.approx(0.1)
    assert owners is not None or 0 <= (x + down).min() <= (x + down).max() <= 1
    assert all(parameter.grad is None for parameter in network.parameters())


def test_pil_follows_the_gradient_of_its_loss() -> None:
    from uge.protect.pil import gradient

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


def test_pil_perturbations_carry_the_class_and_what_is_left_does_not() -> None:
    from uge.protect.pil import PILConfig, PILProtection

    images = gratings(256, 0)
    protection = PILProtection(images, PILConfig(epochs=20, batch_size=64), seed=0)
    protection.train()
    weight, delta = protection._classifier(), protection._delta.flatten(1)
    x = images.images.flatten(1).float() / 255
    assert ((delta @ weight.T).argmax(1) == images.labels).float().mean() > 0.99
    assert (((x - delta) @ weight.T).argmax(1) == images.labels).float().mean() < 0.1  # a chance of 0.25, and less


def test_rem_resists_its_adversary(tmp_path: Path) -> None:
    """What the method is for: the network that it was learnt with knows the classes of attacked copies, too."""
    from uge.protect.rem import REMConfig, REMProtection

    both = gratings(256, 0)
    pick = (both.labels % 2 == 0).nonzero().flatten()  # upright and level: the augmentation's flip keeps them apart
    images = ImageSet(both.images[pick], both.labels[pick] // 2, ("n", "e"), tuple(map(str, range(128))))
    settings = {"network_steps": 10, "steps": 4, "step_share": 0.4, "attack_steps": 2, "attack_share": 0.75}
    config = REMConfig(network="convnet:width=8", draws=2, batch_size=32, **settings)
    protection = REMProtection(images, config, seed=0, workdir=tmp_path, checkpoint_seconds=0)
    protection.train()
    network = build_surrogate("convnet:width=8", images, 0, torch.device("cpu"))
    network.load_state_dict(load_checkpoint(tmp_path / "checkpoint.pt")["network"])
    rng = torch.Generator().manual_seed(1)

    def error(x: Tensor) -> float:
        attacked = protection._attacked(network, x, images.labels, rng)
        return float((network(attacked).argmax(1) != images.labels).float().mean())

    x = images.images.float() / 255
    found = error(x), error((x + protection._delta).clamp(0, 1))
    assert found[1] < found[0] / 2


def test_a_lock_opens_to_within_a_step_and_no_other_does(tmp_path: Path) -> None:
    from uge.protect.learnability_lock import LearnabilityLockConfig, LearnabilityLockProtection

    images = gratings(128, 0)
    extremes = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(64, 3, 16, 16)
    images = images.with_images(torch.cat([images.images[:64], extremes]))
    config = LearnabilityLockConfig(network="convnet:width=8", batch_size=32, learning_rate=1.0, rounds=2, error=0)
    locks = []
    for seed in (0, 1):
        out, file = tmp_path / f"copy-{seed}", tmp_path / f"{seed}.lock"
        protect_and_publish(images, [], out, config, seed=seed, lock=file)
        locks.append(load_lock(file))
    published = load_published(tmp_path / "copy-0").images
    assert [path.name for path in (tmp_path / "copy-0").iterdir() if "lock" in path.name] == []
    named = [read_manifest(tmp_path / f"copy-{seed}").settings["lock"] for seed in (0, 1)]
    assert named == [lock.digest() for lock in locks] and named[0] != named[1]
    order = [images.names.index(name.rpartition("/")[2]) for name in published.names]
    clean = images.images[order].short()
    change = (published.images.short() - clean).abs()
    error = (locks[0].unlock(published).images.short() - clean).abs()
    inside = (published.images > 0) & (published.images < 255)
    assert change.float().mean() > 3
    assert error[inside].max() <= 1 and (error[inside] == 0).float().mean() > 0.95
    assert error[~inside].max() <= 8, "values that were cut off at black or white"
    assert (locks[1].unlock(published).images.short() - clean)[inside].abs().float().mean() > 1
    # as the equations say, without the class
    lock = LearnabilityLockProtection(images, config, seed=0)
    lock.train()
    assert torch.equal(lock.lock.weight, locks[0].weight) and torch.equal(lock.lock.shift, locks[0].shift)
    k = int(published.labels[0])
    wanted = (lock.lock.weight[k] * clean[0] / 255 + lock.lock.shift[k]) * 255
    assert (published.images[0] - wanted.clamp(0, 255)).abs().max() <= 0.5001
    assert (lock.lock.weight - 1).abs().max() <= 4 / 255 + 1e-6 and lock.lock.shift.abs().max() <= 4 / 255 + 1e-6


@pytest.mark.parametrize("targeted", [True, False])
def test_tap_makes_its_network_err_as_it_should(targeted: bool) -> None:
    settings = {"network": "convnet:width=8", "network_epochs": 4, "batch_size": 32, "steps": 20, "targeted": targeted}
    protection = BASELINES["tap"](gratings(256, 0), settings_of("tap", **settings), seed=0)
    protection.train()
    reached = sum(row["reached"] for row in protection.log) / len(protection.log)
    assert reached > 0.4  # the augmentation's flip takes two of the four directions for each other


def test_adding_keeps_its_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, 3, 6, 6), generator=generator, dtype=torch.uint8)
    delta = 9 * torch.randn(20, 3, 6, 6, generator=generator)
    assert (add_within_linf(images, delta, 4).short() - images.short()).abs().max() == 4
    for rms in (1.0, 1.3, 6.0, 128.0):
        change = (add_within_rms(images, delta, rms).float() - images.float()).square().mean((1, 2, 3)).sqrt()
        assert (change <= rms).all()
    assert torch.equal(add_within_rms(images, torch.zeros(20, 3, 6, 6), 6.0), images)


@every
def test_a_published_copy_states_its_bound(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    images = toy()
    config = settings_of(name, **settings)
    lock = tmp_path / "lock" if name == "learnability-lock" else None
    manifest = protect_and_publish(images, [], tmp_path / "copy", config, seed=3, lock=lock)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", *(["lock"] if lock else [])]
    assert manifest == read_manifest(tmp_path / "copy")
    assert manifest.method == name
    named = {"lock": load_lock(lock).digest()} if lock else {}
    assert manifest.settings == config.to_dict() | {"recipients": 0} | named
    assert manifest.epsilon_255 == manifest.settings.get("epsilon_255")
    checked = verify(tmp_path / "copy", clean=images)
    assert checked.ok and checked.signature == "none"
    assert checked.epsilon_255 == manifest.epsilon_measured_255
    assert [image.label for image in manifest.images] == images.labels.tolist()
    card = (tmp_path / "copy" / "README.md").read_text()
    assert ("whoever holds their lock" if lock else "learnt by nobody") in card
    assert manifest.epsilon_255 is not None or "asked: no bound" in card


@pytest.mark.parametrize(
    ("file", "method", "message"), [("run", "lsp", "unfinished run"), ("thesis.txt", "em", "holds other files")]
)
def test_what_is_not_this_runs_own_is_neither_used_nor_removed(
    file: str, method: str, message: str, tmp_path: Path
) -> None:
    """Work of another method, or a folder that only looks like work in progress."""
    (tmp_path / "copy.partial").mkdir()
    (tmp_path / "copy.partial" / file).write_text("another")
    with pytest.raises(PublishError, match=message):
        protect_and_publish(toy(), [], tmp_path / "copy", settings_of(method))
    assert (tmp_path / "copy.partial" / file).read_text() == "another"


def test_every_protection_has_presets_that_can_be_stored() -> None:
    assert [*PRESETS] == [*PROTECTIONS]
    for name in BASELINES:
        default = PRESETS[name]["default"]
        stored = json.loads(json.dumps(default.to_dict()))
        assert stored.pop("bound")
        assert type(default)(**stored) == default


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("random-noise", {"epsilon_255": 0}, "epsilon 0 is outside 1..128"),
        ("random-noise", {"scope": "image"}, "unknown scope 'image'; choose from: sample, class"),
        ("lsp", {"epsilon_255": 8}, "unknown setting 'epsilon_255'"),
        ("lsp", {"rms_255": 0.5}, "rms_255 0.5 is outside 1..128"),
        ("lsp", {"patch": 0}, "patch must be at least 1, got 0"),
        ("lsp", {"separation": "nan"}, "separation must be positive, got nan"),
        ("ar", {"rms_255": 200}, "rms_255 200.0 is outside 1..128"),
        ("cuda", {"filter_size": 4}, "filter_size must be odd and at least 3, got 4"),
        ("cuda", {"blur": 0}, "blur is a weight above 0"),
        ("em", {"scope": "image"}, "unknown scope 'image'"),
        ("em", {"rounds": 0}, "rounds must be at least 1, got 0"),
        ("em", {"error": 1}, "error is a share from 0 up to 1, got 1.0"),
        ("em", {"network": "resnt"}, "unknown network 'resnt'; did you mean 'resnet'"),
        ("tap", {"steps": 0}, "steps must be at least 1, got 0"),
        ("tap", {"step_share": -1}, "step_share must be positive, got -1.0"),
        ("rem", {"draws": 0}, "draws must be at least 1, got 0"),
        ("rem", {"radius_share": 1}, "radius_share is a share from 0 up to 1, got 1.0"),
        ("pil", {"balance": 1.5}, "balance is a share from 0 to 1, got 1.5"),
        ("pil", {"steps": 0}, "steps must be at least 1, got 0"),
        ("learnability-lock", {"learning_rate": 0}, "learning_rate must be positive, got 0.0"),
        ("learnability-lock", {"epsilon_255": 0}, "epsilon 0 is outside 1..128"),
    ],
)
def test_settings_out_of_range_are_one_line(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_config(overrides=changes, method=name)
    assert "\n" not in str(caught.value)


def test_too_few_or_too_many_patches_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot tell 3 classes; lower patch"):
        copies(toy(1, (8, 8)), "lsp", patch=8)
    with pytest.raises(ConfigError, match="at most 4096; raise patch"):
        copies(toy(3, (64, 64), 3), "lsp", patch=1)


def test_a_baseline_takes_no_key(tmp_path: Path) -> None:
    images = toy()
    spec = NetworkSpec("mlp", 3, (12, 10), 3, {"width": 4})
    key = new_key(spec, images.class_names, (0.5,) * 3, (0.25,) * 3, Recipe())
    with pytest.raises(ConfigError, match="takes one reversible key, got: initial weights"):
        protect_and_publish(images, [key], tmp_path / "copy", settings_of("lsp"))
    assert not [*tmp_path.iterdir()]


def test_textures_are_aperiodic_and_no_linear_classifier_reads_them() -> None:
    from uge.protect.texture import TextureConfig, TextureProtection, tiles

    images = toy(3, (24, 24), count=300, least=128, most=128)
    protection = TextureProtection(images, TextureConfig(), seed=0)
    change = torch.cat(list(protection.copies())).float() - 128
    assert set(change.unique().tolist()) == {-8, 8} and torch.equal(change, change[:, :1].expand_as(change))
    means = torch.stack([change[images.labels == label, 0].mean(0) for label in range(3)])
    assert means.abs().mean() < 1.5, "the mean of a class over 100 images is next to nothing"
    cells = change[:, 0].unfold(1, 8, 8).unfold(2, 8, 8).flatten(1, 2)  # [N, 9, 8, 8]
    repeated = (cells[:, :1] == cells[:, 1:]).flatten(2).all(2).float().mean()
    assert repeated < 0.05  # the same place twice: one in 64
    spectra = torch.fft.fft2(cells).abs().mean(1)  # the same wherever a tile begins
    first = spectra[images.labels == 0]
    assert (first - first[0]).abs().max() < 1e-3 * first.max() < (first[0] - spectra[images.labels == 1][0]).abs().max()
    with pytest.raises(ConfigError, match="not enough textures for 40 classes"):
        tiles(40, 4, torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match="an even number"):
        TextureConfig(cell=7)


def test_nobody_else_can_compute_the_seed(tmp_path: Path) -> None:
    """It is the same at every call, another for other images and for another key, and stands in no manifest."""
    images = toy()
    keys = [key_with_a_view(images) for _ in range(2)]
    seeds = [secret_seed(images, [key]) for key in keys] + [secret_seed(images, [])]
    changed = images.images.clone()
    changed[0, 0, 0, 0] ^= 1
    seeds += [secret_seed(images.with_images(changed), []), 0]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] == secret_seed(images, keys[:1])
    for name in ("one", "two"):
        protect_and_publish(images, [], tmp_path / name, settings_of("random-noise"))
    one, two = (load_published(tmp_path / name).images for name in ("one", "two"))
    assert one.digest() == two.digest()
    for told in (str(seeds[2]), '"seed"'):
        assert told not in (tmp_path / "one" / "manifest.json").read_text()


def key_with_a_view(images: ImageSet) -> Key:
    spec = NetworkSpec("mlp", 3, images.image_size, 3, {"width": 4})
    return new_key(spec, images.class_names, (0.5,) * 3, (0.25,) * 3, Recipe(), view=Reversible.draw(epsilon_255=16))


def test_private_files_must_stay_outside(tmp_path: Path) -> None:
    config = settings_of("learnability-lock")
    (tmp_path / "link").symlink_to(tmp_path)
    for lock in ("copy/lock", "copy.partial/lock", "link/copy.partial/lock"):
        with pytest.raises(ConfigError, match="would not stay private"):
            protect_and_publish(toy(), [], tmp_path / "copy", config, lock=tmp_path / lock)
    with pytest.raises(ConfigError, match=r"the log .* would not stay private"):
        protect_and_publish(toy(), [], tmp_path / "copy", settings_of("em"), log=tmp_path / "copy" / "log.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_full_disk_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on from what was written before, to the same copy."""
    whole = protect_and_publish(toy(), [], tmp_path / "whole", settings_of("em", rounds=4))
    write, written = runtime.write_atomically, []

    def fail_later(path: Path, content: bytes | str, mode: int = 0o644) -> None:
        if path.name == "checkpoint.pt":
            written.append(path)
            if len(written) == 3:
                raise PublishError("No space left on device")
        write(path, content, mode)

    monkeypatch.setattr("uge.protect.checkpoint.write_atomically", fail_later)
    arguments = (toy(), [], tmp_path / "copy", settings_of("em", rounds=4))
    with pytest.raises(PublishError, match="No space"):
        protect_and_publish(*arguments, checkpoint_seconds=0)
    assert (tmp_path / "copy.partial" / "checkpoint.pt").exists()
    assert protect_and_publish(*arguments).images == whole.images


def test_what_cannot_be_published_is_refused_before_any_work(tmp_path: Path) -> None:
    images = toy()
    clash = replace(
        images, names=tuple(("a?" if number == 0 else "a*" if number == 3 else f"{number}") for number in range(24))
    )
    for wrong, words in (
        (replace(images, labels=images.labels % 2), "class 'cat' has no image"),
        (clash, "would both become"),
        (replace(images, names=("x" * 300, *images.names[1:])), "too long a name"),
    ):
        with pytest.raises(PublishError, match=words):
            protect_and_publish(wrong, [], tmp_path / "copy", settings_of("em", rounds=4))
    assert not [*tmp_path.iterdir()]
