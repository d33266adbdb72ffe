"""One self-contained HTML page a person reads: verdict, images, accuracies, curves, settings, limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from uge.data.images import ImageSet
from uge.durable import write_file
from uge.report import figures, tables, verdict
from uge.report.limits import limits
from uge.runtime import without_folders

MOST_SHOWN = 5
MOST_CURVES = 10  # the others fold
IN_WORDS = {"None": "none", "True": "yes", "False": "no", "": "none", "{}": "none"}  # values of settings


@dataclass(frozen=True, eq=False)
class Examples:
    """A few images to look at.

    Attributes:
        originals: uint8 [K, C, H, W], or None where there are none.
        copies: their published copies, same shape.
    """

    originals: Tensor | None
    copies: ImageSet


@dataclass(frozen=True, eq=False)
class ReportInput:
    """Everything the page is made from: records and facts, no live network.

    Attributes:
        summary: summary.json.
        records: rows of records.jsonl, one a training.
        settings: the resolved configuration; may be nested.
        manifest: facts of the published copy: `method`, `epsilon_asked` and `epsilon_measured` (of 255; None
            where nobody stated them), `count`, `image_size` (height, width), `channels` and `classes` (their number).
        examples: images to show, the first `MOST_SHOWN` of them; None leaves the section out.
        quality: means over the whole copy, as `uge.audit.quality` measures them; empty where nobody measured.
        environment: `uge.runtime.environment()` of the run.
        plan: of the audit.
        skipped: what the audit left out, as {"what", "why"}.
        offered: the names of all counter-measures that the audit could have tried.
        following: hackers that it would try next with a larger budget.
    """

    summary: dict[str, Any]
    records: list[dict[str, Any]]
    settings: dict[str, Any]
    manifest: dict[str, Any]
    examples: Examples | None = None
    quality: dict[str, float] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    offered: tuple[str, ...] = ()
    following: tuple[str, ...] = ()

    def without_folders(self) -> ReportInput:
        """The same for everybody: local paths without their folders."""
        parts = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "examples"}
        return replace(self, **without_folders(parts))


def write_page(data: ReportInput, out: Path, *, public: bool = False) -> None:
    """Write the page: one file, no script, nothing fetched from anywhere.

    A public page leaves out what must stay with the protector: originals, differences, hashes of clean data, and the
    folders of local paths in the settings. The private page says at its top that it shows originals.

    Raises:
        PublishError: the file cannot be written; what was there before stays.
    """
    write_file(out, filled_template("page.html.j2", contents(data, public=public), unbroken=unbroken, share=share))


def filled_template(template: str, content: dict[str, Any], **filters: Any) -> str:
    """A template of this room with what it shows, by name; it may use these filters, and `percent`."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(percent=tables.percent, **filters)
    text = resources.files("uge.report").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(**content)


def contents(data: ReportInput, *, public: bool) -> dict[str, Any]:
    """What the template shows, by name."""
    data = data.without_folders() if public else data
    rows = tables.accuracy_table(data.summary)
    drawn = figures.bars(rows)
    largest = data.quality.get("l_inf_255", data.manifest["epsilon_measured"])
    factor = figures.amplification(8 if largest is None else int(largest))
    curves = figures.training_curves(rows, data.records)
    return {
        "public": public,
        "verdict": verdict.judge(data.summary),
        "summary": data.summary,
        "manifest": data.manifest,
        "size": tables.pixels(data.manifest),
        "quality": data.quality,
        "parts": tables.parts(rows),
        "numbers": headline(data.summary),
        "short": figures.in_short(rows),
        "short_described": figures.described(figures.in_short(rows), data.summary["chance"]),
        "bars": drawn,
        "bars_described": figures.described(drawn, data.summary["chance"]),
        "hackers_drawn": sum(row.role == "hacker" for row in drawn),
        "hackers": sum(row.role == "hacker" for row in rows),
        "columns": tables.COLUMNS,
        "several_seeds": any(row.seeds > 1 for row in rows),
        "closing": tables.closing_lines(data.summary),
        "largest": largest,
        "factor": factor,
        "examples": list(example_images(data.examples, factor, public=public)) if data.examples else [],
        "pairs": data.examples is not None and data.examples.originals is not None and not public,
        "worths": figures.worths(data.summary),
        "worth_sentences": verdict.worth_sentences(data.summary),
        "heat": tables.heatmap(data.summary),
        "ladders": figures.ladders(data.summary),
        "curves": curves[:MOST_CURVES],
        "more_curves": curves[MOST_CURVES:],
        "limits": limits(data.summary, data.records, data.manifest, data.offered),
        "skipped": data.skipped,
        "following": data.following,
        "settings": list(flat(data.settings)),
        "plan": list(flat({name: value for name, value in data.plan.items() if name != "hackers"})),
        "environment": list(flat(data.environment)),
        "trainings": [training_facts(record, public=public) for record in data.records],
    }


