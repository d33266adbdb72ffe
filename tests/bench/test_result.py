"""The leaderboard's line, from hand-written rows."""

from __future__ import annotations

from typing import Any

from uge.bench.result import result_of
from uge.report.leaderboard import facts, leaderboard_markdown

ABOUT = {"dataset": "d", "images": 9, "test_images": 9, "image_size": [8, 8], "epochs": 2}
COPY = {"kind": "copy", "trained_on": "", "method": "uge", "cost": None, "epsilon_asked_255": 8, "config": {}}
COPIES = [COPY | {"copy_seed": seed, "quality": {"psnr_db": 30.0, "ssim": 0.9, "l_inf_255": 8}} for seed in (0, 1)]


def row(kind: str, seed: int, accuracy: float, peak: float, how: str = "none", knows: str = "") -> dict[str, Any]:
    network, knows = ("convnet", "key") if kind == "authorised" else ("vgg", knows or "nothing")
    base = {"kind": kind, "network": network, "knows": knows, "countermeasure": how, "trained_on": "published"}
    return base | {"seed": seed, "accuracy": accuracy, "peak_accuracy": peak, "dataset": "d"}


def test_a_margin_is_that_against_the_strongest_single_run() -> None:
    users = [row("authorised", 0, 60.0, 61.0), row("authorised", 1, 70.0, 70.0)]
    hackers = [row("hacker", 0, 20.0, 50.0), row("hacker", 0, 57.0, 58.0, "blur:1"), row("hacker", 1, 40.0, 69.5)]
    hackers.append(row("hacker", 0, 72.0, 73.0, "distillation:soft", "model outputs"))  # who queries sets no margin
    result = result_of("uge", [*COPIES, *users, *hackers], ABOUT, classes=10)
    assert result["margin"] == 8.0  # 65 - 57
    assert result["margin_at_peak"] == -4.5  # 65 - 69.5, of one run, where the mean of its kind has 59.75
    text = leaderboard_markdown([result])
    assert "+8.0 (\N{MINUS SIGN}4.5 against best epochs)" in text and "peak 73.0" in text


def test_a_hacker_who_failed_is_told_by_name() -> None:
    failed = row("hacker", 0, 0.0, 0.0, "adversarial") | {"error": "training diverged"}
    del failed["accuracy"], failed["peak_accuracy"]
    whole = [*COPIES, row("hacker", 0, 20.0, 21.0), row("hacker", 1, 20.0, 21.0)]
    results = [result_of("em", [*whole, failed], ABOUT, 10, "Small"), result_of("lsp", whole, ABOUT, 10, "Small")]
    told = facts(results, "d")
    assert "em: 1 training failed and is missing here." in told
    assert "Small." in told and not any("lsp:" in sentence for sentence in told)
