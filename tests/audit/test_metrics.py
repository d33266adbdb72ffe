"""The summary of hand-written records, worked out by hand."""

from __future__ import annotations

from typing import Any

from uge.audit.metrics import summarise


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
    assert set(summary) == {"chance", "authorised", "hackers", "margin", "worst"}
    assert summary["chance"] == 12.5
    assert summary["authorised"] == {
        "network": "convnet",
        "accuracy": 88.5,
        "peak_accuracy": 89.5,
        "clean_accuracy": 91.5,
        "locked_clean_accuracy": 91.5,
        "seeds": [0, 1],
    }
    assert summary["hackers"] == [
        {
            "network": network,
            "countermeasure": how,
            "seed": seed,
            "accuracy": accuracy,
            "peak_accuracy": peak,
            "clean_accuracy": clean,
            "knows": knows,
        }
        for network, how, seed, accuracy, peak, clean, knows in [
            ("vgg", "none", 0, 40.0, 41.0, 93.0, "nothing"),
            ("vgg", "none", 1, 55.5, 56.5, 94.0, "nothing"),
            ("vgg", SOFT, 0, 50.0, 51.0, 88.0, "model outputs"),
            ("mlp", "none", 0, 30.0, 70.0, None, "nothing"),
        ]
    ]
    assert summary["worst"] == summary["hackers"][1]
    assert summary["margin"] == 33.0  # 88.5 - 55.5


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
    assert authorised_only["authorised"]["clean_accuracy"] is None
    assert (authorised_only["hackers"], authorised_only["worst"], authorised_only["margin"]) == ([], None, None)
    assert summarise([], classes=10) == {
        "chance": 10.0,
        "authorised": None,
        "hackers": [],
        "margin": None,
        "worst": None,
    }


def test_clean_rows_alone_are_no_hackers() -> None:
    summary = summarise([row("hacker", "vgg", "clean", 93.0)], classes=10)
    assert summary["hackers"] == [] and summary["worst"] is None


def test_behind_a_view_clean_is_the_same_architecture_without_it() -> None:
    """The key's network sees even the originals through its view: that is locked-clean, and a hacker's run is clean."""
    rows = [
        row("authorised", "convnet", "published", 88.0, locked=True),
        row("authorised", "convnet", "clean", 88.0, locked=True),
        row("hacker", "convnet", "clean", 91.0, countermeasure="other-init"),
        row("hacker", "vgg", "clean", 95.0),
    ]
    summary = summarise(rows, classes=8)["authorised"]
    assert (summary["accuracy"], summary["locked_clean_accuracy"], summary["clean_accuracy"]) == (88.0, 88.0, 91.0)
    assert summarise(rows[:2], classes=8)["authorised"]["clean_accuracy"] is None
