"""Every table of README.md and docs/*.md, computed from the committed records and from nothing else.

    python benchmarks/tables.py            write them
    python benchmarks/tables.py --check    exit code 1 if a page is not what the records say

A generated section stands between `<!-- results:NAME -->` and `<!-- /results -->`; NAME is a key of `SECTIONS`. Rows
that are read, one JSON line each, below benchmarks/results/:

    uge_cifar/records.jsonl   what quality/uge_cifar.py writes: trainings, and one row `"kind": "measures"` a copy
    null_space/records.jsonl  what quality/null_space.py writes: trainings, and one row `"kind": "measures"` a copy
    fedavg/records.jsonl      what examples/federated.py --record writes
    audit/records.jsonl       what quality/audit.py writes: trainings, and one row `"kind": "facts"` a finished audit
    baselines/records.jsonl   what quality/baselines.py writes: trainings, and one row `"kind": "measures"` a copy
    bench/records.jsonl       what `uge bench quick` writes
    published/records.jsonl   figures that others published, copied from the source that each row names
    eigenvalues/records.jsonl what quality/eigenvalues.py writes, a row a layout
    purification/records.jsonl  what quality/purification.py writes, a row a denoiser
    speed/records.jsonl       {"measure", "subject", "value", "unit", "repeats", "environment": {"machine", "threads"}}

Where there are two seeds or more, a number is the mean over seeds and the half-width of its 95% interval (Student's t).
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from uge.attack import on_originals
from uge.audit.metrics import counts, holds_originals, summarise
from uge.audit.plan import FILTERS
from uge.records import config_hash, read_records
from uge.report.leaderboard import markdown

ROOT = Path(__file__).resolve().parents[1]
PAGES = (Path("README.md"), Path("docs/measurements.md"), Path("docs/reproduction.md"))
RESULTS = Path("benchmarks/results")
MARKED = re.compile(r"(<!-- results:(\S+) -->\n).*?(<!-- /results -->)", re.DOTALL)
NOT_MEASURED = "not measured yet\n"
ENOUGH = 0.95  # a budget counts where it reaches this share of what twice the budget reaches
WIDE = 4  # up to so many settings stand side by side, a column each; more become rows
DEGREES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # 97.5% quantiles of t for 1, 2, ... degrees

Row = dict[str, Any]
Run = tuple[str, str, str]  # kind, network, counter-measure
Table = list[tuple[str, list[str]]]  # title and one text a setting


# -- numbers -------------------------------------------------------------------------------------------------------


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half-width of its 95% interval, t * s / sqrt(n); no half-width from one value."""
    if len(values) < 2:
        return fmean(values), None
    t = DEGREES[min(len(values) - 1, len(DEGREES)) - 1]  # beyond ten values slightly too wide
    return fmean(values), t * stdev(values) / math.sqrt(len(values))


def shown(values: Sequence[float], digits: int = 1) -> str:
    """As "28.7" or "28.7 ± 1.2"; "-" where there is nothing."""
    if not values:
        return "-"
    mean, half = interval(values)
    return f"{mean:.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def figure(value: float) -> str:
    """Three digits that count, and never an exponent for a large number: "0.0123", "12.3", "12,345"."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def numbered(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(values))))


def devices(rows: Iterable[Row]) -> str:
    """Where these were trained, unless all of it was on processors."""
    found = sorted({row["environment"]["device"] for row in rows} - {"cpu"})
    return f"; trained on processors and on {' and '.join(found)}" if found else ""


# -- the CIFAR search ----------------------------------------------------------------------------------------------


@dataclass
class Setting:
    """All rows of one setting in one stage: what was trained on its copies, and what was measured on them."""

    stage: str
    dataset: str
    name: str
    config: Row
    trainings: list[Row] = field(default_factory=list)
    measures: list[Row] = field(default_factory=list)

    @property
    def terms(self) -> str:
        """The loss as it was weighted, such as "L_gm + 0.3 L_fd"."""
        distance = "L_mis" if self.config.get("feature_objective") == "misalignment" else "L_fd"
        weights = (("gradient_matching", "L_gm"), ("feature_distance", distance), ("undistillation", "L_ud"))
        used = [(self.config[name], term) for name, term in weights if self.config[name]]
        return " + ".join(term if weight == 1 else f"{weight:g} {term}" for weight, term in used)

    @property
    def epsilon(self) -> int:
        return self.config["epsilon_255"]

    @property
    def authorised_networks(self) -> list[str]:
        return list(dict.fromkeys(row["network"] for row in self.trainings if row["kind"] == "authorised"))

    @property
    def seeds(self) -> list[int]:
        return sorted({row["seed"] for row in self.trainings})

    @property
    def hackers(self) -> list[Run]:
        """The authorised architecture first, then the other plain hackers, then students."""
        found = dict.fromkeys(run_of(row) for row in self.trainings if row["kind"] == "hacker")
        return sorted(found, key=lambda run: (run[2] != "other-init", run[2] != "none"))

    @property
    def others(self) -> list[Run]:
        """Plain hackers whose architecture is none of the authorised ones."""
        return [run for run in self.hackers if run[2] == "none" and run[1] not in self.authorised_networks]

    def accuracies(self, run: Run, trained_on: str = "published", what: str = "accuracy") -> dict[int, float]:
        """Seed -> percent."""
        return {
            row["seed"]: row[what] for row in self.trainings if run_of(row) == run and row["trained_on"] == trained_on
        }

    def drops(self, run: Run) -> dict[int, float]:
        """Seed -> clean minus published, in points."""
        clean = self.accuracies(run, "clean")
        return {seed: clean[seed] - value for seed, value in self.accuracies(run).items() if seed in clean}

    def mean_drops(self, undertrained: set[Run]) -> list[float]:
        """For each seed the mean drop of the others, without those whose budget is too small to count."""
        by_run = [self.drops(run) for run in self.others if run not in undertrained]
        return [fmean(drops[s] for drops in by_run) for s in self.seeds if by_run and all(s in d for d in by_run)]

    def margins(self, what: str = "accuracy") -> list[float]:
        """For each seed the lowest authorised accuracy less the strongest hacker's, students included."""
        ours = [self.accuracies(("authorised", network, "none")) for network in self.authorised_networks]
        theirs = [self.accuracies(run, what=what) for run in self.hackers]
        return [
            min(each[seed] for each in ours) - max(each[seed] for each in theirs)
            for seed in self.seeds
            if ours and theirs and all(seed in each for each in ours + theirs)
        ]

    def gains(self) -> list[float]:
        """For each seed, what the best student of another architecture has over that architecture's plain hacker."""
        pairs = [
            (self.accuracies(run), self.accuracies(("hacker", run[1], "none")))
            for run in self.hackers
            if run[2].startswith("distillation") and run[1] not in self.authorised_networks
        ]
        return [
            max(student[seed] - plain[seed] for student, plain in pairs)
            for seed in self.seeds
            if pairs and all(seed in student and seed in plain for student, plain in pairs)
        ]

    def measured(self, name: str) -> list[float]:
        return [row[name] for row in self.measures if name in row]


