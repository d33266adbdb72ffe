"""Counter-measures by name: what a hacker does, from published files only. A new one is one file and one line here.

A counter-measure is written `name` or `name:word,option=value`, as in `jpeg:30` or `distillation:soft,temperature=4`; a
bare word is the first option. Several are joined with a plus, as in `jpeg:30+cutmix`: each works on what the one before
it left.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from uge.attack.adversarial import Adversarial
from uge.attack.augmented import RandAugment, UEraser
from uge.attack.averages import Averages
from uge.attack.band_stop import BandStop
from uge.attack.candidates import Candidates
from uge.attack.clean_subset import CleanMixed, CleanOnly, Coarse, Refit
from uge.attack.combined import Combined
from uge.attack.disentangled import Disentangled
from uge.attack.distillation import Distillation
from uge.attack.erased import Erase
from uge.attack.filtered import Jpeg, of_filter
from uge.attack.guarded import Guarded
from uge.attack.keyed import NoisyKey, StolenKey, WrongKey
from uge.attack.mixing import Cutmix, Cutout, Mixup
from uge.attack.own_pairs import OwnPairs
from uge.attack.pretrained import PretrainedFinetune, PretrainedProbe
from uge.attack.projection import Projection
from uge.attack.purification import NO_PAIRS, Pairs, Purify
from uge.attack.relabelled import Relabel
from uge.attack.residuals import PairMeans, ResidualMeans, Transplant
from uge.attack.scattered import Coin
from uge.attack.self_supervised import SelfSupervised
from uge.data.images import ImageSet
from uge.encoders import is_installed
from uge.errors import ConfigError
from uge.filters import FILTERS
from uge.grammar import parse_named
from uge.keys.key import Key
from uge.records import ASKS
from uge.training import PlainTraining

COUNTERMEASURES: dict[str, type[PlainTraining]] = {
    "none": PlainTraining,
    "distillation": Distillation,
    "guarded": Guarded,
    **{name: of_filter(name) for name in FILTERS if name != "none"},
    "jpeg": Jpeg,
    "cutout": Cutout,
    "mixup": Mixup,
    "cutmix": Cutmix,
    "randaugment": RandAugment,
    "ueraser": UEraser,
    "coin": Coin,
    "band-stop": BandStop,
    "adversarial": Adversarial,
    "projection": Projection,
    "clean-only": CleanOnly,
    "clean-mixed": CleanMixed,
    "residual-means": ResidualMeans,
    "transplant": Transplant,
    "relabel": Relabel,
    "purify": Purify,
    "d-vae": Disentangled,
    "erase": Erase,
    "pairs": Pairs,
    "pair-means": PairMeans,
    "own-pairs": OwnPairs,
    "candidates": Candidates,
    "averages": Averages,
    "refit": Refit,
    "coarse": Coarse,
    "pretrained-probe": PretrainedProbe,
    "pretrained-finetune": PretrainedFinetune,
    "self-supervised": SelfSupervised,
    "noisy-key": NoisyKey,
    "wrong-key": WrongKey,
    "stolen-key": StolenKey,
}
# What a hacker may have besides the published folder and our code, the least first. Whoever knows the key is a control
# and counts for no margin.
KNOWLEDGE = ("nothing", "method", "other copies", "architecture", "clean images", "pairs", ASKS, "key")
# Arguments that come from the audit and not from the text, and what is said where one is missing.
_GIVEN = {
    "teacher": "queries the authorised network: give --key",
    "guard": "queries the recipient's guarded network: give --key",
    "untrained": "begins with the authorised network: give --key",
    "key": "needs the key: give --key",
    "clean": "has some of the clean images: give --clean",
    "settings": "",
    "seed": "",
    "device": "",
}


def parse_countermeasures(text: str) -> list[tuple[str, dict[str, str]]]:
    """Read `name:word,option=value`, or several of them joined with "+", into names and options.

    Raises:
        ConfigError: as for `parse_named`.
    """
    return [parse_named(part, "counter-measure", COUNTERMEASURES, _options_of) for part in text.split("+")]


def _takes(name: str) -> list[str]:
    """The arguments of a counter-measure: what it is given, and its options."""
    kind: Any = COUNTERMEASURES[name]
    return _parameters(kind)


@cache  # a search asks thousands of times
def _parameters(kind: Any) -> list[str]:
    return list(inspect.signature(kind).parameters)


def _options_of(name: str) -> list[str]:
    return [option for option in _takes(name) if option not in _GIVEN]


def _value(name: str, options: Mapping[str, str], option: str) -> str:
    """What an option of a counter-measure is, as written or by default."""
    return options.get(option, str(inspect.signature(COUNTERMEASURES[name]).parameters[option].default))


def _needs(text: str, *given: str) -> bool:
    """Whether any part of a counter-measure takes one of these arguments."""
    return any(argument in given for name, _ in parse_countermeasures(text) for argument in _takes(name))


def needs_teacher(text: str) -> bool:
    """Whether a counter-measure, or any part of a combined one, queries the trained authorised network."""
    return _needs(text, "teacher", "guard")


def needs_guard(text: str) -> bool:
    """Whether that network refuses published images (see `uge.service`)."""
    return _needs(text, "guard")


def needs_key(text: str) -> bool:
    """Whether a counter-measure, or any part of a combined one, cannot do without the key: it queries or copies."""
    return _needs(text, "teacher", "guard", "untrained", "key")


def needs_clean(text: str) -> bool:
    """Whether a counter-measure, or any part of a combined one, has some of the originals."""
    return _needs(text, "clean")


def needs_settings(text: str) -> bool:
    """Whether a counter-measure, or any part of a combined one, goes by what the copy's manifest says."""
    return _needs(text, "settings")


