"""Tables from hand-written records, compared with values computed by hand; and the committed pages are not stale."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from uge.audit.plan import read_plan
from uge.bench.plan import read_bench
from uge.records import append_record

ROOT = Path(__file__).parents[2]


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("uge_benchmark_tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


tables = _module()

CONFIG = {
    "gradient_matching": 1.0,
    "feature_distance": 0.3,
    "undistillation": 0,
    "feature_objective": "distance",
    "epsilon_255": 32,
}
OURS, VGG, MLP = "convnet(width=32)", "vgg(depth=8)", "mlp"


def training(
    kind: str,
    network: str,
    accuracy: float,
    *,
    seed: int = 0,
    trained_on: str = "published",
    countermeasure: str = "none",
    stage: str = "seeds",
    setting: str = "gm+fd@32",
    config: dict[str, Any] = CONFIG,
    **more: Any,
) -> dict[str, Any]:
    """A row as benchmarks/quality/uge_cifar.py writes it, less what no table reads."""
    return {
        "stage": stage,
        "setting": setting,
        "dataset": "cifar10",
        "config": config,
        "authorised_network": "convnet:width=32",
        "cell": f"{kind}-{network}-{countermeasure}-{seed}-{trained_on}-{config['epsilon_255']}",
        "kind": kind,
        "network": network,
        "countermeasure": countermeasure,
        "seed": seed,
        "trained_on": trained_on,
        "accuracy": accuracy,
        "peak_accuracy": accuracy + 2,
        "images": 10000,
        "test_images": 2000,
        "recipe": {"epochs": 30},
    } | more


def measures(seed: int, direction: float, similarity: float, stage: str = "seeds") -> dict[str, Any]:
    return {
        "stage": stage,
        "setting": "gm+fd@32",
        "dataset": "cifar10",
        "config": CONFIG,
        "cell": f"measures-{seed}",
        "seed": seed,
        "kind": "measures",
        "on_policy_direction": direction,
        "similarity_efficientnet_lite1": similarity,
        "psnr_db": 24.0,
        "ssim": 0.9,
    }


def check(network: str, once: float, twice: float, kind: str = "hacker", **more: Any) -> list[dict[str, Any]]:
    rows = [
        training(kind, network, accuracy, trained_on="clean", stage="check", setting="clean", small=False)
        | {"budget_factor": factor, "cell": f"{network}-{factor}", "recipe": {"epochs": 30 * factor}}
        | more
        for factor, accuracy in ((1, once), (2, twice))
    ]
    for row in rows:
        del row["config"]
    return rows


def three_seeds() -> list[dict[str, Any]]:
    rows = []
    for seed, (ours, vgg, mlp, twin, student) in enumerate(
        [(50.0, 30.0, 20.0, 48.0, 31.0), (52.0, 34.0, 22.0, 51.0, 36.0), (54.0, 32.0, 24.0, 51.0, 35.0)]
    ):
        rows += [
            training("authorised", OURS, ours, seed=seed),
            training("authorised", OURS, 56.0, seed=seed, trained_on="clean"),
            training("hacker", OURS, twin, seed=seed, countermeasure="other-init"),
            training("hacker", VGG, vgg, seed=seed),
            training("hacker", VGG, 60.0, seed=seed, trained_on="clean"),
            training("hacker", MLP, mlp, seed=seed),
            training("hacker", MLP, 40.0, seed=seed, trained_on="clean"),
            training("hacker", VGG, student, seed=seed, countermeasure="distillation:soft"),
            measures(seed, 0.10 + 0.01 * seed, 0.5),
        ]
    return rows


def cells(text: str, title: str) -> list[str]:
    """The cells of the one table line that begins with a title."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {title} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_interval_is_students() -> None:
    mean, half = tables.interval([50.0, 52.0, 54.0])  # s = 2, t(2) = 4.303: 4.303 * 2 / sqrt(3) = 4.969
    assert mean == 52
    assert half == pytest.approx(4.969, abs=1e-3)
    assert tables.interval([7.0]) == (7.0, None)
    assert tables.shown([1.0, 1.0]) == "1.0 ± 0.0"
    assert tables.shown([]) == "-"