def run_of(row: Row) -> Run:
    return row["kind"], row["network"], row["countermeasure"]


def settings_of(rows: Iterable[Row], stage: str) -> list[Setting]:
    """Settings of a stage in the order of terms and epsilon; of two rows of one cell the later counts.

    One name measured with two configurations gives two settings, told apart by the configuration's hash.
    """
    latest = {
        (row["dataset"], row["setting"], config_hash(row["config"]), row.get("authorised_network"), row["cell"]): row
        for row in rows
        if row["stage"] == stage
    }
    found: dict[tuple[str, str, str], Setting] = {}
    for (dataset, name, config, *_), row in latest.items():
        setting = found.setdefault((dataset, name, config), Setting(stage, dataset, name, row["config"]))
        (setting.measures if row["kind"] == "measures" else setting.trainings).append(row)
    for (dataset, name, config), setting in found.items():
        if sum(key[:2] == (dataset, name) for key in found) > 1:
            setting.name = f"{name} ({config})"
    return sorted(found.values(), key=lambda s: (s.dataset, len(s.terms), s.terms, s.epsilon, s.name))


def undertrained_runs(rows: Iterable[Row], dataset: str, small: bool) -> tuple[set[Run], set[Run]]:
    """Runs whose budget was compared with twice the budget, and those of them where it is too small."""
    checked, short = set(), set()
    for run, _, once, twice in budgets(rows, dataset, small):
        checked.add(run)
        if once < ENOUGH * twice:
            short.add(run)
    return checked, short


def budgets(rows: Iterable[Row], dataset: str, small: bool) -> list[tuple[Run, int, float, float]]:
    """(run, epochs, accuracy at the budget, at twice the budget) of one data set and size, on clean data.

    Accuracies are means over trainings: those of another key or its students are trainings of the same run.
    """
    cells = {  # of two rows of one cell the later counts
        row["cell"]: row
        for row in rows
        if row["stage"] == "check" and (row["dataset"], row["small"]) == (dataset, small)
    }
    found: dict[Run, dict[int, list[Row]]] = {}
    for row in cells.values():
        found.setdefault(run_of(row), {}).setdefault(row["budget_factor"], []).append(row)
    return [
        (run, by[1][0]["recipe"]["epochs"], *(fmean(row["accuracy"] for row in by[factor]) for factor in (1, 2)))
        for run, by in found.items()
        if by.keys() >= {1, 2}
    ]


def run_label(run: Run) -> str:
    kind, network, countermeasure = run
    if kind == "authorised":
        return f"authorised: {network}"
    if countermeasure == "other-init":
        return f"same architecture, other init: {network}"
    return network if countermeasure == "none" else f"{network}, {countermeasure}"


def columns(settings: Sequence[Setting], rows: Iterable[Row], small: bool, peaks: bool) -> tuple[Table, list[str]]:
    """What a stage's table says of each setting, and the notes that belong beneath it."""
    rows = list(rows)
    budget = {s.dataset: undertrained_runs(rows, s.dataset, small) for s in settings}

    def accuracy(setting: Setting, run: Run) -> str:
        published = list(setting.accuracies(run).values())
        if not published:
            return "-"
        mark = "†" if run in budget[setting.dataset][1] else ""
        peak = shown(list(setting.accuracies(run, what="peak_accuracy").values()))
        clean = shown(list(setting.accuracies(run, "clean").values()))
        return shown(published) + mark + (f" (peak {peak}, clean {clean})" if peaks else f" ({clean})")

    authorised = list(dict.fromkeys(network for setting in settings for network in setting.authorised_networks))
    runs = [("authorised", network, "none") for network in authorised]
    hackers = list(dict.fromkeys(run for setting in settings for run in setting.hackers))
    content: Table = [(run_label(run), [accuracy(s, run) for s in settings]) for run in runs + hackers]
    content.append(("mean drop of other architectures", [shown(s.mean_drops(budget[s.dataset][1])) for s in settings]))
    content.append(("margin: authorised less strongest hacker", [shown(s.margins()) for s in settings]))
    if peaks:
        content.append(("margin against the hackers' peaks", [shown(s.margins("peak_accuracy")) for s in settings]))
    if any(s.gains() for s in settings):
        content.append(
            ("best student of another architecture less its plain hacker", [shown(s.gains()) for s in settings])
        )
    content += [
        (title, [shown(s.measured(name), digits) for s in settings])
        for title, name, digits in (
            ("on-policy L_gm, direction", "on_policy_direction", 3),
            ("similarity in the held-out encoder", "similarity_efficientnet_lite1", 3),
            ("PSNR, dB", "psnr_db", 1),
            ("SSIM", "ssim", 3),
        )
    ]
    notes = []
    if any(run in budget[s.dataset][1] for s in settings for run in runs + hackers):
        notes.append(
            "† undertrained: on clean data this budget reaches less than 95% of what twice the budget reaches;"
            " not counted in the mean drop."
        )
    present = {(s.dataset, run) for s in settings for run in [*runs, *hackers] if s.accuracies(run)}
    if unchecked := sum(run not in budget[dataset][0] for dataset, run in present):
        notes.append(f"{unchecked} of the {len(present)} kinds of training here have no budget check yet.")
    return content, notes


