"""Tables from hand-written records, compared with values computed by hand; and the committed pages are not stale."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.ranking import FILE, ranking
from benchmarks.tables.audit import audit_grid
from benchmarks.tables.baselines import baseline_table, field_table
from benchmarks.tables.claims import claims_table
from benchmarks.tables.fedavg import fedavg_table
from benchmarks.tables.gallery import gallery_table
from benchmarks.tables.guard import guard_table, refused_table
from benchmarks.tables.leaderboard import GONE
from benchmarks.tables.many import hundred_million, numbers_table
from benchmarks.tables.plots import LABELS, WIDTH, hackers_plot, leaderboard_plot
from benchmarks.tables.sealed import HEADLINE, copy_table, every_hacker, headline
from benchmarks.tables.search import search_table
from benchmarks.tables.speed import speed_table
from benchmarks.tables.text import NOT_MEASURED, figure, shown
from benchmarks.tables.uge_cifar import Setting, budget_table, stage_table
from benchmarks.tables.worth import worth_table
from uge.audit.plan import read_plan
from uge.bench.plan import read_bench
from uge.protect import PROTECTIONS
from uge.records import append_record, read_records

ROOT = Path(__file__).parents[2]

CONFIG = {"gradient_matching": 1.0, "feature_distance": 0.3, "undistillation": 0}
CONFIG |= {"feature_objective": "distance", "epsilon_255": 32}
OURS, VGG, MLP, RESNET = "convnet(width=32)", "vgg(depth=8)", "mlp", "resnet(depth=8)"
CLEAN = {"trained_on": "clean"}
Row = dict[str, Any]


def row(kind: str, network: str, accuracy: float, **more: Any) -> Row:
    """A row of a training as benchmarks write it, less what no table reads."""
    facts = {"dataset": "cifar10", "kind": kind, "network": network, "countermeasure": "none", "seed": 0}
    facts |= {"trained_on": "published", "images": 10000, "test_images": 2000, "recipe": {"epochs": 30}} | more
    cell = repr(sorted((name, str(value)) for name, value in facts.items()))
    return {"cell": cell, "accuracy": accuracy, "peak_accuracy": accuracy + 2} | facts


def training(kind: str, network: str, accuracy: float, **more: Any) -> Row:
    """As benchmarks/quality/uge_cifar.py writes it."""
    facts = {"stage": "seeds", "setting": "gm+fd@32", "config": CONFIG, "authorised_network": "convnet:width=32"}
    return row(kind, network, accuracy, **facts | more)


def check(network: str, once: float, twice: float, kind: str = "hacker", **more: Any) -> list[Row]:
    """The same with the budget and with twice the budget, on the originals."""
    facts = {"stage": "check", "setting": "clean", "small": False, "authorised_network": "convnet:width=32"}
    facts |= CLEAN | more
    return [
        row(kind, network, accuracy, **facts, budget_factor=factor, recipe={"epochs": 30 * factor})
        for factor, accuracy in ((1, once), (2, twice))
    ]


def test_the_ranking_is_the_mean_place_between_the_weakest_and_the_strongest_of_each_copy() -> None:
    def on(copy: str, **reached: float) -> list[Row]:
        more = {"knows": "nothing", "data": copy}
        return [row("hacker", "vgg", value, countermeasure=how, **more) for how, value in reached.items()]

    rows = on("a", none=20.0, sobel=30.0, chroma=40.0, mixup=60.0, cutmix=25.0)
    rows += on("b", none=50.0, sobel=90.0, chroma=50.0, mixup=70.0, cutmix=10.0) + on("c", none=99.0, sobel=1.0)
    others = ((55.0, "chroma", "nothing"), (99.0, "none", "key"), (99.0, "of yesterday", "nothing"))
    for value, how, knows in others:  # of the first the best network counts, of the others nothing
        rows.append(row("hacker", "mlp", value, countermeasure=how, knows=knows, data="a"))
    # A copy with fewer than five says nothing; two copies more would have said one half.
    expected = {"mixup": (1 + 0.75 + 1) / 4, "sobel": (0.25 + 1 + 1) / 4, "chroma": (0.875 + 0.5 + 1) / 4}
    expected |= {"none": (0 + 0.5 + 1) / 4, "cutmix": (0.125 + 0 + 1) / 4}
    found = ranking(rows)
    assert found == pytest.approx(expected, abs=6e-4) and [*found][0::4] == ["mixup", "cutmix"]


def test_tables_of_worths_and_searches() -> None:
    curve = [{"originals": size, "accuracy": 60.0, "fitted": 60.0} for size in (0, 50, 2000)]
    worth = {"network": "vgg", "countermeasure": "jpeg:10", "accuracy": 59.4, "copies": 2000, "curve": curve}
    result = {"kind": "result", "name": "em", "dataset": "cifar", "worth_pretrained": None}
    result["worth"] = worth | {"originals": 1858.2, "interval": [1503.7, None]}
    line = "| em, cifar | vgg, jpeg (10) | 59.4 (60.0) | 2,000 | 1,900 | 1,500 to more than 2,000 |"
    assert line in worth_table([result])
    replays = [{"data": "x", "copy": "ours", "dataset": "cifar", "hackers": 20, "strongest": 61.0}] * 2
    parts = zip(replays, (0.125, 0.25), (50, 60), strict=True)
    rows = [replay | {"share": share, "found": found} for replay, share, found in parts]
    assert "| ours, cifar | 20 | 50.0 | 60.0 | 61.0 |" in search_table(rows)


def three_seeds() -> list[Row]:
    rows = []
    for seed, (ours, vgg, mlp, twin, student) in enumerate(
        [(50.0, 30.0, 20.0, 48.0, 31.0), (52.0, 34.0, 22.0, 51.0, 36.0), (54.0, 32.0, 24.0, 51.0, 35.0)]
    ):
        measures = {"on_policy_direction": 0.10 + 0.01 * seed, "similarity_efficientnet_lite1": 0.5}
        rows += [
            training("authorised", OURS, ours, seed=seed),
            training("authorised", OURS, 56.0, seed=seed, **CLEAN),
            training("hacker", OURS, twin, seed=seed, countermeasure="other-init"),
            training("hacker", VGG, vgg, seed=seed),
            training("hacker", VGG, 60.0, seed=seed, **CLEAN),
            training("hacker", MLP, mlp, seed=seed),
            training("hacker", MLP, 40.0, seed=seed, **CLEAN),
            training("hacker", VGG, student, seed=seed, countermeasure="distillation:soft"),
            training("measures", OURS, 0.0, seed=seed, psnr_db=24.0, ssim=0.9, **measures),
        ]
    return rows


def cells(text: str, title: str) -> list[str]:
    """The cells of the one table line that begins with a title."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {title} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_numbers_as_text() -> None:
    assert shown([50.0, 52.0, 54.0], 3) == "52.000 ± 4.969"  # s = 2, t(2) = 4.303: 4.303 * 2 / sqrt(3)
    assert [shown([3.0, 1.0]), shown([1.0, 1.0]), shown([7.0]), shown([])] == ["2.0 (1.0 to 3.0)", "1.0", "7.0", "-"]
    assert [figure(value) for value in (0.01234, 12.34, 123456.0)] == ["0.0123", "12.3", "123,456"]