def test_three_seeds_by_hand() -> None:
    text = tables.stage_table(three_seeds(), "seeds")
    assert text.startswith("cifar10; 10000 training images, 2000 test images, 30 epochs; seeds 0, 1, 2.")
    assert "`gm+fd@32`: L_gm + 0.3 L_fd, epsilon 32" in text
    assert cells(text, f"authorised: {OURS}") == ["52.0 ± 5.0 (peak 54.0 ± 5.0, clean 56.0 ± 0.0)"]
    # vgg 30, 34, 32: s = 2
    assert cells(text, VGG) == ["32.0 ± 5.0 (peak 34.0 ± 5.0, clean 60.0 ± 0.0)"]
    # drops of vgg 30, 26, 28 and of mlp 20, 18, 16; their means 25, 22, 22: mean 23, s = sqrt(3), 4.303 * 1 = 4.3
    assert cells(text, "mean drop of other architectures") == ["23.0 ± 4.3"]
    # the strongest is the twin each time: 2, 1, 3: mean 2, s = 1, 4.303 / sqrt(3) = 2.5
    assert cells(text, "margin: authorised less strongest hacker") == ["2.0 ± 2.5"]
    assert cells(text, "margin against the hackers' peaks") == ["0.0 ± 2.5"]
    # student 31, 36, 35 less vgg 30, 34, 32: 1, 2, 3
    assert cells(text, "best student of another architecture less its plain hacker") == ["2.0 ± 2.5"]
    # 0.10, 0.11, 0.12: s = 0.01, 4.303 * 0.01 / sqrt(3) = 0.0248
    assert cells(text, "on-policy L_gm, direction") == ["0.110 ± 0.025"]
    assert cells(text, "PSNR, dB") == ["24.0 ± 0.0"]
    assert text.index("other init") < text.index(f"| {VGG} |") < text.index("distillation")
    assert "5 of the 5 kinds of training here have no budget check yet." in text


def test_an_undertrained_hacker_is_marked_and_not_counted() -> None:
    rows = three_seeds() + check(VGG, 94.0, 100.0) + check(MLP, 95.0, 100.0)
    text = tables.stage_table(rows, "seeds")
    assert cells(text, VGG)[0].startswith("32.0 ± 5.0† (")
    assert "†" not in cells(text, MLP)[0]
    # mlp alone: 20, 18, 16: mean 18, s = 2
    assert cells(text, "mean drop of other architectures") == ["18.0 ± 5.0"]
    assert cells(text, "margin: authorised less strongest hacker") == ["2.0 ± 2.5"]  # the claim keeps every hacker
    assert "not counted in the mean drop" in text
    assert "3 of the 5 kinds" in text


def test_a_check_at_another_size_or_data_set_says_nothing() -> None:
    rows = three_seeds() + check(VGG, 50.0, 100.0, small=True) + check(MLP, 50.0, 100.0, dataset="other")
    assert "†" not in tables.stage_table(rows, "seeds")


def test_budget_table() -> None:
    rows = check(VGG, 57.0, 60.0) + check(MLP, 56.9, 60.0, small=True) + check(OURS, 58.0, 56.0, kind="authorised")
    rows += check("vit", 40.0, 41.0)[:1]  # twice the budget is still to come
    text = tables.budget_table(rows)
    assert text.splitlines()[2:] == [
        f"| cifar10, full size | {VGG} | 30 | 57.0 | 60.0 | 0.950 | enough |",
        f"| cifar10, full size | authorised: {OURS} | 30 | 58.0 | 56.0 | 1.036 | enough |",
        f"| cifar10, small | {MLP} | 30 | 56.9 | 60.0 | 0.948 | undertrained |",
    ]


def test_many_settings_become_rows() -> None:
    rows = []
    for epsilon in (64, 8, 16, 32, 128):
        config = CONFIG | {"epsilon_255": epsilon}
        more = {"stage": "grid", "setting": f"gm+fd@{epsilon}", "config": config}
        rows += [training("authorised", OURS, 50.0, **more), training("hacker", VGG, 10.0 + epsilon / 8, **more)]
    text = tables.stage_table(rows, "grid")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "`gm" in line]
    assert [line[:5] for line in lines] == [
        ["`gm+fd@8`", "L_gm + 0.3 L_fd", "8", "50.0 (-)", "11.0 (-)"],
        ["`gm+fd@16`", "L_gm + 0.3 L_fd", "16", "50.0 (-)", "12.0 (-)"],
        ["`gm+fd@32`", "L_gm + 0.3 L_fd", "32", "50.0 (-)", "14.0 (-)"],
        ["`gm+fd@64`", "L_gm + 0.3 L_fd", "64", "50.0 (-)", "18.0 (-)"],
        ["`gm+fd@128`", "L_gm + 0.3 L_fd", "128", "50.0 (-)", "26.0 (-)"],
    ]


