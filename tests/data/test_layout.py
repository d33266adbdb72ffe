"""Which files are images of which class: whatever is none is named or refused, never published for lying near."""

from __future__ import annotations

import pytest

from uge.data.entries import Source
from uge.data.layout import class_layout, split_of
from uge.errors import DataError


def laid_out(*paths: str, tables: dict[str, str] | None = None, **how: object) -> Source:
    """The layout of a tree "d" of these files; `tables` are files with content."""
    contents = dict.fromkeys(paths, "") | (tables or {})
    return class_layout("d", {path: content.encode for path, content in contents.items()}, **how)


def names_of(found: Source, split: str = "train") -> list[str]:
    return [entry.name for entry in found.splits[split]]


def refusal(*paths: str, **how: object) -> str:
    with pytest.raises(DataError) as caught:
        laid_out(*paths, **how)
    message = str(caught.value)
    assert len(message) <= 300 and "\n" not in message and message.startswith("d")
    return message


CAT_AND_DOG = ("cat/0.png", "dog/0.png")


def under(folder: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{file}" for file in CAT_AND_DOG)


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"), ("Training", "train"), ("training_set", "train"), ("train2017", "train"),
        ("TRAIN-1", "train"), ("test1", "test"), ("Test Images", "test"), ("testset", "test"),
        ("val", "val"), ("valid", "val"), ("validation", "val"), ("dev", "val"), ("val2014", "val"),
        ("trainer", None), ("devil", None), ("valley", None), ("cat", None), ("2017", None), ("", None),
    ],
)  # fmt: skip
def test_a_folder_says_its_split(folder: str, split: str | None) -> None:
    assert split_of(folder) == split


@pytest.mark.parametrize("above", ["", "data/", "archive/pets/", "r 1/Data/"])
@pytest.mark.parametrize("inner", ["", "/images", "/same"])
def test_splits_are_found_wherever_they_lie(above: str, inner: str) -> None:
    folders = [f"{above}{name}{inner.replace('same', name)}" for name in ("Training_Set", "test", "valid")]
    strays = sorted([f"{above or 'x/'}logo.png", f"{above}unsorted/cat/7.png"])  # no classes, and no images of one
    found = laid_out(*(file for folder in folders for file in under(folder)), *strays)
    assert found.class_names == ("cat", "dog")
    for split in ("train", "test", "val"):
        assert names_of(found, split) == ["cat/0", "dog/0"]
    assert f"d: 2 images beside the splits passed over: {', '.join(strays)}" in found.notes


