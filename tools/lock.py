"""Write requirements.lock (for users) and requirements-dev.lock (for CI, too): exact files, by their hashes.

    pip install uv; python tools/lock.py torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl

They are for Python 3.11 without a GPU. On Linux that is PyTorch's own build, which is on no public index of packages:
its file is given here, for its hash.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILDING = "hatchling>=1.27\neditables\n"  # with these the package itself is installed, without fetching anything
GPU = re.compile(r"(nvidia|cuda)-.*|triton")
HEAD = "# Exact files for Python 3.11 without a GPU, by their hashes. Written by tools/lock.py.\n"


def locked(torch: Path, *options: str) -> str:
    """The text of a lock file."""
    command = ["uv", "pip", "compile", "pyproject.toml", "-", "-c", "constraints-cpu.txt", "--generate-hashes"]
    command += ["--universal", "--python-version", "3.11", "--no-header", "--no-annotate", "--quiet", *options]
    text = subprocess.run(command, cwd=ROOT, input=BUILDING, capture_output=True, text=True, check=True).stdout
    entries = re.split(r"\n(?=\S)", text.strip())
    kept = [each for each in entries if not GPU.fullmatch(re.split(r"[=\[ ]", each)[0])]
    return HEAD + "\n".join(_for_torch(each, torch) for each in kept) + "\n"


def _for_torch(entry: str, file: Path) -> str:
    name, version = re.match(r"([^=\[ ]+)\S*?==(\S+)", entry).groups()
    if name != "torch":
        return entry
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    other = entry.replace(" \\", " ; sys_platform != 'linux' \\", 1)
    return f"{other}\ntorch=={version}+cpu ; sys_platform == 'linux' \\\n    --hash=sha256:{digest}"


if __name__ == "__main__":
    wheel = Path(sys.argv[1])
    (ROOT / "requirements.lock").write_text(locked(wheel))
    (ROOT / "requirements-dev.lock").write_text(locked(wheel, "--extra", "dev"))