def test_terms_of_a_setting() -> None:
    misaligned = CONFIG | {"feature_objective": "misalignment", "gradient_matching": 0, "undistillation": 1}
    assert tables.Setting("grid", "cifar10", "x", misaligned).terms == "0.3 L_mis + L_ud"


def test_two_keys_count_the_weaker_authorised_network_and_no_hacker_of_its_kind_as_another() -> None:
    rows = [
        training("authorised", OURS, 50.0),
        training("authorised", VGG, 45.0, authorised_network="vgg:depth=8"),
        training("hacker", VGG, 44.0),
        training("hacker", VGG, 60.0, trained_on="clean"),
        training("hacker", MLP, 20.0),
        training("hacker", MLP, 40.0, trained_on="clean"),
    ]
    text = tables.stage_table([row | {"stage": "two-keys"} for row in rows], "two-keys")
    assert cells(text, "mean drop of other architectures") == ["20.0"]
    assert cells(text, "margin: authorised less strongest hacker") == ["1.0"]
    small = [row | {"stage": "two-keys", "small": True} for row in rows]
    budgets = check(MLP, 30.0, 40.0, small=True) + check(MLP, 40.0, 40.0)  # too short at 16x16 alone
    assert "undertrained" in tables.stage_table(small + budgets, "two-keys")
    assert "undertrained" not in tables.stage_table([row | {"stage": "two-keys"} for row in rows] + budgets, "two-keys")


def test_the_later_of_two_rows_counts_and_configurations_are_not_mixed() -> None:
    again = [training("authorised", OURS, 40.0), training("authorised", OURS, 50.0)]
    assert cells(tables.stage_table(again, "seeds"), f"authorised: {OURS}") == ["50.0 (peak 52.0, clean -)"]
    longer = training("authorised", OURS, 60.0, config=CONFIG | {"epochs": 60})
    assert len(cells(tables.stage_table([*again, longer], "seeds"), f"authorised: {OURS}")) == 2


def test_nothing_measured_says_so() -> None:
    for folders, compute in tables.SECTIONS.values():
        nothing = [[]] if isinstance(folders, str) else [[] for _ in folders]
        assert compute(*nothing) == "not measured yet\n"


def test_headline_takes_the_strongest_stage_and_names_a_weaker_one() -> None:
    grid = [training("authorised", OURS, 41.0, stage="grid")]
    assert tables.headline(three_seeds() + grid) == tables.stage_table(three_seeds(), "seeds")
    assert tables.headline(grid).startswith(
        "Three seeds of one setting: not measured yet. Below, from one seed each: the search at 16x16 pixels,"
    )
    assert tables.headline([*grid, measures(0, 0.1, 0.5)]) == tables.headline(grid)  # no training of that stage yet


def test_fedavg_and_speed() -> None:
    row = {"dataset": "cifar10", "images": 10000, "method": "uge", "epsilon_255": 32, "network": OURS, "clients": 5}
    row |= {"rounds": 30, "local_epochs": 1, "seed": 0, "accuracy": 50.25, "central_accuracy": 52.5}
    row |= {"recipe": {"batch_size": 128}}
    assert tables.fedavg_table([row]).endswith(
        f"| cifar10, 10000 images | uge, epsilon 32 | {OURS} | 5 | 30 x 1 | 128 | 0 | 50.2 | 52.5 | -2.2 |\n"
    )
    assert " | 30 x 1 | 26 | 0 |" in tables.fedavg_table([row | {"local_batch_size": 26}])
    speed = {"measure": "publish", "subject": "32x32", "value": 1234.5, "unit": "images/s", "repeats": 5}
    speed |= {"environment": {"machine": "x86_64", "threads": 2}}
    text = tables.speed_table([speed | {"value": 1.0}, speed])
    assert text.splitlines()[2:] == ["| publish | 32x32 | 1,234 images/s | 5 | x86_64, 2 |"]
    assert [tables.figure(value) for value in (0.01234, 12.34, 123456.0)] == ["0.0123", "12.3", "123,456"]


