"""What an installation may take, and that the threat model names tests that there are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0]))


def test_every_dependency_is_above_its_advisories() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE)
    told = {name.split(" ")[0]: version(bound) for name, bound in rows if bound[0].isdigit()}
    extras = PROJECT["optional-dependencies"]
    low = dict(each.split(">=") for each in (*PROJECT["dependencies"], *extras["clip"], *extras["ray"]))
    assert told.keys() >= {"torch", "pillow", "cryptography", "pyrage", "jinja2", "datasets", "transformers", "ray"}
    for name, bound in told.items():
        if name in low:
            assert version(low[name]) == bound, f"{name}: the page says {bound}, pyproject.toml {low[name]}"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_holds_what_is_needed_with_hashes_and_as_the_constraints_say(name: str) -> None:
    lock, pinned = (ROOT / name).read_text(), r"^([a-z0-9_.-]+)\S*?==(\S+)[^\n]*\\\n"
    entries = re.findall(pinned + r"(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", lock, re.MULTILINE)
    locked = {package.replace("_", "-"): number for package, number in entries}
    assert len(re.findall(r"^[a-z]", lock, re.MULTILINE)) == len(entries), "a line without hashes"
    extras = PROJECT["optional-dependencies"]
    needed = list(PROJECT["dependencies"])
    if name == "requirements-dev.lock":
        needed += extras["dev"][1:]
        for part in ("clip", "timm", "ray", "slurm", "serve", "docs"):
            needed += extras[part]
    for each in needed:
        package, low = re.match(r"([a-z0-9-]+)>=([0-9.]+)", each).groups()
        assert version(locked[package]) >= version(low), package
    for line in (ROOT / "constraints-cpu.txt").read_text().splitlines():
        package, _, pinned = line.partition("==")
        if package.replace("_", "-") in locked:
            assert version(locked[package.replace("_", "-")]) == version(pinned), package


def test_every_test_that_the_threat_model_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "threat-model.md").read_text()))
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))
    there = set(re.findall(r"def (test_\w+)", tests))
    assert len(named) > 15 and named <= there, named - there
