"""What every entry of PROTECTIONS promises; a new one is tested by being listed, with settings for the toy size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from uge import runtime
from uge.copy import read_manifest, verify
from uge.data.images import ImageSet
from uge.errors import ConfigError, PublishError
from uge.keys import Key, SealedKey, new_weights_key
from uge.networks import NetworkSpec
from uge.pipeline import protect_and_publish
from uge.protect import DEFAULT, PROTECTIONS, method_for, resolve_config
from uge.protection import NO_KEY, Protection, Settings
from uge.training import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORK = {"network": "convnet:width=4", "batch_size": 8}
TINY: dict[str, dict[str, Any]] = {
    "sealed": {
        "steps": 16,
        "batch_size": 12,
        "surrogates": ("mlp:width=8",),
        "references": ("mlp:width=8",),
        "width": 4,
    }
    | {"reference_epochs": 1},
    "uge": {
        "encoder": "own",
        "epochs": 2,
        "batch_size": 8,
        "feature_images": 8,
        "generator_width": 4,
        "students": ("convnet:width=4",),
        "clean_checkpoints": 2,
    },
    "lsp": {"patch": 4},
    "em": NETWORK | {"network_steps": 2, "steps": 3, "rounds": 4, "error": 0},
    "tap": NETWORK | {"network_epochs": 1, "steps": 5},
    "rem": NETWORK | {"network_steps": 3, "steps": 3, "draws": 2, "attack_steps": 2},
    "pil": {"epochs": 2, "steps": 5},
    "learnability-lock": NETWORK | {"network_steps": 2, "learning_rate": 1.0, "rounds": 4, "error": 0},
}
SCOPED = ["random-noise", "em"]
CASES = [(name, {}) for name in PROTECTIONS]
CASES += [(name, {"scope": "class"}) for name in SCOPED] + [("tap", {"targeted": False})]
every = pytest.mark.parametrize(("name", "settings"), CASES, ids=lambda part: part if isinstance(part, str) else "")


def settings_of(name: str, **changes: Any) -> Settings:
    return resolve_config(name, TINY.get(name, {}) | changes)


def toy(channels: int = 3, size: tuple[int, int] = (12, 14), least: int = 0, most: int = 255) -> ImageSet:
    """24 random images of three classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(least, most + 1, (24, channels, *size), generator=generator, dtype=torch.uint8)
    labels = torch.arange(24) % 3
    return ImageSet(images, labels, ("ant", "bee", "cat"), tuple(f"{number:03d}" for number in range(24)))


def drawn(kind: str, images: ImageSet) -> list[Key]:
    """A key of a kind, for these images."""
    if kind == NO_KEY:
        return []
    if kind == SealedKey.kind:
        return [SealedKey.draw()]
    spec = NetworkSpec("mlp", images.channels, images.image_size, images.classes, {"width": 4})
    flat = (0.5,) * images.channels, (0.25,) * images.channels
    return [new_weights_key(spec, images.class_names, *flat, Recipe(epochs=2, batch_size=8))]


def build(images: ImageSet, name: str, keys: list[Key] | None = None, **options: Any) -> Protection[Any]:
    run = {key: options.pop(key) for key in ("seed", "workdir", "checkpoint_seconds") if key in options}
    keys = drawn(PROTECTIONS[name].takes, images) if keys is None else keys
    return PROTECTIONS[name](images, keys, settings_of(name, **options), **{"seed": 0} | run)


def copies(images: ImageSet, name: str, keys: list[Key] | None = None, batch_size: int = 250, **options: Any) -> Tensor:
    protection = build(images, name, keys, **options)
    protection.train()
    return torch.cat(list(protection.copies(batch_size)))


def decided(copies: Tensor, keys: list[Key]) -> Tensor:
    """What seed and settings decide of copies: all but their letters, which are sealed anew each time."""
    return copies & 0xFE if any(key.opens for key in keys) else copies


@every
@pytest.mark.parametrize(("channels", "size"), [(1, (24, 21)), (3, (12, 14)), (3, (9, 17))], ids=str)
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
    images, asked = toy(), getattr(settings_of(name), "epsilon_255", None)
    assert build(images, name, **settings).epsilon_255 == asked
    for epsilon in (asked, 4) if asked else ():
        change = copies(images, name, epsilon_255=epsilon, **settings).int() - images.images.int()
        assert 1 <= change.abs().max() <= epsilon


@every
def test_keys_settings_and_seed_alone_decide_the_copy(name: str, settings: dict[str, Any]) -> None:
    images = toy()
    keys = drawn(PROTECTIONS[name].takes, images)
    torch.manual_seed(1)
    first = decided(copies(images, name, keys, **settings), keys)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = decided(copies(images, name, keys, batch_size=7, **settings), keys)
    assert torch.equal(again, first), "batches or a global state decide too"
    assert torch.equal(torch.get_rng_state(), before)
    if name != "ops":  # nothing in it is drawn
        assert not torch.equal(decided(copies(images, name, keys, seed=1, **settings), keys), first)