def null_space_row(kind: str, network: str, accuracy: float, **more: Any) -> dict[str, Any]:
    layout = {"cell": 8, "group_size": 6}
    about = {
        "stage": "small",
        "setting": "p8-s6",
        "dataset": tables.SEARCHED,
        "layout": layout,
        "seed": 0,
        "kind": kind,
    }
    about |= {"network": network, "countermeasure": "none", "trained_on": "published", "accuracy": accuracy}
    about |= {"environment": {"device": "cpu"}}
    return about | {"images": 4000, "test_images": 2000, "recipe": {"epochs": 40}} | more


def test_prices_of_views() -> None:
    rows = [
        null_space_row("hacker", OURS, 60.0, stage="locked", setting="clean", trained_on="clean"),
        null_space_row("authorised", OURS, 58.0, stage="locked", trained_on="clean"),
        null_space_row(
            "authorised", OURS, 55.0, stage="locked", trained_on="clean", layout={"cell": 4, "group_size": 3}
        ),
        null_space_row("authorised", OURS, 59.5, stage="locked", trained_on="clean", layout={"epsilon_255": 8}),
        null_space_row("authorised", OURS, 51.0, stage="locked", trained_on="clean")
        | {"layout": {"cell": 4, "group_size": 3, "levels": 2}},
    ]
    text = tables.view_prices(rows, "locked")
    assert tables.view_prices(rows, "locked-small") == tables.NOT_MEASURED
    assert "without a view: 60.0; through the view of a reversible key: 59.5." in text
    assert text.splitlines()[2:] == [
        "| cells, groups | s = 3 | s = 6 |",
        "| --- | --: | --: |",
        "| 4x4, balanced signs, mixed channels | 55.0 | - |",
        "| 8x8, balanced signs, mixed channels | - | 58.0 |",
        "| 4x4, balanced signs, mixed channels, 2 levels | 51.0 | - |",
    ]


def test_null_space_settings_stand_beside_their_clean_levels() -> None:
    rows = [
        null_space_row("authorised", OURS, 58.0),
        null_space_row("authorised", OURS, 58.0, trained_on="clean"),
        null_space_row("hacker", VGG, 30.0),
        null_space_row("hacker", VGG, 66.0, trained_on="clean", setting="clean"),
        null_space_row("hacker", VGG, 50.0, countermeasure="grayscale"),
        null_space_row("measures", "", 0, views_identical=4000, epsilon_measured_255=8, budget_used=0.5)
        | {"shortcut_loss": 1.25, "psnr_db": 31.5, "ssim": 0.97},
    ]
    text = tables.null_space_table(rows, "small")
    for line in (
        f"| authorised: {OURS} | 58.0 (58.0) |",
        f"| {VGG} | 30.0 (66.0) |",
        f"| {VGG}, grayscale | 50.0 (-) |",
        "| images whose view is identical | 4,000 |",
        "| epsilon measured, /255 | 8 |",
    ):
        assert line in text.splitlines()
    assert tables.null_space_table(rows, "full") == tables.NOT_MEASURED
    alone = {"setting": "alone", "shortcut_loss": None, "environment": {"device": "GPU"}}  # no surrogates, no such loss
    text = tables.null_space_table(rows + [row | alone for row in rows if row["setting"] != "clean"], "small")
    assert "| shortcut loss of the surrogates at the end | 1.25 | - |" in text.splitlines()
    assert text.splitlines()[0].endswith("seeds 0; trained on processors and on GPU.")


