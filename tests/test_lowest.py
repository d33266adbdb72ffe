"""The lowest versions that pyproject.toml allows, in an environment of their own. Minutes and gigabytes: `-m slow`."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUICK = [f"tests/{room}" for room in ("keys", "copy", "data", "losses", "networks", "contracts", "training")]


@pytest.mark.slow
def test_the_quick_tests_pass_with_the_lowest_versions(tmp_path: Path) -> None:
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lowest = [re.sub(">=", "==", each) for each in needed]
    python = tmp_path / "environment" / "bin" / "python"

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done

    run(sys.executable, "-m", "venv", tmp_path / "environment")
    run(python, "-m", "pip", "install", *lowest, "hatchling", "hypothesis", "pytest")
    run(python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", ".")
    print(run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *QUICK).stdout[-300:])