def stage_table(rows: Iterable[Row], stage: str) -> str:
    """The table of one stage of the search, or that it is not measured yet."""
    rows = list(rows)
    settings = settings_of(rows, stage)
    if not any(setting.trainings for setting in settings):
        return NOT_MEASURED
    few = len(settings) <= WIDE
    small = stage == "grid" or any(row.get("small") for setting in settings for row in setting.trainings)
    content, notes = columns(settings, rows, small=small, peaks=few)
    several = len({setting.dataset for setting in settings}) > 1
    if few:
        heads = [
            (f"{s.dataset}: " if several else "") + f"`{s.name}`: {s.terms}, epsilon {s.epsilon}" for s in settings
        ]
        text = table(["", *heads], [[title, *cells] for title, cells in content])
    else:
        header = ["setting", "terms", "epsilon", *(title for title, _ in content)]
        lines = [
            [
                (f"{s.dataset}: " if several else "") + f"`{s.name}`",
                s.terms,
                str(s.epsilon),
                *(cells[i] for _, cells in content),
            ]
            for i, s in enumerate(settings)
        ]
        text = table(header, lines) + "\nIn brackets: the same network trained on the originals.\n"
    trainings = [row for setting in settings for row in setting.trainings]
    facts = (
        f"{', '.join(sorted({s.dataset for s in settings}))}; "
        f"{numbered(row['images'] for row in trainings)} training images,"
        f" {numbered(row['test_images'] for row in trainings)} test images,"
        f" {numbered(row['recipe']['epochs'] for row in trainings)} epochs;"
        f" seeds {numbered(row['seed'] for row in trainings)}."
    )
    return facts + "\n\n" + text + "".join(f"\n{note}\n" for note in notes)


def budget_table(rows: Iterable[Row]) -> str:
    """Each clean training at its budget and at twice the budget."""
    rows = list(rows)
    groups = sorted({(row["dataset"], row["small"]) for row in rows if row["stage"] == "check"})
    lines = []
    for dataset, small in groups:
        for run, epochs, once, twice in budgets(rows, dataset, small):
            lines.append(
                [
                    f"{dataset}, {'small' if small else 'full size'}",
                    run_label(run),
                    str(epochs),
                    f"{once:.1f}",
                    f"{twice:.1f}",
                    f"{once / twice:.3f}",
                    "enough" if once >= ENOUGH * twice else "undertrained",
                ]
            )
    header = ["data", "clean training", "epochs", "accuracy", "with twice the epochs", "ratio", "budget is"]
    return table(header, lines) if lines else NOT_MEASURED


def headline(rows: Iterable[Row]) -> str:
    """The README's section: the strongest evidence there is, with its size said first."""
    rows = list(rows)
    instead = "Three seeds of one setting: not measured yet. Below, from one seed each: "
    for stage, words in (
        ("seeds", ""),
        ("finalists", instead + "the finalists of the search.\n\n"),
        ("grid", instead + "the search at 16x16 pixels, which is no evidence.\n\n"),
    ):
        text = stage_table(rows, stage)
        if text != NOT_MEASURED:
            return words + text
    return NOT_MEASURED


# -- the others ----------------------------------------------------------------------------------------------------


def fedavg_table(rows: Iterable[Row]) -> str:
    """Federated averaging beside central training on the same copy."""
    lines = [
        [
            f"{row['dataset']}, {row['images']} images",
            f"{row['method']}, epsilon {row['epsilon_255']}",
            row["network"],
            str(row["clients"]),
            f"{row['rounds']} x {row['local_epochs']}",
            str(row.get("local_batch_size") or row["recipe"]["batch_size"]),  # older rows: whole batches
            str(row["seed"]),
            f"{row['accuracy']:.1f}",
            f"{row['central_accuracy']:.1f}",
            f"{row['accuracy'] - row['central_accuracy']:+.1f}",
        ]
        for row in rows
    ]
    header = ["data", "copy", "authorised network", "clients", "rounds x local epochs", "local batch", "seed"]
    return table([*header, "federated", "central", "difference"], lines) if lines else NOT_MEASURED


def speed_table(rows: Iterable[Row]) -> str:
    """Speed and memory; of two rows of one measurement on one kind of machine the later counts."""
    latest = {
        (row["measure"], row["subject"], row["environment"]["machine"], row["environment"]["threads"]): row
        for row in rows
    }
    lines = [
        [measure, subject, f"{figure(row['value'])} {row['unit']}", str(row["repeats"]), f"{machine}, {threads}"]
        for (measure, subject, machine, threads), row in latest.items()
    ]
    header = ["measure", "of", "median", "repeats", "machine, threads"]
    return table(header, lines) if lines else NOT_MEASURED


# -- null-space keys -----------------------------------------------------------------------------------------------


def view_prices(rows: Iterable[Row], stage: str) -> str:
    """Locked-clean accuracy of every layout, a column a group size and a row a kind of cell."""
    rows = [row for row in rows if row["stage"] == stage]
    locked: dict[tuple[str, int], list[float]] = {}
    reversible = []
    for row in rows:
        if row["kind"] == "authorised":
            layout = row["layout"]
            if "cell" not in layout:
                reversible.append(row["accuracy"])
                continue
            kind = f"{layout['cell']}x{layout['cell']}, {layout.get('signs', 'balanced')} signs"
            kind += f", {layout.get('channels', 'mixed')} channels"
            kind += f", {layout['levels']} levels" if "levels" in layout else ""
            locked.setdefault((kind, layout["group_size"]), []).append(row["accuracy"])
    if not locked:
        return NOT_MEASURED
    clean = [row["accuracy"] for row in rows if row["kind"] == "hacker"]
    sizes = sorted({size for _, size in locked})
    kinds = sorted({kind for kind, _ in locked}, key=lambda kind: (kind.split(", ")[1:], int(kind.split("x")[0])))
    body = [[kind, *(shown(locked.get((kind, size), [])) for size in sizes)] for kind in kinds]
    said = rows[0]
    about = (
        f"{said['dataset']}; {said['images']} training images, {said['test_images']} test images,"
        f" {said['recipe']['epochs']} epochs; seeds {numbered(row['seed'] for row in rows)}."
        f" The same architecture without a view: {shown(clean)}"
    )
    about += f"; through the view of a reversible key: {shown(reversible)}.\n\n" if reversible else ".\n\n"
    return about + table(["cells, groups", *(f"s = {size}" for size in sizes)], body)


SEARCHED = "cifar10-12k"  # the data that settings were chosen on
CHOSEN = {  # what the README shows, and how it calls it
    "reversible+filters": "epsilon 8, defaults",
    "reversible-full+combined+misdirecting-light+mlp-references+wide+longer": (
        "epsilon 8, full, `misdirecting-large`, misdirection 0.3"
    ),
    "reversible-full+combined+misdirecting+mlp-references+wide+longer": "epsilon 8, full, `misdirecting-large`",
    "reversible16+combined+long": "epsilon 16, `combined`",
    "reversible16-full+combined+long+misdirecting+mlp-references": "epsilon 16, full, `misdirecting`",
}


def null_space_elsewhere(rows: Iterable[Row]) -> str:
    """What `null_space_table` shows, a table for each other data set and size."""
    rows = list(rows)
    trained = [row for row in rows if row["stage"] in ("full", "small") and row["kind"] != "measures"]
    places = {(row["stage"], row["dataset"]) for row in trained}
    others = sorted(place for place in places if place[1] != SEARCHED)
    return "\n".join(null_space_table(rows, stage, dataset=name) for stage, name in others) or NOT_MEASURED


