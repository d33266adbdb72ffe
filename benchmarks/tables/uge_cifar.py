"""The paper's method: the search on CIFAR-10 and what followed it (`quality/uge_cifar.py`).

A row is a training, or `"kind": "measures"` a copy. A kind of training counts where its budget reaches, on clean data,
at least `ENOUGH` of what twice the budget reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from benchmarks.tables.text import NOT_MEASURED, Row, Run, run_label, run_of, shown, table, trained_at
from uge.records import config_hash

ENOUGH = 0.95
WIDE = 4  # up to so many settings stand side by side, a column each; more become rows


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


def columns(
    settings: Sequence[Setting], rows: Sequence[Row], small: bool, peaks: bool
) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """What a stage's table says of each setting, and the notes that belong beneath it."""
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
    content = [(run_label(run), [accuracy(s, run) for s in settings]) for run in runs + hackers]
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


def stage_table(rows: Sequence[Row], stage: str) -> str:
    """The table of one stage of the search, or that it is not measured yet."""
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
    facts = trained_at(row for setting in settings for row in setting.trainings)
    return facts + ".\n\n" + text + "".join(f"\n{note}\n" for note in notes)


def budget_table(rows: Sequence[Row]) -> str:
    """Each clean training at its budget and at twice the budget."""
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
    return table(header, lines)
