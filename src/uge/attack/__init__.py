"""Counter-measures by name: what a hacker does, from published files only. A new one is one file and one line here.

A counter-measure is written `name` or `name:word,option=value`, as in `jpeg:30` or `distillation:soft,temperature=4`; a
bare word is the first option.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import nn

from uge.attack.distillation import Distillation
from uge.attack.filtered import Jpeg, blur, depth, grayscale, pool
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
}
NEEDS_TEACHER = {"distillation"}  # these query the trained authorised network


def parse_countermeasure(text: str) -> tuple[str, dict[str, str]]:
    """Read `name:word,option=value` into a name and options.

    Raises:
        ConfigError: a name in no registry, or a word where there is no option.
    """
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
    return [option for option in inspect.signature(COUNTERMEASURES[name]).parameters if option != "teacher"]


def build_countermeasure(text: str, *, teacher: nn.Module | None = None) -> Countermeasure:
    """A counter-measure from its text.

    Args:
        text: such as "none" or "distillation:hard".
        teacher: the trained authorised network, for those that query it.

    Raises:
        ConfigError: unknown name or option, or a teacher that is needed and not given.
    """
    name, options = parse_countermeasure(text)
    known = _options_of(name)
    for option in options:
        if option not in known:
            raise unknown_name(f"option of counter-measure '{name}'", option, known)
    if name in NEEDS_TEACHER:
        if teacher is None:
            raise ConfigError(f"counter-measure '{name}' queries the authorised network: give --key")
        return COUNTERMEASURES[name](teacher, **options)
    return COUNTERMEASURES[name](**options)
