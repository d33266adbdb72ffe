"""Trees of any shape: each file is an image of a split, counted in one note, or the whole is refused in one line."""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from uge.data import load
from uge.errors import DataError

from ..copy.copies import content
from .conftest import zipped
from .trees import JUNK, NAMES, trees, written

COUNTED = re.compile(r": ([\d,]+) (?:images?|pictures?|other files?|hidden) ")


def accounted_for(source: Path) -> int | None:
    """How many images all splits give and the notes count together; None where the source is refused."""
    stated: dict[str, None] = {}
    images = 0
    for split in ("train", "test", "val"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = load(source, split, convert=True, image_size=(4, 4), skip_bad=True)
            except DataError as error:
                message = str(error).replace(str(source), "d")
                assert len(message) <= 300
                if not re.search(r"has no split|are hidden", message):
                    return None
            else:
                images += len(found)
                assert len(set(found.names)) == len(found)
                assert all(unicodedata.is_normalized("NFC", name) for name in found.class_names)
        stated |= dict.fromkeys(str(warning.message).replace(str(source), "d") for warning in caught)
    kinds = [re.sub(r"[\d,]+", "#", note)[:40] for note in stated]
    assert len(set(kinds)) == len(kinds), "one note a kind"
    return images + sum(int(number[1].replace(",", "")) for note in stated if (number := COUNTED.search(note)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees())
def test_every_file_is_an_image_a_note_or_a_reason_to_refuse(tree: dict[tuple[str, str], int]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "d"
        root.mkdir()
        files = written(root, tree)
        before = content(root)
        found = accounted_for(root)
        event("refused" if found is None else "read")
        assert found in (None, files)
        assert content(root) == before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    classes=st.lists(NAMES, min_size=2, max_size=4),
    splits=st.sampled_from([("",), ("train",), ("train", "test"), ("Training", "valid", "test1")]),
    above=st.sampled_from(["", "pets/", "data/pets/"]),
    junk=st.lists(st.tuples(st.sampled_from(["", "CLASS/"]), st.sampled_from(JUNK)), max_size=4),
)
def test_a_zip_of_a_folder_is_read_as_the_folder_is(
    classes: list[str], splits: tuple[str, ...], above: str, junk: list[tuple[str, str]]
) -> None:
    tree = {(f"{above}{split}/{name}", "0.png"): at for split in splits for at, name in enumerate(classes)}
    tree |= {(f"{above}{splits[0]}/{where.replace('CLASS', classes[0])}", name): 0 for where, name in junk}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "d"
        root.mkdir()
        written(root, tree)
        results = []
        for source in (root, zipped(root, Path(place) / "d.zip")):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = load(source)
                results.append((found.class_names, found.names, found.digest()))
            except DataError as error:
                results.append(str(error).replace(str(source), "d"))
        refused = all(isinstance(result, str) for result in results)
        if refused and any(name.endswith(".parquet") for _, name in junk):
            return  # each for its own reason: tables are read in folders, and not in zips
        if not any("\\" in name for name in classes):  # zips have no folder of that name
            assert results[0] == results[1]


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on this system alone")
def test_a_name_that_is_no_text_is_refused_at_the_start(tmp_path: Path) -> None:
    written(tmp_path, {("tea", "0.png"): 0, ("cat", "0.png"): 1})
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(tmp_path / "cat" / "0.png", os.fsencode(tmp_path) + b"/caf\xe9/0.png")
    with pytest.raises(DataError, match="which is not UTF-8; rename it"):
        load(tmp_path)
