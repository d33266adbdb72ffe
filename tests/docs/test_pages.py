"""Pages keep their word: printed commands parse, links lead somewhere, the stranger's trial can be walked."""

from __future__ import annotations

import re
import shlex
from itertools import chain
from pathlib import Path
from statistics import median

import pytest
import typer

from benchmarks.tables import RESULTS, SECTIONS
from uge.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PRINTING = [*PAGES, *sorted((ROOT / "examples").glob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
COMMANDS = [
    pytest.param(line.strip(), id=f"{page.name}: {line.strip()}")
    for page in PRINTING
    for line in re.findall(r"^(?:# )? *(uge .*)$", page.read_text().replace("\\\n", " "), re.MULTILINE)
]


@pytest.mark.parametrize("line", COMMANDS)
def test_printed_command_parses(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):  # uge -> key -> new
        command = command.commands[words.pop(0)]
    assert command.make_context(command.name, words).params  # raises a usage error on an unknown option


def test_the_readme_prints_every_command_that_a_first_walk_needs() -> None:
    printed = {str(parameter.id).split()[2] for parameter in COMMANDS if str(parameter.id).startswith("README.md: ")}
    assert printed == {"protect", "verify", "open", "audit", "report"}


def prose(text: str) -> str:
    """A page without code, comments, tables, pictures and headings; of links the words alone."""
    text = re.sub(r"```.*?```|<!--.*?-->|!\[.*?\]\(.*?\)", "\n", text, flags=re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("|", "#")))
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def sentences(text: str) -> list[list[str]]:
    """The words of each sentence; a list's item ends one."""
    blocks = re.split(r"\n\s*\n|^- ", prose(text), flags=re.MULTILINE)
    return [part.split() for block in blocks for part in re.split(r"(?<=[.!?])\s+", block) if part.split()]


def assert_plain(text: str) -> None:
    found = sorted(sentences(text), key=len)
    assert median(map(len, found)) <= 12 and len(found[-1]) <= 25, " ".join(found[-1])


def test_sentences_are_counted_by_word() -> None:
    page = "# A head\n\nOne two\nthree. Four `five six`! \n\n| a | b |\n\n- [Seven eight](x.md): nine.\n- ten\n"
    assert [len(words) for words in sentences(page)] == [3, 3, 3, 1]


def test_the_readme_is_short_and_plain() -> None:
    lines = README.splitlines()
    assert len(lines) <= 110
    assert next(number for number, line in enumerate(lines, 1) if line == "<!-- results:headline -->") < 25
    assert_plain(README)


FIRST_PAGES = [ROOT / "docs" / name for name in ("quickstart.md", "how-it-works.md", "threat-model.md")]
FIRST_PAGES += sorted((ROOT / "docs" / "guide").glob("*.md"))


@pytest.mark.parametrize("page", FIRST_PAGES, ids=lambda page: page.stem)
def test_the_first_pages_of_the_site_are_plain(page: Path) -> None:
    assert_plain(page.read_text())


SCRIPTS = {
    line.strip()
    for page in PRINTING
    for line in re.findall(r"^(?:    )?((?:python|make) .*)$", page.read_text(), re.MULTILINE)
}


@pytest.mark.parametrize("line", sorted(SCRIPTS))
def test_a_printed_script_is_there_and_has_the_options_that_it_is_given(line: str) -> None:
    first, *words = shlex.split(line, comments=True)
    if first == "make":
        targets = [word for word in words if "=" not in word]
        assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for target in targets)
        return
    file = ROOT / words[0]
    if words[0] == "-m":
        file = ROOT.joinpath(*words[1].split(".")).with_suffix(".py")
        file = file if file.exists() else file.with_suffix("") / "__init__.py"
    text = file.read_text()
    if words[0] != "-m":
        assert not re.search(r"^from benchmarks\b", text, re.MULTILINE), f"{line}: only -m finds what it imports"
    assert all(f'"{word}"' in text for word in words if word.startswith("--")), line


EXPERIMENTS = [page for folder in ("results", "reproduction") for page in sorted((ROOT / "docs" / folder).glob("*.md"))]


@pytest.mark.parametrize("page", EXPERIMENTS, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_the_page_of_an_experiment_begins_with_its_result_and_shows_it_on_the_first_screen(page: Path) -> None:
    first, second, third, *rest = page.read_text().splitlines()
    assert first.startswith("# ") and not second
    found = sentences(third)
    assert 1 <= len(found) <= 3 and max(map(len, found)) <= 20
    assert not re.search(r"\d+\.\d", third), "a figure stands in a table made from records"
    assert any(line.startswith(("|", "!", "<!-- results:")) for line in rest[:8])


def test_the_first_page_of_results_has_a_line_a_page() -> None:
    for folder in ("results", "reproduction"):
        index = (ROOT / "docs" / folder / "README.md").read_text()
        others = {page.name for page in EXPERIMENTS if page.parent.name == folder} - {"README.md"}
        assert others <= set(re.findall(r"\]\(([\w-]+\.md)\)", index))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_test_that_the_threat_model_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "threat-model.md").read_text()))
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))
    there = set(re.findall(r"def (test_\w+)", tests))
    assert len(named) > 15 and named <= there, named - there


def test_all_records_are_in_a_table_or_in_the_research_notes() -> None:
    notes = (ROOT / "docs" / "research" / "README.md").read_text()
    told = {*chain.from_iterable(folders for folders, _ in SECTIONS.values()), *re.findall(r"results/(\w+)/", notes)}
    assert {file.parent.name for file in (ROOT / RESULTS).glob("*/records.jsonl")} <= told


def test_a_notebook_is_a_page_of_text_and_code() -> None:
    hooks = pytest.importorskip("tools.docs_hooks")
    text = "# %% [markdown]\n# # Head\n#\n# Text.\n\n# %%\nx = 1  # %% no cell\n# a comment\n"
    assert hooks.notebook_page(text) == "# Head\n\nText.\n\n```python\nx = 1  # %% no cell\n# a comment\n```\n"
    assert {file.stem for file in hooks.notebooks()} == {"recipient", "break_a_copy"}


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
