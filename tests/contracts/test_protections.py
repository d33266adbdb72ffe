"""What every entry of PROTECTIONS promises; a new one is tested by being listed, with settings for the toy size."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from uge import checkpoint
from uge.copy import read_manifest, verify
from uge.data.images import ImageSet
from uge.errors import ConfigError, PublishError
from uge.keys import Key, SealedKey, new_weights_key
from uge.networks import NetworkSpec
from uge.pipeline import protect_and_publish
from uge.protect import DEFAULT, PROTECTIONS, method_for, resolve_config
from uge.protection import NO_KEY, Protection, Settings
from uge.training import Recipe

from ..images import in_turn, noise
from ..refusals import refused

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORK = {"network": "convnet:width=4", "batch_size": 8}
TINY: dict[str, dict[str, Any]] = {
    "sealed": {"steps": 16, "batch_size": 12, "width": 4, "reference_epochs": 1}
    | {"surrogates": ("mlp:width=8",), "references": ("mlp:width=8",)},
    "pictures": {"steps": 3, "batch_size": 24},
    "uge": {"encoder": "own", "epochs": 2, "batch_size": 8, "feature_images": 8, "generator_width": 4}
    | {"students": ("convnet:width=4",), "clean_checkpoints": 2},
    "lsp": {"patch": 4},
    "em": NETWORK | {"network_steps": 2, "steps": 3, "rounds": 4, "error": 0},
    "tap": NETWORK | {"network_epochs": 1, "steps": 5},
    "rem": NETWORK | {"network_steps": 3, "steps": 3, "draws": 2, "attack_steps": 2},
    "pil": {"epochs": 2, "steps": 5},
    "dune": {"network": "mlp:width=8", "batch_size": 8, "network_epochs": 2, "checkpoints": 2, "colour_images": 2},
    "bait": {"encoder": "own", "batch_size": 8, "rounds": 3, "steps": 2},
    "learnability-lock": NETWORK | {"network_steps": 2, "learning_rate": 1.0, "rounds": 4, "error": 0},
}
CASES = [(name, {}) for name in PROTECTIONS]
CASES += [("random-noise", {"scope": "class"}), ("em", {"scope": "class"}), ("tap", {"targeted": False})]
every = pytest.mark.parametrize(("name", "settings"), CASES, ids=lambda part: part if isinstance(part, str) else "")


def settings_of(name: str, **changes: Any) -> Settings:
    return resolve_config(name, TINY.get(name, {}) | changes)


def toy(channels: int = 3, size: tuple[int, int] = (12, 14)) -> ImageSet:
    """24 random images of three classes."""
    return in_turn(noise(24, channels, *size), "ant", "bee", "cat")


def drawn(kind: str, images: ImageSet) -> list[Key]:
    """A key of a kind, for these images."""
    if kind == NO_KEY:
        return []
    if kind == SealedKey.kind:
        return [SealedKey.draw()]
    spec = NetworkSpec.of("mlp:width=4", images)
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
@pytest.mark.parametrize(
    ("channels", "size", "epsilon"), [(1, (24, 21), 16), (3, (12, 14), 4), (3, (9, 17), 32)], ids=str
)
def test_shape_and_type_are_kept_and_every_image_changes_within_the_bound(
    name: str, settings: dict[str, Any], channels: int, size: tuple[int, int], epsilon: int
) -> None:
    images, bounded = toy(channels, size), hasattr(settings_of(name), "epsilon_255")
    before = images.images.clone()
    found = copies(images, name, **settings, **{"epsilon_255": epsilon} if bounded else {})
    assert found.shape == images.images.shape and found.dtype == torch.uint8 and found.is_contiguous()
    assert torch.equal(images.images, before), "the originals were written to"
    assert (found != before).flatten(1).any(1).all()
    assert (found.flatten(1).float().std(1) > 1).all(), "a copy without a picture"
    assert not bounded or (found.int() - before.int()).abs().max() <= epsilon


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
def test_a_run_that_is_killed_again_and_again_goes_on_to_the_same_copy(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    keys = drawn(PROTECTIONS[name].takes, toy())
    whole = build(toy(), name, keys, **settings)
    whole.train()
    total = len(whole.log)
    ends = [min(step, total) for step in (2, 3, total)]  # a kill at each; the last time at the last step
    seen: list[int] = []
    for end in (*ends, None):

        def told(row: dict[str, Any], steps: int, end: int | None = end) -> None:
            if "preparing" not in row:
                seen.append(row["step"])
                if row["step"] == end:
                    raise KeyboardInterrupt

        again = build(toy(), name, keys, **settings, workdir=tmp_path / "partial", checkpoint_seconds=0)
        with suppress(KeyboardInterrupt):
            again.train(told)
    # a step's checkpoint follows its report, so that one alone is repeated
    assert not total or seen == [
        n for one, two in zip([1, *ends], [*ends, total], strict=True) for n in range(one, two + 1)
    ]
    assert torch.equal(*(decided(torch.cat(list(each.copies())), keys) for each in (again, whole)))
    assert [row | {"seconds": 0} for row in again.log] == [row | {"seconds": 0} for row in whole.log]
    assert [row["seconds"] for row in again.log] == sorted(row["seconds"] for row in again.log)


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
        with refused(ConfigError, r"takes no key|takes a key of the kind"):
            build(images, name, drawn(kind, images))


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
        ("uge", {"students": ()}, "undistillation needs at least one student"),
        ("uge", {"epsilon_255": 129}, "epsilon 129 is outside 1..128"),
        ("uge", {"feature_objective": "distanse"}, "unknown feature objective 'distanse'; .*distance"),
        ("uge", {"gradient_matching": -1}, "gradient_matching must not be negative, got -1.0"),
        ("uge", {"feature_distance": "nan"}, "feature_distance must not be negative, got nan"),
        ("uge", {"clean_share": 1.5}, "clean_share is a share from 0 to 1, got 1.5"),
        ("uge", {"filters": ()}, "filters is empty"),
        ("uge", {"filters": "none blur+projection"}, "unknown filter 'projection'"),
        ("uge", {"generator_width": 10}, "generator_width must be a multiple of 4, got 10"),
        ("uge", {"gradient_matching": 0, "feature_distance": 0, "undistillation": 0}, "losses are switched off"),
        ("lsp", {"epsilon_255": 8}, "unknown setting 'epsilon_255'"),
        ("ops", {"patch": 1}, "unknown setting 'patch'; there is none"),
        ("lsp", {"rms_255": 0.5}, r"rms_255 must be 1..128 \(8-bit steps\), got 0.5"),
        ("lsp", {"patch": 0}, "patch must be at least 1, got 0"),
        ("lsp", {"separation": "nan"}, "separation must be positive, got nan"),
        ("cuda", {"filter_size": 4}, "filter_size must be odd and at least 3, got 4"),
        ("cuda", {"blur": 0}, "blur is a weight above 0"),
        ("em", {"rounds": 0}, "rounds must be at least 1, got 0"),
        ("em", {"error": 1}, "error is a share from 0 up to 1, got 1.0"),
        ("em", {"network": "resnt"}, "unknown network 'resnt'; did you mean 'resnet'"),
        ("dune", {"network_epochs": 4}, "checkpoints must be at most network_epochs, got 5 and 4"),
        ("dune", {"noise_255": 0}, r"noise_255 must be 1..128 \(8-bit steps\), got 0"),
        ("pil", {"balance": 1.5}, "balance is a share from 0 to 1, got 1.5"),
    ],
)
def test_what_is_wrong_with_a_setting_is_one_line(name: str, changes: dict[str, Any], message: str) -> None:
    with refused(ConfigError, message):
        resolve_config(name, changes)


# --- the work folder


def interrupted(out: Path) -> list[Key]:
    """A work folder as a run leaves it that was stopped at its second step; the run's keys."""
    keys = drawn("initial-weights", toy())

    def stop(row: dict[str, Any], total: int) -> None:
        if row["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protect_and_publish(toy(), keys, out, "uge", settings_of("uge"), seed=0, checkpoint_seconds=0, on_step=stop)
    return keys


def test_a_work_folder_belongs_to_one_run(tmp_path: Path) -> None:
    keys, partial = interrupted(tmp_path / "copy"), tmp_path / "copy.partial"
    before = {file.name: file.read_bytes() for file in partial.iterdir()}
    for images, others, changes, seed in (
        (toy(), keys, {"epsilon_255": 8}, 0),
        (toy(), keys, {}, 1),
        (toy(), drawn("initial-weights", toy()), {}, 0),
        (toy().subset(torch.arange(20)), keys, {}, 0),
    ):
        with refused(PublishError, "holds an unfinished run with other data, keys or settings"):
            protect_and_publish(images, others, tmp_path / "copy", "uge", settings_of("uge", **changes), seed=seed)
    assert {file.name: file.read_bytes() for file in partial.iterdir()} == before


@pytest.mark.parametrize("name", ["checkpoint.pt", "clean-run-0.pt"])
def test_a_damaged_work_folder_says_what_to_delete(tmp_path: Path, name: str) -> None:
    keys, partial = interrupted(tmp_path / "copy"), tmp_path / "copy.partial"
    file = partial / name
    for content in (b"", file.read_bytes()[:1000], b"no checkpoint"):
        file.write_bytes(content)
        with refused(PublishError, f"cannot read {file}, it is damaged; delete {partial} and"):
            protect_and_publish(toy(), keys, tmp_path / "copy", "uge", settings_of("uge"), seed=0)


def test_a_work_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    for workdir in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with refused(PublishError, f"cannot (write|read) {workdir}"):
            build(toy(), "em", workdir=workdir).train()


def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_later(tmp_path: Path) -> None:
    """The operating system refuses every byte of a file beyond a limit, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(row: dict[str, Any], total: int) -> None:
        if row["step"] == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))

    try:
        with pytest.raises(PublishError, match=f"cannot write {tmp_path / 'checkpoint.pt'}.*{os.strerror(27)}"):
            build(toy(), "em", workdir=tmp_path, checkpoint_seconds=0).train(fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert torch.equal(copies(toy(), "em", workdir=tmp_path), copies(toy(), "em"))


@pytest.mark.parametrize("write", [1, 2, 5, 6])
def test_ctrl_c_within_a_write_is_ctrl_c_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    """Raised while torch writes its archive, an interrupt would otherwise come out as torch's RuntimeError."""
    file = tmp_path / "checkpoint.pt"
    checkpoint.save_checkpoint(file, {"step": 1})

    class Interrupted(io.BytesIO):
        writes = 0

        def write(self, data: Any) -> int:
            self.writes += 1
            if self.writes == write:
                raise KeyboardInterrupt
            return super().write(data)

    monkeypatch.setattr(checkpoint.io, "BytesIO", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_checkpoint(file, {"step": 2, "values": torch.zeros(100)})
    monkeypatch.undo()
    assert checkpoint.load_checkpoint(file) == {"step": 1} and list(tmp_path.iterdir()) == [file]