@every
def test_a_killed_run_goes_on_to_the_same_copy(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    keys = drawn(PROTECTIONS[name].takes, toy())
    options = settings | {"workdir": tmp_path / "partial", "checkpoint_seconds": 0}
    steps: list[int] = []

    def told(row: dict[str, Any], total: int) -> None:
        if "preparing" not in row:
            steps.append(row["step"])

    def kill(row: dict[str, Any], total: int) -> None:
        told(row, total)
        if row["step"] == min(2, total):
            raise KeyboardInterrupt

    whole = copies(toy(), name, keys, **settings)
    try:
        build(toy(), name, keys, **options).train(kill)
    except KeyboardInterrupt:
        count = len(steps)
        protection = build(toy(), name, keys, **options)
        protection.train(told)
        assert steps[count] == steps[count - 1], "a step's checkpoint follows its report, so that one alone is repeated"
        assert torch.equal(decided(torch.cat(list(protection.copies())), keys), decided(whole, keys))
    else:
        assert not steps, "a protection that takes steps can be stopped"


@every
def test_a_published_copy_tells_how_it_was_made(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    images, config = toy(), settings_of(name, **settings)
    keys = drawn(PROTECTIONS[name].takes, images)
    manifest = protect_and_publish(images, keys, tmp_path / "copy", name, config, seed=3)
    assert manifest == read_manifest(tmp_path / "copy")
    assert manifest.method == name and manifest.epsilon_255 == getattr(config, "epsilon_255", None)
    assert manifest.settings.items() >= json.loads(json.dumps(config.to_dict())).items()
    checked = verify(tmp_path / "copy", clean=images, key=keys[0] if keys else None)
    assert checked.ok and checked.epsilon_255 == manifest.epsilon_measured_255
    assert [image.label for image in manifest.images] == images.labels.tolist()


@pytest.mark.parametrize("name", PROTECTIONS)
def test_defaults_can_be_stored_and_read_again(name: str) -> None:
    default = resolve_config(name)
    stored = json.loads(json.dumps(default.to_dict()))
    assert resolve_config(name, {field.name: stored[field.name] for field in dataclasses.fields(default)}) == default


@pytest.mark.parametrize("name", PROTECTIONS)
def test_keys_of_another_kind_are_refused_in_one_line(name: str) -> None:
    images, takes = toy(), PROTECTIONS[name].takes
    for kind in {NO_KEY, SealedKey.kind, "initial-weights"} - {takes}:
        with pytest.raises(ConfigError, match=r"takes no key|takes a key of the kind") as caught:
            build(images, name, drawn(kind, images))
        assert "\n" not in str(caught.value)


def test_a_key_chooses_the_method_of_whoever_names_none() -> None:
    images = toy()
    assert DEFAULT == "sealed" == method_for([]) == method_for(drawn("sealed", images))
    assert method_for(drawn("initial-weights", images)) == "uge"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("emm", {}, "unknown method 'emm'; did you mean 'em'"),
        ("random-noise", {"epsilon_255": 0}, "epsilon 0 is outside 1..128"),
        ("random-noise", {"epsilon_255": "much"}, "setting epsilon_255 is a int, got 'much'"),
        ("random-noise", {"scope": "image"}, "unknown scope 'image'; choose from: sample, class"),
        ("uge", {"label_conditional": "maybe"}, "label_conditional is true or false"),
        ("uge", {"students": "vggg"}, "unknown network 'vggg'; did you mean 'vgg'"),
        ("lsp", {"epsilon_255": 8}, "unknown setting 'epsilon_255'"),
        ("lsp", {"rms_255": 0.5}, "rms_255 0.5 is outside 1..128"),
        ("lsp", {"patch": 0}, "patch must be at least 1, got 0"),
        ("lsp", {"separation": "nan"}, "separation must be positive, got nan"),
        ("cuda", {"filter_size": 4}, "filter_size must be odd and at least 3, got 4"),
        ("cuda", {"blur": 0}, "blur is a weight above 0"),
        ("em", {"rounds": 0}, "rounds must be at least 1, got 0"),
        ("em", {"error": 1}, "error is a share from 0 up to 1, got 1.0"),
        ("em", {"network": "resnt"}, "unknown network 'resnt'; did you mean 'resnet'"),
        ("pil", {"balance": 1.5}, "balance is a share from 0 to 1, got 1.5"),
    ],
)
def test_what_is_wrong_with_a_setting_is_one_line(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_config(name, changes)
    assert "\n" not in str(caught.value)


def test_a_full_disk_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on from what was written before, to the same copy."""
    config = settings_of("em")
    whole = protect_and_publish(toy(), [], tmp_path / "whole", "em", config)
    write, written = runtime.write_atomically, []

    def fail_later(path: Path, content: bytes | str, mode: int = 0o644) -> None:
        if path.name == "checkpoint.pt":
            written.append(path)
            if len(written) == 3:
                raise PublishError("No space left on device")
        write(path, content, mode)

    monkeypatch.setattr("uge.checkpoint.write_atomically", fail_later)
    arguments = (toy(), [], tmp_path / "copy", "em", config)
    with pytest.raises(PublishError, match="No space"):
        protect_and_publish(*arguments, checkpoint_seconds=0)
    assert (tmp_path / "copy.partial" / "checkpoint.pt").exists()
    assert protect_and_publish(*arguments).images == whole.images