def test_a_search_has_a_row_a_setting_and_a_table_a_method() -> None:
    reversible = {"setting": "reversible", "layout": {"epsilon_255": 8}}
    rows = [
        null_space_row("hacker", VGG, 66.0, trained_on="clean", setting="clean"),
        null_space_row("hacker", VGG, 30.0),
        null_space_row("hacker", VGG, 50.0, setting="p8-s4+gray", countermeasure="grayscale"),
        null_space_row("hacker", VGG, 40.0, setting="p8-s4+gray"),
        null_space_row("authorised", OURS, 58.0),
        null_space_row("authorised", OURS, 58.0, trained_on="clean"),
        null_space_row("authorised", OURS, 53.0, setting="p8-s4", stage="locked-small", trained_on="clean"),
        null_space_row("hacker", VGG, 20.0, **reversible),
        null_space_row("measures", "", 0, **reversible) | {"psnr_db": 31.5, "ssim": 0.97},
    ]
    assert tables.null_space_search(rows, "null-space").splitlines()[2:] == [
        f"|  | authorised | {VGG} | {VGG}, grayscale | PSNR, dB | SSIM |",
        "| --- | --: | --: | --: | --: | --: |",
        "| the originals |  | 66.0 | - |  |  |",
        "| `p8-s6` | 58.0 | 30.0 | - | - | - |",
        "| `p8-s4+gray` | 53.0 | 40.0 | 50.0 | - | - |",
    ]
    assert tables.null_space_search(rows, "reversible").splitlines()[-1] == "| `reversible` | - | 20.0 | 31.5 | 0.97 |"
    assert tables.null_space_search(rows[:1], "reversible") == tables.NOT_MEASURED


def test_other_data_stand_in_tables_of_their_own() -> None:
    rows = [null_space_row("hacker", VGG, 30.0, stage="full")]
    other = [null_space_row("hacker", VGG, 20.0, stage="full", dataset="cifar100")]
    assert tables.null_space_elsewhere(rows) == tables.NOT_MEASURED
    assert f"| {VGG} | 30.0 (-) |" in tables.null_space_table(rows + other, "full")
    small = [null_space_row("hacker", VGG, 10.0, stage="small", dataset="cifar100")]
    text = tables.null_space_elsewhere(rows + small + other)
    first, second = text.split("\ncifar100, 16x16; ")
    assert first.startswith("cifar100; ") and f"| {VGG} | 20.0 (-) |" in first and "30.0" not in text
    assert f"| {VGG} | 10.0 (-) |" in second and "20.0" not in second
    measured = [null_space_row("measures", "", 0, stage="full", dataset="tiny")]
    assert tables.null_space_elsewhere(rows + small + other + measured) == text


def test_audits_of_copies_of_the_same_images_share_ceilings() -> None:
    def row(name: str, accuracy: float, **more: Any) -> dict[str, Any]:
        base = null_space_row("hacker", VGG, accuracy, knows="nothing", peak_accuracy=accuracy, budget=1.0)
        return base | {"name": name, "cell": f"{name}{sorted(more.items())}"} | more

    gray, student = {"countermeasure": "grayscale"}, {"countermeasure": "distillation:soft", "knows": "model outputs"}
    clean = {"trained_on": "clean"}
    mine = [row("copy", 20.0), row("copy", 40.0, **gray), row("copy", 60.0, **student)]
    others = [row("other", 70.0, **clean, **gray), row("other", 65.0, **clean, **student)]
    keyed = [row("", 80.0, **clean, stage="full", setting="clean")]

    facts = {"kind": "facts", "name": "copy", "dataset": mine[0]["dataset"], "manifest": {"classes": 10}}

    def grid(audited: list[dict[str, Any]], keyed: list[dict[str, Any]]) -> list[str]:
        text = tables.audit_grid([facts, *audited], keyed)
        return [line for line in text.split("**other**")[0].splitlines() if line[0:1] == "|"]

    assert grid(mine, [])[2:] == [
        "| none | nothing | 20.0 |",
        "| distillation:soft | model outputs | 60.0 |",
        "| grayscale | nothing | 40.0 |",
    ]
    assert grid(mine + others, keyed)[2:] == [
        "| none | nothing | 20.0 (80.0, 14 %) |",
        "| distillation:soft | model outputs | 60.0 |",  # his teacher is the key's
        "| grayscale | nothing | 40.0 (70.0, 50 %) |",
    ]
    elsewhere = [each | {"images": 10} for each in keyed], [each | {"recipe": {"epochs": 1}} for each in keyed]
    assert [grid(mine, rows)[2] for rows in elsewhere] == ["| none | nothing | 20.0 |"] * 2
    own = row("copy", 75.0, **clean)
    assert grid([*mine, own], keyed)[2] == "| none | nothing | 20.0 (75.0, 15 %) |"
    recipe = mine[0]["recipe"]
    twice = row("other", 90.0, **clean, budget=2.0, recipe=recipe | {"epochs": 2 * recipe["epochs"]})
    assert grid([*mine, twice], keyed)[2] == "| none | nothing | 20.0† (80.0, 14 %) |"  # whoever looked
    shrunk = [each | {"name": "copy, 16x16"} for each in mine]
    assert grid(shrunk, keyed)[2] == "| none | nothing | 20.0 |"


