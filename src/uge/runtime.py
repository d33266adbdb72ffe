"""Where and how a run happens: device, random seeds, facts about the machine."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from uge.outside import with_texts

T = TypeVar("T")
_FOLDERS = re.compile(
    r"""(?:(?<=[=:,+\s("'])|^)(?:file://)?(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?![/\\\s])(?:[^/\\,+]+[/\\])*"""  # /a/b/, ../a/
    r"|(?:(?<=data=)|(?<=own-pairs:)|(?<=candidates:)|(?<=copies=)|(?<=averages:))"  # a/b/, where a path may be
    r"(?!hub:|https?:)(?:[^/\\,+=]+[/\\])+"
    r"|(?<=clip:)(?:[^/\\,+]+[/\\]){2,}"  # a/b/, but not the OWNER/NAME of a hub
)


def best_device() -> torch.device:
    """A GPU where torch sees one (CUDA_VISIBLE_DEVICES says which), else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_in_turn(device: torch.device, turn: int) -> torch.device:
    """The device itself, or where that is a GPU of several the one whose turn it is."""
    return torch.device("cuda", turn % torch.cuda.device_count()) if device.type == "cuda" else device


@contextmanager
def repeatable() -> Iterator[None]:
    """Inside, cuDNN uses only kernels that add up in the same order every time: the same seed, the same bits."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def seed_for(seed: int, *names: object) -> int:
    """A seed of its own for each named purpose, so that adding one never changes another.

    Args:
        seed: the user's one seed.
        names: the purpose, such as `("attack", "vgg", 2)`.

    Returns:
        An integer in [0, 2**63), the same on every machine and in every release.
    """
    text = "\x1f".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *names: object) -> torch.Generator:
    """An explicit torch generator on the CPU for one named purpose (see `seed_for`)."""
    return torch.Generator().manual_seed(seed_for(seed, *names))


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Facts about a machine and its device that a record needs: versions and hardware, no names and no paths."""
    from uge import __version__

    return {
        "uge": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }


def without_folders(data: T) -> T:
    """The same without the folders of local paths, wherever these stand in it: "clip:/home/x/m" -> "clip:m"."""
    return with_texts(data, lambda text: _FOLDERS.sub("", text))


def precision_of(device: torch.device | str) -> str:
    """What to train in: "bfloat16" where the hardware computes in it, else "float32"."""
    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if torch.cpu.get_capabilities().get("avx512_bf16") else "float32"


def quick(device: torch.device | str, precision: str = "auto") -> torch.autocast:
    """Autocast to bfloat16: where the hardware computes in it, or as the precision says."""
    enabled = (precision_of(device) if precision == "auto" else precision) == "bfloat16"
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled)
