"""A small file cannot ask for all memory, all of the disk, or no end of time."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uge.data import DataWarning, Limits, load
from uge.data.decoding import UnreadableImage, decode
from uge.errors import DataError

from .conftest import refuses, saved, table, write_images

SMALL = Limits(pixels=4096, bytes=10**6, files=20)


def square(side: int) -> bytes:
    return saved(Image.new("L", (side, side)))


def zip_of(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"cat_0": square(4), "dog_0": square(4), **members}.items():
            archive.writestr(name.replace("_", "/") + ".png", content)
    return path


def npz_header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def test_what_is_within_the_limits_is_read(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(zip_of(tmp_path / "a.zip"), limits=SMALL)) == 2


def test_a_member_that_unpacks_to_too_much_is_one_unreadable_image(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", cat_1=bytes(SMALL.file_bytes + 1))
    roomy = Limits(pixels=4096)
    refuses(path, "cat/1.png: unpacks to 1,064,961 bytes, at most 1,064,960 are read", "--limit pixels=", limits=roomy)
    with pytest.warns(DataWarning, match="passed over 1 unreadable"):
        assert len(load(path, limits=roomy, skip_bad=True)) == 2


def test_a_zip_that_unpacks_to_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", cat_1=bytes(600_000), cat_2=bytes(600_000))
    refuses(path, "asks for", "bytes, at most 1,000,000", "--limit bytes=", limits=SMALL, skip_bad=True)


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d/cat").mkdir(parents=True)
    for number in range(21):
        (tmp_path / f"d/cat/{number}.png").touch()
    refuses(tmp_path / "d", "asks for 21 files, at most 20 are read", "--limit files=21", limits=SMALL)
    path = zip_of(tmp_path / "a.zip", **{f"cat_{n}": b"x" for n in range(1, 20)})
    refuses(path, "asks for 21 files", limits=SMALL)


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(DataError, match=r"x asks for 4,225 pixels, at most 4,096 are read.*--limit pixels=4225"):
        decode(square(65), "x", limits=SMALL)
    assert decode(square(64), "x", limits=SMALL).size == (64, 64)
    before = Image.MAX_IMAGE_PIXELS
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + bytes(4)
    with pytest.raises(DataError):
        decode(bomb, "x")
    assert before == Image.MAX_IMAGE_PIXELS, "other programs' limits stay theirs"


def test_the_limit_of_pixels_can_be_raised_above_that_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(square(64), "x").size == (64, 64)


def test_images_that_grow_in_memory_have_a_limit_together(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", **{f"cat_{n}": square(4) for n in range(1, 9)})
    refuses(path, "asks for", "bytes", limits=SMALL, image_size=(400, 400))


@pytest.mark.parametrize("shape", [(2**50, 4, 4), (2, 2**50, 4), (2**63 - 1,), (10**30, 2, 2), (-1, 4, 4)])
@pytest.mark.parametrize("which", ["images", "labels"])
def test_headers_of_arrays_that_ask_for_more_than_there_is(tmp_path: Path, shape: tuple[int, ...], which: str) -> None:
    good = {"images": npz_header((2, 4, 4)) + bytes(32), "labels": npz_header((2,)) + bytes([0, 1])}
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (good | {which: npz_header(shape)}).items():
            archive.writestr(f"{name}.npy", content)
    refuses(tmp_path / "a.npz", f"the array {which}")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00", npz_header((2, 4, 4))[:-20], b"x" * 200])
def test_headers_of_arrays_that_are_damaged(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("labels.npy", npz_header((2,)) + bytes([0, 1]))
        archive.writestr("images.npy", content)
    refuses(tmp_path / "a.npz", "the array images cannot be read")


def test_arrays_are_read_image_by_image(tmp_path: Path) -> None:
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.npy", npz_header((2,)) + bytes([0, 1]))
        archive.writestr("images.npy", npz_header((2, 4, 4)) + images.tobytes()[:-1])
    refuses(tmp_path / "a.npz", "images ends before image 1")
    np.savez(tmp_path / "b.npz", images=np.zeros((2, 70, 70), np.uint8), labels=[0, 1])
    refuses(tmp_path / "b.npz", "images[0] asks for 4,900 pixels", limits=Limits(pixels=4096))
    np.savez(tmp_path / "c.npz", images=np.asfortranarray(images), labels=[0, 1])
    assert (load(tmp_path / "c.npz").images[:, 0].numpy() == images).all()


def test_tables_that_unpack_to_too_much_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", [bytes(2_000_000), square(4)], [0, 1], compression="zstd")
    assert path.stat().st_size < 10_000
    refuses(path, "asks for", "--limit bytes=", limits=SMALL)
    refuses(path, "train row 0: has 2,000,000 bytes", limits=Limits(pixels=4096))


def test_a_file_without_end_is_an_unreadable_image(tmp_path: Path) -> None:
    write_images(tmp_path / "d", cat_0=np.zeros((4, 4), np.uint8), dog_0=np.zeros((4, 4), np.uint8))
    with (tmp_path / "d" / "cat" / "1.png").open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room
    with pytest.raises(UnreadableImage, match=r"cat/1.png: cannot be read \(has 1,099,511,627,776 bytes"):
        load(tmp_path / "d")
