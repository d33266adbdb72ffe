"""The files around the code agree with one another."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import uge

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(text)
    for text in (*PROJECT["dependencies"], *(t for extra in PROJECT["optional-dependencies"].values() for t in extra))
]
PINS = {
    canonicalize_name(pin.name): pin
    for pin in (
        Requirement(line)
        for line in (ROOT / "constraints-cpu.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
}


def test_the_command_is_there() -> None:
    module, _, function = PROJECT["scripts"]["uge"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_each_requirement_is_pinned_inside_its_range(requirement: Requirement) -> None:
    if canonicalize_name(requirement.name) == PROJECT["name"]:  # the dev extra takes in the others
        assert requirement.extras <= PROJECT["optional-dependencies"].keys()
        return
    (pin,) = PINS[canonicalize_name(requirement.name)].specifier
    assert pin.operator == "=="
    assert pin.version in requirement.specifier


def test_one_version_everywhere() -> None:
    assert f"\nversion: {uge.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == uge.__version__


def test_the_package_says_that_it_is_typed_and_carries_its_data() -> None:
    package = Path(uge.__file__).parent
    assert (package / "py.typed").is_file()
    assert list((package / "data" / "embedded").glob("LICENSE*"))
    assert list((package / "report").glob("*.j2"))
