import io
from base64 import b64decode

import numpy as np
import pytest
import torch
from PIL import Image

from uge.report import figures
from uge.report.tables import accuracy_table

from .conftest import HACKERS, make_records, make_summary


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.803, -0.5), (3.0, 3.0), (0.0, 0.0), (1e-6, 3e-6)])
def test_nice_ticks_enclose_the_values(low: float, high: float) -> None:
    ticks = figures.nice_ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1] and ticks[0] < ticks[-1]
    assert 2 <= len(ticks) <= 6


def test_lines_stay_in_their_box_and_keep_their_direction() -> None:
    drawn = figures.line("term", [(0, 1.0), (5, 0.5), (10, 0.0)], (0, 10), [0.0, 1.0])
    assert drawn.points == "0.00,0.00 50.00,50.00 100.00,100.00"
    assert figures.line("term", [(7, 0.5)], (7, 7), [0.0, 1.0]).points == "0.00,50.00 100.00,50.00"


def test_long_lines_are_shortened_to_means() -> None:
    values = [(float(n), float(n % 2)) for n in range(10_000)]
    short = figures.shorten(values)
    assert len(short) == figures.MOST_POINTS
    assert {y for _, y in short} == {0.5}
    assert figures.shorten(values[:3]) == values[:3] and figures.shorten([]) == []


def test_dots_hold_every_accuracy_inside_the_axis() -> None:
    plot = figures.dot_plot(accuracy_table(make_summary()), 10.0)
    assert plot.top == 60
    assert plot.place(30.0) == 50
    assert [row.role for row in plot.rows] == ["authorised"] + ["hacker"] * len(HACKERS)
    assert figures.dot_plot(accuracy_table(make_summary(accuracy=99.9)), 10.0).top == 100


def test_curves_pair_each_hacker_with_the_authorised_and_his_own_clean_run() -> None:
    summary = make_summary()
    panels = figures.training_curves(accuracy_table(summary), make_records(summary))
    assert [panel.title for panel in panels] == ["convnet", "convnet", "vgg", "vgg", "resnet(depth=18)"]
    records = make_records(summary)
    others = [row | {"budget": budget, "test_accuracy": [90.0]} for row in records for budget in (0.25, 2.0)]
    assert figures.training_curves(accuracy_table(summary), records + others) == panels
    assert [line.role for line in panels[0].lines] == ["clean", "authorised"]
    assert [line.role for line in panels[2].lines] == ["clean", "authorised", "hacker"]
    last = {line.role: float(line.points.split(",")[-1]) for line in panels[2].lines}  # % below the top, of 60 %
    assert last == pytest.approx({"clean": 100 - 59.5 / 0.6, "authorised": 100 - 54.3 / 0.6, "hacker": 40}, abs=0.01)


def test_terms_that_were_off_have_no_panel() -> None:
    log = [{"step": n, "loss": 1.0, "gradient_matching": 0.1 * n, "undistillation": None} for n in range(3)]
    assert [panel.title for panel in figures.loss_panels(log)] == ["total loss", "gradient matching"]
    assert figures.loss_panels([]) == []
    long = [{"step": n, "loss": float(n)} for n in range(5000)]
    assert figures.loss_panels(long)[0].subtitle == "0 → 5e+03"  # the first step and the last, not means around them


def test_differences_are_amplified_around_gray_without_clipping_the_bound() -> None:
    originals = torch.tensor([100, 100, 100, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    copies = torch.tensor([100, 108, 92, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    factor = figures.amplification(8)
    assert factor == 15
    assert figures.amplified(originals, copies, factor).flatten().tolist() == [128, 248, 8, 128]


@pytest.mark.parametrize("channels", [1, 3])
def test_data_uris_hold_the_pixels(channels: int) -> None:
    image = torch.randint(0, 256, (channels, 6, 4), generator=torch.Generator().manual_seed(0)).byte()
    uri = figures.png_uri(image)
    pixels = np.array(Image.open(io.BytesIO(b64decode(uri.removeprefix("data:image/png;base64,")))))
    assert (pixels.reshape(6, 4, channels) == image.permute(1, 2, 0).numpy()).all()