def test_weak_points_are_the_strongest_hackers_of_each_kind() -> None:
    setting, title = list(tables.WEIGHED.items())[-1]
    mine = {"stage": "full", "setting": setting, "knows": "nothing"}
    clean = {"stage": "full", "setting": "clean", "trained_on": "clean", "knows": "nothing"}
    keyed = [
        null_space_row("authorised", OURS, 71.0, **mine),
        null_space_row("hacker", VGG, 20.0, **mine),
        null_space_row("hacker", VGG, 22.0, **mine, seed=1),
        null_space_row("hacker", "mlp", 20.5, **mine),
        null_space_row("hacker", VGG, 77.0, **clean),
        null_space_row("hacker", VGG, 19.0, **mine, countermeasure="grayscale+blur:1"),
        null_space_row("hacker", VGG, 40.0, **mine | {"knows": "method"}, countermeasure="relabel"),
        null_space_row("hacker", OURS, 25.0, **mine | {"knows": "architecture"}, countermeasure="other-init"),
    ]
    audited = [
        row | {"name": f"{setting}, second copy", "budget": budget}
        for budget, row in (
            (1.0, null_space_row("hacker", VGG, 62.0, countermeasure="distillation:soft", knows="model outputs")),
            (1.0, null_space_row("hacker", VGG, 48.0, countermeasure="clean-only:500", knows="clean images")),
            (0.25, null_space_row("hacker", "mlp", 90.0, knows="nothing")),
        )
    ]
    lines = tables.weak_points(keyed, [], audited).splitlines()
    short, same = VGG.partition("(")[0], OURS.partition("(")[0]
    assert lines[-1] == (
        f"| {title} | 71.0 | 21.0 of 77.0 ({short}) | 25.0 ({same}) | 19.0 ({short}, grayscale+blur:1)"
        f" | 40.0 of 77.0 ({short}, relabel) | 62.0 ({short}, distillation:soft) | not tried |"
    )
    assert set(lines[2].split(" | ")[1:-1]) == {"not trained", "not tried"}
    assert tables.weak_points([], [], []) == tables.NOT_MEASURED


def baseline(method: str, accuracy: float, how: str = "none", **more: Any) -> dict[str, Any]:
    """A row as benchmarks/quality/baselines.py writes it, less what no table reads."""
    source = "clean" if method == "clean" else "published"
    row = {"kind": "hacker", "method": method, "dataset": "cifar10", "network": VGG, "countermeasure": how, "seed": 0}
    row |= {"cell": f"{method}-{how}-{accuracy}", "trained_on": source, "accuracy": accuracy, "images": 100}
    return row | {"test_images": 20, "recipe": {"epochs": 5, "precision": "float32"}} | more


def baselines() -> list[dict[str, Any]]:
    return [
        baseline("clean", 74.0),
        baseline("clean", 70.0, "grayscale"),
        baseline("em", 20.0),
        baseline("em", 24.0, seed=1),
        baseline("em", 69.0, "grayscale"),
        baseline("pil", 51.0),
        baseline("pil", 30.0, variant="epochs 150"),
        baseline("lock", 73.0, kind="authorised"),
    ]


def test_baselines_stand_beside_their_ceilings_and_variants_apart() -> None:
    written = tables.baseline_table(baselines())
    assert cells(written, "on the originals")[:2] == ["74.0", "70.0"]
    assert cells(written, "`em`") == ["22.0 ± 25.4", "69.0", "52.0"]  # t(1) 12.706 * 2.828 / root 2
    assert cells(written, "`pil`") == ["51.0", "-", "23.0"]
    assert cells(written, "`pil`, epochs 150") == ["30.0", "-", "44.0"]
    assert "key of `lock` trains the same network on the copy as it opens it, to 73.0" in written


def test_hackers_of_another_precision_have_a_table_of_their_own() -> None:
    other = baseline("em", 33.0, recipe={"epochs": 5, "precision": "bfloat16"})
    first, second = tables.baseline_table([*baselines(), other]).split("5 epochs, bfloat16")
    assert cells(first, "`em`")[0] == "22.0 ± 25.4" and cells(second, "`em`")[0] == "33.0"


