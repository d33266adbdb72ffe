import io

import pytest
from rich.console import Console

from uge.report.tables import (
    COLUMNS,
    accuracy_table,
    closing_lines,
    countermeasure_label,
    markdown,
    points,
    print_table,
)

from .conftest import HACKERS, make_summary


def test_rows_are_the_summary_in_order() -> None:
    rows = accuracy_table(make_summary())
    assert [row.role for row in rows] == ["authorised"] + ["hacker"] * len(HACKERS) + ["chance"]
    assert [row.published for row in rows] == [54.3, 53.9, 36.0, 35.1, 28.4, 10.0]
    assert rows[0].cells() == ("convnet", "authorised", "key", "57.0", "54.3", "54.3", "\u22122.7")
    assert rows[3].cells() == ("vgg", "plain training", "nothing", "59.5", "35.1", "36.4", "\u221224.4")


def test_seeds_of_one_hacker_share_a_row() -> None:
    summary = make_summary((*HACKERS, ("vgg", "none", "nothing", 37.1, 37.1, 59.5)))
    (vgg,) = [row for row in accuracy_table(summary) if row.network == "vgg" and row.countermeasure == "none"]
    assert (vgg.seeds, vgg.span) == (2, (35.1, 37.1))
    assert vgg.published == pytest.approx(36.1) and vgg.peak == pytest.approx(36.75)


def test_a_missing_clean_run_is_a_dash_and_not_a_zero() -> None:
    rows = accuracy_table(make_summary((("mlp", "none", "nothing", 30.0, 31.0, None),)))
    assert rows[1].cells()[3:] == ("\u2013", "30.0", "31.0", "\u2013")


def test_without_authorised_network_or_hackers() -> None:
    summary = make_summary(())
    assert [row.role for row in accuracy_table(summary)] == ["authorised", "chance"]
    assert closing_lines(summary) == ["No hacker was trained, so there is no margin."]
    summary = make_summary() | {"authorised": None, "margin": None}
    assert [row.role for row in accuracy_table(summary)] == ["hacker"] * len(HACKERS) + ["chance"]
    assert len(closing_lines(summary)) == 1


@pytest.mark.parametrize(("value", "text"), [(1.26, "+1.3"), (-0.01, "0.0"), (-3, "\u22123.0"), (None, "\u2013")])
def test_points(value: float | None, text: str) -> None:
    assert points(value) == text


def test_countermeasure_in_words() -> None:
    assert countermeasure_label("distillation:soft,temperature=4") == "distillation (soft, temperature 4)"
    assert countermeasure_label("jpeg") == "jpeg"
    assert countermeasure_label("jpeg:30+pairs:9,depth=4") == "jpeg (30) + pairs (9, depth 4)"


def test_terminal_table_fits_80_columns_with_every_number_whole() -> None:
    summary = make_summary()
    out = io.StringIO()
    print_table(summary, Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for row in accuracy_table(summary):
        numbers = [cell for cell in row.cells()[3:] if cell]
        assert any(line.split()[-len(numbers) :] == numbers for line in text.splitlines())
    assert text.index("chance") < text.index("Margin") < text.index("Strongest hacker")
    assert "+0.4 points" in text


def test_markdown_has_a_cell_a_column_and_escapes_bars() -> None:
    summary = make_summary((("a|b", "none", "nothing", 30.0, 31.0, 50.0),))
    lines = markdown(accuracy_table(summary)).splitlines()
    assert lines[0] == "| " + " | ".join(COLUMNS) + " |"
    assert lines[2] == "| **convnet** | **authorised** | **key** | **57.0** | **54.3** | **54.3** | **\u22122.7** |"
    assert lines[3] == "| a\\|b | plain training | nothing | 50.0 | 30.0 | 31.0 | \u221220.0 |"
    assert all(line.replace("\\|", "").count("|") == len(COLUMNS) + 1 for line in lines)
