"""How networks, counter-measures, filters and runners are written: NAME, or NAME:VALUE,OPTION=VALUE."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from uge.errors import ConfigError, unknown_name


def parse_named(
    text: str, kind: str, names: Collection[str], options_of: Callable[[str], Sequence[str]]
) -> tuple[str, dict[str, str]]:
    """Read "resnet", "jpeg:30" or "pairs:100,epochs=3" into a name and its options, all still text.

    A value without the name of its option is that of the first one.

    Args:
        text: as somebody wrote it.
        kind: what it shall name, for errors, such as "network".
        names: that exist.
        options_of: a name -> its options, the most important first.

    Raises:
        ConfigError: an unknown name or option, an option that is said twice, or one of what has none.
    """
    name, _, tail = text.partition(":")
    if name not in names:
        raise unknown_name(kind, name, names)
    known, found = options_of(name), dict[str, str]()
    for item in filter(None, tail.split(",")):
        option, equals, value = item.partition("=")
        if not known:
            raise ConfigError(f"{kind} '{name}' has no options, got '{text}'")
        if not equals:
            option, value = known[0], item
        if option not in known:
            raise unknown_name(f"option of {kind} '{name}'", option, known)
        if option in found:
            raise ConfigError(f"{kind} '{text}' says {option} twice; name the others, as in {known[-1]}=...")
        found[option] = value
    return name, found
