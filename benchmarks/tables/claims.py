"""What the paper's abstract claims, in words, and what the records say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from benchmarks.tables.fedavg import still_made
from benchmarks.tables.text import NOT_MEASURED, Row, Run, short, shown
from benchmarks.tables.uge_cifar import Setting, settings_of, undertrained_runs


def claims_table(search: Sequence[Row], audited: Sequence[Row], federated: Sequence[Row]) -> str:
    """A line a claim: what was measured, and the table that has the rest."""
    if not search:
        return NOT_MEASURED
    stages = {row["stage"] for row in search}
    stage = next(name for name in ("seeds", "finalists", "grid") if name in stages)
    settings, grid = settings_of(search, stage), settings_of(search, "grid")
    taught = settings + settings_of(search, "students") + settings_of(search, "finalists")
    with_term = [setting for setting in taught if setting.config["undistillation"]]
    without = [setting for setting in taught if not setting.config["undistillation"]]
    lines = [
        ("The authorised network keeps what it learns from the originals.", _each(settings, _authorised), stage),
        ("Other networks, the hackers', learn less from the copy.", _each(settings, _others), stage),
        ("(not in the abstract) A hacker has the architecture without the weights.", _each(settings, _same), stage),
        ("The distance in a common feature space is what stops them.", _between_drops(grid), "grid"),
        (
            "Undistillation guards the authorised network against students.",
            f"without the term: {_students(without)}; with it: {_students(with_term)}",
            "students",
        ),
        ("It holds under different attacks.", _strongest(audited), "audits"),
        (
            "It holds on several data sets.",
            _each(settings_of(search, "transfer"), lambda setting: f"{setting.dataset}, {_held(search, setting)}"),
            "transfer",
        ),
        (
            "It holds for various networks, several at once.",
            _shared(search, settings_of(search, "two-keys")),
            "two-keys",
        ),
        (
            "(not in the abstract) The copy serves decentralised training.",
            "; ".join(
                f"{row['clients']} clients {row['accuracy']:.1f}, central {row['central_accuracy']:.1f}"
                for row in still_made(federated)
            ),
            "federated",
        ),
    ]
    header = "| claim, in words | what we measured | table |\n| --- | --- | --- |\n"
    return header + "".join(
        f"| {claim} | {found or NOT_MEASURED.strip()} | [{name}]({name}.md) |\n" for claim, found, name in lines
    )


def _each(settings: Sequence[Setting], text: Callable[[Setting], str]) -> str:
    return "; ".join(f"{s.terms} at epsilon {s.epsilon}: {found}" for s in settings if (found := text(s)))


def _of_clean(setting: Setting, run: Run) -> str:
    values, clean = ([*setting.accuracies(run, source).values()] for source in ("published", "clean"))
    return f"{shown(values)} ({shown(clean)})"


def _authorised(setting: Setting) -> str:
    return ", ".join(_of_clean(setting, ("authorised", network, "none")) for network in setting.authorised_networks)


def _others(setting: Setting) -> str:
    return ", ".join(f"{short(run[1])} {_of_clean(setting, run)}" for run in setting.others)


def _same(setting: Setting) -> str:
    return ", ".join(_of_clean(setting, run) for run in setting.hackers if run[2] == "other-init")


def _between(values: Sequence[float]) -> str:
    """The least and the most."""
    ends = dict.fromkeys(f"{value:.1f}" for value in (min(values), max(values)))
    return " to ".join(ends)


def _between_drops(settings: Sequence[Setting]) -> str:
    """What other architectures lose with the term and without it."""
    told = []
    for what, term in (("without it", False), ("with it", True)):
        drops = [each.mean_drops(set()) for each in settings if bool(each.config["feature_distance"]) == term]
        if found := [fmean(each) for each in drops if each]:
            told.append(f"{what} others learn {_between(found)} points less")
    return "; ".join(told)


def _students(settings: Sequence[Setting]) -> str:
    """What the best student of each copy learns, as a share of what he learns from the originals."""
    shares = [share for setting in settings if (share := _student(setting)) is not None]
    return f"{_between(shares)} % of what they learn from the originals" if shares else NOT_MEASURED.strip()


def _student(setting: Setting) -> float | None:
    """In percent, of the student who learns most from the copy; None without students on both."""
    runs = [run for run in setting.hackers if run[2].startswith("distillation")]
    best = max(runs, key=lambda run: fmean(setting.accuracies(run).values()), default=None)
    clean = best and [*setting.accuracies(best, "clean").values()]
    return 100 * fmean(setting.accuracies(best).values()) / fmean(clean) if best and clean else None


def _shared(search: Sequence[Row], settings: Sequence[Setting]) -> str:
    """Copies with two authorised networks."""
    drops = [_lost(search, setting) for setting in settings]
    margins = [fmean(values) for setting in settings if (values := setting.margins())]
    if not margins or not all(drops):
        return ""
    lost = _between([fmean(each) for each in drops])
    return f"{len(settings)} copies: others learn {lost} points less, margins {_between(margins)}"


def _lost(search: Sequence[Row], setting: Setting) -> list[float]:
    """How much less other architectures learn than from the originals, a number a seed."""
    small = any(row.get("small") for row in setting.trainings)
    return setting.mean_drops(undertrained_runs(search, setting.dataset, small)[1])


def _held(search: Sequence[Row], setting: Setting) -> str:
    drops = shown(_lost(search, setting))
    return f"authorised {_authorised(setting)}, others {drops} lower, margin {shown(setting.margins())}"


def _strongest(audited: Sequence[Row]) -> str:
    attacks = [
        row
        for row in audited
        if (row["kind"], row.get("trained_on")) == ("hacker", "published")
        and row["name"].startswith("uge ")
        and row["knows"] != "key"
    ]
    worst = sorted(attacks, key=lambda row: -row["accuracy"])[:3]
    told = "; ".join(f"{short(row['network'])}, {row['countermeasure']} {row['accuracy']:.1f}" for row in worst)
    return f"{len(attacks)} hackers; the strongest: {told}" if worst else ""
