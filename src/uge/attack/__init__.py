"""Counter-measures by name: what a hacker does, from published files only. A new one is one file and one line here.

A counter-measure is written `name` or `name:word,option=value`, as in `jpeg:30` or `distillation:soft,temperature=4`; a
bare word is the first option. Several are joined with a plus, as in `jpeg:30+cutmix`: each works on what the one before
it left.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from uge.attack.adversarial import Adversarial
from uge.attack.augmented import RandAugment, UEraser
from uge.attack.clean_subset import CleanMixed, CleanOnly
from uge.attack.combined import Combined
from uge.attack.distillation import Distillation
from uge.attack.filtered import Jpeg, blur, depth, grayscale, low_pass, median, pool, wavelet
from uge.attack.guessed_views import GuessedViews
from uge.attack.jpeg_lattice import NO_LATTICE, JpegLattice, read_lattice
from uge.attack.mixing import Cutmix, Cutout, Mixup
from uge.attack.projection import Projection
from uge.attack.purification import KEYS, OwnPairs, Pairs, Purify
from uge.attack.residuals import ResidualMeans, Transplant
from uge.data.images import ImageSet
from uge.errors import ConfigError, unknown_name
from uge.training import Countermeasure, PlainTraining

COUNTERMEASURES: dict[str, Callable[..., Countermeasure]] = {
    "none": PlainTraining,
    "distillation": Distillation,
    "grayscale": grayscale,
    "jpeg": Jpeg,
    "blur": blur,
    "pool": pool,
    "depth": depth,
    "median": median,
    "low-pass": low_pass,
    "wavelet": wavelet,
    "cutout": Cutout,
    "mixup": Mixup,
    "cutmix": Cutmix,
    "randaugment": RandAugment,
    "ueraser": UEraser,
    "adversarial": Adversarial,
    "projection": Projection,
    "clean-only": CleanOnly,
    "clean-mixed": CleanMixed,
    "residual-means": ResidualMeans,
    "transplant": Transplant,
    "jpeg-lattice": JpegLattice,
    "guessed-views": GuessedViews,
    "purify": Purify,
    "pairs": Pairs,
    "own-pairs": OwnPairs,
}
NEEDS_TEACHER = {"distillation"}  # these query the trained authorised network
NEEDS_KEY: set[str] = set()  # these are given the key, to show what (a part of) it is worth
NEEDS_PAIRS = {"pairs"}  # these have some of the originals and know which copy belongs to each
NEEDS_CLEAN = {"clean-only", "clean-mixed"} | NEEDS_PAIRS  # these have some of the originals
NEEDS_METHOD = {"own-pairs", "guessed-views"}  # these use what our page and code tell about null spaces

# What a hacker may have besides the published folder and our code, the least first.
KNOWLEDGE = ("nothing", "method", "architecture", "clean images", "pairs", "model outputs", "key")
_GIVEN = ("teacher", "clean")  # arguments that come from the audit and not from the text


def parse_countermeasures(text: str) -> list[tuple[str, dict[str, str]]]:
    """Read `name:word,option=value`, or several of them joined with "+", into names and options.

    Raises:
        ConfigError: a name in no registry, or a word where there is no option.
    """
    return [parse_countermeasure(part) for part in text.split("+")]


def parse_countermeasure(text: str) -> tuple[str, dict[str, str]]:
    """One part of `parse_countermeasures`."""
    name, _, tail = text.partition(":")
    if name not in COUNTERMEASURES:
        raise unknown_name("counter-measure", name, COUNTERMEASURES)
    known = _options_of(name)
    options = {}
    for item in filter(None, tail.split(",")):
        key, equals, value = item.partition("=")
        if not known:
            raise ConfigError(f"counter-measure '{name}' has no options, got '{text}'")
        options[key if equals else known[0]] = value if equals else key
    return name, options


def _options_of(name: str) -> list[str]:
    return [option for option in inspect.signature(COUNTERMEASURES[name]).parameters if option not in _GIVEN]


def needs_teacher(text: str) -> bool:
    """Whether a counter-measure, or any part of a combined one, queries the trained authorised network."""
    return any(name in NEEDS_TEACHER for name, _ in parse_countermeasures(text))


def needs_key(text: str) -> bool:
    """Whether a counter-measure, or any part of a combined one, cannot do without the key: it queries or copies."""
    return any(name in NEEDS_TEACHER | NEEDS_KEY for name, _ in parse_countermeasures(text))


def needs_clean(text: str) -> bool:
    """Whether a counter-measure, or any part of a combined one, has some of the originals."""
    return any(name in NEEDS_CLEAN for name, _ in parse_countermeasures(text))


def knowledge_of(text: str) -> str:
    """What a counter-measure knows, one of `KNOWLEDGE`; of a combined one the strongest of its parts."""
    needed = {"model outputs": NEEDS_TEACHER, "pairs": NEEDS_PAIRS, "clean images": NEEDS_CLEAN, "method": NEEDS_METHOD}
    known = [
        next((what for what in needed if name in needed[what]), "nothing") for name, _ in parse_countermeasures(text)
    ]
    return max(known, key=KNOWLEDGE.index)


def why_unfit(text: str, images: ImageSet, method: str = "") -> str:
    """Why a counter-measure is of no use against these images; empty if it may be.

    Args:
        text: the counter-measure.
        images: what it would work on.
        method: how they were protected, where that is known.
    """
    for name, options in parse_countermeasures(text):
        if name == "grayscale" and images.channels == 1:
            return "the images are gray already"
        if name == "jpeg-lattice" and not options and read_lattice(images.images) is None:
            return NO_LATTICE
        key = options.get("key", KEYS[0])
        if name == "own-pairs" and key != (method if method in KEYS else KEYS[0]):
            return f"the copy is behind no {key} key"
    return ""


def build_countermeasure(
    text: str, *, teacher: nn.Module | None = None, clean: ImageSet | None = None
) -> Countermeasure:
    """A counter-measure from its text.

    Args:
        text: such as "none", "distillation:hard" or "jpeg:30+cutmix".
        teacher: the trained authorised network, for those that query it.
        clean: the originals, for those that have some of them.

    Raises:
        ConfigError: unknown name or option, a teacher or originals that are needed and not given, or parts that cannot
            be combined.
    """
    parts = [_build(name, options, teacher, clean) for name, options in parse_countermeasures(text)]
    return parts[0] if len(parts) == 1 else Combined(list(zip(text.split("+"), parts, strict=True)))


def _build(name: str, options: dict[str, str], teacher: nn.Module | None, clean: ImageSet | None) -> Countermeasure:
    known = _options_of(name)
    for option in options:
        if option not in known:
            raise unknown_name(f"option of counter-measure '{name}'", option, known)
    given: dict[str, Any] = {}
    if name in NEEDS_TEACHER:
        if teacher is None:
            raise ConfigError(f"counter-measure '{name}' queries the authorised network: give --key")
        given["teacher"] = teacher
    if name in NEEDS_CLEAN:
        if clean is None:
            raise ConfigError(f"counter-measure '{name}' has some of the clean images: give --clean")
        given["clean"] = clean
    return COUNTERMEASURES[name](**given, **options)