def trains_key_network(text: str) -> bool:
    """Whether a counter-measure trains the authorised network, and that alone."""
    return _needs(text, "untrained")


def beginning(text: str) -> str:
    """The parts of a counter-measure that begin with another network or recipe than the hacker's; "" if none does."""
    parts = zip(text.split("+"), _classes(text), strict=True)
    return "+".join(part for part, kind in parts if kind.begin is not PlainTraining.begin)


def encoder_of(text: str) -> str:
    """The pretrained encoder that a counter-measure trains in the place of any network; "" for the others."""
    parts = parse_countermeasures(text)
    return next((_value(name, how, "encoder") for name, how in parts if "encoder" in _options_of(name)), "")


def places_in(text: str) -> list[str]:
    """Where the images lie that a hacker has of his own, or further copies."""
    parts = parse_countermeasures(text)
    return [place for _, how in parts for place in [how.get("data", ""), *how.get("copies", "").split()] if place]


def knowledge_of(text: str) -> str:
    """What a counter-measure knows, one of `KNOWLEDGE`; of a combined one the strongest of its parts."""
    return max((each.knows for each in _classes(text)), key=KNOWLEDGE.index)


def amount_of(text: str) -> dict[str, Any] | None:
    """How much of what a hacker has, as {"number": 100.0, "of": "pairs"}, where one part of him says so."""
    parts = [(name, options) for name, options in parse_countermeasures(text) if COUNTERMEASURES[name].amount]
    if len(parts) != 1:
        return None
    ((name, options),) = parts
    unit, known = COUNTERMEASURES[name].amount, _options_of(name)
    try:
        return {"number": float(_value(name, options, known[0])), "of": unit}
    except ValueError:  # "full"
        return None


def tried() -> list[str]:
    """Every counter-measure as plans try it (see `PlainTraining`), in the order of the registry."""
    return [f"{name}:{how}" if how else name for name, kind in COUNTERMEASURES.items() for how in kind.tried]


