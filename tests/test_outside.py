from __future__ import annotations

import json
import os
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uge.errors import ConfigError
from uge.outside import csv_cell, escaped_markdown, inside, parse_json, printable, read_file, read_toml


def test_a_file_is_read_whole_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_file(file, 5) == b"12345"
    with pytest.raises(OSError) as caught:
        read_file(file, 4)
    assert caught.value.strerror == "has 5 bytes, at most 4 are read"


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Path.mkdir, "is a folder, expected a file"),
        (os.mkfifo, "is a pipe, expected a file"),
        (_socket, "is a socket, expected a file"),
        (lambda path: path.symlink_to("/etc/hostname"), "is a link, and none is followed here"),
    ],
)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], object], kind: str) -> None:
    make(tmp_path / "it")
    with pytest.raises(OSError) as caught:
        read_file(tmp_path / "it", 100)
    assert caught.value.strerror == kind


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/stdin"])
def test_a_device_is_not_read_behind_a_link_either(tmp_path: Path, device: str) -> None:
    (tmp_path / "image.png").symlink_to(device)
    with pytest.raises(OSError, match="expected a file"):
        read_file(tmp_path / "image.png", 100, links=True)


@pytest.mark.parametrize("name", ["a\0b", "\udc80\ud800"])
def test_a_name_that_no_file_can_have_is_an_error_like_others(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError):
        read_file(tmp_path / name, 100)


@pytest.mark.parametrize(
    "text",
    [b"\xff", "[" * 100_000, "NaN", "[Infinity]", "-Infinity", "1e999", "9" * 5000, str(2**63), r'"\ud800"', "{"],
)
def test_json_that_others_would_not_take_is_a_value_error(text: bytes | str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ATOMS = st.none() | st.integers(1 - 2**63, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT


@settings(deadline=None, max_examples=50)
@given(st.recursive(ATOMS, lambda each: st.lists(each) | st.dictionaries(TEXT, each)))
def test_other_json_is_what_it_says(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_settings_that_are_no_toml_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    for content in (b"a = ", b"\xff\xfe", b"a = " + b"[" * 100_000, b"x" * 2**21):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"no TOML|cannot read"):
            read_toml(file, "the plan")
    file.write_bytes(b"\xef\xbb\xbfa = 1")  # as some editors begin a file
    assert read_toml(file, "the plan") == {"a": 1}


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../x", "C:\\x", "C:x", "\\\\host\\x", "", "a\0", "out/x"]
)
def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "out").symlink_to("..")
    with pytest.raises(OSError):
        inside(tmp_path / "root", name)
    assert inside(tmp_path / "root", "a/b.png") == tmp_path / "root" / "a" / "b.png"


@settings(deadline=None)
@given(st.text())
def test_printable_text_is_one_line_and_steers_no_terminal(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in shown)
    assert text.isprintable() <= (shown == text)


def test_what_steers_a_terminal_is_shown_as_what_it_is() -> None:
    text = "a\x1b[2J\nsignature: valid\u202e\ud800\x00 é"
    assert printable(text) == r"a\x1b[2J\x0asignature: valid\u202e\ud800\x00 é"


@settings(deadline=None)
@given(st.text())
def test_markdown_and_tables_take_text_as_text(text: str) -> None:
    assert not set("\n\r|<>[]`*\\@") & set(escaped_markdown(text))
    cell = csv_cell(text)
    assert isinstance(cell, str) and not cell.lstrip().startswith(("=", "+", "-", "@")) and "\n" not in cell


def test_no_address_in_markdown_becomes_a_link() -> None:
    assert escaped_markdown("[ok](https://evil.example)") == "&#91;ok&#93;(https://\u200bevil.example)"
    assert escaped_markdown("www.evil.example <img> a@b.c") == "www\u200b.evil.example &#60;img&#62; a&#64;b.c"
    plain = "vgg(depth=8,width=16), jpeg:30+cut_mix 5 %"
    assert escaped_markdown(plain) == plain


def test_numbers_of_a_table_stay_numbers() -> None:
    assert csv_cell(-1.5) == -1.5 and csv_cell("=1+1") == "'=1+1"
