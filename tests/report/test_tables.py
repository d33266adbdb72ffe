import io

import pytest
from rich.console import Console

from uge.report.tables import (
    accuracy_table,
    closing_lines,
    countermeasure_label,
    interval_of,
    originals,
    originals_between,
    parts,
    points,
    print_table,
    strongest,
    worth_words,
)

from .conftest import HACKERS, make_summary, worth_of


def test_the_strongest_comes_last_and_students_apart() -> None:
    rows = accuracy_table(make_summary())
    assert [row.role for row in rows] == ["authorised"] + ["hacker"] * len(HACKERS) + ["chance"]
    assert [row.published for row in rows] == [54.3, 28.4, 35.1, 53.9, 36.0, 10.0]
    assert rows[0].cells() == ("convnet", "recipient", "key", "57.0", "54.3", "54.3", "\u22122.7")
    assert rows[2].cells() == ("vgg", "plain training", "nothing", "59.5", "35.1", "36.4", "\u221224.4")
    assert [len(members) for _, members in parts(rows)] == [1, 3, 1, 1]


def test_controls_stand_apart_and_set_no_margin() -> None:
    stolen = ("convnet", "stolen-key", "key", 56.0, 57.0, 57.0)
    alone = ("vgg", "clean-only:500", "clean images", 56.5, 57.0, 57.0)
    summary = make_summary((*HACKERS, stolen, alone))
    titles = [(title, len(members)) for title, members in parts(accuracy_table(summary))]
    assert titles[3] == ("Controls, who count for no margin", 2)
    assert summary["margin"] == pytest.approx(0.4)


def test_the_margin_leaves_students_out_and_names_them() -> None:
    summary = make_summary((HACKERS[0], ("vgg", "distillation:soft", "model outputs", 53.0, 54.0, 59.5)))
    assert summary["margin"] == pytest.approx(54.3 - 35.1)
    assert strongest(summary, asking=True)["accuracy"] == 53.0
    assert closing_lines(summary) == [
        "Margin against hackers who do not query the recipient's network: +19.2 points",
        "Strongest of them: vgg, plain training, 35.1 %",
        "Strongest who queries the recipient's network: vgg, distillation (soft), 53.0 %",
    ]
    alone = make_summary(HACKERS[3:])
    assert alone["margin"] is None and alone["worst"] is not None and len(closing_lines(alone)) == 1


def test_seeds_of_one_hacker_share_a_row() -> None:
    summary = make_summary((*HACKERS, ("vgg", "none", "nothing", 37.1, 37.1, 59.5)))
    (vgg,) = [row for row in accuracy_table(summary) if row.network == "vgg" and row.countermeasure == "none"]
    assert vgg.seeds == 2
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
    assert len(closing_lines(summary)) == 2 and summary["margin"] is None


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
    assert text.index("chance") < text.index("Margin") < text.index("Strongest of them")
    assert "+0.4 points" in text


def test_a_worth_below_the_fewest_originals_that_anybody_had_is_no_number() -> None:
    few = worth_of("vgg", "none", 12.0, originals=13.2, interval=[0.0, 60.0])
    assert worth_words(few) == "5,000 copies are worth fewer than 50 originals" and originals(0.0, few) == "0"
    assert originals_between(few) == "0 to 60" and interval_of(few) == " (95 %: 0 to 60)"
    assert interval_of(few | {"interval": None}) == ""
    assert originals_between(few | {"interval": [9.0, 60.0]}) == "up to 60"
    assert "worth fewer than 50 originals to vgg, plain training" in " ".join(
        closing_lines(make_summary() | {"worth": [few | {"interval": None}]})
    )
