"""Copies of many images lie in parquet shards: for every reader the same images, labels and names as in files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uge.copy import Copy, forms, open_copy, read_manifest, reader_of, verify
from uge.copy.files import png_bytes
from uge.copy.shards import ShardRow, read_shard, schema_of, shard_bytes
from uge.data import load
from uge.errors import PublishError

from .copies import content, make_set, perturbed, published, published_sealed
from .test_verification import rewrite_sums

COUNT, SHARD = 40, 16
CLEAN = make_set(COUNT)


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    monkeypatch.setattr(forms, "LEAST_SHARDED", COUNT)
    monkeypatch.setattr(forms, "MOST_SHARD_VALUES", SHARD * 3 * 12 * 12)


@pytest.fixture
def folder(key, tmp_path) -> Path:
    published_sealed(tmp_path / "copy", CLEAN, key)
    return tmp_path / "copy"


def test_the_folder_holds_shards_a_manifest_beside_each_and_one_that_binds_them(folder):
    shards = {f"train/{number:05d}.{kind}" for number in range(3) for kind in ("json", "parquet")}
    beside = {"manifest.json", "manifest.sig", "README.md", "SHA256SUMS", ".gitattributes"}
    assert set(content(folder)) == shards | beside
    assert [shard.images for shard in read_manifest(folder).shards] == [16, 16, 8]


def test_from_how_many_images_on_there_are_shards(tmp_path):
    published(tmp_path / "few", make_set(COUNT - 1))
    assert (tmp_path / "few/train/cat").is_dir() and not read_manifest(tmp_path / "few").shards


def test_a_copy_in_shards_is_read_as_one_in_files_is(tmp_path, monkeypatch):
    sharded = published(tmp_path / "shards", CLEAN)
    monkeypatch.setattr(forms, "LEAST_SHARDED", COUNT + 1)
    filed = published(tmp_path / "files", CLEAN)
    assert read_manifest(tmp_path / "shards") == sharded and sharded.images == filed.images
    one, other = (Copy.read(tmp_path / name).images for name in ("shards", "files"))
    assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
    assert (one.names, one.class_names) == (other.names, other.class_names)
    assert torch.equal(reader_of(tmp_path / "shards", sharded)(37), perturbed(CLEAN.images)[37])
    assert verify(tmp_path / "shards", clean=CLEAN).ok


def test_the_recipient_opens_all_of_it(folder, key, tmp_path):
    assert torch.equal(Copy.read(folder, key).view(key).images, CLEAN.images & 0xFE)
    found = verify(folder, clean=CLEAN, key=key)
    assert found.ok and found.letters == found.views == COUNT
    assert open_copy(folder, replace(key, signing_key=None), tmp_path / "opened") == COUNT
    assert torch.equal(load(tmp_path / "opened").images.sort(0).values, (CLEAN.images & 0xFE).sort(0).values)
    assert {name.partition("/")[2] for name in content(tmp_path / "opened")} == {
        entry.file.removeprefix("train/") for entry in read_manifest(folder).images
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_read_by_hugging_face(channels, tmp_path):
    datasets = pytest.importorskip("datasets")
    clean = make_set(COUNT, channels=channels)
    published(tmp_path / "out", clean)
    data = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(data) == ["train"]
    assert data["train"].features["label"].names == list(clean.class_names)  # in label order, as the data has them
    assert data["train"]["label"] == clean.labels.tolist()
    images = np.stack([np.array(row["image"]).reshape(12, 12, channels) for row in data["train"]])
    assert torch.equal(torch.from_numpy(images).permute(0, 3, 1, 2), perturbed(clean.images))


def test_a_copy_in_shards_is_data_like_any_other(tmp_path):
    published(tmp_path / "out", CLEAN)
    with pytest.warns(UserWarning, match="other files passed over"):
        found = load(tmp_path / "out")
    assert torch.equal(found.images, perturbed(CLEAN.images)) and torch.equal(found.labels, CLEAN.labels)
    assert found.class_names == CLEAN.class_names


def test_a_manifest_is_small(tmp_path):
    published(tmp_path / "out", CLEAN)
    data = content(tmp_path / "out")
    entries = [each for name, each in data.items() if name.startswith("train/") and name.endswith(".json")]
    assert sum(map(len, entries)) <= 130 * COUNT


def change(folder: Path, number: int, **facts: object) -> None:
    """Another row in the first shard; sums are rewritten with care."""
    file = folder / "train/00000.parquet"
    rows = list(read_shard(file))
    rows[number : number + 1] = [rows[number]._replace(**facts)] if facts else []
    file.write_bytes(shard_bytes(schema_of(CLEAN.class_names), rows))
    rewrite_sums(folder)


def told(folder: Path, *words: str) -> None:
    problems = verify(folder).problems
    assert problems and all(any(word in problem for problem in problems) for word in words), problems
    with pytest.raises(PublishError):
        Copy.read(folder)


def test_another_image_or_a_missing_row_in_a_shard_is_found(folder):
    change(folder, 15)
    told(folder, "train/00000.parquet: has 15 images, manifest.json says 16", "train/zebra/00015.png")
    change(folder, 1, content=png_bytes(CLEAN.images[1]))
    told(folder, "train/cat/00001.png: pixels changed")


def test_labels_and_names_in_a_shard_are_held_against_the_signed_ones(folder, key):
    """Whoever reads the shards alone would be told wrong ones; our own readers go by the manifest."""
    for facts in ({"label": 0}, {"file": "train/zebra/00001.png"}):
        change(folder, 1, **facts)
        assert "train/cat/00001.png: label or name swapped in its shard" in verify(folder, key=key).problems
        assert Copy.read(folder, key).images.labels[1] == 1


def test_a_shard_with_more_rows_is_found(folder):
    file = folder / "train/00002.parquet"
    rows = [*read_shard(file), ShardRow(png_bytes(CLEAN.images[0]), "train/cat/more.png", 1)]
    file.write_bytes(shard_bytes(schema_of(CLEAN.class_names), rows))
    rewrite_sums(folder)
    assert verify(folder).problems == ("train/00002.parquet: has 9 images, manifest.json says 8",)


@pytest.mark.parametrize("data", [None, b"", b"PAR1 no more", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_shard_that_is_gone_or_no_shard_is_told(data, folder, key, tmp_path):
    file = folder / "train/00001.parquet"
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    told(folder, "16 files:")
    with (
        pytest.warns(UserWarning) if data is None else pytest.raises(PublishError, match="16 of 40 images do not open")
    ):
        assert open_copy(folder, key, tmp_path / "opened") == COUNT - 16


def test_entries_of_a_shard_that_were_edited_are_refused(folder):
    file = folder / "train/00001.json"
    file.write_text(file.read_text().replace('"label":1', '"label":0', 1))
    for read in (read_manifest, Copy.read, verify):
        with pytest.raises(PublishError, match=r"train/00001.json differs from what manifest.json says"):
            read(folder)


def test_a_shard_without_the_manifest_is_no_copy(folder, key, tmp_path):
    with pytest.raises(PublishError, match="holds no PNG file"):
        open_copy(folder / "train", key, tmp_path / "opened")