def test_three_seeds_by_hand() -> None:
    text = stage_table(three_seeds(), "seeds")
    assert text.startswith("cifar10; 10,000 training images, 2,000 test images, 30 epochs; seeds 0, 1, 2.")
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
    text = stage_table(rows, "seeds")
    assert cells(text, VGG)[0].startswith("32.0 ± 5.0† (")
    assert "†" not in cells(text, MLP)[0]
    # mlp alone: 20, 18, 16: mean 18, s = 2
    assert cells(text, "mean drop of other architectures") == ["18.0 ± 5.0"]
    assert cells(text, "margin: authorised less strongest hacker") == ["2.0 ± 2.5"]  # the claim keeps every hacker
    assert "not counted in the mean drop" in text
    assert "3 of the 5 kinds" in text


def test_a_check_at_another_size_or_data_set_says_nothing() -> None:
    rows = three_seeds() + check(VGG, 50.0, 100.0, small=True) + check(MLP, 50.0, 100.0, dataset="other")
    assert "†" not in stage_table(rows, "seeds")


def test_budget_table() -> None:
    rows = check(VGG, 57.0, 60.0) + check(MLP, 56.9, 60.0, small=True) + check(OURS, 58.0, 56.0, kind="authorised")
    rows += check("vit", 40.0, 41.0)[:1]  # twice the budget is still to come
    text = budget_table(rows)
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
    text = stage_table(rows, "grid")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "`gm" in line]
    assert [line[:5] for line in lines] == [
        [f"`gm+fd@{epsilon}`", "L_gm + 0.3 L_fd", str(epsilon), "50.0 (-)", f"{10 + epsilon / 8} (-)"]
        for epsilon in (8, 16, 32, 64, 128)
    ]