def null_space_table(
    rows: Iterable[Row], stage: str, only: Mapping[str, str] | None = None, dataset: str = SEARCHED
) -> str:
    """One column a setting: authorised, hackers with their clean level, exactness, size and look of the copy.

    `only` has the settings to show, and their titles.
    """
    heads = only or {}
    rows = [row for row in rows if (row["stage"], row["dataset"]) == (stage, dataset)]
    rows = [row for row in rows if not heads or row["setting"] in (*heads, "clean")]
    measured = dict.fromkeys(row["setting"] for row in rows if row["setting"] != "clean")
    settings = [setting for setting in heads or measured if setting in measured]
    trainings = [row for row in rows if row["kind"] != "measures"]
    if not trainings:
        return NOT_MEASURED

    def accuracies(setting: str, role: str, network: str, how: str, source: str) -> list[float]:
        wanted = (setting, role, network, how, source)
        return [
            row["accuracy"]
            for row in trainings
            if wanted == (row["setting"], row["kind"], row["network"], row["countermeasure"], row["trained_on"])
        ]

    runs = dict.fromkeys(run_of(row) for row in trainings if row["trained_on"] == "published")
    body = []
    for kind, network, how in sorted(runs, key=lambda run: (run[0] != "authorised", run[1:])):
        cells = []
        for setting in settings:
            source = setting if kind == "authorised" else "clean"
            ceiling = accuracies(source, kind, network, how, "clean")
            cells.append(f"{shown(accuracies(setting, kind, network, how, 'published'))} ({shown(ceiling)})")
        body.append([run_label((kind, network, how)), *cells])
    for name, title in (
        ("views_identical", "images whose view is identical"),
        ("epsilon_measured_255", "epsilon measured, /255"),
        ("budget_used", "budget used: rms / epsilon"),
        ("shortcut_loss", "shortcut loss of the surrogates at the end"),
        ("psnr_db", "PSNR, dB"),
        ("ssim", "SSIM"),
    ):
        found = {
            setting: [
                row[name]
                for row in rows
                if (row["kind"], row["setting"]) == ("measures", setting) and row[name] is not None
            ]
            for setting in settings
        }
        body.append([title, *(figure(fmean(found[setting])) if found[setting] else "-" for setting in settings)])
    said, seeds = trainings[0], {row["seed"] for row in trainings}
    about = (
        f"{said['dataset']}{', 16x16' * (stage == 'small')}; {said['images']} training images, {said['test_images']}"
        f" test images, {said['recipe']['epochs']} epochs; seeds {numbered(seeds)}"
        f"{'; without ±, one seed' * (len(seeds) > 1)}{devices(trainings)}.\n\n"
    )
    below = (
        "\nIn brackets: trained on the originals, the authorised network through its view (locked-clean), a hacker with"
        " the same counter-measure.\n"
    )
    return about + table(["", *(heads.get(setting, f"`{setting}`") for setting in settings)], body) + below


def null_space_search(rows: Iterable[Row], method: str) -> str:
    """One row a setting at 16x16 pixels: the recipient, hackers with their clean level in the first row, the look."""
    rows = [row for row in rows if row["dataset"] == SEARCHED]
    prices = {row["setting"]: row for row in rows if row["stage"] == "locked-small" and row["kind"] == "authorised"}
    rows = [row for row in rows if row["stage"] == "small"]
    clean = [row for row in rows if row["setting"] == "clean"]
    rows = [row for row in rows if ("cell" in row["layout"]) == (method == "null-space")]
    hackers = [row for row in rows if row["kind"] == "hacker" and row["setting"] != "clean"]
    if not hackers:
        return NOT_MEASURED
    settings = dict.fromkeys(row["setting"] for row in hackers)
    runs = Counter(run_of(row) for row in hackers)
    columns = sorted(runs, key=lambda run: (-runs[run], run))

    def accuracies(among: Iterable[Row], run: Run) -> str:
        return shown([row["accuracy"] for row in among if run_of(row) == run])

    looks = {row["setting"]: row for row in rows if row["kind"] == "measures"}

    body = [["the originals", "", *(accuracies(clean, run) for run in columns), "", ""]]
    for setting in settings:
        mine = [row for row in rows if row["setting"] == setting and row["kind"] != "measures"]
        locked = [row["accuracy"] for row in mine if row["kind"] == "authorised"]
        if not locked and (price := prices.get(setting.partition("+")[0])):
            locked = [price["accuracy"]]
        look = looks.get(setting)
        body.append(
            [
                f"`{setting}`",
                shown(sorted(set(locked))),
                *(accuracies(mine, run) for run in columns),
                *("-" if look is None else figure(look[name]) for name in ("psnr_db", "ssim")),
            ]
        )
    said = hackers[0]
    about = (
        f"{said['dataset']}, 16x16; {said['images']} training images, {said['test_images']} test images,"
        f" {said['recipe']['epochs']} epochs; seeds {numbered(row['seed'] for row in hackers)}{devices(hackers)}.\n\n"
    )
    return about + table(["", "authorised", *(run_label(run) for run in columns), "PSNR, dB", "SSIM"], body)


def lossy_table(rows: Iterable[Row]) -> str:
    """One row a setting and quality: how wrong the view is, and what the authorised network learns from it."""
    rows = [row for row in rows if row["stage"] == "lossy"]
    if not rows:
        return NOT_MEASURED
    groups: dict[tuple[str, int | None], dict[int, Row]] = {}
    for row in rows:
        groups.setdefault((row["setting"].partition(",")[0], row["jpeg_quality"]), {})[row["seed"]] = row
    body = [
        [
            f"`{setting}`",
            "as published" if quality is None else f"JPEG, quality {quality}",
            shown([row["view_error_rms"] for row in by_seed.values()]),
            shown([row["accuracy"] for row in by_seed.values()]),
        ]
        for (setting, quality), by_seed in groups.items()
    ]
    said = rows[0]
    about = (
        f"{said['dataset']}, 16x16; {said['images']} training images, {said['recipe']['epochs']} epochs; seeds"
        f" {numbered(row['seed'] for row in rows)}.\n\n"
    )
    return about + table(["setting", "the copy", "error of the view, rms in 8-bit steps", "authorised"], body)


# -- audits --------------------------------------------------------------------------------------------------------


