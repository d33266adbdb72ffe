"""`uge report` on a finished audit: what stays private, what may be published, and what a damaged folder says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from uge.data.sources import load
from uge.report import figures
from uge.report.audit import read_audit
from uge.report.page import Examples

from .conftest import Run, role

PLAN = """
epochs = 1
authorised = "convnet:width=4"
[[hackers]]
networks = ["mlp:width=8", "convnet:width=4"]
countermeasures = ["none"]
"""


@pytest.fixture(scope="module")
def audited(run: Run, toy: Path, key: Path, published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished audit with its public pages and card; do not write to it."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "plan.toml").write_text(PLAN)
    given = ("--test", toy, "--clean", toy, "--key", role(key, "recipient"), "--plan", folder / "plan.toml")
    run("audit", published, *given, "--runner", "local:workers=1", "--out", folder / "audit").ok()
    public = ("--public", "--name", "toys", "--license", "https://example.org/licence")
    done = run("report", folder / "audit", *public).ok()
    files = ("public.html", "public.md", "croissant.json")
    assert done.stdout.split() == [str(folder / "audit" / name) for name in files]
    return folder / "audit"


def shown(audited: Path) -> Examples:
    examples = read_audit(audited).examples
    assert examples is not None and examples.originals is not None
    return examples


def test_the_public_files_hold_no_original_and_no_hash_of_one(audited: Path, toy: Path) -> None:
    private = (audited / "report.html").read_text()
    public = "".join((audited / name).read_text() for name in ("public.html", "public.md", "croissant.json"))
    examples = shown(audited)
    for original, copy in zip(examples.originals, examples.copies.images, strict=True):
        assert figures.png_uri(original) in private and figures.png_uri(original) not in public
        assert figures.png_uri(copy) in public
    assert public.count("data:image/png") == len(examples.copies)
    digest = load(str(toy), "train").digest()[:12]
    assert digest in private and digest not in public and str(toy) not in public
    assert "&nbsp;of&nbsp;255" in private and ".0&nbsp;of&nbsp;255" not in private  # as it was measured


def test_the_summary_in_markdown_says_what_the_page_says(audited: Path) -> None:
    text = (audited / "report.md").read_text()
    summary = json.loads((audited / "summary.json").read_text())
    assert text.startswith("# ") and f"{summary['authorised']['accuracy']:.1f} %" in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [len(row) for row in rows] == [4, 4, 4]  # head, rule, one counter-measure on two networks
    for group in summary["groups"]:
        column = rows[0].index(group["network"])
        assert rows[2][column].startswith(f"{group['accuracy']:.1f}")
    assert "Not tried in this run, though uge attack offers them: distillation, guarded, grayscale, blur" in text
    assert text.endswith("\n") and "\n\n\n" not in text


def test_the_card_is_valid_and_reads_the_copy(audited: Path, published: Path, tmp_path: Path) -> None:
    croissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    copy = tmp_path / "copy"
    shutil.copytree(published, copy)
    shutil.copy(audited / "croissant.json", copy)
    data = croissant.Dataset(jsonld=str(copy / "croissant.json"))
    assert not data.metadata.ctx.issues.errors
    assert data.metadata.name == "toys" and data.metadata.license == ["https://example.org/licence"]
    records = list(data.records("labelled"))
    assert len(records) == 48
    assert sorted({record["labelled/label"] for record in records}) == [b"forest", b"river", b"sea"]
    assert {record["labelled/image"].size for record in records} == {(16, 16)}


def test_what_is_no_audit_or_damaged_is_one_line(run: Run, audited: Path, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere", audited / "report.md"):
        assert "holds no finished audit" in run("report", place).error
    damaged = Path(shutil.copytree(audited, tmp_path / "damaged"))
    (damaged / "report.html").unlink()
    for name, content in (
        ("audit.json", "{}"),
        ("audit.json", "[1, 2"),
        ("summary.json", "{}"),
        ("records.jsonl", '{"cell": 1}\n'),
    ):
        (damaged / name).write_text(content)
        assert str(damaged) in run("report", damaged).error
        shutil.copy(audited / name, damaged)
    (damaged / "summary.json").unlink()
    assert "summary.json is missing" in run("report", damaged).error
    assert not (damaged / "report.html").exists()
