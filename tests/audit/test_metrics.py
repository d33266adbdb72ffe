"""The summary of hand-written records, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from uge.audit.metrics import interval, recovered, stronger, summarise


def row(kind: str, network: str, trained_on: str, accuracy: float, **more: Any) -> dict[str, Any]:
    knows = {"authorised": "key", "hacker": "nothing"}[kind]
    base = {"countermeasure": "none", "seed": 0, "peak_accuracy": accuracy + 1, "knows": knows}
    return {"kind": kind, "network": network, "trained_on": trained_on, "accuracy": accuracy} | base | more


SOFT = "distillation:soft"
ROWS = [
    row("authorised", "convnet", "published", 90.0),
    row("authorised", "convnet", "published", 87.0, seed=1),
    row("authorised", "convnet", "clean", 92.0),
    row("authorised", "convnet", "clean", 91.0, seed=1),
    row("hacker", "vgg", "published", 40.0),
    row("hacker", "vgg", "published", 55.5, seed=1),
    row("hacker", "vgg", "clean", 93.0),
    row("hacker", "vgg", "clean", 94.0, seed=1),
    row("hacker", "vgg", "published", 50.0, countermeasure=SOFT, knows="model outputs"),
    row("hacker", "vgg", "clean", 88.0, countermeasure=SOFT, knows="model outputs"),
    row("hacker", "mlp", "published", 30.0, peak_accuracy=70.0),
]


def test_the_summary_is_what_the_rows_say() -> None:
    summary = summarise(ROWS, classes=8)
    assert summary["chance"] == 12.5
    assert summary["authorised"] == {
        "network": "convnet",
        "accuracy": 88.5,
        "interval": None,  # of two seeds
        "peak_accuracy": 89.5,
        "locked_clean_accuracy": 91.5,
        "locked": False,
        "seeds": [0, 1],
    }
    names = ("network", "countermeasure", "seed", "accuracy", "peak_accuracy", "clean_accuracy", "knows")
    assert summary["hackers"] == [
        dict(zip(names, hacker, strict=True))
        for hacker in (
            ("vgg", "none", 0, 40.0, 41.0, 93.0, "nothing"),
            ("vgg", "none", 1, 55.5, 56.5, 94.0, "nothing"),
            ("vgg", SOFT, 0, 50.0, 51.0, 88.0, "model outputs"),
            ("mlp", "none", 0, 30.0, 70.0, None, "nothing"),
        )
    ]
    assert summary["worst"] == summary["hackers"][1]
    assert summary["margin"] == 33.0  # 88.5 - 55.5


def test_seeds_of_one_hacker_are_a_group() -> None:
    summary = summarise(ROWS, classes=8)
    plain, soft, mlp = summary["groups"]
    assert plain == {
        "network": "vgg",
        "countermeasure": "none",
        "knows": "nothing",
        "seeds": 2,
        "accuracy": 47.75,
        "interval": None,
        "peak_accuracy": 48.75,
        "clean_accuracy": 93.5,
        "recovered": 0.4352,  # 35.25 / 81
        "undertrained": None,
        "counts": True,
    }
    assert (soft["seeds"], soft["interval"], soft["recovered"]) == (1, None, 0.4967)
    assert (mlp["clean_accuracy"], mlp["recovered"]) == (None, None)
    assert summary["evidence"] is False
    assert summary["why_no_evidence"] == [
        "The strongest hacker or the recipient has 1 of 3 seeds.",
        "For 3 of 3 hackers nobody checked whether their epochs were enough.",
    ]


def test_intervals_by_hand() -> None:
    assert interval([50.0]) is None and interval([49.0, 51.0]) is None
    assert interval([50.0, 50.0, 50.0]) == [50.0, 50.0]
    assert interval([48.0, 50.0, 52.0]) == [45.031, 54.969]  # 4.303 * 2 / sqrt(3)
    low, high = interval([49.0, 51.0] * 8 + [50.0]) or [0.0, 0.0]  # of 17: 2.120 / sqrt(17), Student's t for 16
    assert (high - low) / 2 == pytest.approx(2.120 / 17**0.5, abs=2e-3)


@pytest.mark.parametrize(
    ("accuracy", "ceiling", "share"),
    [(10, 90, 0.0), (90, 90, 1.0), (50, 90, 0.5), (5, 90, -0.0625), (50, None, None), (10, 10.5, None)],
)
def test_recovered_is_the_share_between_chance_and_ceiling(
    accuracy: float, ceiling: float | None, share: float | None
) -> None:
    assert recovered(accuracy, ceiling, 10.0) == share


def test_a_hacker_is_undertrained_where_twice_the_budget_teaches_clearly_more() -> None:
    def judged(once: float, twice: float) -> bool | None:
        rows = [row("hacker", "vgg", "published", 40.0), row("hacker", "vgg", "clean", once)]
        rows.append(row("hacker", "vgg", "clean", twice, budget=2.0))
        (group,) = summarise(rows, classes=8)["groups"]
        assert group["clean_accuracy"] == once  # the longer training is a check and no ceiling
        return group["undertrained"]

    assert judged(94.9, 100.0) is True
    assert judged(95.0, 100.0) is False


def test_one_who_was_given_up_counts_where_he_was_ahead_of_all() -> None:
    rows = [
        row("authorised", "convnet", "published", 80.0),
        row("hacker", "vgg", "published", 50.0),
        row("hacker", "vgg", "published", 55.0, countermeasure="blur:1", budget=0.1),
        row("hacker", "vgg", "published", 45.0, countermeasure="lab", budget=0.1),
    ]
    summary = summarise(rows, classes=10)
    assert (summary["worst"]["countermeasure"], summary["margin"]) == ("blur:1", 25.0)
    assert [hacker["accuracy"] for hacker in summary["hackers"]] == [50.0, 55.0]
    assert summary["why_no_evidence"][-1].startswith("1 of the strongest hackers had a part of their epochs only")
    student = row("hacker", "vgg", "published", 70.0, countermeasure=SOFT, knows="model outputs")  # hides no other
    assert summarise([*rows, student], classes=10)["margin"] == 25.0
    before = row("hacker", "vgg", "published", 60.0, cell="of another plan")
    assert stronger([each | {"cell": ""} for each in (*rows, student)], [before]) == [before]


def test_screening_of_the_tried_failed_runs_stolen_keys_and_originals_alone_count_nowhere() -> None:
    rows = [
        row("authorised", "convnet", "published", 80.0),
        row("hacker", "vgg", "published", 70.0, countermeasure="blur:1", budget=0.25),
        row("hacker", "vgg", "published", 30.0, countermeasure="blur:1"),
        *2 * [{"kind": "hacker", "network": "vgg", "trained_on": "published", "seed": 0, "error": "MemoryError"}],
        row("hacker", "convnet", "published", 80.0, countermeasure="none", knows="key"),
        row("hacker", "vgg", "published", 60.0, countermeasure="clean-mixed:500", knows="clean images"),
        row("hacker", "vgg", "published", 70.0, countermeasure="clean-only:500", knows="clean images"),
    ]
    summary = summarise(rows, classes=10)
    assert [hacker["accuracy"] for hacker in summary["hackers"]] == [30.0, 80.0, 60.0, 70.0]
    assert [group["counts"] for group in summary["groups"]] == [True, False, True, False]
    assert summary["worst"]["accuracy"] == 60.0 and summary["margin"] == 20.0
    assert summary["why_no_evidence"][0] == "2 trainings failed and are missing here."


def test_one_who_trains_on_originals_alone_is_measured_by_plain_training_on_all_of_them() -> None:
    few = "clean-only:500"
    rows = [
        row("hacker", "vgg", "published", 50.0, countermeasure=few, knows="clean images"),
        row("hacker", "vgg", "clean", 50.0, countermeasure=few, knows="clean images"),
        row("hacker", "vgg", "clean", 90.0),
    ]
    (group,) = summarise(rows, classes=10)["groups"]
    assert group["clean_accuracy"] == 90.0 and group["recovered"] == 0.5


def test_a_well_trained_audit_with_three_seeds_is_evidence() -> None:
    rows = []
    for seed in range(3):
        rows.append(row("authorised", "convnet", "published", 90.0 + seed, seed=seed))
        rows.append(row("hacker", "vgg", "published", 30.0, seed=seed))
        rows.append(row("hacker", "vgg", "clean", 91.0, seed=seed))
    rows.append(row("hacker", "vgg", "clean", 92.0, budget=2.0))
    summary = summarise(rows, classes=10)
    assert summary["evidence"] and summary["why_no_evidence"] == []
    smoke = summarise(rows, classes=10, reason="only a smoke test")
    assert not smoke["evidence"] and smoke["why_no_evidence"] == ["only a smoke test."]


def test_an_authorised_network_whose_interval_reaches_the_hacker_is_no_evidence() -> None:
    def doubts(*accuracies: float) -> str:
        rows = [row("hacker", "vgg", "clean", 60.0, budget=2.0)]
        for seed, each in enumerate(accuracies):
            rows.append(row("authorised", "convnet", "published", each, seed=seed))
            rows += [row("hacker", "vgg", source, 60.0, seed=seed) for source in ("published", "clean")]
        return " ".join(summarise(rows, classes=10)["why_no_evidence"])

    assert "95% interval of the recipient begins at 1.6 %" in doubts(40.0, 90.0, 90.0)
    assert doubts(88.0, 90.0, 90.0) == ""


def test_three_classes_and_thirds_are_rounded() -> None:
    rows = [row("authorised", "mlp", "published", accuracy, seed=n) for n, accuracy in enumerate((10.0, 10.0, 11.0))]
    summary = summarise(rows, classes=3)
    assert summary["chance"] == 33.333
    assert summary["authorised"]["accuracy"] == 10.333


def test_what_is_missing_is_none() -> None:
    hackers_only = summarise([row("hacker", "vgg", "published", 40.0)], classes=10)
    assert hackers_only["authorised"] is None and hackers_only["margin"] is None
    assert hackers_only["worst"]["accuracy"] == 40.0 and hackers_only["worst"]["clean_accuracy"] is None
    authorised_only = summarise([row("authorised", "vgg", "published", 40.0)], classes=10)
    assert authorised_only["authorised"]["locked_clean_accuracy"] is None
    assert (authorised_only["hackers"], authorised_only["worst"], authorised_only["margin"]) == ([], None, None)
    clean_only = summarise([row("hacker", "vgg", "clean", 93.0)], classes=10)
    assert clean_only["hackers"] == [] and clean_only["worst"] is None
    empty = summarise([], classes=10)
    assert (empty["chance"], empty["authorised"], empty["hackers"], empty["groups"]) == (10.0, None, [], [])
    assert (empty["margin"], empty["worst"], empty["why_no_evidence"]) == (None, None, ["No hacker was trained."])


def test_a_ceiling_is_of_the_seeds_that_were_trained_on_both() -> None:
    rows = [
        row(kind, "vgg", "published", 20.0 + seed, seed=seed) for kind in ("authorised", "hacker") for seed in (0, 1)
    ]
    rows += [row(kind, "vgg", "clean", 60.0 + seed, seed=seed) for kind in ("authorised", "hacker") for seed in (1, 2)]
    summary = summarise(rows, classes=10)
    (group,) = summary["groups"]
    assert (summary["authorised"]["locked_clean_accuracy"], group["clean_accuracy"]) == (61.0, 61.0)
    assert group["recovered"] == round(11 / 51, 4) and (group["accuracy"], group["seeds"]) == (20.5, 2)


def test_one_who_relabels_is_measured_by_plain_training_on_the_originals() -> None:
    rows = [
        row("hacker", "vgg", "published", 61.0, countermeasure="relabel", knows="method"),
        row("hacker", "vgg", "published", 50.0, countermeasure="relabel+blur:1", knows="method"),
        row("hacker", "convnet", "published", 40.0, countermeasure="relabel", knows="architecture"),
        row("hacker", "vgg", "clean", 77.0),
        row("hacker", "vgg", "clean", 80.0, budget=2.0),
        row("hacker", "vgg", "clean", 70.0, countermeasure="blur:1"),
        row("hacker", "convnet", "clean", 71.0, countermeasure="other-init", knows="architecture"),
        row("hacker", "vgg", "clean", 1.0, countermeasure="relabel", knows="method"),  # of an earlier version
    ]
    relabelled, blurred, same = summarise(rows, classes=10)["groups"]
    assert (relabelled["clean_accuracy"], relabelled["undertrained"]) == (77.0, False)
    assert (blurred["clean_accuracy"], same["clean_accuracy"]) == (70.0, 71.0)


def test_a_worth_that_leaves_out_who_learnt_more_from_the_copy_is_no_evidence() -> None:
    clean = [row("hacker", "vgg", "clean", 40.0 + n, images=100, originals=n) for n in (0, 50)]
    rows = [row("hacker", "vgg", "published", 20.0, images=100, test_images=100), *clean]

    def told(*more: dict[str, Any]) -> list[str]:
        return [why for why in summarise([*rows, *more], classes=10)["why_no_evidence"] if "worth more" in why]

    early = row("hacker", "vgg", "published", 36.0, countermeasure="adversarial", budget=0.1)
    probe = row("hacker", "vgg", "published", 60.0, countermeasure="pretrained-probe")
    assert (
        told() == told(early | {"accuracy": 19.0}) == told(probe) == told(row("hacker", "mlp", "published", 20.0)) == []
    )
    assert told(early, probe) == [
        "The copy is worth more to vgg, adversarial than is told: it learnt 36.0 % in a part of the epochs."
    ]
    assert told(row("hacker", "mlp", "published", 30.0)) == [
        "The copy is worth more to mlp than is told: it learnt 30.0 %."
    ]