@pytest.mark.parametrize(
    "paths",
    [
        ("train/0.png", "test/1.png"),
        ("train/0.png", "test1/1.png", "validation/3.png"),
        ("train2017/0.jpg", "val2017/1.jpg", "annotations/instances.json"),
        ("images/train/0.jpg", "images/val/1.jpg", "labels/train/0.txt"),
        ("VOC2012/JPEGImages/0.jpg", "VOC2012/SegmentationClass/0.png", "VOC2012/Annotations/0.xml"),
        ("jpg/image_00001.jpg", "imagelabels.mat", "setid.mat"),
        ("images/0.png", "cat/0.png", "dog/0.png"),
        ("cat/0.png", "dog/0.png", "reports/accuracy.png"),
        ("cat/0.png", "dog/0.png", "validation/0.png"),
        ("Images/0.png", "IMG/1.png"),
        ("train/images/0.png", "train/cat/1.png", "test/cat/1.png"),
    ],
)
def test_splits_and_containers_are_no_classes(paths: tuple[str, ...]) -> None:
    assert "expected CLASS/*.png" in refusal(*paths)


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (("cat/train/0.png", "cat/test/1.png", "dog/train/0.png"), "'cat' holds the split 'test'"),
        (("cat/train/a/0.png", "dog/train/a/0.png"), "splits in several folders: cat, dog"),
        ((*under("a/train"), *under("b/train")), "splits in several folders: a, b"),
        ((*under("train"), *under("val"), *under("valid")), "two folders for split val: 'val' and 'valid'"),
        ((*under("train"), "bus/0.png"), "'train' is a split or a class, for beside it lie images in bus"),
        (("a.png", "b.png", "c.txt"), "no image in a class folder (but 2 .png, 1 .txt)"),
        (("cat/0.png", "cat/0.jpg", "dog/1.png"), "'cat/0.jpg' and 'cat/0.png' would both be named 'cat/0'"),
        (("cafe\u0301/0.png", "caf\u00e9/0.png"), "would both be named 'caf\u00e9/0'"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(paths: tuple[str, ...], says: str) -> None:
    assert says in refusal(*paths)


def test_a_class_may_be_called_train() -> None:
    assert laid_out("train/0.png", "bus/0.png").class_names == ("bus", "train")
    found = laid_out("train/train/0.png", "train/bus/0.png", "test/train/0.png", "test/bus/1.png")
    assert found.class_names == ("bus", "train") and names_of(found, "test") == ["bus/1", "train/0"]


def test_every_kind_of_file_that_is_none_is_noted_once_with_its_count() -> None:
    found = laid_out(
        *CAT_AND_DOG, "preview.png", "cat/scan.HEIC", "dog/scan.jp2", "dog/b.heic", "labels.csv", "cat/x.txt", "y.TXT",
        "z", empty=("emu",),
    )  # fmt: skip
    assert sorted(found.notes) == [
        "d: 1 folder without an image, so no class: emu",
        "d: 1 image in no class folder passed over: preview.png",
        "d: 3 pictures of a kind that is not read passed over: 2 .heic, 1 .jp2; save them as PNG to have them",
        "d: 4 other files passed over: 2 .txt, 1 .csv, 1 without a suffix, such as cat/x.txt",
    ]


def test_a_class_of_pictures_that_are_not_read_is_not_lost_in_silence() -> None:
    emus = ("emu/0.HEIC", "emu/1.heic", "emu/2.svg")
    assert "of class 'emu' nothing can be read: 2 .heic, 1 .svg" in refusal(*CAT_AND_DOG, *emus)
    found = laid_out(*CAT_AND_DOG, *emus, without=True)
    assert found.class_names == ("cat", "dog")
    assert "d: classes without a file that is read passed over: emu" in found.notes
    found = laid_out(*under("train"), *under("val"), "train/emu/readme.txt")
    assert "d: 1 folder without an image, so no class: emu" in found.notes


def test_splits_without_labels_are_told_apart_from_those_that_are_absent() -> None:
    found = laid_out(*under("train"), "test/1.png", "test/2.png")
    assert found.unlabelled == {"test": 2} and list(found.splits) == ["train"]
    assert "d: 2 images in no class folder passed over: test/1.png, test/2.png" in found.notes


def test_one_name_in_two_unicode_forms_is_one_class() -> None:
    found = laid_out("train/cafe\u0301/0.png", "train/tea/0.png", "test/caf\u00e9/1.png", "test/tea/1.png")
    assert found.class_names == ("caf\u00e9", "tea")
    assert names_of(found, "train")[0] == "caf\u00e9/0" and names_of(found, "test")[0] == "caf\u00e9/1"
    assert "d: folders in two Unicode forms are taken for one class: caf\u00e9" in found.notes


def test_an_order_that_other_loaders_do_not_share_is_noted() -> None:
    assert not laid_out("e\u0301b/0.png", "tea/0.png").notes[1:]
    found = laid_out("e\u0301b/0.png", "fox/0.png")  # decomposed it comes first, composed last
    assert found.class_names == ("fox", "\u00e9b") and "another order" in found.notes[0]


def test_images_deeper_inside_are_of_the_uppermost_folder_and_it_is_said() -> None:
    assert not laid_out("cat/images/0.png", "dog/images/0.png").notes
    found = laid_out("photo/cat/0.png", "photo/dog/0.png", "sketch/cat/0.png")
    assert found.class_names == ("photo", "sketch") and names_of(found)[0] == "photo/cat-0"
    assert found.notes == ("d: an image's class is its uppermost folder, so photo/dog/0.png is of class 'photo'",)


class TestTables:
    """Labels in a table beside pictures that lie in no class folder."""

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("metadata.csv", "file_name,label,text\n0.png,dog,x\n1.png,cat,y\n"),
            ("metadata.csv", "\ufefflabel,file_name\r\ndog,0.png\r\ncat,1.png\r\n"),
            ("metadata.jsonl", '{"file_name": "0.png", "label": "dog"}\n\n{"file_name": "1.png", "label": "cat"}\n'),
            ("val_annotations.txt", "0.png\tdog\t0\t0\t9\t9\n1.png\tcat\t0\t0\t9\t9\n"),
        ],
    )
    @pytest.mark.parametrize("folder", ["", "images/", "train/", "train/images/"])
    def test_labels_come_from_it(self, folder: str, name: str, text: str) -> None:
        images = [f"{folder}{number}.png" for number in range(3)]
        found = laid_out(*images, tables={f"{folder.replace('images/', '')}{name}": text})
        told = [(entry.label, entry.name, entry.where) for entry in found.splits["train"]]
        assert told == [(1, "dog/0", images[0]), (0, "cat/1", images[1])]
        assert found.class_names == ("cat", "dog") and list(found.splits) == ["train"]
        assert len(found.notes) == 1 and "1 image" in found.notes[0] and images[2] in found.notes[0]

    def test_one_above_the_splits_is_for_all_of_them(self) -> None:
        rows = "file_name,label,split\ntrain/0.png,dog,train\ntrain\\1.png,cat,train\ntest/0.png,dog,test\n"
        found = laid_out("train/0.png", "train/1.png", "test/0.png", tables={"metadata.csv": rows})
        assert names_of(found) == ["dog/0", "cat/1"] and names_of(found, "test") == ["dog/0"]
        assert not found.notes

    def test_class_folders_come_first(self) -> None:
        found = laid_out(*CAT_AND_DOG, tables={"metadata.csv": "file_name,label\ncat/0.png,dog\n"})
        assert names_of(found) == ["cat/0", "dog/0"]
        assert "1 other file passed over: 1 .csv" in found.notes[0]

    def test_rows_that_lead_elsewhere_are_noted(self) -> None:
        rows = "file_name,label\n0.png,a\n1.png,b\n../secret.png,a\n/etc/passwd,b\n2.png,a\n"
        found = laid_out("train/0.png", "train/1.png", "secret.png", tables={"train/metadata.csv": rows})
        assert names_of(found) == ["a/0", "b/1"]
        assert "d: 3 rows of train/metadata.csv name no image that lies beside it" in found.notes

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("metadata.csv", "file_name,caption\n0.png,x\n"),
            ("metadata.csv", "name,label\n0.png,x\n"),
            ("metadata.csv", ""),
            ("metadata.csv", "file_name,label,split\n0.png,a,train\n1.png,b,test\n"),  # would all be published
            ("metadata.jsonl", '{"file_name": "0.png", "label": ["a", "b"]}'),
            ("metadata.jsonl", '{"file_name": "0.png", "label": null}'),
            ("metadata.jsonl", '{"file_name": "0.png", "label": -1}'),
            ("metadata.jsonl", "[" * 100_000),
            ("metadata.jsonl", "[]"),
            ("val_annotations.txt", "0.png\n"),
        ],
    )
    def test_a_table_without_one_label_an_image_is_refused(self, name: str, text: str) -> None:
        assert name in refusal("0.png", "1.png", tables={name: text})


def test_a_data_set_as_tiny_imagenet_is_packed() -> None:
    train = [f"t/train/{word}/images/{word}_{n}.JPEG" for word in ("n01", "n02") for n in range(2)]
    val = [f"t/val/images/val_{n}.JPEG" for n in range(2)]
    boxes = [f"t/train/{word}/{word}_boxes.txt" for word in ("n01", "n02")]
    found = laid_out(
        *train, *val, *boxes, "t/test/images/test_0.JPEG", "t/wnids.txt",
        tables={"t/val/val_annotations.txt": "val_0.JPEG\tn02\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n"},
    )  # fmt: skip
    assert found.class_names == ("n01", "n02") and len(found.splits["train"]) == 4
    assert names_of(found, "val") == ["n02/val_0", "n01/val_1"]
    assert found.unlabelled == {"test": 1}
