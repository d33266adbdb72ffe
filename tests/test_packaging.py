"""The files around the code agree with one another."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import uge

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [Requirement(text) for text in (*PROJECT["dependencies"], *chain(*EXTRAS.values()))]
PINS = {
    canonicalize_name(pin.name): pin.specifier
    for pin in map(Requirement, re.findall(r"^\w.*$", (ROOT / "constraints-cpu.txt").read_text(), re.MULTILINE))
}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_each_requirement_is_pinned_inside_its_range(requirement: Requirement) -> None:
    if canonicalize_name(requirement.name) == PROJECT["name"]:  # the dev extra takes in the others
        assert requirement.extras <= EXTRAS.keys()
        return
    (pin,) = PINS[canonicalize_name(requirement.name)]
    assert pin.operator == "=="
    assert pin.version in requirement.specifier


@pytest.mark.parametrize(
    ("name", "needed"),
    [("requirements.lock", REQUIREMENTS[: len(PROJECT["dependencies"])]), ("requirements-dev.lock", REQUIREMENTS)],
    ids=["requirements.lock", "requirements-dev.lock"],
)
def test_a_lock_holds_what_is_needed_with_hashes_and_as_the_constraints_say(
    name: str, needed: list[Requirement]
) -> None:
    lock, pinned = (ROOT / name).read_text(), r"^([a-z0-9_.-]+)\S*?==(\S+)[^\n]*\\\n"
    entries = re.findall(pinned + r"(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", lock, re.MULTILINE)
    locked = {canonicalize_name(package): number for package, number in entries}
    assert len(re.findall(r"^[a-z]", lock, re.MULTILINE)) == len(entries), "a line without hashes"
    for each in needed:
        assert each.name == PROJECT["name"] or locked[each.name] in each.specifier, each
    for package, number in locked.items():
        assert number in PINS.get(package, SpecifierSet()), package


def test_every_dependency_is_above_its_advisories() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", (ROOT / "docs" / "dependencies.md").read_text(), re.MULTILINE)
    told = {name.split(" ")[0]: bound for name, bound in rows if bound[0].isdigit()}
    low = dict(each.split(">=") for each in (*PROJECT["dependencies"], *EXTRAS["clip"], *EXTRAS["ray"]))
    assert told.keys() >= {"torch", "pillow", "cryptography", "pyrage", "jinja2", "datasets", "transformers", "ray"}
    for name in told.keys() & low.keys():
        assert Version(low[name]) == Version(told[name]), f"{name}: the page says {told[name]}, we {low[name]}"


def test_one_version_everywhere() -> None:
    assert f"\nversion: {uge.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == uge.__version__


def test_the_package_says_that_it_is_typed_and_carries_its_data() -> None:
    package = Path(uge.__file__).parent
    assert (package / "py.typed").is_file()
    assert list((package / "data" / "embedded").glob("LICENSE*"))
    assert list((package / "report").glob("*.j2"))