def test_terms_of_a_setting() -> None:
    misaligned = CONFIG | {"feature_objective": "misalignment", "gradient_matching": 0, "undistillation": 1}
    assert Setting("grid", "cifar10", "x", misaligned).terms == "0.3 L_mis + L_ud"


def test_two_keys_count_the_weaker_authorised_network_and_no_hacker_of_its_kind_as_another() -> None:
    rows = [
        training("authorised", OURS, 50.0),
        training("authorised", VGG, 45.0, authorised_network="vgg:depth=8"),
        training("hacker", VGG, 44.0),
        training("hacker", VGG, 60.0, **CLEAN),
        training("hacker", MLP, 20.0),
        training("hacker", MLP, 40.0, **CLEAN),
    ]
    text = stage_table([row | {"stage": "two-keys"} for row in rows], "two-keys")
    assert cells(text, "mean drop of other architectures") == ["20.0"]
    assert cells(text, "margin: authorised less strongest hacker") == ["1.0"]
    small = [row | {"stage": "two-keys", "small": True} for row in rows]
    budgets = check(MLP, 30.0, 40.0, small=True) + check(MLP, 40.0, 40.0)  # too short at 16x16 alone
    assert "undertrained" in stage_table(small + budgets, "two-keys")
    assert "undertrained" not in stage_table([row | {"stage": "two-keys"} for row in rows] + budgets, "two-keys")


def test_the_later_of_two_rows_counts_and_configurations_are_not_mixed() -> None:
    again = [training("authorised", OURS, 40.0), training("authorised", OURS, 50.0)]
    assert cells(stage_table(again, "seeds"), f"authorised: {OURS}") == ["50.0 (peak 52.0, clean -)"]
    longer = training("authorised", OURS, 60.0, config=CONFIG | {"epochs": 60})
    assert len(cells(stage_table([*again, longer], "seeds"), f"authorised: {OURS}")) == 2


def test_nothing_measured_says_so() -> None:
    for folders, compute in tables.SECTIONS.values():
        assert compute(*([] for _ in folders)) == NOT_MEASURED


def test_fedavg_leaves_out_methods_that_are_gone() -> None:
    facts = {"dataset": "eurosat", "images": 3000, "method": "sealed", "epsilon_255": 16, "network": OURS, "clients": 5}
    facts |= {"rounds": 30, "local_epochs": 1, "local_batch_size": 26, "seed": 0}
    facts |= {"accuracy": 50.25, "central_accuracy": 52.5}
    assert fedavg_table([facts, facts | {"method": "null-space"}]).splitlines()[2:] == [
        f"| eurosat, 3000 images | sealed, epsilon 16 | {OURS} | 5 | 30 x 1 | 26 | 0 | 50.2 | 52.5 | -2.2 |"
    ]


def test_of_two_timings_on_one_machine_the_later_counts_and_earlier_versions_are_left_out() -> None:
    row = {"table": "costs", "measure": "publishing", "subject": "32x32", "value": 1234.5, "unit": "images/s"}
    row |= {"repeats": 5, "environment": {"machine": "x86_64", "threads": 2}}
    earlier = {name: value for name, value in row.items() if name != "table"} | {"measure": "view"}
    text = speed_table([row | {"value": 1.0}, row, earlier, row | {"table": "seconds"}], "costs")
    assert text.splitlines()[2:] == ["| publishing | 32x32 | 1,234 images/s | 5 | x86_64, 2 |"]


