"""Every kind of source gives the same images; every mistake gives one clear line."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from uge.data import DataWarning, ImageSet, load, photographs
from uge.errors import DataError

from .conftest import CLASSES, png, refuses, table, write_images, zipped

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

Truth = dict[str, tuple[np.ndarray, np.ndarray]]


def check_same(found: ImageSet, truth: tuple[np.ndarray, np.ndarray], class_names: tuple[str, ...] = CLASSES) -> None:
    pixels, labels = truth
    assert torch.equal(found.images, torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    assert found.labels.tolist() == labels.tolist()
    assert found.class_names == class_names
    assert len(set(found.names)) == len(found)
    assert all(name.startswith(class_names[label] + "/") for name, label in zip(found.names, labels, strict=True))


RGB = np.full((4, 4, 3), 7, np.uint8)
GRAY = np.zeros((2, 4, 4), np.uint8)  # two of them


def hub_table(file: Path, cells: list[dict], labels: list[int], image: str = "image", label: object = None) -> None:
    """A parquet file as the datasets library writes it, with its own kinds of columns."""
    datasets = pytest.importorskip("datasets")
    features = {image: datasets.Image(), "label": label or datasets.ClassLabel(names=list(CLASSES))}
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = datasets.Dataset.from_dict({image: cells, "label": labels}, features=datasets.Features(features))
    rows.to_parquet(file)


def cells_of(folder: Path) -> list[dict]:
    return [{"bytes": file.read_bytes(), "path": file.name} for file in sorted(folder.rglob("*.png"))]


# ------------------------------------------------------------------------------------------ the same images everywhere


@pytest.mark.parametrize("split", ["train", "test"])
class TestRoundTrip:
    def test_folder(self, image_folder: Path, truth: Truth, split: str) -> None:
        found = load(image_folder, split)
        check_same(found, truth[split])
        assert found.names[:2] == ("cat/00000", "cat/00001")

    @pytest.mark.parametrize("prefix", ["", "wrapped/"])
    def test_zip(self, image_folder: Path, tmp_path: Path, truth: Truth, split: str, prefix: str) -> None:
        found = load(zipped(image_folder, tmp_path / "images.zip", prefix), split)
        check_same(found, truth[split])
        assert found.names == load(image_folder, split).names

    def test_folder_without_splits(self, image_folder: Path, truth: Truth, split: str) -> None:
        check_same(load(str(image_folder / split)), truth[split])

    @pytest.mark.parametrize("layout", ["train-00000-of-00002.parquet", "{split}/data.parquet"])
    def test_parquet_folder_written_by_datasets(
        self, image_folder: Path, tmp_path: Path, truth: Truth, split: str, layout: str
    ) -> None:
        root = tmp_path / "tables [1]"
        for part, (_, labels) in truth.items():
            file = root / layout.replace("train", part).format(split=part)
            hub_table(file, cells_of(image_folder / part), labels.tolist())
        found = load(root, split)
        check_same(found, truth[split])
        assert found.names == load(image_folder, split).names

    def test_hub_layout(self, image_folder: Path, tmp_path: Path, truth: Truth, split: str, monkeypatch) -> None:
        """A data set as it lies on the hub, read through the hub's own loader (which takes a path for an id)."""
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
        root = tmp_path / "hub"
        for part, (_, labels) in truth.items():
            file = root / "data" / f"{part}-00000-of-00001.parquet"
            hub_table(file, cells_of(image_folder / part), labels.tolist(), image="img")
        check_same(load(f"hub:{root}", split), truth[split])

    def test_hub_configuration(self, image_folder: Path, tmp_path: Path, truth: Truth, split: str, monkeypatch) -> None:
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
        root, lines = tmp_path / "hub", ["---", "configs:"]
        for name, labels in (("coarse", [0] * 12), ("fine", truth[split][1].tolist())):
            cells = cells_of(image_folder / split)
            file = f"{name}/{split}-00000-of-00001.parquet"
            hub_table(root / file, cells, labels[: len(cells)], image="img")
            lines += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", f"    path: {file}"]
        (root / "README.md").write_text("\n".join([*lines, "---"]))
        refuses(f"hub:{root}", "has several configurations (coarse, fine)", f"hub:{root}:coarse")
        check_same(load(f"hub:{root}:fine", split), truth[split])

    @pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
    def test_npz(self, tmp_path: Path, truth: Truth, split: str, layout: str) -> None:
        order = (0, 3, 1, 2) if layout == "NCHW" else (0, 1, 2, 3)
        arrays = {f"x_{part}": pixels.transpose(order) for part, (pixels, _) in truth.items()}
        arrays |= {f"y_{part}": labels[:, None] for part, (_, labels) in truth.items()}
        np.savez(tmp_path / "a.npz", class_names=np.array(CLASSES), **arrays)
        check_same(load(tmp_path / "a.npz", split), truth[split])


