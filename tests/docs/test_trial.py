"""The stranger's trial can be walked: each click is on the page before, each command is printed where he is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRIAL = ROOT / "docs" / "trial.md"
WALKS = re.findall(r"(?:^\d\. .*\n)+", TRIAL.read_text(), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Of the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


def clicked(step: str, page: Path) -> Path | None:
    """Where a click leads, after checking that it is on the page; None where the step is none."""
    if not (link := re.search(r"\[(.+)\]\((\S+?)(?:#(\S+))?\)", step)):
        return None
    text, name, anchor = link.groups()
    target = (TRIAL.parent / name).resolve()
    if page == target:
        assert anchor in anchors(page), step
        return target
    links = {
        (said, (page.parent / to).resolve()) for said, to in re.findall(r"\[([^\]]+)\]\(([^)#]+)", page.read_text())
    }
    assert (text, target) in links, f"'{text}' is no link of {page.name}"
    return target


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.splitlines()[0])
def test_a_stranger_arrives_within_three_clicks_or_commands(walk: str) -> None:
    steps, page = walk.splitlines(), ROOT / "README.md"
    assert len(steps) <= 3
    for step in steps:
        page = clicked(step, page) or page
        for command in re.findall(r"`(.+)`", step):
            assert command in page.read_text(), f"{command} is not printed in {page.name}"


def test_the_trial_has_a_walk_to_each_of_the_three() -> None:
    heads = re.findall(r"^## (.*)$", TRIAL.read_text(), re.MULTILINE)
    assert heads == ["A protected folder", "A new attack in the audit", "The proof of exactness"]
    assert len(WALKS) == 4 and "∎" in (ROOT / "docs" / "letters.md").read_text().partition("## Exact")[2]
