"""The leaderboard in a real browser, on hand-written results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from uge.records import append_record
from uge.report.leaderboard import FILES, leaderboard_markdown, three_digits, write_leaderboards

from .conftest import Opener, assert_quiet, worth_of


def group(accuracy: float, countermeasure: str = "none", interval: list[float] | None = None) -> dict[str, Any]:
    who = {"network": "vgg(depth=8)", "countermeasure": countermeasure, "knows": "nothing", "interval": interval}
    return who | {"accuracy": accuracy, "peak_accuracy": accuracy + 1, "clean_accuracy": 75.0}


def result(name: str, naive: float, worst: float, authorised: float | None, trainings: float | None) -> dict[str, Any]:
    user = {"network": "convnet", "accuracy": authorised, "interval": None, "locked_clean_accuracy": 70.0}
    cost = {"seconds": 100.0, "cpu_seconds": 90.0, "trainings": trainings, "peak_memory_mb": 500.0, "parts": 1}
    sizes = {"seeds": [0, 1, 2], "images": 10000, "test_images": 2000, "image_size": [32, 32], "epochs": 30}
    return sizes | {
        "kind": "result",
        "dataset": "cifar <10>",
        "name": name,
        "method": name,
        "chance": 10.0,
        "naive": group(naive, interval=[naive - 2, naive + 2]),
        "worst_without_clean": group(worst, "jpeg:10"),
        "worst": group(worst, "jpeg:10"),
        "authorised": None if authorised is None else user,
        "margin": None if authorised is None else authorised - worst,
        "margin_at_peak": None if authorised is None else authorised - worst - 1,
        "worth": worth_of("vgg(depth=8)", "jpeg:10", worst, originals=None if worst > 90 else 3 * worst),
        "hackers": 5,
        "quality": {"psnr_db": 31.0, "ssim": 0.9, "l_inf_255": 8},
        "epsilon_asked_255": 8,
        "cost": None if trainings is None else cost,
        "why_no_evidence": [],
    }


RECORDS = [
    result("em", 21.0, 80.5, None, 11.0),
    result("ours", 35.0, 44.0, 58.0, 2.0),
    result("lsp", 13.0, 9.5, None, 0.01),
    result("<b>theirs</b>", 90.0, 91.0, None, None),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaderboard")
    for row in RECORDS:
        append_record(folder / "records.jsonl", row)
    assert [file.name for file in write_leaderboards(folder)] == list(FILES)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_opens_quietly_and_fits(folder: Path, open_page: Opener, width: int, scheme: str) -> None:
    page = open_page(folder / FILES[0], width, scheme)
    assert_quiet(page, folder / FILES[0], width)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert dark == (scheme == "dark")


def test_any_column_sorts_by_mouse_and_keyboard(folder: Path, open_page: Opener) -> None:
    page = open_page(folder / FILES[0])

    def names() -> list[str]:
        found: list[str] = page.eval_on_selector_all("tbody th .value", "all => all.map(one => one.textContent)")
        return found

    def sorted_by(column: str) -> list[str]:
        page.get_by_role("button", name=column).click()
        return names()

    assert names() == ["lsp", "ours", "em", "<b>theirs</b>"]  # by the worst case; names stay text
    assert page.locator("th[aria-sort=ascending]").count() == 1
    assert sorted_by("plain hacker") == ["lsp", "em", "ours", "<b>theirs</b>"]
    page.get_by_role("button", name="plain hacker").press("Enter")
    assert names() == ["<b>theirs</b>", "ours", "em", "lsp"]
    assert page.locator("th[aria-sort=descending]").count() == page.locator("th[aria-sort]").count() == 1
    assert "plain hacker, %, descending" in page.inner_text("[role=status]")
    assert sorted_by("cost") == ["lsp", "ours", "em", "<b>theirs</b>"]  # 11 after 2; what was not measured comes last
    assert sorted_by("cost") == ["em", "ours", "lsp", "<b>theirs</b>"]
    assert sorted_by("margin")[0] == "ours"
    assert sorted_by("worth") == ["lsp", "ours", "em", "<b>theirs</b>"]  # more than all originals comes after
    assert sorted_by("protection")[1:] == ["em", "lsp", "ours"]


def test_without_a_script_the_table_is_all_there(folder: Path, open_page: Opener) -> None:
    page = open_page(folder / FILES[0], java_script_enabled=False)
    row = page.locator("tbody tr").nth(1)
    cells = [cell.inner_text() for cell in row.locator("th, td").all()]
    assert cells[0] == "ours"
    assert cells[2].startswith("35.0") and "± 2.0" in cells[2] and "clean 75.0" in cells[2]
    assert "jpeg (10)" in cells[4]
    assert cells[6].startswith("+14.0") and "+13.0 against best epochs" in cells[6]
    assert cells[7].startswith("130") and "120 to 190; vgg(depth=8), jpeg (10)" in cells[7]
    plot = row.locator("svg").bounding_box()  # to be seen without scrolling
    assert plot is not None and plot["x"] + plot["width"] < page.viewport_size["width"]


def test_a_column_without_a_value_is_left_out() -> None:
    text = leaderboard_markdown(RECORDS)
    assert "worth, originals" in text and "with a pretrained encoder" not in text
    before = [{name: value for name, value in row.items() if name != "worth"} for row in RECORDS]
    assert "worth" not in leaderboard_markdown(before)


def test_markdown_escapes_what_would_break_the_table() -> None:
    rows = [result("a|b", 13.0, 20.0, None, None)]
    (line,) = [line for line in leaderboard_markdown(rows).splitlines() if "13.0" in line]
    assert line.startswith("| a&#124;b |")


def test_costs_of_any_size_keep_three_digits() -> None:
    assert [three_digits(value) for value in (0.01234, 1.234, 12.34, 1234.5)] == ["0.0123", "1.23", "12.3", "1,234"]
