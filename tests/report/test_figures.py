import io

import numpy as np
import pytest
import torch
from PIL import Image

from uge.report import figures
from uge.report.tables import accuracy_table

from ..images import noise
from .conftest import HACKERS, make_records, make_summary


def test_lines_stay_in_their_box_and_keep_their_direction() -> None:
    drawn = figures.line("term", [1.0, 0.5, 0.0], 2, 1.0)
    assert drawn.points == "0.00,0.00 50.00,50.00 100.00,100.00"
    assert figures.line("term", [0.5], 0, 1.0).points == "0.00,50.00 100.00,50.00"


def test_the_first_screen_has_eight_bars_at_most_and_the_strongest_come_last() -> None:
    rows = figures.bars(accuracy_table(make_summary()))
    assert [row.published for row in rows] == [54.3, 28.4, 35.1, 53.9, 36.0]  # the student after those who do not ask
    many = tuple(("vgg", f"jpeg:{q}", "nothing", float(q), float(q), 60.0) for q in range(20, 32))
    alone = ("vgg", "clean-only:500", "clean images", 59.0, 59.0, 60.0)  # no word about the copy
    rows = figures.bars(accuracy_table(make_summary((*many, *HACKERS[3:], alone))))
    assert [row.published for row in rows] == [54.3, 26.0, 27.0, 28.0, 29.0, 30.0, 31.0, 36.0]
    soft = "distillation:soft,temperature"
    students = tuple(("vgg", f"{soft}={t}", "model outputs", 40.0 + t, 50.0, 60.0) for t in range(9))
    rows = figures.bars(accuracy_table(make_summary((*many, *students))))
    assert [row.published for row in rows] == [54.3, 26.0, 27.0, 28.0, 29.0, 30.0, 31.0, 48.0]
    rows = figures.bars(accuracy_table(make_summary(students)))
    assert [row.published for row in rows] == [54.3, *(42.0 + t for t in range(7))]
    keyless = make_summary((*many, HACKERS[0])) | {"authorised": None, "margin": None}
    assert [row.published for row in figures.bars(accuracy_table(keyless))][-1] == 35.1


def test_bars_are_described_with_their_numbers() -> None:
    rows = figures.bars(accuracy_table(make_summary()))
    text = figures.described(rows, 10.0)
    assert "guessing 10.0" in text and "convnet, recipient: 54.3 on the copy, 57.0 on the originals" in text


def test_curves_pair_each_hacker_with_the_authorised_and_his_own_clean_run() -> None:
    summary = make_summary()
    records = make_records()
    panels = figures.training_curves(accuracy_table(summary), records)
    assert [panel.title for panel in panels] == ["convnet", "resnet(depth=18)", "vgg", "convnet", "vgg"]
    others = [row | {"budget": budget, "test_accuracy": [90.0]} for row in records for budget in (0.25, 2.0)]
    assert figures.training_curves(accuracy_table(summary), records + others) == panels
    assert [line.role for line in panels[0].lines] == ["clean", "authorised"]
    assert [line.role for line in panels[2].lines] == ["clean", "authorised", "hacker"]
    last = {line.role: float(line.points.split(",")[-1]) for line in panels[2].lines}  # % below the top, of 60 %
    assert last == pytest.approx({"clean": 100 - 59.5 / 0.6, "authorised": 100 - 54.3 / 0.6, "hacker": 41.5}, abs=0.01)


def test_the_more_a_hacker_has_is_drawn_with_the_best_of_each_amount() -> None:
    reached = {"clean-mixed:100": 20.0, "clean-mixed:500": 40.0, "clean-mixed:500,times=3": 45.0, "pairs:10": 9.0}
    hackers = tuple(("vgg", how, "clean images", accuracy, 50.0, 60.0) for how, accuracy in reached.items())
    (panel,) = figures.ladders(make_summary(hackers))
    assert panel.description == "clean-mixed, vgg: accuracy with clean images 100: 20.0 %; 500: 45.0 %."


def test_differences_are_amplified_around_gray_without_clipping_the_bound() -> None:
    originals = torch.tensor([100, 100, 100, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    copies = torch.tensor([100, 108, 92, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    factor = figures.amplification(8)
    assert factor == 15
    assert figures.amplified(originals, copies, factor).flatten().tolist() == [128, 248, 8, 128]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 200, 320), (3, 300, 90)])
def test_a_comparison_picture_shows_originals_copies_and_differences(shape: tuple[int, int, int]) -> None:
    originals = noise(9, *shape, least=30, most=219)
    copies = originals + 10
    picture = Image.open(io.BytesIO(figures.comparison_picture(originals, copies)))
    assert picture.format == "PNG" and picture.mode == "RGB" and 400 <= picture.width <= 800
    pixels = np.array(picture).astype(int)
    height = (picture.height - 2 * figures.GAP) // 3
    tops = [row * (height + figures.GAP) for row in range(3)]
    rows = [pixels[top : top + height, figures.MARGIN :] for top in tops]
    images = rows[2].reshape(-1, 3)
    assert {tuple(value) for value in images.tolist()} == {(248,) * 3, (255,) * 3}  # 128 + 12 * 10; white between them
    shown = (rows[2] == 248).all(-1)
    assert (abs((rows[1] - rows[0])[shown] - 10) <= 1).all()  # reduced images are rounded
    assert (pixels[:, : figures.MARGIN] < 100).any()  # the names of the rows


def test_few_images_make_a_narrow_picture() -> None:
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    picture = Image.open(io.BytesIO(figures.comparison_picture(images, images)))
    assert picture.size == (figures.MARGIN + 2 * (96 + figures.GAP), 3 * 96 + 2 * figures.GAP)
