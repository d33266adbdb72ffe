"""The leaderboard in a real browser, on hand-written results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from uge.records import append_record
from uge.report.leaderboard import FILES, markdown, three_digits, write_leaderboards


def group(accuracy: float, countermeasure: str = "none", interval: list[float] | None = None) -> dict[str, Any]:
    return {
        "network": "vgg(depth=8)",
        "countermeasure": countermeasure,
        "knows": "nothing",
        "accuracy": accuracy,
        "peak_accuracy": accuracy + 1,
        "clean_accuracy": 75.0,
        "interval": interval,
    }


def result(name: str, naive: float, worst: float, authorised: float | None, trainings: float | None) -> dict[str, Any]:
    user = {"network": "convnet", "accuracy": authorised, "interval": None, "locked_clean_accuracy": 70.0}
    return {
        "kind": "result",
        "dataset": "cifar <10>",
        "name": name,
        "method": name,
        "seeds": [0, 1, 2],
        "images": 10000,
        "test_images": 2000,
        "image_size": [32, 32],
        "epochs": 30,
        "chance": 10.0,
        "naive": group(naive, interval=[naive - 2, naive + 2]),
        "worst_without_clean": group(worst, "jpeg:10"),
        "worst": group(worst, "jpeg:10"),
        "authorised": None if authorised is None else user,
        "margin": None if authorised is None else authorised - worst,
        "margin_at_peak": None if authorised is None else authorised - worst - 1,
        "hackers": 5,
        "quality": {"psnr_db": 31.0, "ssim": 0.9, "l_inf_255": 8},
        "epsilon_asked_255": 8,
        "cost": None
        if trainings is None
        else {
            "seconds": 100.0,
            "cpu_seconds": 90.0,
            "trainings": trainings,
            "peak_memory_mb": 500.0,
            "parts": 1,
        },
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
def test_the_page_opens_quietly_and_fits(folder: Path, browser: Any, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    heard: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto((folder / FILES[0]).as_uri())
    assert heard == []
    assert [url for url in requested if not url.startswith("data:")] == [(folder / FILES[0]).as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert dark == (scheme == "dark")
    page.close()


def test_any_column_sorts_by_mouse_and_keyboard(folder: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((folder / FILES[0]).as_uri())

    def names() -> list[str]:
        found: list[str] = page.eval_on_selector_all("tbody th .value", "all => all.map(one => one.textContent)")
        return found

    def order() -> list[str]:
        found: list[str] = page.eval_on_selector_all("th[aria-sort]", "all => all.map(one => one.ariaSort)")
        return found

    assert names() == ["lsp", "ours", "em", "<b>theirs</b>"]  # by the worst case; names stay text
    assert order() == ["ascending"]
    page.get_by_role("button", name="plain hacker").click()
    assert names() == ["lsp", "em", "ours", "<b>theirs</b>"]
    page.get_by_role("button", name="plain hacker").press("Enter")
    assert names() == ["<b>theirs</b>", "ours", "em", "lsp"]
    assert order() == ["descending"]
    assert "plain hacker, %, descending" in page.inner_text("[role=status]")
    page.get_by_role("button", name="cost").click()  # 11 after 2, not before; what was not measured comes last
    assert names() == ["lsp", "ours", "em", "<b>theirs</b>"]
    page.get_by_role("button", name="cost").click()
    assert names() == ["em", "ours", "lsp", "<b>theirs</b>"]
    page.get_by_role("button", name="margin").click()
    assert names()[0] == "ours"
    page.get_by_role("button", name="protection").click()
    assert names()[1:] == ["em", "lsp", "ours"]
    page.close()


def test_without_a_script_the_table_is_all_there(folder: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / FILES[0]).as_uri())
    cells = [cell.inner_text() for cell in page.locator("tbody tr").nth(1).locator("th, td").all()]
    assert cells[0] == "ours"
    assert cells[2].startswith("35.0") and "± 2.0" in cells[2] and "clean 75.0" in cells[2]
    assert "jpeg (10)" in cells[4]
    assert cells[6].startswith("+14.0") and "+13.0 against best epochs" in cells[6]
    plot = page.locator("tbody tr").nth(1).locator("svg").bounding_box()  # to be seen without scrolling
    assert plot is not None and plot["x"] + plot["width"] < page.viewport_size["width"]
    context.close()


def test_markdown_escapes_what_would_break_the_table() -> None:
    rows = [result("a|b", 13.0, 20.0, None, None)]
    (line,) = [line for line in markdown(rows).splitlines() if "13.0" in line]
    assert line.startswith("| a\\|b |")


def test_costs_of_any_size_keep_three_digits() -> None:
    assert [three_digits(value) for value in (0.01234, 1.234, 12.34, 1234.5)] == ["0.0123", "1.23", "12.3", "1,234"]