def test_published_figures_stand_beside_ours() -> None:
    published = [
        {"method": "em", "countermeasure": "none", "accuracy": 20.8, "source": "a leaderboard"},
        {"method": "em", "countermeasure": "jpeg:10", "accuracy": 80.7, "source": "a leaderboard"},
        {"method": "tap", "countermeasure": "none", "accuracy": 6.3, "source": "a leaderboard"},
        {"method": "tap", "countermeasure": "adversarial", "accuracy": 79.9, "source": "a leaderboard"},
    ]
    short = baseline("tap", 60.0, "adversarial:steps=3")  # the published column says no options
    written = tables.field_table([*baselines(), short], published)
    assert cells(written, "`tap`")[2] == "79.9 / 60.0" and "`adversarial:steps=3` under adversarial" in written
    assert cells(written, "`em`") == ["20.8 / 22.0 ± 25.4", "80.7 / -", "- / -"]
    assert cells(written, "`tap`")[0] == "6.3 / -"
    assert "a leaderboard" in written


def test_claims_are_answered_by_the_strongest_stage() -> None:
    rows = [
        training("authorised", OURS, 60.0, stage="finalists"),
        training("authorised", OURS, 62.0, stage="finalists", trained_on="clean"),
        training("hacker", VGG, 15.0, stage="finalists"),
        training("hacker", VGG, 70.0, stage="finalists", trained_on="clean"),
        training("hacker", OURS, 59.0, stage="finalists", countermeasure="other-init"),
        training("hacker", VGG, 40.0, stage="grid"),
    ]
    written = tables.claims_table(rows, [], [])
    line = {line.split(" | ")[0].strip("| "): line for line in written.splitlines()}
    assert "60.0 (62.0)" in line["The authorised network keeps what it learns from the originals."]
    assert "vgg 15.0 (70.0)" in line["Other networks, the hackers', learn less from the copy."].replace(
        "vgg(depth=8)", "vgg"
    )
    assert "59.0 (-)" in next(text for claim, text in line.items() if "not the initial weights" in claim)
    assert "not measured yet" in line["It holds under different attacks."]


def test_pages_are_written_checked_and_found_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    page = "before\n<!-- results:seeds -->\nold\n<!-- /results -->\nafter\n"
    for name in tables.PAGES:
        (tmp_path / name).write_text(page)
    assert tables.main(["--check"], tmp_path) == 1
    assert (tmp_path / "README.md").read_text() == page
    assert tables.main([], tmp_path) == 0
    assert (tmp_path / "README.md").read_text() == page.replace("old", "not measured yet")
    assert tables.main(["--check"], tmp_path) == 0
    for row in three_seeds():
        append_record(tmp_path / tables.RESULTS / "uge_cifar" / "records.jsonl", row)
    assert tables.main(["--check"], tmp_path) == 1
    assert "stale" in capsys.readouterr().out
    assert tables.main([], tmp_path) == 0
    written = (tmp_path / "docs" / "measurements.md").read_text()
    assert cells(written, "mean drop of other architectures") == ["23.0 ± 4.3"]
    assert written.endswith("<!-- /results -->\nafter\n")


def being_measured() -> bool:
    """Whether a benchmark has added rows that are not committed yet, so that pages may rightly lag behind."""
    command = ["git", "status", "--porcelain", "--", str(tables.RESULTS)]
    try:
        return bool(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout: then nothing is being measured
        return False


@pytest.mark.skipif(being_measured(), reason="records are not committed yet")
def test_the_committed_pages_are_not_stale(capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--check"]) == 0, capsys.readouterr().out


def test_every_section_is_shown_somewhere() -> None:
    shown = {match[2] for page in tables.PAGES for match in tables.MARKED.finditer((ROOT / page).read_text())}
    assert shown == set(tables.SECTIONS)


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks" / "quality").glob("*.toml")), ids=lambda file: file.stem)
def test_committed_plans_can_be_read(file: Path) -> None:
    if "[[protections]]" in file.read_text():
        assert read_bench(str(file)).protections
    else:
        assert read_plan(str(file)).hackers


def test_committed_records_hold_no_path_and_no_key() -> None:
    for file in sorted((ROOT / tables.RESULTS).rglob("records.jsonl")):
        for line in file.read_text().splitlines():
            assert not {"weights", "key", "path"} & json.loads(line).keys()
            assert '"/' not in line
