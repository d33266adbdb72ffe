"""From an audit's folder to what people read: the page, a Markdown summary, and a data card for the copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta, Struct, to_builtins

from uge.data.images import ImageSet
from uge.durable import write_file
from uge.errors import DataError, PublishError
from uge.outside import MIB, printable, read_json, read_npz, shown, typed
from uge.outside import escaped_markdown as escaped
from uge.records import AUDIT_VERSION, Percent, is_training, read_records
from uge.report import tables, verdict
from uge.report.limits import limits
from uge.report.page import Examples, ReportInput, write_page

EXAMPLES = "examples.npz"
MOST_EXAMPLE_BYTES = 512 * MIB

_Count = Annotated[int, Meta(ge=0, le=10**12)]
_Number = _Count | Annotated[float, Meta(ge=0, le=1e12)]
_Value = Annotated[int, Meta(ge=0, le=255)]
_Interval = tuple[Annotated[float, Meta(ge=-1e6, le=1e6)], Annotated[float, Meta(ge=-1e6, le=1e6)]]


class _Hacker(Struct):
    """One who was trained on the copy."""

    network: str
    countermeasure: str
    knows: str
    accuracy: Percent
    peak_accuracy: Percent
    clean_accuracy: Percent | None = None


class _Run(_Hacker, kw_only=True):
    """One of his trainings."""

    seed: int


class _Amount(Struct):
    """How much a hacker has of something, 500 of "clean images"."""

    number: _Number
    of: str


class _Group(_Hacker, kw_only=True):
    """Hackers who differ in their seed alone."""

    seeds: _Count
    counts: bool
    interval: _Interval | None = None
    recovered: Annotated[float, Meta(ge=-1e4, le=1e4)] | None = None
    undertrained: bool | None = None
    amount: _Amount | None = None


class _Authorised(Struct, kw_only=True):
    """The recipient."""

    network: str
    seeds: list[int]
    accuracy: Percent
    interval: _Interval | None = None
    peak_accuracy: Percent
    locked: bool
    locked_clean_accuracy: Percent | None = None


class _Level(Struct):
    """What so many originals teach."""

    originals: _Count
    accuracy: Percent
    fitted: Percent


class _Worth(Struct):
    """What the copy is worth to a hacker."""

    network: str
    countermeasure: str
    accuracy: Percent
    copies: _Count
    pretrained: bool
    curve: Annotated[list[_Level], Meta(min_length=2, max_length=100)]
    originals: _Number | None = None
    interval: tuple[_Number | None, _Number | None] | None = None


class _Summary(Struct):
    """The content of `summary.json` (see `uge.audit.metrics.summarise`)."""

    chance: Percent
    hackers: list[_Run]
    groups: list[_Group]
    why_no_evidence: list[str]
    authorised: _Authorised | None = None
    margin: Annotated[float, Meta(ge=-100, le=100)] | None = None
    worst: _Run | None = None
    worth: list[_Worth] | None = None
    evidence: bool | None = None


class _Published(Struct):
    """The copy."""

    method: str
    count: _Count
    channels: Literal[1, 3]
    image_size: tuple[Annotated[int, Meta(ge=1, le=10**6)], Annotated[int, Meta(ge=1, le=10**6)]]
    classes: Annotated[int, Meta(ge=1, le=10**6)]
    class_names: list[str]
    own_sizes: bool = False
    epsilon_asked: _Value | None = None
    epsilon_measured: _Value | None = None
    sha256: str | None = None


class _LeftOut(Struct):
    """Whom nobody tried, and why."""

    what: str
    why: str


class _Facts(Struct):
    """The content of `audit.json` (see `uge.audit.folder.facts_of`)."""

    format_version: int
    cells: list[str]
    manifest: _Published
    settings: dict[str, Any]
    quality: dict[str, _Number | None]
    skipped: list[_LeftOut]
    offered: list[str]
    environment: dict[str, Any]
    plan: dict[str, Any]
    following: list[str] | None = None


def read_audit(folder: Path) -> ReportInput:
    """Everything that the folder of a finished audit tells (see `uge.audit.folder`).

    Raises:
        PublishError: the folder holds no finished audit, or a file of it is damaged.
    """
    facts = _read(folder, "audit.json", _Facts)
    if facts["format_version"] != AUDIT_VERSION:
        raise PublishError(
            f"{folder} has format version {facts['format_version']}, this uge reads {AUDIT_VERSION};"
            " run the same 'uge audit' again, which trains only what is missing"
        )
    summary = _read(folder, "summary.json", _Summary)
    cells = set(facts["cells"])
    records = [
        shown(row) for row in read_records(folder / "records.jsonl") if is_training(row) and row["cell"] in cells
    ]
    if lost := len(cells - {row["cell"] for row in records}):
        raise PublishError(f"{folder} lacks the records of {lost} of its {len(cells)} trainings; run 'uge audit' again")
    return ReportInput(
        summary=summary,
        records=records,
        settings={"method": facts["manifest"]["method"], **facts["settings"]},
        manifest=facts["manifest"],
        examples=_examples(folder),
        quality={name: value for name, value in facts["quality"].items() if value is not None},
        environment=facts["environment"],
        plan=facts["plan"],
        skipped=facts["skipped"],
        offered=tuple(facts["offered"]),
        following=tuple(facts["following"] or ()),
    )


def _read(folder: Path, name: str, kind: type[Struct]) -> Any:
    try:
        return shown(to_builtins(typed(read_json(folder / name), kind)))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(folder, name) from error
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{name}: {error}") from error


def _missing(folder: Path, name: str) -> PublishError:
    return PublishError(f"{folder} holds no finished audit ({name} is missing); run 'uge audit' first")


def _damaged(folder: Path, what: str) -> PublishError:
    return PublishError(f"{folder} is damaged ({what}); run 'uge audit' again")


def _examples(folder: Path) -> Examples:
    """The examples of the folder.

    Raises:
        PublishError: they are missing or damaged.
    """
    try:
        content = {name: array.copy() for name, array in read_npz(folder / EXAMPLES, MOST_EXAMPLE_BYTES).items()}
        originals, numbers = content.get("originals"), tuple(map(str, range(len(content["copies"]))))
        names = tuple(printable(str(each)) for each in content["class_names"].tolist())
        copies = ImageSet(torch.from_numpy(content["copies"]), torch.from_numpy(content["labels"]), names, numbers)
        if originals is not None and (originals.dtype, originals.shape) != (np.uint8, content["copies"].shape):
            raise ValueError("originals and copies are not alike")
    except FileNotFoundError as error:
        raise _missing(folder, EXAMPLES) from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SystemError, DataError) as error:
        raise _damaged(folder, f"{EXAMPLES}: {error}") from error
    return Examples(None if originals is None else torch.from_numpy(originals), copies)


def write_reports(
    folder: Path, *, public: bool = False, name: str = "protected-images", license_url: str | None = None
) -> list[Path]:
    """Write what people read of a finished audit into its folder.

    Args:
        folder: of the audit.
        public: a page for everybody, beside the private one: without originals, differences and whatever is computed
            from single originals; and, of a folder with a manifest, the data card.
        name: see `data_card`.
        license_url: see `data_card`.

    Returns:
        The files.
    """
    data = read_audit(folder)
    page, text = (folder / f"{'public' if public else 'report'}.{kind}" for kind in ("html", "md"))
    write_page(data, page, public=public)
    data = data.without_folders() if public else data
    write_file(text, audit_markdown(data))
    if not public or not data.manifest["sha256"]:  # the card describes folders as `uge.publish` writes them
        return [page, text]
    card = folder / "croissant.json"
    write_file(card, json.dumps(data_card(data, name, license_url), indent=1) + "\n")
    return [page, text, card]


def audit_markdown(data: ReportInput) -> str:
    """The summary for a README or an issue: verdict, the grid, what weakens it. Nothing of a single original."""
    judged = verdict.judge(data.summary)
    manifest, quality = data.manifest, data.quality
    lines = [f"# {escaped(judged.heading)}", "", escaped(judged.text), ""]
    if judged.cautions:
        lines += [*(f"- {escaped(caution)}" for caution in judged.cautions), ""]
    lines.append(
        f"{manifest['count']:,} images of {tables.pixels(manifest)} in {manifest['classes']} classes,"
        f" method {escaped(manifest['method'])}; {epsilon_text(manifest, quality)}."
    )
    alike = [f"PSNR {quality['psnr_db']:.1f} dB"] if "psnr_db" in quality else []
    alike += [f"SSIM {quality['ssim']:.3f}"] if "ssim" in quality else []
    lines[-1] += f" {', '.join(alike)}." if alike else ""
    lines += ["", tables.heatmap_markdown(tables.heatmap(data.summary))]
    lines += [escaped(said) + "\n" for said in limits(data.summary, data.records, manifest, data.offered)]
    if data.skipped:
        left_out = "; ".join(f"{each['what']} ({each['why']})" for each in data.skipped)
        lines.append(f"Left out: {escaped(left_out)}.")
    if data.following:
        lines += ["", "A larger budget would go on with: " + escaped("; ".join(data.following)) + "."]
    return "\n".join(lines).rstrip() + "\n"


def epsilon_text(manifest: dict[str, Any], quality: dict[str, float]) -> str:
    """The bound in words: measured where originals were there, else what the manifest states."""
    asked, stated, seen = manifest["epsilon_asked"], manifest["epsilon_measured"], quality.get("l_inf_255")
    allowed = "no bound asked" if asked is None else f"{asked}/255 allowed"
    if seen is not None:
        told = "" if stated in (None, seen) else f", though its manifest states {stated}/255"
        return f"epsilon {seen:g}/255 measured{told}, {allowed}"
    return (
        "no manifest, so no bound is stated" if stated is None else f"epsilon {stated}/255 by its manifest, {allowed}"
    )


def data_card(data: ReportInput, name: str, license_url: str | None) -> dict[str, Any]:
    """A card of the protected copy in Croissant 1.0 (JSON-LD; http://mlcommons.org/croissant/1.0).

    It belongs into the published folder, beside `train`, where its paths start. Nothing in it is computed from
    originals but the accuracies that the audit publishes.

    Args:
        data: of the audit.
        name: of the data set.
        license_url: of the licence of the copy.
    """
    judged, manifest = verdict.judge(data.summary), data.manifest
    about = (
        f"{manifest['count']} labelled images of {tables.pixels(manifest)} in {manifest['classes']}"
        f" classes, protected with the method {manifest['method']} so that the recipient of a key alone should learn"
        f" from them ({epsilon_text(manifest, data.quality)}). An audit says: {judged.heading}. {judged.text}"
    )
    card: dict[str, Any] = {
        "@context": CROISSANT_CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": about,
        "version": "1.0.0",
        "distribution": [
            {"@type": "cr:FileSet", "@id": "images", "name": "images", "description": "The published images.",
             "encodingFormat": "image/png", "includes": "train/*/*.png"},
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet", "@id": "labelled", "name": "labelled",
                "field": [
                    {"@type": "cr:Field", "@id": "labelled/image", "name": "image", "dataType": "sc:ImageObject",
                     "description": "The protected image.",
                     "source": {"fileSet": {"@id": "images"}, "extract": {"fileProperty": "content"}}},
                    {"@type": "cr:Field", "@id": "labelled/label", "name": "label", "dataType": "sc:Text",
                     "description": "Its class, the name of its folder.",
                     "source": {"fileSet": {"@id": "images"}, "extract": {"fileProperty": "fullpath"},
                                "transform": {"regex": "train/([^/]+)/.*"}}},
                ],
            }
        ],
    }  # fmt: skip
    if manifest["sha256"]:
        about_file = {"name": "manifest", "description": "Bound, settings, and the hash of every image."}
        where = {"contentUrl": "manifest.json", "encodingFormat": "application/json", "sha256": manifest["sha256"]}
        card["distribution"].append({"@type": "cr:FileObject", "@id": "manifest", **about_file, **where})
    return card | ({"license": license_url} if license_url else {})


_CROISSANT_TERMS = (
    "citeAs column equivalentProperty extract field fileProperty fileObject fileSet format includes isLiveDataset"
    " jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source"
    " subField transform"
)
CROISSANT_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _CROISSANT_TERMS.split()},
}