def test_a_stage_of_many_images_is_stated_by_image_and_scaled_to_a_hundred_million() -> None:
    row = {"table": "numbers", "measure": "opening to files", "subject": "2,000 of 32x32", "value": 9.0, "unit": "s"}
    row |= {"images": 2000, "workers": 2, "core_seconds": 7.2, "megabytes": 400.4}
    rows = [row | {"value": 1.0}, row, row | {"subject": "10 photographs"}, row | {"measure": "training"}]
    line = "| 2,000 of 32x32: opening to files | 2 | 9 s | 7.2 s | 3.6 ms | 400 MiB |"
    assert numbers_table(rows).splitlines()[2] == line
    assert hundred_million(rows).splitlines()[2:] == ["| opening to files | 100 hours | 360 seconds |"]
    assert hundred_million(rows[2:3]) == NOT_MEASURED


def sealed(kind: str, network: str, accuracy: float, how: str = "none", knows: str = "nothing", **more: Any) -> Row:
    """As benchmarks/quality/sealed.py writes it."""
    facts = {"dataset": HEADLINE[0], "copy": "sealed", "epsilon_255": 16, "budget": 1.0, "locked": kind == "authorised"}
    return row(kind, network, accuracy, countermeasure=how, knows=knows, **facts | more)


def sealed_rows() -> list[Row]:
    return [
        sealed("authorised", RESNET, 74.0, knows="key"),
        sealed("authorised", RESNET, 74.0, knows="key", **CLEAN),
        sealed("hacker", VGG, 18.0),
        sealed("hacker", VGG, 20.0, seed=1),
        sealed("hacker", VGG, 76.0, **CLEAN),
        sealed("hacker", MLP, 17.0),
        sealed("hacker", RESNET, 16.0, "other-init", "architecture"),
        sealed("hacker", VGG, 14.0, "grayscale"),
        sealed("hacker", VGG, 15.0, "grayscale+blur:1"),
        sealed("hacker", VGG, 36.0, "adversarial"),
        sealed("hacker", VGG, 29.0, "own-pairs", "method"),
        sealed("hacker", "efficientnet-lite1", 60.0, "pretrained-probe:efficientnet-lite1"),
        sealed("hacker", VGG, 45.0, "clean-mixed:500", "clean images"),
        sealed("hacker", VGG, 50.0, "clean-only:500", "clean images"),
        sealed("hacker", VGG, 70.0, "distillation:soft", "model outputs"),
        sealed("hacker", RESNET, 73.0, "stolen-key", "key"),  # a control, and no hacker
        sealed("hacker", VGG, 55.0, epsilon_255=8),
        {"kind": "copy", "dataset": "cifar10-12k", "copy": "sealed", "epsilon_255": 16, "seed": 0}
        | {"psnr_db": 25.5, "ssim": 0.9, "recognised": {"vgg": 18.0, "resnet": 12.5}},
    ]


def test_the_headline_has_the_recipient_first_and_then_the_strongest_of_each_kind_up_to_the_one_who_wins() -> None:
    lines = headline(sealed_rows()).splitlines()
    assert lines[0].endswith("Epsilon 16, PSNR 25.5 dB; guessing: 10 %.")
    assert lines[4:] == [
        "| **recipient** | 74.0, one seed | 76.0 | 74.0 |",
        "| filters the images first (vgg, `grayscale+blur:1`) | 15.0, one seed | 17.0 | - |",
        "| the recipient's architecture (resnet) | 16.0, one seed | 18.0 | - |",
        "| another architecture (vgg) | 19.0, two seeds | 21.0 | 76.0 |",
        "| denoiser, learnt from images of his own (vgg, `own-pairs`) | 29.0, one seed | 31.0 | - |",
        "| trains in another way (vgg, `adversarial`) | 36.0, one seed | 38.0 | - |",
        "| has some originals (vgg, `clean-mixed:500`; these alone teach 50.0) | 45.0, one seed | 47.0 | - |",
        "| begins with a network trained on ImageNet (efficientnet-lite1, `pretrained-probe:efficientnet-lite1`)"
        " | 60.0, one seed | 62.0 | - |",
        "| asks the recipient's network (vgg, `distillation:soft`) | 70.0, one seed | 72.0 | - |",
    ]


