from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from uge.audit.metrics import summarise
from uge.report import figures
from uge.report.audit import audit_markdown, data_card, epsilon_text
from uge.report.page import ReportInput, training_facts, write_page
from uge.report.tables import accuracy_table
from uge.runtime import without_folders

from .conftest import HACKERS, Opener, assert_quiet, make_records, make_summary


@pytest.fixture(scope="session")
def pages(report_input: ReportInput, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("report")
    files = {"private": folder / "private.html", "public": folder / "public.html"}
    write_page(report_input, files["private"])
    write_page(report_input, files["public"], public=True)
    return files


@pytest.fixture
def page(pages: dict[str, Path], open_page: Opener) -> Any:
    """The private page, open in a browser."""
    return open_page(pages["private"])


@pytest.mark.parametrize("version", ["private", "public"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_opens_quietly_and_fits(
    pages: dict[str, Path], open_page: Opener, version: str, scheme: str, width: int
) -> None:
    page = open_page(pages[version], width, scheme)
    assert_quiet(page, pages[version], width)
    unscrolled = "box => [box.scrollWidth, box.clientWidth]"
    content, box = page.eval_on_selector("#accuracy", f"table => ({unscrolled})(table.parentElement)")
    assert content <= box  # the main table is read without scrolling, on a phone too
    assert page.eval_on_selector_all("img", "all => all.every(one => one.complete && one.naturalWidth > 0)")


def test_long_names_of_networks_fit_on_a_phone(report_input: ReportInput, open_page: Opener, tmp_path: Path) -> None:
    name = "convnet(frozen_stem,stem=2,stem_width=16,width=32,depth=12)"
    published = [each for each in report_input.records if each["trained_on"] == "published"]
    records = json.loads(json.dumps(published).replace('"convnet"', json.dumps(name)))
    write_page(replace(report_input, summary=summarise(records, classes=10), records=records), tmp_path / "page.html")
    page = open_page(tmp_path / "page.html", 390)
    assert name in page.inner_text(".details")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "originals" not in page.inner_text(".first .legend")  # of which there are none


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(pages: dict[str, Path], open_page: Opener, scheme: str) -> None:
    page = open_page(pages["private"], scheme=scheme)
    read = "name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()"

    def luminance(name: str) -> float:
        value = page.evaluate(read, name)
        parts = [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper = luminance("--paper")
    assert (paper > 0.5) == (scheme == "light")
    for name, least in (("--ink", 4.5), ("--soft", 4.5), ("--authorised", 4.5), ("--hacker", 4.5), ("--clean", 3.0)):
        low, high = sorted((paper, luminance(name)))
        assert (high + 0.05) / (low + 0.05) >= least, name


def test_table_is_the_summary(page: Any, report_input: ReportInput) -> None:
    read = "rows => rows.map(row => [...row.querySelectorAll('.network, td')].map(cell => cell.innerText.trim()))"
    shown = page.eval_on_selector_all("#accuracy tbody tr:not(.part)", read)
    titles = page.eval_on_selector_all("#accuracy tr.part", "all => all.map(one => one.innerText)")
    assert titles == ["Hackers: the margin is measured against these", "Hackers who query the recipient's network"]
    assert [tuple(cells) for cells in shown] == [row.cells() for row in accuracy_table(report_input.summary)]
    assert page.locator("#accuracy thead th[scope=col]").count() == len(shown[0])
    assert page.locator("#accuracy tbody th[scope=row]").count() == len(shown)
    foot = page.inner_text("#accuracy tfoot")
    assert "+0.4 points" in foot and "convnet, same network, no key, 53.9" in foot and "36.0\u00a0%" in foot
    assert page.locator("#trainings tbody tr").count() == len(report_input.records)
    screened = training_facts(report_input.records[2] | {"budget": 0.1}, public=True)
    assert screened["trained_on"] == "the copy, 0.1 times the epochs"  # and no training like the others


def test_every_picture_is_described_and_focus_reaches_what_folds(page: Any) -> None:
    assert page.eval_on_selector_all("img", "all => all.every(one => one.alt)")
    assert page.eval_on_selector_all("svg", "all => all.every(one => one.closest('[aria-hidden=true]'))")
    described = page.eval_on_selector_all("[role=img]", "all => all.map(one => one.getAttribute('aria-label'))")
    assert len(described) == 2 + 2 + 5 and all(len(text) > 20 for text in described)  # bars, worths, curves
    headings = page.eval_on_selector_all("h1, h2, h3", "all => all.map(one => one.tagName)")
    assert headings[0] == "H1" and headings.count("H1") == 1
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = false)")
    page.focus("details:first-of-type summary")
    page.keyboard.press("Enter")
    assert page.locator("details:first-of-type[open]").count() == 1


def test_bars_and_marks_are_as_long_as_the_numbers_say(page: Any) -> None:
    shares = page.eval_on_selector_all(
        "#bars .track",
        """tracks => tracks.map(track => ['.fill', '.clean', '.guess'].map(name => {
            const mark = track.querySelector(name).getBoundingClientRect(), box = track.getBoundingClientRect();
            const end = name === '.fill' ? mark.right : mark.left + (name === '.clean' ? mark.width / 2 : 0);
            return 100 * (end - box.left) / box.width; }))""",
    )
    assert [share[0] for share in shares] == pytest.approx([54.3, 28.4, 35.1, 53.9, 36.0], abs=0.2)
    assert [share[1] for share in shares] == pytest.approx([57.0, 53.3, 59.5, 57.2, 59.5], abs=0.2)
    assert all(share[2] == pytest.approx(10, abs=0.3) for share in shares)
    assert page.locator("#bars .asks").count() == 1  # the student


@pytest.mark.parametrize(("width", "picture"), [(400, False), (1200, True)])
def test_the_first_screen_is_a_sentence_margin_worth_three_bars_and_the_picture(
    report_input: ReportInput, open_page: Opener, tmp_path: Path, width: int, picture: bool
) -> None:
    more = tuple(("vgg", how, "nothing", 20.0, 21.0, 59.5) for how in ("grayscale", "jpeg:10", "blur:1", "pool:2"))
    hackers = (*more, HACKERS[0], HACKERS[2], HACKERS[3])
    summary = make_summary(hackers, 76.2, sealed=True) | {"worth": report_input.summary["worth"]}
    data = replace(report_input, summary=summary, records=make_records(hackers, 76.2, sealed=True))
    write_page(data, tmp_path / "page.html")
    page = open_page(tmp_path / "page.html", width)
    assert page.inner_text("h1") == "The protection holds in this run"
    assert page.inner_text("#verdict").count(".") == 2  # one sentence and its number
    numbers = page.eval_on_selector_all(".headline .value", "all => all.map(one => one.innerText)")
    assert numbers == ["+41.1 points", "150 originals", "> 5,000 originals"]
    assert "(95 %: 120 to 190)" in page.inner_text(".headline").replace("\u00a0", " ")
    short = page.eval_on_selector_all("#short .value", "all => all.map(one => one.innerText)")
    assert short == ["76.2", "35.1", "10.0"]
    for what in ("h1", "#verdict", ".first-caution", ".headline", "#short", *([".examples"] * picture)):
        box = page.locator(what).bounding_box()
        assert box is not None and box["y"] + box["height"] <= 860, what
    assert page.locator("#bars .bar").count() == 8


def test_the_worth_is_drawn_as_a_curve_and_the_level_of_the_copy(page: Any) -> None:
    section = page.locator("section[aria-labelledby=worth]")
    assert "5,000 copies are worth 150 originals to the strongest hacker." in section.inner_text()
    assert section.locator(".panel").count() == section.locator(".panel .line.hacker").count() == 2
    assert "pretrained-probe: more than 5,000 originals (95 %: 4,600 to more than 5,000)" in section.inner_text()
    curve = section.locator(".panel .line.clean").first.get_attribute("points")
    assert len(curve.split()) == 6 and curve.startswith("0.00,83.33 20.00,66.67")  # of 60 percent: 10, then 20


def test_no_sentence_is_long(page: Any) -> None:
    for text in page.eval_on_selector_all("h1, h2, p, li, caption", "all => all.map(one => one.innerText)"):
        for sentence in re.split(r"(?<=[.])\s", re.sub(r"\(.*?\)", "", text)):
            assert len(sentence.replace("\u00a0%", "").split()) <= 20, sentence


def test_prints_on_white_with_details_unfolded(pages: dict[str, Path], open_page: Opener) -> None:
    page = open_page(pages["private"], width=720, scheme="dark")
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = false)")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.eval_on_selector("#trainings", "table => table.checkVisibility({contentVisibilityProperty: true})")
    # Folded again on the screen: the check above can tell the two apart.
    page.emulate_media(media="screen")
    assert not page.eval_on_selector("#trainings", "table => table.checkVisibility({contentVisibilityProperty: true})")


def test_epsilon_is_what_was_measured_and_a_manifest_that_says_otherwise_is_told(report_input: ReportInput) -> None:
    manifest = report_input.manifest | {"epsilon_asked": 4, "epsilon_measured": 4}
    assert epsilon_text(manifest, {"l_inf_255": 16.0}) == (
        "epsilon 16/255 measured, though its manifest states 4/255, 4/255 allowed"
    )
    assert epsilon_text(manifest, {}) == "epsilon 4/255 by its manifest, 4/255 allowed"
    assert epsilon_text(manifest | {"epsilon_measured": None}, {}) == "no manifest, so no bound is stated"


def test_a_size_is_height_x_width_wherever_it_stands(report_input: ReportInput, tmp_path: Path) -> None:
    data = replace(report_input, manifest=report_input.manifest | {"image_size": (24, 40), "sha256": None})
    write_page(data, tmp_path / "page.html")
    texts = (tmp_path / "page.html").read_text(), audit_markdown(data), data_card(data, "name", None)["description"]
    assert [text.count("24 x 40 pixels (height x width)") for text in texts] == [2, 2, 1]


def test_private_page_says_so_and_shows_the_pairs(pages: dict[str, Path], report_input: ReportInput) -> None:
    html, examples = pages["private"].read_text(), report_input.examples
    assert examples is not None
    assert html.index("Private: keep this page to yourself") < html.index("<h1>")
    differences = figures.amplified(examples.originals, examples.copies.images, figures.amplification(16))
    assert all(figures.png_uri(image) in html for images in (examples.copies.images, differences) for image in images)


def test_names_from_folders_are_text_and_not_markup(pages: dict[str, Path]) -> None:
    html = pages["private"].read_text()
    assert "field &amp; &lt;b&gt;meadow&lt;/b&gt;" in html and "<b>meadow</b>" not in html


def test_numbers_of_the_copy_are_shown(page: Any, report_input: ReportInput) -> None:
    text = page.inner_text("section[aria-labelledby=protection]")
    assert f"{report_input.quality['psnr_db']:.1f} dB" in text and f"{report_input.quality['ssim']:.3f}" in text
    assert text.count("16 / 255") == 2
    assert "By the manifest, no value differs by more than 16" in page.inner_text(".picture").replace("\u00a0", " ")


def test_a_bare_report_is_still_a_page(report_input: ReportInput, tmp_path: Path, open_page: Opener) -> None:
    bare = ReportInput(make_summary(()), [], {}, report_input.manifest)
    write_page(bare, tmp_path / "bare.html")
    page = open_page(tmp_path / "bare.html", width=390)
    assert page.heard == []
    assert "No hacker was trained" in page.inner_text("h1")
    assert page.locator("img, .panel, details").count() == 0
    assert "What the copy is worth was not measured" in page.inner_text(".headline")
    nobody = replace(bare, summary=make_summary() | {"authorised": None, "margin": None})
    write_page(nobody, tmp_path / "bare.html")
    assert "Nobody trained with a key" in (tmp_path / "bare.html").read_text()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/alice/private/model", "model"),
        ("clip:/home/alice/model", "clip:model"),
        ("own-pairs:data=/home/a/x.zip,steps=9+jpeg:30", "own-pairs:data=x.zip,steps=9+jpeg:30"),
        ("own-pairs:../shared/x.zip", "own-pairs:x.zip"),
        ("C:\\users\\alice\\x.zip", "x.zip"),
        ("/home/al ice/my model", "my model"),
        ("hub:org/name", "hub:org/name"),
        ("own-pairs:data=private/x.zip", "own-pairs:data=x.zip"),
        ("averages:private/copy", "averages:copy"),
        ("own-pairs:hub:org/name,steps=9", "own-pairs:hub:org/name,steps=9"),
        ("own-pairs:data=hub:org/name", "own-pairs:data=hub:org/name"),
        ("own-pairs:private/deep/x.zip,steps=9", "own-pairs:x.zip,steps=9"),
        ("pretrained-probe:clip:models/private/mine", "pretrained-probe:clip:mine"),
        ("pretrained-probe:clip:org/name", "pretrained-probe:clip:org/name"),
        ("'/home/alice/x'", "'x'"),
        ("file:///home/alice/x", "x"),
        ("see (/home/alice/x)", "see (x)"),
        ("light / dark", "light / dark"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("convnet(width=32), 3/255", "convnet(width=32), 3/255"),
    ],
)
def test_folders_are_taken_from_paths_wherever_they_stand(text: str, left: str) -> None:
    assert without_folders({"deep": [text, (text, 3)]}) == {"deep": [left, (left, 3)]}