def test_parquet_file_of_plain_bytes_and_strings(image_folder: Path, tmp_path: Path, truth: Truth) -> None:
    contents = [cell["bytes"] for cell in cells_of(image_folder / "train")]
    file = table(tmp_path / "a.parquet", contents, [CLASSES[label] for label in truth["train"][1]])
    check_same(load(file), truth["train"])


def test_parquet_names_that_repeat_are_numbered(tmp_path: Path, truth: Truth, image_folder: Path) -> None:
    cells = [cell | {"path": "same.png"} for cell in cells_of(image_folder / "train")]
    file = table(tmp_path / "a.parquet", cells, truth["train"][1])
    check_same(load(file), truth["train"], ("0", "1", "2"))


def test_datasets_library_agrees_on_a_folder(image_folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for split in ("train", "test"):  # it would put images of test/train/ among the training images
        (image_folder / split / "train").rename(image_folder / split / "emu")
    folder = image_folder.rename(tmp_path / "images")  # and cannot read a folder with brackets in its name
    theirs = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    for split in ("train", "test"):
        ours = load(folder, split)
        assert theirs[split].features["label"].names == list(ours.class_names)
        assert list(theirs[split]["label"]) == ours.labels.tolist()
        for image, row in zip(ours.images, theirs[split], strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(row["image"]))


def test_nothing_is_left_in_the_home_or_beside_the_source(image_folder: Path, tmp_path: Path) -> None:
    zipped(image_folder, tmp_path / "a.zip")
    table(tmp_path / "a.parquet", [png(RGB)] * 2, ["cat", "dog"])
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    before = sorted(tmp_path.rglob("*"))
    code = f"from uge.data import load\nfor s in ('images [1]', 'a.zip', 'a.parquet'): load(r'{tmp_path}/' + s)"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
    environment |= {"HOME": str(home), "TMPDIR": str(scratch), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "" and result.stderr == ""  # no progress bars either
    assert sorted(tmp_path.rglob("*")) == before


# ------------------------------------------------------------------------------------------------------ layout details


def test_published_folder_is_readable(image_folder: Path) -> None:
    shutil.rmtree(image_folder / "test")
    for name in ("manifest.json", "manifest.sig", "README.md", "SHA256SUMS", ".gitattributes"):
        (image_folder / name).write_text("{}")
    with pytest.warns(DataWarning) as stated:
        assert load(image_folder).class_names == CLASSES
    assert len(stated) == 1 and "is a published copy, read as anybody reads it" in str(stated[0].message)


def test_labels_agree_between_splits_when_one_lacks_a_class(image_folder: Path) -> None:
    shutil.rmtree(image_folder / "test" / "cat")
    test = load(image_folder, "test")
    assert test.class_names == CLASSES
    assert test.labels.tolist() == [1, 1, 2, 2]


def test_validation_goes_by_several_names(image_folder: Path, truth: Truth) -> None:
    (image_folder / "test").rename(image_folder / "valid")
    for word in ("val", "validation"):
        check_same(load(image_folder, word), truth["test"])


# ------------------------------------------------------------------------------------------------------ sizes, colours


def test_image_size_cuts_the_centre_then_resizes(tmp_path: Path) -> None:
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200  # the centre square is all that stays
    root = write_images(tmp_path / "d", cat_0=wide, cat_1=wide.T, dog_0=np.full((4, 4), 200, np.uint8))
    found = load(root, image_size=(4, 4))
    assert found.images.shape == (3, 1, 4, 4)
    assert torch.equal(found.images, torch.full((3, 1, 4, 4), 200, dtype=torch.uint8))
    assert load(root, image_size=(2, 3)).image_size == (2, 3)


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (32, 16))  # picking every n-th pixel would give 0 or 255
    found = load(write_images(tmp_path / "d", cat_0=stripes, dog_0=stripes), image_size=(8, 8))
    assert (found.images[..., 2:6].float() - 127.5).abs().max() < 20


def test_mixed_sizes_are_refused(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", cat_0=RGB, dog_0=np.zeros((4, 6, 3), np.uint8))
    refuses(root, "mixed sizes", "cat/0.png is 4x4", "dog/0.png is 4x6", "--image-size")
    refuses(root, "image size 0x5 is empty", image_size=(0, 5))


@pytest.mark.parametrize("order", [f"{bits:04b}" for bits in range(1, 15)])  # every order of four, 0: gray, 1: RGB
def test_mixed_colours(tmp_path: Path, order: str) -> None:
    images = [np.full((4, 4, 3) if kind == "1" else (4, 4), 50 + i, np.uint8) for i, kind in enumerate(order)]
    root = write_images(tmp_path / "d", **{f"{'ab'[i // 2]}_{i}": image for i, image in enumerate(images)})
    first_gray, first_rgb = order.index("0"), order.index("1")
    refuses(root, "mixed colours", f"{first_gray}.png is gray", f"{first_rgb}.png is RGB", "--convert")
    with pytest.warns(DataWarning, match=f"{order.count('0')} of 4 images brought from gray to RGB"):
        found = load(root, convert=True)
    expected = torch.arange(50, 54, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 4, 4)
    assert torch.equal(found.images, expected)


def test_what_is_written_to_the_images_stays_in_memory(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", cat_0=RGB, dog_0=RGB)
    found = load(root)
    found.images.zero_()
    assert not found.images.any() and (load(root).images == 7).all()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_images(tmp_path / "d", cat_0=RGB, dog_0=RGB)
    with Path("/dev/full").open("w+b", buffering=0) as full:
        monkeypatch.setattr("uge.data.splits.tempfile.TemporaryFile", lambda: full)
        refuses(root, "no room for the images", "No space left on device", "TMPDIR")


@pytest.mark.parametrize(
    ("sizes", "own"), [(((8, 8), (8, 8)), False), (((8, 8), (9, 8)), True), (((20, 20), (20, 20)), True)]
)
def test_photographs_are_read_at_their_own_sizes_and_seen_whole_at_one(
    tmp_path: Path, sizes: tuple[tuple[int, int], ...], own: bool
) -> None:
    rng = np.random.default_rng(0)
    pixels = {
        name: rng.integers(0, 256, (*size, 3), np.uint8) for name, size in zip(("cat_0", "dog_0"), sizes, strict=True)
    }
    with photographs(write_images(tmp_path / "d", **pixels), working_size=16) as found:
        assert found.sizes == (sizes if own else None)
        for number, image in enumerate(pixels.values()):
            assert torch.equal(found.own(number), torch.from_numpy(image).permute(2, 0, 1))
            seen = Image.fromarray(image).resize((16, 16), Image.Resampling.LANCZOS) if own else image
            assert torch.equal(found.small.images[number], torch.from_numpy(np.array(seen)).permute(2, 0, 1))
        if own:
            Image.new("RGB", (30, 30)).save(tmp_path / "d" / "cat" / "0.png")
            with pytest.raises(DataError, match="has changed since it was first read"):
                found.own(0)


def test_each_kind_of_conversion_is_stated_once(tmp_path: Path) -> None:
    clear = np.zeros((4, 4, 4), np.uint8)  # fully transparent black
    root = write_images(tmp_path / "d", cat_0=clear, cat_1=clear, dog_0=RGB, dog_1=np.full((4, 4), 0x7234, np.uint16))
    with pytest.warns(DataWarning) as stated:
        found = load(root, convert=True)
    assert sorted(str(w.message) for w in stated) == [
        "1 of 4 images brought from gray to RGB",
        "1 of 4 images cut from 16 to 8 bits",
        "2 of 4 images laid over white (alpha)",
    ]
    assert {w.filename for w in stated} == {__file__}  # points at the caller
    assert found.images[:, :, 0, 0].tolist() == [[255] * 3, [255] * 3, [7] * 3, [0x72] * 3]


def test_convert_says_nothing_when_nothing_was_converted(image_folder: Path, truth: Truth) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same(load(image_folder, convert=True, skip_bad=True), truth["train"])


# -------------------------------------------------------------------------------------------------------------- errors


def test_missing_path_suggests_embedded_names(tmp_path: Path) -> None:
    refuses(tmp_path / "nowhere", "nowhere does not exist", "eurosat")
    refuses("eurosatt", "did you mean 'eurosat'?")
    refuses("x" * 5000, "cannot read", "File name too long")


def test_unknown_kind(tmp_path: Path) -> None:
    hints = {".xyz": ".zip", ".tar": "unpack it", ".csv": "metadata", ".arrow": "to_parquet", ".npy": "numpy.savez"}
    for suffix, instead in hints.items():
        (tmp_path / f"a{suffix}").write_text("x")
        refuses(tmp_path / f"a{suffix}", f"a{suffix} is of an unknown kind", instead)


@pytest.mark.parametrize("kind", ["zip", "npz", "parquet"])
def test_archives_that_are_none_or_cut_short(tmp_path: Path, image_folder: Path, kind: str) -> None:
    whole = zipped(image_folder, tmp_path / "whole").read_bytes()
    for content in (b"", b"text", b"PK\x03\x04 cut short", b"PAR1 no more", whole[: len(whole) // 2]):
        (tmp_path / f"a.{kind}").write_bytes(content)
        refuses(tmp_path / f"a.{kind}", f"a.{kind} is no readable ", kind)


def test_an_empty_folder_or_zip(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for source in (tmp_path / "d", zipped(tmp_path / "d", tmp_path / "a.zip")):
        refuses(source, "holds no image in a class folder", "CLASS/*.png")


def test_absent_split(image_folder: Path) -> None:
    refuses(image_folder, "has no split 'val', only: ", "train", "test", split="val")
    refuses(image_folder / "train", "has no split 'test', only: train", split="test")


@pytest.mark.parametrize("container", ["folder", "zip"])
def test_bad_files_are_named_or_passed_over(image_folder: Path, tmp_path: Path, container: str) -> None:
    whole = (image_folder / "train/cat/00001.png").read_bytes()
    (image_folder / "train/cat/00001.png").write_bytes(whole[: len(whole) // 2])
    (image_folder / "train/dog/00002.png").write_text("no image at all")
    source = image_folder if container == "folder" else zipped(image_folder, tmp_path / "a.zip")
    refuses(source, "train/cat/00001.png: cannot be read (", "truncated", "--skip-bad")
    with pytest.warns(DataWarning, match=r"passed over 2 unreadable of 12 images: .*cat/00001.png, .*dog/00002.png"):
        found = load(source, skip_bad=True)
    assert len(found) == 10
    assert "cat/00001" not in found.names and "dog/00002" not in found.names


def test_skipping_every_image_is_an_error(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", cat_0=RGB, dog_0=RGB)
    for file in root.rglob("*.png"):
        file.write_text("x")
    refuses(root, "holds no readable image", "2 cannot be read", "cat/0.png", skip_bad=True)


def test_broken_link_is_an_unreadable_image(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", cat_0=RGB, dog_0=RGB)
    for name, target, why in (("self.png", "self.png", "is a link"), ("1.png", "gone.png", "No such file")):
        (root / "dog" / name).symlink_to(target)
        refuses(root, f"dog/{name}: cannot be read ({why}")


def test_links_are_followed_inside_of_the_source_but_not_in_circles(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", cat_0=RGB, dog_0=RGB)
    (root / "cat/up").symlink_to(root)
    (root / "cat/across").symlink_to(root / "dog")
    (root / "dog/across").symlink_to(root / "cat")
    (tmp_path / "way").symlink_to(root)
    with pytest.warns(DataWarning, match="each leads back to a folder that it lies in"):
        images = load(tmp_path / "way", "train")
    assert sorted(images.names) == ["cat/0", "cat/across-0", "dog/0", "dog/across-0"]


def test_links_out_of_the_source_publish_nothing_and_are_noted(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", cat_0=RGB, dog_0=RGB)
    secret = write_images(tmp_path / "d-private", puppy_1=np.full((4, 4, 3), 99, np.uint8)) / "puppy"
    (root / "dog/more").symlink_to(secret)
    (root / "dog/1.png").symlink_to(secret / "1.png")
    (root / "emu").symlink_to(Path("..") / "d-private" / "puppy")
    with pytest.warns(DataWarning, match="3 links lead out of it and are passed over.*: dog/1.png, dog/more, emu"):
        assert load(root).names == ("cat/0", "dog/0")
    shutil.rmtree(root / "cat")
    (root / "cat").symlink_to(secret)
    with pytest.warns(DataWarning, match="lead out"):
        refuses(root, "has one class only ('dog')")


def test_a_snapshot_in_a_hub_s_cache_is_read_by_way_of_its_links(tmp_path: Path, image_folder: Path) -> None:
    repository = tmp_path / "hub" / "datasets--someone--pets"
    blobs = repository / "blobs"
    blobs.mkdir(parents=True)
    snapshot = repository / "snapshots" / "0123abc"
    for number, file in enumerate(sorted(image_folder.rglob("*.png"))):
        link = snapshot / file.relative_to(image_folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        file.rename(blobs / f"{number:064x}")
        link.symlink_to(Path(os.path.relpath(blobs / f"{number:064x}", link.parent)))
    (snapshot / "train/cat/other.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.warns(DataWarning, match="1 links lead out"):
        assert len(load(snapshot)) == 12
    with pytest.warns(DataWarning, match="1 links lead out"):
        assert len(load(snapshot / "train")) == 12


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes that have names")
def test_pipes_and_devices_are_no_files(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", cat_0=RGB, dog_0=RGB)
    os.mkfifo(root / "dog/1.png")
    with pytest.warns(DataWarning, match="1 pipes, sockets or devices passed over: dog/1.png"):
        assert len(load(root)) == 2
    for suffix in (".zip", ".npz", ".parquet"):
        os.mkfifo(tmp_path / f"a{suffix}")
        refuses(tmp_path / f"a{suffix}", "is a pipe, expected a file")
    refuses("/dev/zero", "/dev/zero is of an unknown kind")
    (root / "zero.png").symlink_to("/dev/zero")
    with pytest.warns(DataWarning, match="1 links lead out"):
        assert len(load(root)) == 2


class TestZip:
    @pytest.mark.parametrize(
        ("method", "at", "why"),  # in the header, whose name is no UTF-8 then, or behind it
        [(zipfile.ZIP_STORED, 61, "Bad CRC-32"), (zipfile.ZIP_LZMA, 61, ""), (zipfile.ZIP_STORED, 7, "'utf-8' codec")],
    )
    def test_damaged_member_is_an_unreadable_image(
        self, tmp_path: Path, image_folder: Path, method: int, at: int, why: str
    ) -> None:
        path = zipped(image_folder, tmp_path / "a.zip", method=method)
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo("train/dog/00000.png")
        content, start = bytearray(path.read_bytes()), member.header_offset + at
        content[start : start + 40] = bytes(255 - value for value in content[start : start + 40])
        path.write_bytes(content)
        refuses(path, f"train/dog/00000.png: cannot be read ({why}")
        with pytest.warns(DataWarning, match="passed over 1 unreadable of 12 images: .*dog/00000.png"):
            assert len(load(path, skip_bad=True)) == 11

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    @pytest.mark.parametrize(
        ("names", "says"),
        [
            *(([name], f"the unsafe name '{name}'") for name in ("../cat/0.png", "/etc/0.png", "cat/../../0.png")),
            (["..\\cat\\0.png"], "the unsafe name '..\\cat\\0.png'"),
            (["cat/0.png", "cat/0.png"], "'cat/0.png' twice"),
        ],
    )
    def test_names_that_are_unsafe_or_there_twice(self, tmp_path: Path, names: list[str], says: str) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in names:
                archive.writestr(name, b"x")
        refuses(tmp_path / "a.zip", f"holds {says}")

    @pytest.mark.parametrize(
        ("offset", "value", "says"),
        [
            (8, 1, "is encrypted"),
            (10, 9, "is packed with deflate64"),  # what Windows does with large files
            (10, 93, "is packed with method 93"),
            (6, 160, "asks for a newer unzip"),
        ],
    )
    def test_what_cannot_be_unpacked(self, image_folder: Path, offset: int, value: int, says: str) -> None:
        path = zipped(image_folder, image_folder.with_name("a.zip"))
        content = bytearray(path.read_bytes())
        content[content.find(b"PK\x01\x02") + offset] = value
        path.write_bytes(content)
        refuses(path, f"a.zip {says}", "unpack it and give the folder", skip_bad=True)

    @pytest.mark.parametrize(
        ("encoding", "name", "read_as", "noted"),
        [("utf-8", "\u00e9t\u00e9", "\u00e9t\u00e9", False), ("gbk", "\u72d7", "\u2563\u2556", True)],
    )
    def test_names_that_do_not_say_their_encoding(
        self, tmp_path: Path, encoding: str, name: str, read_as: str, noted: bool
    ) -> None:
        raw = name.encode(encoding)
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for folder in ("x" * len(raw), "hiver"):
                archive.writestr(f"{folder}/0.png", png(RGB))
        content = (tmp_path / "a.zip").read_bytes().replace(b"x" * len(raw) + b"/", raw + b"/")
        (tmp_path / "a.zip").write_bytes(content)
        with warnings.catch_warnings(record=True) as stated:
            warnings.simplefilter("always")
            assert set(load(tmp_path / "a.zip").class_names) == {"hiver", read_as}
        assert ["do not say how they are encoded" in str(each.message) for each in stated] == [True] * noted

    def test_what_windows_and_macos_leave_in_it(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in ("d\\cat\\0.png", "d\\dog\\0.png", "__MACOSX/d/cat/._0.png", "d/Thumbs.db", "d/cat/.DS_Store"):
                archive.writestr(name, png(RGB))
            archive.writestr("d/emu/", b"")
            link = zipfile.ZipInfo("d/dog/1.png")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc/passwd")
        with pytest.warns(DataWarning) as stated:
            assert load(tmp_path / "a.zip").names == ("cat/0", "dog/0")
        told = [str(each.message).removeprefix(f"{tmp_path / 'a.zip'}: ") for each in stated]
        assert told[0].startswith("3 hidden or system files passed over")
        assert told[1].startswith("1 links lead out of it") and told[1].endswith("d/dog/1.png")
        assert told[2] == "1 folder without an image, so no class: emu"


class TestNpz:
    @pytest.mark.parametrize(
        "names",
        [
            *(("train_images", "train_labels"), ("X_train", "y_train"), ("images", "labels")),
            *(("x", "y"), ("train_x", "train_y")),
        ],
    )
    def test_arrays_go_by_several_names(self, tmp_path: Path, names: tuple[str, str]) -> None:
        pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
        np.savez(tmp_path / "a.npz", **{names[0]: pixels, names[1]: np.array([[12], [3]], np.uint16)})
        found = load(tmp_path / "a.npz")
        assert torch.equal(found.images, torch.from_numpy(pixels)[:, None]) and found.labels.tolist() == [1, 0]
        assert found.class_names == ("03", "12")  # padded: folders sort as the labels do
        assert found.names == ("12/00000", "03/00001")

    def test_three_splits_as_medmnist_has_them(self, tmp_path: Path) -> None:
        splits = {"train": [2, 0], "val": [0, 1], "test": [1, 2]}
        arrays = {f"{split}_images": GRAY for split in splits}
        arrays |= {f"{split}_labels": np.array(labels, np.uint8)[:, None] for split, labels in splits.items()}
        np.savez_compressed(tmp_path / "a.npz", **arrays)
        found = {split: load(tmp_path / "a.npz", split) for split in splits}
        assert {split: images.labels.tolist() for split, images in found.items()} == splits
        assert {images.class_names for images in found.values()} == {("0", "1", "2")}, "labels agree between splits"

    @pytest.mark.parametrize("kind", [np.array(["kit", "\u00e9mu"]), np.array([b"kit", "\u00e9mu".encode()])])
    def test_names_may_be_bytes(self, tmp_path: Path, kind: np.ndarray) -> None:
        for arrays in ({"labels": kind}, {"labels": [1, 0], "class_names": kind}):
            np.savez(tmp_path / "a.npz", images=GRAY, **arrays)
            assert load(tmp_path / "a.npz").class_names == ("kit", "\u00e9mu")

    def test_other_arrays_are_noted_and_hidden_labels_said(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x_train=GRAY, y_train=[0, 1], x_test=GRAY, y_test=[-1, -1], weights=GRAY)
        with pytest.warns(DataWarning, match="a.npz: 1 other arrays passed over: weights"):
            assert len(load(tmp_path / "a.npz")) == 2
        with pytest.warns(DataWarning):
            refuses(tmp_path / "a.npz", "the labels of the 2 images of split 'test' are hidden", split="test")

    @pytest.mark.parametrize(
        ("arrays", "told"),
        [
            ({"images": np.array([{}, {}], dtype=object)}, ["the array images cannot be read"]),  # pickles are not run
            ({"pictures": GRAY}, ["holds the arrays pictures; expected images and labels"]),
            ({"x_train": GRAY}, ["labels of train"]),
            ({"images": np.zeros((2, 4, 4))}, ["float64", "[2, 4, 4]", "expected uint8 [N, H, W]"]),
            ({"images": GRAY[0]}, ["uint8", "[4, 4]", "expected uint8 [N, H, W]"]),
            ({"images": np.zeros((2, 9, 5, 7), np.uint8)}, ["uint8", "[2, 9, 5, 7]", "expected uint8 [N, H, W]"]),
            ({"images": np.zeros((3, 4, 4), np.uint8)}, ["3 images", "2 labels"]),
            ({"images": GRAY, "labels": np.eye(2, dtype=np.uint8)}, ["labels is [2, 2], several labels an image"]),
            ({"images": np.zeros((2, 4, 4, 4), np.uint8)}, ["images[0]: has an alpha channel"]),
            ({"images": GRAY, "labels": [0.5, 1]}, ["labels are float; expected whole numbers or class names"]),
            ({"images": GRAY, "labels": [0, -1]}, ["images[1] has the label -1"]),
            (
                {"images": GRAY, "labels": [0, 2], "class_names": ["a", "b"]},
                ["images[1] has the label 2; expected one of 2 classes"],
            ),
        ],
    )
    def test_arrays_that_are_no_images_with_labels(self, tmp_path: Path, arrays: dict, told: list[str]) -> None:
        np.savez(tmp_path / "a.npz", **({"labels": [0, 1]} if "images" in arrays else {}) | arrays)
        refuses(tmp_path / "a.npz", *told)


class TestTables:
    def test_damage_that_shows_only_in_the_rows(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).bytes(20_000)
        path = table(tmp_path / "a.parquet", [noise] * 2, [0, 1], compression="zstd", use_dictionary=False)
        content = bytearray(path.read_bytes())
        content[8:200] = bytes(192)
        path.write_bytes(content)
        refuses(path, "a.parquet cannot be read")

    def test_columns_are_missing_or_there_twice(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"image": [b"x"], "caption": ["a"]}), tmp_path / "a.parquet")
        refuses(tmp_path / "a.parquet", "has no label column", "got image, caption")
        pq.write_table(pa.table({"text": ["x"], "label": [1]}), tmp_path / "a.parquet")
        refuses(tmp_path / "a.parquet", "has no image column", "got text, label")
        for names in (["image", "image", "label"], ["image", "label", "label"]):
            pq.write_table(pa.Table.from_arrays([pa.array([b"x"])] * 3, names), tmp_path / "a.parquet")
            refuses(tmp_path / "a.parquet", f"has columns {', '.join(names)}; expected one image and one label")

    def test_bad_cell_is_named_by_its_row(self, tmp_path: Path, image_folder: Path) -> None:
        good = (image_folder / "train/cat/00000.png").read_bytes()
        table(tmp_path / "a.parquet", [good, b"no", None, good], [0, 1, 0, 1])
        refuses(tmp_path / "a.parquet", "a.parquet: train row 1: cannot be read (not an image)")
        with pytest.warns(DataWarning, match=r"passed over 2 unreadable of 4 images: .*row 1, .*row 2"):
            assert load(tmp_path / "a.parquet", skip_bad=True).labels.tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ([[0], [1]], "column label holds lists; expected one label an image"),
            ([{"a": 1}, {"a": 2}], "column label holds dicts; expected one label an image"),
            ([0.5, 1.5], "labels are float; expected whole numbers or class names"),
            ([True, False], "labels are bool"),
            ([None, None], "labels are none"),
        ],
    )
    def test_labels_that_are_none(self, tmp_path: Path, values: list[object], says: str) -> None:
        refuses(table(tmp_path / "a.parquet", [png(RGB)] * 2, values), says)

    @pytest.mark.parametrize("labels", [pa.array(["kit", "cat"]).dictionary_encode(), [b"kit", b"cat"]])
    def test_labels_may_be_categories_or_bytes(self, tmp_path: Path, labels: object) -> None:
        assert load(table(tmp_path / "a.parquet", [png(RGB)] * 2, labels)).class_names == ("cat", "kit")

    @pytest.mark.parametrize("listed", [False, True])
    def test_hidden_labels_are_said(self, tmp_path: Path, listed: bool) -> None:
        datasets = pytest.importorskip("datasets")
        label = datasets.ClassLabel(names=["cat", "dog"]) if listed else datasets.Value("int64")
        for split, labels in (("train", [0, 1]), ("test", [-1, -1]), ("validation", [1, 0])):
            hub_table(tmp_path / f"{split}-00000-of-00001.parquet", [{"bytes": png(RGB)}] * 2, labels, label=label)
        assert load(tmp_path).labels.tolist() == [0, 1] and load(tmp_path, "val").labels.tolist() == [1, 0]
        refuses(tmp_path, "the labels of the 2 images of split 'test' are hidden", "train, val", split="test")

    @pytest.mark.parametrize("path", ["C:\\Users\\me\\kit.png", "/home/me/kit.png", "..\\..\\kit.png", "a/kit.png"])
    def test_names_are_without_the_folders_of_whoever_made_it(self, tmp_path: Path, path: str) -> None:
        cells = [{"bytes": png(RGB), "path": path}, {"bytes": png(RGB), "path": None}]
        assert load(table(tmp_path / "a.parquet", cells, ["cat", "dog"])).names == ("cat/kit", "dog/00001")

    @pytest.mark.parametrize("path", ["secret.png", "./secret.png", "{root}/secret.png", "a\0b", "https://x.org/a.png"])
    def test_files_that_a_table_names_are_not_read(self, tmp_path: Path, path: str) -> None:
        write_images(tmp_path, secret=RGB)
        cells = [{"bytes": png(RGB), "path": None}, {"bytes": None, "path": path.format(root=tmp_path)}]
        file = table(tmp_path / "a.parquet", cells, ["cat", "dog"])
        refuses(file, "a.parquet: train row 1: names the file", "are not read", skip_bad=True)

    def test_text_in_the_image_column_is_said_in_one_short_line(self, tmp_path: Path) -> None:
        text = base64.b64encode(png(np.zeros((64, 64, 3), np.uint8)) * 9).decode()
        file = table(tmp_path / "a.parquet", [text] * 2, [0, 1])
        with pytest.raises(DataError, match=r"holds text \('iVBORw0KGgo.*base64") as caught:
            load(file)
        assert len(str(caught.value)) < 300 + len(str(tmp_path)) and "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "files",
        [
            ("fine/train-00000-of-00001.parquet", "coarse/train-00000-of-00001.parquet"),
            ("cats/train/0000.parquet", "dogs/train/0000.parquet"),
            ("cats-train.parquet", "dogs-train.parquet", "dogs-test.parquet"),
            ("train.parquet", "extra.parquet"),
        ],
    )
    def test_two_data_sets_in_one_folder_are_not_one(self, tmp_path: Path, files: tuple[str, ...]) -> None:
        for file in files:
            table(tmp_path / file, [png(RGB)] * 2, [0, 1])
        refuses(tmp_path, "holds parquet files of 2 data sets", files[0])

    @pytest.mark.parametrize(
        "files",
        [
            (
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/test-00000-of-00001.PARQUET",
            ),
            ("default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"),
            ("pets-train-1.parquet", "pets-train-2.parquet", "pets_test.parquet"),
        ],
    )
    def test_parts_of_one_data_set_are(self, tmp_path: Path, files: tuple[str, ...]) -> None:
        for number, file in enumerate(files):
            table(tmp_path / file, [png(np.full((4, 4, 3), number, np.uint8))] * 2, [0, 1])
        assert load(tmp_path).images[:, 0, 0, 0].tolist() == [0, 0, 1, 1]
        assert load(tmp_path, "test").images[:, 0, 0, 0].tolist() == [2, 2]

    def test_what_save_to_disk_wrote_is_said_by_name(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        rows = datasets.Dataset.from_dict({"label": [0, 1]})
        rows.save_to_disk(str(tmp_path / "a"))
        datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "b"))
        for folder in ("a", "b"):
            refuses(tmp_path / folder, "was written by save_to_disk", "to_parquet")

    def test_hub_offline(self) -> None:
        refuses("hub:nobody/nothing", "hub:nobody/nothing cannot be read", "check the name and the network")


# ------------------------------------------------------------------------------------------------------ real image sets


@pytest.mark.parametrize(
    ("name", "split", "shape", "classes"),
    [
        ("cifar10-12k.zip", "train", (10_000, 3, 32, 32), 10),
        ("cifar10-12k.zip", "test", (2_000, 3, 32, 32), 10),
        ("cifar100-6k.zip", "test", (1_000, 3, 32, 32), 100),  # has a class called train
        ("tinyimagenet20-5k.zip", "test", (1_000, 3, 64, 64), 20),  # JPEG, some of them gray
    ],
)
@pytest.mark.filterwarnings("ignore::uge.data.DataWarning")
def test_shared_zips(name: str, split: str, shape: tuple[int, ...], classes: int) -> None:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the real images in {SHARED}")
    start = time.process_time()  # not the clock on the wall, which other tests slow down
    found = load(path, split, convert=name.startswith("tiny"))
    seconds = time.process_time() - start
    assert tuple(found.images.shape) == shape
    assert found.classes == classes
    assert found.labels.bincount().tolist() == [shape[0] // classes] * classes
    assert seconds < 5  # about 1.3 for the 10,000
    with zipfile.ZipFile(path) as archive:
        member = min(name for name in archive.namelist() if name.startswith(split))
        first = np.asarray(Image.open(archive.open(member)).convert("RGB"))
    assert np.array_equal(found.images[0].permute(1, 2, 0).numpy(), first)