def cost_of(text: str) -> tuple[float, float]:
    """Of a step, and of what comes before the first one (see `PlainTraining`); the highest of all parts."""
    return max(each.cost for each in _classes(text)), max(each.before for each in _classes(text))


def by_epochs(text: str) -> bool:
    """Whether fewer epochs take less time (see `PlainTraining`)."""
    return all(each.by_epochs for each in _classes(text))


def _classes(text: str) -> list[type[PlainTraining]]:
    return [COUNTERMEASURES[name] for name, _ in parse_countermeasures(text)]


def on_originals(text: str) -> str:
    """What a hacker does with the originals themselves: no label there needs another name, no image an average."""
    return without(text, "relabel", "averages")


def sees_copy(text: str) -> bool:
    """Whether a hacker learns from the copy at all, and not from clean images alone."""
    return all(each.sees_copy for each in _classes(text))


def has_copy_alone(text: str) -> bool:
    """Whether a hacker learns from the copy and has neither originals nor the key, nor queries its network."""
    return sees_copy(text) and not needs_clean(text) and not needs_key(text)


def without(text: str, *names: str) -> str:
    """A counter-measure without some of its parts; "none" if nothing is left."""
    return "+".join(part for part in text.split("+") if part.partition(":")[0] not in names) or "none"


def why_unfit(
    text: str,
    images: ImageSet,
    settings: Mapping[str, Any] | None = None,
    clean: ImageSet | None = None,
    key: Key | None = None,
) -> str:
    """Why a counter-measure is of no use against these images; empty if it may be.

    `settings` is what their manifest says; it, the originals (`clean`) and the key are given where there are any.
    """
    if not is_installed(encoder_of(text)):
        return f"the weights of {encoder_of(text)} are not installed"
    given = {"settings": settings or {}, "clean": clean, "key": key}
    for name, options in parse_countermeasures(text):
        if why := COUNTERMEASURES[name].unfit(images, given, options):
            return why
        if clean is not None and needs_clean(name):
            if COUNTERMEASURES[name].knows == "pairs" and not clean.aligned(images):
                return NO_PAIRS
            wanted = _value(name, options, _options_of(name)[0])  # whose first option says how many
            if wanted.isdecimal() and int(wanted) > len(clean):
                return f"there are only {len(clean)} originals"
    return ""


def build_countermeasure(
    text: str,
    *,
    teacher: nn.Module | None = None,
    guard: nn.Module | None = None,
    untrained: nn.Module | None = None,
    key: Key | None = None,
    clean: ImageSet | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> PlainTraining:
    """A counter-measure from its text.

    Args:
        text: such as "none", "distillation:hard" or "jpeg:30+cutmix".
        teacher: the trained authorised network, for those that query it.
        guard: the same behind its guard, for those that query that.
        untrained: the same before its training, for those that begin with it.
        key: the key, for those that show what it is worth.
        clean: the originals, for those that have some of them.
        settings: what the copy's manifest says of the protection, "method" among it.
        seed: decides what a counter-measure draws before the training: which originals, a denoiser's weights, an order.
        device: where those that learn something beforehand do so.

    Raises:
        ConfigError: unknown name or option, something that is needed and not given, or parts that cannot be combined.
    """
    given: dict[str, Any] = {"teacher": teacher, "guard": guard, "untrained": untrained, "key": key, "clean": clean}
    given |= {"settings": settings or {}, "seed": seed, "device": device}
    parts = [_build(name, options, given) for name, options in parse_countermeasures(text)]
    return parts[0] if len(parts) == 1 else Combined(list(zip(text.split("+"), parts, strict=True)))


def _build(name: str, options: dict[str, str], given: dict[str, Any]) -> PlainTraining:
    arguments = {argument: given[argument] for argument in _takes(name) if argument in given}
    for argument, value in arguments.items():
        if value is None:
            raise ConfigError(f"counter-measure '{name}' {_GIVEN[argument]}")
    return COUNTERMEASURES[name](**arguments, **options)