def test_every_kind_of_sealed_copy_has_a_line_and_a_table() -> None:
    first, second = copy_table(sealed_rows()).splitlines()[2:]
    assert first == (
        f"| sealed, {HEADLINE[0]} | 16 | 25.5 | 0.900 | 18 | 74.0 (74.0) | 19.0"
        " | 70.0 (vgg, distillation:soft) | +14.0 | 10 |"
    )
    assert second == f"| sealed, {HEADLINE[0]} | 8 | - | - | - | - | 55.0 | 55.0 (vgg, none) | - | 1 |"
    text = every_hacker(sealed_rows())
    assert text.index("**sealed, epsilon 16**") < text.index("**sealed, epsilon 8**")
    assert "| none | nothing | 19.0 (76.0, 12 %) | 17.0 | 16.0 |  |" in text.splitlines()


def test_what_was_tried_beside_the_default_has_a_page_of_its_own() -> None:
    other = sealed("hacker", VGG, 30.0, copy="sealed, other steps")
    ceilings = sealed("hacker", VGG, 70.0, dataset="eurosat-7k", **CLEAN)
    rows = [*sealed_rows(), other, ceilings]
    assert every_hacker(rows) == every_hacker(sealed_rows())  # a copy that nobody tried has no table
    tried = every_hacker(rows, default=False)
    assert tried.startswith("**sealed, other steps, epsilon 16**") and tried.count("**") == 2


def test_a_plot_has_the_recipient_first_and_then_every_hacker_at_his_accuracy() -> None:
    drawn = hackers_plot(sealed_rows())
    labels = re.findall(r'text-anchor="end">([^<]*)<', drawn)
    assert labels[:3] == ["recipient", "vgg, grayscale", "vgg, grayscale+blur:1"] and labels[-1].startswith("vgg, dist")
    plain = next(line for line in drawn.splitlines() if ">vgg<" in line)
    assert f'class="first" cx="{LABELS + 0.19 * (WIDTH - LABELS - 20):.1f}"' in plain
    assert f'class="second" cx="{LABELS + 0.76 * (WIDTH - LABELS - 20):.1f}"' in plain
    assert "not measured yet" in hackers_plot([])
    result = {"kind": "result", "dataset": "d", "chance": 10.0}
    result |= {"naive": {"accuracy": 20.0}, "worst": {"accuracy": 70.0}}
    names = re.findall(r'"end">([^<]*)<', leaderboard_plot([result | {"name": name} for name in ("a<b", "texture")]))
    assert names == ["a&lt;b"]


def test_the_gallery_has_a_line_an_epsilon_and_hackers_where_there_were_any() -> None:
    looks = {"kind": "copy", "psnr_db": 25.04, "ssim": 0.91}
    copies = [looks | {"epsilon_255": 16}, looks | {"epsilon_255": 8}]
    assert gallery_table(copies).splitlines()[2:] == ["| epsilon 8 | 25.0 | 0.910 |", "| epsilon 16 | 25.0 | 0.910 |"]
    hackers = [row("hacker", VGG, 20.0, epsilon_255=8), row("hacker", VGG, 80.0, epsilon_255=8, **CLEAN)]
    assert gallery_table([*copies, *hackers]).splitlines()[2:] == [
        "| epsilon 8 | 25.0 | 0.910 | - | 20.0 | - | - |",
        "| epsilon 16 | 25.0 | 0.910 | - | - | - | - |",
        "| the originals | - | - | - | 80.0 | - | - |",
    ]