def audits(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """(data set, protection) -> the rows of its trainings; of two rows of one cell the later counts."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if row["kind"] != "facts":
            found.setdefault((row["dataset"], row["name"]), {})[row["cell"]] = row
    return {place: list(cells.values()) for place, cells in sorted(found.items())}


def small(row: Row) -> bool:
    """Whether the images of an audit had been made smaller."""
    return re.search(r", \d+x\d+$", row["name"]) is not None


def classes_of(rows: Iterable[Row], place: tuple[str, str]) -> int:
    """Of the data; an audit that is not finished has no facts of its own yet."""
    return next(row["manifest"]["classes"] for row in rows if row["kind"] == "facts" and row["dataset"] == place[0])


def ceilings_of(trainings: Sequence[Row], among: Iterable[Row]) -> list[Row]:
    """Trainings on the same originals by the recipes of an audit, or for twice the epochs, whoever did them.

    Students' depend on the key.
    """
    first, recipes = trainings[0], [row["recipe"] for row in trainings]
    return [
        row
        for row in among
        if (row["trained_on"], row["kind"]) == ("clean", "hacker")
        and row.get("budget", 1.0) in (1.0, 2.0)
        and (row["dataset"], row["images"]) == (first["dataset"], first["images"])
        and row["knows"] not in ("model outputs", "key")
        and row["recipe"] | {"epochs": round(row["recipe"]["epochs"] / row.get("budget", 1.0))} in recipes
    ]


def audit_grid(rows: Iterable[Row], keyed: Iterable[Row] = ()) -> str:
    """Every hacker of every audit: counter-measures down, networks across, and the share that he recovers."""
    rows = list(rows)
    at_full_size = [row for row in keyed if row["stage"] == "full" and row["kind"] != "measures"]
    at_full_size += [row for row in rows if row["kind"] != "facts" and not small(row)]
    parts = []
    for place, trainings in audits(rows).items():
        known = [] if small(trainings[0]) else ceilings_of(trainings, at_full_size)
        summary = summarise([*known, *trainings], classes_of(rows, place))  # of two rows of one cell the later counts
        groups = {
            (group["network"], group["countermeasure"].replace("other-init", "none")): group
            for group in summary["groups"]
        }
        networks = list(dict.fromkeys(network for network, _ in groups))
        worst: dict[str, float] = {}
        for (_, how), group in groups.items():
            worst[how] = max(worst.get(how, 0.0), group["accuracy"])
        knows = {how: group["knows"].replace("architecture", "nothing") for (_, how), group in groups.items()}
        body = [
            [how, knows[how], *(_hacker_text(groups.get((network, how))) for network in networks)]
            for how in sorted(worst, key=lambda how: (how != "none", -worst[how]))
        ]
        user = summary["authorised"]
        own = f"authorised {user['network']}: {user['accuracy']:.1f}" if user else "no authorised network"
        if user and user["locked_clean_accuracy"] is not None:
            own += f" (on the originals {user['locked_clean_accuracy']:.1f})"
        margin = "" if summary["margin"] is None else f", margin {summary['margin']:+.1f}"
        doubts = "".join(f" {doubt}" for doubt in summary["why_no_evidence"])
        epochs, seeds = (
            numbered(values)
            for values in zip(*((row["recipe"]["epochs"], row["seed"]) for row in trainings), strict=True)
        )
        parts.append(
            f"**{place[1]}**, {place[0]}: {trainings[0]['images']} images, {epochs} epochs, seeds {seeds}"
            f"{devices(trainings)}; {own}{margin}; chance {summary['chance']:.1f}.{doubts}\n\n"
            + table(["counter-measure", "knows", *networks], body)
        )
    below = (
        "\nAccuracy, and in brackets the ceiling (the same on the originals) and the share recovered:"
        " (accuracy - chance) / (ceiling - chance). Copies of the same images share their ceilings. † undertrained.\n"
    )
    return "\n".join(parts) + below if parts else NOT_MEASURED


def _hacker_text(group: Row | None) -> str:
    if group is None:
        return ""
    half = "" if group["interval"] is None else f" ± {group['interval'][1] - group['accuracy']:.1f}"
    ceiling = "" if group["clean_accuracy"] is None else f"{group['clean_accuracy']:.1f}"
    share = "" if group["recovered"] is None else f", {100 * group['recovered']:.0f} %"
    return f"{group['accuracy']:.1f}{half}{'†' if group['undertrained'] else ''}" + (
        f" ({ceiling}{share})" if ceiling else ""
    )


def audit_headline(rows: Iterable[Row]) -> str:
    """A line a protection: the authorised network, plain hackers, and the worst that an audit found."""
    rows = list(rows)
    body = []
    for place, trainings in audits(rows).items():
        summary = summarise(trainings, classes_of(rows, place))
        user, counted = summary["authorised"], [group for group in summary["groups"] if counts(group)]
        if not counted:
            continue
        plain = [group for group in counted if group["countermeasure"] == "none"]
        free = [group for group in counted if not holds_originals(group)]
        body.append(
            [
                f"{place[1]}, {place[0]}",
                "-" if user is None else f"{user['accuracy']:.1f}",
                _named(plain),
                _named(free),
                _named(counted),
                "-" if summary["margin"] is None else f"{summary['margin']:+.1f}",
                str(len(counted)),
            ]
        )
    header = ["audit", "authorised", "strongest plain hacker of another architecture", "strongest without clean images"]
    header += ["strongest of all", "margin", "kinds of hacker tried"]
    return table(header, body) if body else NOT_MEASURED


def _named(groups: Sequence[Row]) -> str:
    if not groups:
        return "-"
    best = max(groups, key=lambda group: group["accuracy"])
    how = "" if best["countermeasure"] == "none" else f", {best['countermeasure']}"
    return f"{best['accuracy']:.1f} ({best['network'].partition('(')[0]}{how})"


# -- weak points ---------------------------------------------------------------------------------------------------

WEIGHED = {
    "10gm+fd@32": "initial weights: UGE, epsilon 32",
    "null-space": "null space, epsilon 8, defaults",
} | {
    setting: f"reversible, {title}" for setting, title in CHOSEN.items()
}  # settings at full size, and how the README calls them
FILTERING = {*(how.partition(":")[0] for how in FILTERS), "projection", "transplant", "residual-means"}


PLAIN, SAME, FILTERED = "plain, another architecture", "plain, the recipient's", "filters, projection"
OTHERWISE, ASKS = "other ways to train, denoisers", "asks the recipient's network"
HAS_SOME = "has some originals"
KINDS = (PLAIN, SAME, FILTERED, OTHERWISE, ASKS, HAS_SOME)  # of hackers


def weak_points(keyed: Iterable[Row], uge: Iterable[Row], audited: Iterable[Row]) -> str:
    """A row a protection: its recipient, and the strongest hacker of each kind with his level on the originals."""
    trainings = [row for row in keyed if row["stage"] == "full" and row["kind"] != "measures"]
    trainings += [row for row in uge if row["stage"] in ("seeds", "finalists") and "accuracy" in row]
    trainings += [
        row | {"setting": row["name"].partition(", ")[0].removeprefix("uge ")}
        for row in audited
        if row["kind"] != "facts" and not small(row)
    ]
    trainings = [row for row in trainings if row["dataset"] == SEARCHED and row.get("budget", 1.0) == 1.0]
    originals = [row for row in trainings if (row["kind"], row["trained_on"]) == ("hacker", "clean")]
    body = []
    for setting, title in WEIGHED.items():
        mine = [row for row in trainings if row["setting"] == setting and row["trained_on"] == "published"]
        user = [row["accuracy"] for row in mine if row["kind"] == "authorised"]
        groups: dict[str, dict[Run, list[float]]] = {kind: {} for kind in KINDS}
        for row in mine:
            if row["kind"] == "hacker" and counts(row):
                groups[_kind_of(row)].setdefault(run_of(row), []).append(row["accuracy"])
        cells = []
        for kind, found in groups.items():
            if not found:
                cells.append("not tried")
                continue
            strongest = max(found, key=lambda run: fmean(found[run]))
            _, network, how = strongest
            wanted = on_originals(how)
            names = {wanted, "other-init"} if wanted == "none" else {wanted}
            level = [
                row["accuracy"] for row in originals if row["network"] == network and row["countermeasure"] in names
            ]
            short = network.partition("(")[0]
            who = short if how in ("none", "other-init") else how if short in how else f"{short}, {how}"
            known = f" of {fmean(level):.1f}" if level and kind != ASKS else ""  # teachers differ
            cells.append(f"{fmean(found[strongest]):.1f}{known} ({who})")
        body.append([title, f"{fmean(user):.1f}" if user else "not trained", *cells])
    if not trainings:
        return NOT_MEASURED
    return table(["", "recipient", *KINDS], body)


def _kind_of(row: Row) -> str:
    if holds_originals(row):
        return HAS_SOME
    if row["knows"] == "model outputs":
        return ASKS
    if row["countermeasure"] in ("none", "other-init"):
        return SAME if row["knows"] == "architecture" else PLAIN
    parts = {part.partition(":")[0] for part in row["countermeasure"].split("+")}
    return FILTERED if parts <= FILTERING else OTHERWISE


# -- what no key hides, and purification ----------------------------------------------------------------------------


def eigenvalue_table(rows: Iterable[Row]) -> str:
    """Clean directions of the mean projection, a row a layout."""
    lines, facts = [], ""
    for row in rows:
        layout = row["layout"]
        cell, size = layout["cell"], layout["group_size"]
        counts = [str(row["clean_directions"]), str(row["half_clean_directions"])]
        ends = [f"{layout['group_size'] * row[name]:.3f}" for name in ("least", "median", "greatest")]
        lines.append([f"{cell}x{cell}, s = {size}, {layout['signs']}", *counts, *ends])
        channels, height, width = row["shape"]
        facts = (
            f"{height}x{width} pixels, {channels} channels: {row['directions']} directions; {row['nonces']} nonces.\n\n"
        )
    header = [
        "cells, groups, signs",
        "below 1/(4s)",
        "below 1/(2s)",
        "least, times s",
        "median, times s",
        "greatest, times s",
    ]
    return facts + table(header, lines) if lines else NOT_MEASURED


def purification_table(rows: Iterable[Row], setting: str) -> str:
    """What denoisers leave of a copy, and what a hacker learns from the rest."""
    rows = [row for row in rows if row.get("setting", "null-space") == setting]
    if not rows:
        return NOT_MEASURED

    def number(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    lines = []
    for row in rows:
        name = "clean images" if row["trained_on"] == "clean" else row["countermeasure"].replace("OWN", row["own"])
        ended = row["findings"].get("denoiser_plateau")
        lines.append(
            [
                name.replace("none", "the copy as it is"),
                row["knows"],
                "-" if ended is None else "plateau" if ended else "steps",
                number(row.get("sign_accuracy"), 1),
                number(row.get("rms_left"), 2),
                number(row.get("shortcut_left"), 2),
                number(row["accuracy"], 1),
                number(row["peak_accuracy"], 1),
            ]
        )
    first = rows[0]
    height, width = first["image_size"]
    facts = (
        f"{first['dataset']}, {first['images']} training images, {height}x{width} pixels; seed"
        f" {', '.join(map(str, sorted({row['seed'] for row in rows})))}; hacker {first['network']}.\n\n"
    )
    header = ["trained on", "knows", "ended at", "signs told", "rms left", "shortcut left", "accuracy", "peak"]
    return facts + table(header, lines)


# -- baselines and comparisons -------------------------------------------------------------------------------------


def baseline_groups(rows: Iterable[Row]) -> dict[tuple[str, str, int, str], list[Row]]:
    """(data set, hacker, epochs, precision) -> trainings of hackers on whatever data; the latest of each cell."""
    latest = {
        (row["method"], row.get("variant", ""), row["kind"], row["cell"]): row
        for row in rows
        if row["kind"] != "measures"
    }
    found: dict[tuple[str, str, int, str], list[Row]] = {}
    for row in latest.values():
        recipe = row["recipe"]
        found.setdefault((row["dataset"], row["network"], recipe["epochs"], recipe["precision"]), []).append(row)
    return found


def baseline_table(rows: Iterable[Row]) -> str:
    """A table a hacker: protections down, counter-measures across, the ceilings first."""
    rows = list(rows)
    parts = []
    for (dataset, network, epochs, precision), trainings in baseline_groups(rows).items():
        hows = list(dict.fromkeys(row["countermeasure"] for row in trainings))
        ceilings = {how: _accuracies(trainings, "clean", "", how) for how in hows}
        names = dict.fromkeys((row["method"], row.get("variant", "")) for row in trainings if row["method"] != "clean")
        body = [["on the originals", *(shown(ceilings[how]) for how in hows), ""]]
        plain = ceilings.get("none", [])
        for method, variant in names:
            found = {how: _accuracies(trainings, method, variant, how) for how in hows}
            naive = found.get("none", [])
            drop = f"{fmean(plain) - fmean(naive):.1f}" if plain and naive else "-"
            cells = [shown(found[how]) for how in hows]
            body.append([f"`{method}`" + (f", {variant}" if variant else ""), *cells, drop])
        said = trainings[0]
        parts.append(
            f"{dataset}, hacker {network}: {said['images']} training images, {said['test_images']} test images,"
            f" {epochs} epochs, {precision}; seeds {numbered(row['seed'] for row in trainings)}.\n\n"
            + table(["protection", *hows, "plain: points below clean"], body)
            + "".join(
                f"\nWhoever has the key of `{row['method']}` trains the same network on the copy as it opens it, to"
                f" {row['accuracy']:.1f}.\n"
                for row in trainings
                if row["kind"] == "authorised"
            )
        )
    return "\n".join(parts) if parts else NOT_MEASURED


def _accuracies(trainings: Iterable[Row], method: str, variant: str, how: str) -> list[float]:
    wanted = ("hacker", method, variant, how)
    return [
        row["accuracy"]
        for row in trainings
        if (row["kind"], row["method"], row.get("variant", ""), row["countermeasure"]) == wanted
    ]


def baseline_copies(rows: Iterable[Row]) -> str:
    """What each copy of a baseline measures, and what it took to make."""
    latest = {(row["dataset"], row["cell"]): row for row in rows if row["kind"] == "measures"}
    body = [
        [
            f"`{row['method']}`" + (f", {row['variant']}" if row.get("variant") else ""),
            row["dataset"],
            str(row["config"].get("network", "none")),
            str(row["epsilon_measured_255"]),
            f"{row['psnr_db']:.1f}",
            f"{row['ssim']:.3f}",
            figure(row["protect_cpu_seconds"]) if "protect_cpu_seconds" in row else "-",
            figure(row["protect_seconds"]),
        ]
        for row in latest.values()
    ]
    header = ["protection", "data", "its own network", "largest change, /255", "PSNR, dB", "SSIM", "processor seconds"]
    return table([*header, "seconds"], body) if body else NOT_MEASURED


def field_table(rows: Iterable[Row], published: Iterable[Row]) -> str:
    """Published figures beside ours of the hacker who met most protections."""
    published = list(published)
    groups = baseline_groups(rows)
    if not published or not groups:
        return NOT_MEASURED
    (dataset, network, epochs, _), ours = max(groups.items(), key=lambda item: len(item[1]))
    hows = list(dict.fromkeys(row["countermeasure"] for row in published))
    options = {row["countermeasure"].partition(":")[0]: row["countermeasure"] for row in ours}
    same = {how: options.get(how, how) for how in hows}  # published "adversarial" gives no options
    theirs = {(row["method"], row["countermeasure"]): row["accuracy"] for row in published}
    body = []
    for method in dict.fromkeys(row["method"] for row in published):
        figures = [[theirs[method, how]] if (method, how) in theirs else [] for how in hows]
        cells = [
            f"{shown(public)} / {shown(_accuracies(ours, method, '', same[how]))}"
            for how, public in zip(hows, figures, strict=True)
        ]
        body.append([f"`{method}`", *cells])
    body.append(["on the originals", *(f"- / {shown(_accuracies(ours, 'clean', '', same[how]))}" for how in hows)])
    sources = {row["source"]: row["countermeasure"] for row in published}
    weaker = ", ".join(f"`{ours_how}` under {how}" for how, ours_how in same.items() if ours_how != how)
    first = next(iter(sources))
    about = "; ".join(f"{source} ({'all others' if source == first else how})" for source, how in sources.items())
    return (
        f"Published: CIFAR-10, 50000 images, ResNet-18, from {about}. Ours: {dataset}, {ours[0]['images']} images,"
        f" {network}, {epochs} epochs{f', {weaker}' if weaker else ''}. In each cell published / ours; - was not"
        " measured.\n\n" + table(["protection", *hows], body)
    )


def bench_table(rows: Iterable[Row], *, brief: bool = False) -> str:
    """The leaderboard of a comparison, as `uge bench` writes it, or as a terminal shows it."""
    rows = list(rows)
    return markdown(rows, level=0, brief=brief) if rows else NOT_MEASURED


# -- the paper's claims --------------------------------------------------------------------------------------------


def claims_table(search: Iterable[Row], audited: Iterable[Row], federated: Iterable[Row]) -> str:
    """What the paper's abstract claims, in words, and what the records say of it."""
    search, audited, federated = list(search), list(audited), list(federated)
    if not search:
        return NOT_MEASURED
    stage = next((name for name in ("seeds", "finalists") if any(row["stage"] == name for row in search)), "grid")
    settings = settings_of(search, stage)
    size = _size(row for setting in settings for row in setting.trainings)
    command = f"`uge_cifar.py --stage {stage}`"
    grid = settings_of(search, "grid")
    grid_size = _size(row for setting in grid for row in setting.trainings)

    def each(text: Callable[[Setting], str], of: Sequence[Setting] = settings) -> str:
        return "; ".join(f"{s.terms} at epsilon {s.epsilon}: {found}" for s in of if (found := text(s)))

    def authorised(setting: Setting) -> str:
        runs = dict.fromkeys(run_of(row) for row in setting.trainings if row["kind"] == "authorised")
        return ", ".join(_against_clean(setting, run) for run in runs)

    def others(setting: Setting) -> str:
        return ", ".join(f"{run[1].partition('(')[0]} {_against_clean(setting, run)}" for run in setting.others)

    def same(setting: Setting) -> str:
        return ", ".join(_against_clean(setting, run) for run in setting.hackers if run[2] == "other-init")

    def students(setting: Setting) -> str:
        runs = [run for run in setting.hackers if run[2].startswith("distillation")]
        best = max(runs, key=lambda run: fmean(setting.accuracies(run).values()), default=None)
        return f"{run_label(best)} {_against_clean(setting, best)}" if best else ""

    taught = settings_of(search, "students")
    finalists = settings_of(search, "finalists")
    with_term = [setting for setting in settings + grid + taught + finalists if setting.config["undistillation"]]
    without = [setting for setting in settings + taught if setting not in with_term]
    attacks = [
        row
        for row in audited
        if row["kind"] == "hacker"
        and row["trained_on"] == "published"
        and row["name"].startswith("uge ")
        and row["knows"] != "key"
    ]
    worst = sorted(attacks, key=lambda row: -row["accuracy"])[:3]
    spread = settings + settings_of(search, "transfer") + settings_of(search, "two-keys")

    def held(setting: Setting) -> str:
        networks = " and ".join(setting.authorised_networks)
        small = any(row.get("small") for row in setting.trainings)
        short = undertrained_runs(search, setting.dataset, small)[1]
        drops, margins = shown(setting.mean_drops(short)), shown(setting.margins())
        about = f"{setting.dataset}, `{setting.name}`, {networks}"
        return f"{about}: {authorised(setting)}, others {drops} lower, margin {margins}"

    lines = [
        ["The authorised network keeps what it learns from the originals.", each(authorised), size, command],
        ["Other networks, the hackers', learn less from the copy.", each(others), size, command],
        ["(not in the abstract) A hacker has the architecture, not the initial weights.", each(same), size, command],
        [
            "The distance in a common feature space is what stops them.",
            each(lambda setting: f"mean drop {fmean(drops):.1f}" if (drops := setting.mean_drops(set())) else "", grid),
            grid_size,
            "`uge_cifar.py --stage grid`",
        ],
        [
            "Undistillation guards the authorised network against students.",
            ("without the term, the strongest student: " + each(students, without) + "; ")
            + ("with it: " + (each(students, with_term) or "no student measured yet")),
            "; ".join(dict.fromkeys([size, _size(row for setting in taught for row in setting.trainings)])).rstrip(
                "; "
            ),
            command + ", `--stage students --small`" * bool(taught) + ", `--stage finalists`" * bool(finalists),
        ],
        [
            "It holds under different attacks.",
            f"{len(attacks)} hackers audited so far; the strongest: "
            + "; ".join(
                f"{row['network'].partition('(')[0]}, {row['countermeasure']} {row['accuracy']:.1f}" for row in worst
            )
            if worst
            else "not measured yet",
            _size(attacks),
            "`audit.py PUBLISHED`",
        ],
        [
            "It holds on several data sets and for various networks.",
            "; ".join(held(setting) for setting in spread if setting.trainings),
            _size(row for setting in spread for row in setting.trainings),
            "`uge_cifar.py --stage transfer`, `--stage two-keys`",
        ],
        [
            "(not in the abstract) The copy serves decentralised training.",
            "; ".join(
                f"{row['clients']} clients {row['accuracy']:.1f}, central {row['central_accuracy']:.1f}"
                for row in federated
            )
            or "not measured yet",
            "; ".join(f"{row['dataset']}, {row['images']} images" for row in federated),
            "`examples/federated.py --record`",
        ],
    ]
    header = "| claim, in words | what we measured | size | command |\n| --- | --- | --- | --- |\n"
    return header + "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _against_clean(setting: Setting, run: Run) -> str:
    values, clean = ([*setting.accuracies(run, source).values()] for source in ("published", "clean"))
    return f"{shown(values)} ({shown(clean)})"


def _size(trainings: Iterable[Row]) -> str:
    rows = list(trainings)
    if not rows:
        return ""
    return (
        f"{', '.join(sorted({row['dataset'] for row in rows}))}, {numbered(row['images'] for row in rows)} images,"
        f" {numbered(row['recipe']['epochs'] for row in rows)} epochs, seeds {numbered(row['seed'] for row in rows)}"
    )


SECTIONS: dict[str, tuple[str | tuple[str, ...], Callable[..., str]]] = {
    "uge-cifar": ("uge_cifar", headline),
    "grid": ("uge_cifar", lambda rows: stage_table(rows, "grid")),
    "check": ("uge_cifar", budget_table),
    "finalists": ("uge_cifar", lambda rows: stage_table(rows, "finalists")),
    "seeds": ("uge_cifar", lambda rows: stage_table(rows, "seeds")),
    "transfer": ("uge_cifar", lambda rows: stage_table(rows, "transfer")),
    "students": ("uge_cifar", lambda rows: stage_table(rows, "students")),
    "uge-filters": ("uge_cifar", lambda rows: stage_table(rows, "filters")),
    "two-keys": ("uge_cifar", lambda rows: stage_table(rows, "two-keys")),
    "view-prices": ("null_space", lambda rows: view_prices(rows, "locked")),
    "view-prices-small": ("null_space", lambda rows: view_prices(rows, "locked-small")),
    "null-space-small": ("null_space", lambda rows: null_space_search(rows, "null-space")),
    "reversible-small": ("null_space", lambda rows: null_space_search(rows, "reversible")),
    "null-space-full": ("null_space", lambda rows: null_space_table(rows, "full")),
    "null-space-elsewhere": ("null_space", null_space_elsewhere),
    "null-space-chosen": ("null_space", lambda rows: null_space_table(rows, "full", CHOSEN)),
    "null-space-lossy": ("null_space", lossy_table),
    "eigenvalues": ("eigenvalues", eigenvalue_table),
    "purification": ("purification", lambda rows: purification_table(rows, "null-space")),
    "purification-reversible": ("purification", lambda rows: purification_table(rows, "reversible16+combined")),
    "purification-misdirecting": (
        "purification",
        lambda rows: purification_table(rows, "reversible16-full+misdirecting"),
    ),
    "weak-points": (("null_space", "uge_cifar", "audit"), weak_points),
    "audit-headline": ("audit", audit_headline),
    "audit": (("audit", "null_space"), audit_grid),
    "baselines": ("baselines", baseline_table),
    "baseline-copies": ("baselines", baseline_copies),
    "bench-quick": ("bench", bench_table),
    "leaderboard": ("leaderboard", bench_table),
    "leaderboard-brief": ("leaderboard", lambda rows: bench_table(rows, brief=True)),
    "field": (("baselines", "published"), field_table),
    "claims": (("uge_cifar", "audit", "fedavg"), claims_table),
    "fedavg": ("fedavg", fedavg_table),
    "speed": ("speed", speed_table),
}  # name in the page -> folder of its records (or several), function of their rows


def rendered(page: str, results: Path) -> str:
    """A page with its marked sections computed anew."""

    def section(match: re.Match[str]) -> str:
        folders, compute = SECTIONS[match[2]]
        every = (folders,) if isinstance(folders, str) else folders
        return match[1] + compute(*(read_records(results / name / "records.jsonl") for name in every)) + match[3]

    return MARKED.sub(section, page)


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is stale")
    options = parser.parse_args(arguments)
    stale = []
    for page in PAGES:
        old = (root / page).read_text(encoding="utf-8")
        new = rendered(old, root / RESULTS)
        if new == old:
            continue
        stale.append(str(page))
        if not options.check:
            (root / page).write_text(new, encoding="utf-8")
    verb = "stale, run python benchmarks/tables.py" if options.check else "written"
    print(f"{', '.join(stale)}: {verb}" if stale else "all tables are up to date")
    return int(bool(stale and options.check))


if __name__ == "__main__":
    sys.exit(main())