def headline(summary: dict[str, Any]) -> list[dict[str, str]]:
    """The large numbers of the first screen, each with its title, unit and a few words: the margin and the worths."""
    gap, found = summary["margin"], []
    if gap is not None:
        small = "recipient less the strongest hacker who does not query his network"
        found.append({"title": "Margin", "value": tables.points(gap), "unit": "points", "small": small})
    for pretrained, to in ((False, "the strongest hacker"), (True, "one with a pretrained encoder")):
        if worth := tables.worth_to(summary, pretrained=pretrained):
            value = tables.originals(worth["originals"], worth).replace("more than", ">").replace("fewer than", "<")
            small = f"to {to}{tables.interval_of(worth)}"
            title = f"{worth['copies']:,} copies are worth"
            found.append({"title": title, "value": value, "unit": "originals", "small": small})
    if not summary.get("worth"):
        small = verdict.why_no_worth(summary)
        found.append({"title": "Worth", "value": tables.DASH, "unit": "originals", "small": small})
    return found


def example_images(examples: Examples, factor: int, *, public: bool) -> Iterator[dict[str, Any]]:
    """The examples as data URIs; a public page gets the published copies alone."""
    originals, copies = None if public else examples.originals, examples.copies
    for index, label in enumerate(copies.labels[:MOST_SHOWN].tolist()):
        copy = copies.images[index]
        images = {"published": figures.png_uri(copy)}
        if originals is not None:
            difference = figures.amplified(originals[index], copy, factor)
            images |= {"original": figures.png_uri(originals[index]), "difference": figures.png_uri(difference)}
        name = copies.class_names[label]
        yield images | {"name": name, "words": re.split(r"(?=[A-Z_])", name)}  # where a long name may break


def training_facts(record: dict[str, Any], *, public: bool) -> dict[str, Any]:
    """One row of the table of trainings. The hash of clean data would confirm a guess at it: private."""
    data_hash = "" if public and record["trained_on"] == "clean" else record.get("data") or ""
    hacker = record["kind"] != "authorised"
    return {
        "network": record["network"],
        "role": tables.countermeasure_label(record["countermeasure"]) if hacker else "recipient",
        "trained_on": tables.trained_on(record),
        "seed": record["seed"],
        "accuracy": record.get("accuracy"),
        "peak": record.get("peak_accuracy"),
        "seconds": record.get("seconds"),
        "config": record.get("config_hash") or "",
        "data": data_hash[:12],
    }


def flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as ("protect.epsilon_255", "8") pairs."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield f"{prefix}{name}", IN_WORDS.get(text, text)


def share(group: dict[str, Any], chance: float) -> int:
    """How dark a cell of the grid is, 0 to 100: the share recovered, or the accuracy above chance without a ceiling."""
    value = group["recovered"]
    if value is None:
        value = (group["accuracy"] - chance) / max(1.0, 100 - chance)
    return round(100 * min(1.0, max(0.0, value)))


def unbroken(text: str) -> str:
    """Keep a number and its percent sign on one line."""
    return text.replace(" %", "\u00a0%")