def test_audits_of_copies_of_the_same_images_share_ceilings() -> None:
    def audited(name: str, accuracy: float, **more: Any) -> Row:
        return sealed("hacker", VGG, accuracy, name=f"uge {name}") | more | {"cell": f"{name}{sorted(more.items())}"}

    gray, student = {"countermeasure": "grayscale"}, {"countermeasure": "distillation:soft", "knows": "model outputs"}
    mine = [audited("copy", 20.0), audited("copy", 40.0, **gray), audited("copy", 60.0, **student)]
    others = [audited("other", 70.0, **CLEAN, **gray), audited("other", 65.0, **CLEAN, **student)]
    keyed = [audited("", 80.0, **CLEAN) | {"stage": "full"}]
    facts = {"kind": "facts", "name": "uge copy", "dataset": mine[0]["dataset"], "manifest": {"classes": 10}}

    def grid(rows: list[Row], keyed: list[Row]) -> list[str]:
        text = audit_grid([facts, *rows], keyed)
        return [line for line in text.split("**uge other**")[0].splitlines() if line[0:1] == "|"][2:]

    assert grid(mine, []) == [
        "| none | nothing | 20.0 |",
        "| distillation:soft | model outputs | 60.0 |",
        "| grayscale | nothing | 40.0 |",
    ]
    assert grid(mine + others, keyed) == [
        "| none | nothing | 20.0 (80.0, 14 %) |",
        "| distillation:soft | model outputs | 60.0 |",  # his teacher is the key's
        "| grayscale | nothing | 40.0 (70.0, 50 %) |",
    ]
    elsewhere = [each | {"images": 10} for each in keyed], [each | {"recipe": {"epochs": 1}} for each in keyed]
    assert [grid(mine, rows)[0] for rows in elsewhere] == ["| none | nothing | 20.0 |"] * 2
    assert grid([*mine, audited("copy", 75.0, **CLEAN)], keyed)[0] == "| none | nothing | 20.0 (75.0, 15 %) |"
    twice = audited("other", 90.0, **CLEAN, budget=2.0, recipe={"epochs": 60})
    assert grid([*mine, twice], keyed)[0] == "| none | nothing | 20.0† (80.0, 14 %) |"  # whoever looked
    assert grid([each | {"name": "uge copy, 16x16"} for each in mine], keyed)[0] == "| none | nothing | 20.0 |"
    assert audit_grid([each | {"name": "null-space"} for each in mine]) == NOT_MEASURED


def test_a_guard_has_what_it_costs_and_a_line_a_student() -> None:
    facts = {"kind": "guard", "false_alarms": 0.4, "accuracy": 70.0, "accuracy_guarded": 69.75}
    facts["refused"] = {"as they are": 100.0, "cropped": 91.5}
    facts["refused_clean"] = {"as they are": 0.4, "cropped": 80.0}
    student = {"countermeasure": "guarded", "findings": {"answered": 1200}, "test_images": 1000}
    asked = student | {"countermeasure": "own images", "findings": {"answered": 990}}
    rows = [facts, row("authorised", RESNET, 70.0), row("hacker", VGG, 16.0)]
    rows += [row("hacker", VGG, 17.0, **student), row("hacker", VGG, 44.0, **asked)]
    text = guard_table(rows)
    assert "Clean test images refused: 0.40 %. The network's accuracy: 70.00, behind the guard 69.75" in text
    assert text.splitlines()[4:] == [
        "| plain hacker, who asks nobody | - | 16.0 |",
        "| tries disguises for a day | 1,200 | 17.0 |",
        "| asks about 1,000 images of his own | 990 | 44.0 |",
    ]
    assert refused_table(rows).splitlines()[2:] == ["| as they are | 100.0 | 0.4 |", "| cropped | 91.5 | 80.0 |"]


def baseline(method: str, accuracy: float, how: str = "none", **more: Any) -> Row:
    """As benchmarks/quality/baselines.py writes it."""
    source = "clean" if method == "clean" else "published"
    facts = {"method": method, "trained_on": source, "recipe": {"epochs": 5, "precision": "float32"}}
    return row("hacker", VGG, accuracy, countermeasure=how, **facts | more)


def baselines() -> list[Row]:
    return [
        baseline("clean", 74.0),
        baseline("clean", 70.0, "grayscale"),
        baseline("em", 20.0),
        baseline("em", 24.0, seed=1),
        baseline("em", 69.0, "grayscale"),
        baseline("pil", 51.0),
    ]


def test_baselines_stand_beside_their_ceilings() -> None:
    written = baseline_table(baselines())
    assert cells(written, "on the originals")[:2] == ["74.0", "70.0"]
    assert cells(written, "`em`") == ["22.0 (20.0 to 24.0)", "69.0", "52.0"]
    assert cells(written, "`pil`") == ["51.0", "-", "23.0"]


def test_hackers_of_another_precision_have_a_table_of_their_own() -> None:
    other = baseline("em", 33.0, recipe={"epochs": 5, "precision": "bfloat16"})
    first, second = baseline_table([*baselines(), other]).split(", bfloat16;")
    assert cells(first, "`em`")[0] == "22.0 (20.0 to 24.0)" and cells(second, "`em`")[0] == "33.0"


def test_published_figures_stand_beside_ours() -> None:
    figures = [("em", "none", 20.8), ("em", "jpeg:10", 80.7), ("tap", "none", 6.3), ("tap", "adversarial", 79.9)]
    names = ("method", "countermeasure", "accuracy")
    published = [dict(zip(names, figure, strict=True)) | {"source": "a leaderboard"} for figure in figures]
    short = baseline("tap", 60.0, "adversarial:steps=3")  # the published column says no options
    written = field_table([*baselines(), short], published)
    assert cells(written, "`tap`")[2] == "79.9 / 60.0" and "`adversarial:steps=3` under adversarial" in written
    assert cells(written, "`em`") == ["20.8 / 22.0 (20.0 to 24.0)", "80.7 / -", "- / -"]
    assert cells(written, "`tap`")[0] == "6.3 / -"
    assert "a leaderboard" in written


def test_claims_are_answered_by_the_strongest_stage() -> None:
    trainings = [  # stage, who, network, how, on the copy, on the originals
        ("finalists", "authorised", OURS, "none", 60.0, 62.0),
        ("finalists", "hacker", VGG, "none", 15.0, 70.0),
        ("finalists", "hacker", OURS, "other-init", 59.0, None),
        ("grid", "hacker", VGG, "none", 40.0, 70.0),
        ("finalists", "hacker", VGG, "distillation:soft", 63.0, 70.0),
        ("two-keys", "authorised", OURS, "none", 50.0, None),
        ("two-keys", "hacker", VGG, "none", 30.0, 70.0),
    ]
    rows = []
    for stage, kind, network, how, copy, clean in trainings:
        rows.append(training(kind, network, copy, stage=stage, countermeasure=how))
        if clean is not None:
            rows.append(training(kind, network, clean, stage=stage, countermeasure=how, **CLEAN))
    written = claims_table(rows, [], [])
    line = {line.split(" | ")[0].strip("| "): line for line in written.splitlines()}
    assert "60.0 (62.0)" in line["The authorised network keeps what it learns from the originals."]
    assert "vgg 15.0 (70.0)" in line["Other networks, the hackers', learn less from the copy."]
    assert "59.0 (-)" in next(text for claim, text in line.items() if "without the weights" in claim)
    assert "not measured yet" in line["It holds under different attacks."]
    space = line["The distance in a common feature space is what stops them."]
    assert "| with it others learn 30.0 points less | [grid](grid.md) |" in space
    student = "without the term: 90.0 % of what they learn from the originals; with it: not measured yet"
    assert student in line["Undistillation guards the authorised network against students."]
    both = "1 copies: others learn 40.0 points less, margins 20.0"
    assert both in line["It holds for various networks, several at once."]


def test_pages_are_written_checked_and_found_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = "before\n<!-- results:seeds -->\nold\n<!-- /results -->\nafter\n"
    for name in (*tables.PAGES, FILE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
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
    written = (tmp_path / "docs" / "reproduction" / "seeds.md").read_text()
    assert cells(written, "mean drop of other architectures") == ["23.0 ± 4.3"]
    assert written.endswith("<!-- /results -->\nafter\n")


def test_the_committed_pages_are_not_stale(capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--check"]) == 0, capsys.readouterr().out


def test_every_section_is_shown_somewhere() -> None:
    shown = {match[2] for page in tables.PAGES for match in tables.MARKED.finditer((ROOT / page).read_text())}
    assert shown == set(tables.SECTIONS)


def test_the_leaderboard_leaves_out_what_no_version_makes_any_more() -> None:
    made = {row["name"]: row["method"] for row in read_records(ROOT / tables.RESULTS / "leaderboard" / "records.jsonl")
            if row["kind"] == "result"}  # fmt: skip
    assert {name for name, method in made.items() if method not in PROTECTIONS} <= GONE


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
