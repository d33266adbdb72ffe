"""Plans of comparisons: which data, which protections, how many copies of each, and what the audit tries on them.

A plan is a preset (`BENCHES`) or a TOML file; what is said of hackers is said as in an audit's plan:

    data = ["fashion-mini"]
    seeds = [0, 1, 2]         # a copy each, with a key of its own; on all but the first the plain hackers alone
    images = 2000             # of the training split; 0: all
    authorised = "convnet:width=24"
    epochs = 15

    [[protections]]
    method = "em"
    preset = "quick"
    settings = {network = "vgg:depth=8,width=16"}

    [[protections]]
    method = "null-space"

    [[hackers]]
    networks = ["vgg:depth=8,width=16"]
    countermeasures = ["none", "grayscale", "jpeg:10"]
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from uge.audit.plan import AUTHORISED, Hackers, Plan, plan_of
from uge.errors import ConfigError, unknown_name
from uge.keys.key import VIEWS
from uge.keys.keyed_view import KeyedView
from uge.networks import parse_network
from uge.protect import Config, resolve_config
from uge.runtime import read_toml

KEYS = {  # method -> the keys it may have, its own first
    "uge": ("weights",),
    "null-space": ("null-space",),
    "reversible": ("reversible",),
    "learnability-lock": ("none",),
}


@dataclass(frozen=True)
class Contender:
    """A protection of a comparison.

    Attributes:
        method: an entry of `uge.protect.PROTECTIONS`.
        preset: of its settings.
        settings: single settings in the place of the preset's.
        name: for the leaderboard; by default the method, with a preset that is not "default" behind it.
        key: what the authorised network has: "weights" (uge), "null-space", "reversible", or "none"; by default what
            the method needs. A baseline may be published behind a reversible key; the learnability lock has its own.
    """

    method: str
    preset: str = "default"
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    key: str = ""
    layout: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config()
        allowed = KEYS.get(self.method, ("none", "reversible"))
        object.__setattr__(self, "key", self.key or allowed[0])
        if self.key not in allowed:
            raise ConfigError(f"the method {self.method} takes the key {' or '.join(allowed)}, got '{self.key}'")
        preset = "" if self.preset == "default" else f"-{self.preset}"
        behind = f"-{self.key}" if self.key != allowed[0] else ""
        object.__setattr__(self, "name", self.name or f"{self.method}{preset}{behind}")
        check_name(self.name)
        known = {each.name: type(each.default) for each in fields(VIEWS[self.key])} if self.key in VIEWS else {}
        known = {name: kind for name, kind in known.items() if name not in ("secret", "epsilon_255")}
        for name, value in self.layout.items():
            if name not in known:
                raise unknown_name(f"part of the layout of a key '{self.key}'", name, known)
            if type(value) is not known[name]:
                words = "text" if known[name] is str else "a whole number"
                raise ConfigError(f"plan: {name} of a key's layout is {words}, got {value!r}")
        self.view()  # complains of values that are out of range

    def config(self, **defaults: Any) -> Config:
        """Its settings.

        Args:
            defaults: in the place of the preset's, unless `settings` say otherwise.

        Raises:
            ConfigError: an unknown method, preset or setting.
        """
        return resolve_config(self.preset, defaults | self.settings, method=self.method)

    def view(self) -> KeyedView | None:
        """A new secret view for the key's network; None for a key of initial weights alone."""
        if self.key not in VIEWS:
            return None
        bound = {"epsilon_255": getattr(self.config(), "epsilon_255", 8)} if self.key == "reversible" else {}
        return VIEWS[self.key].draw(**bound, **self.layout)


@dataclass(frozen=True)
class Bench:
    """A comparison.

    Attributes:
        name: for the page.
        protections: whom to compare.
        attacks: what the audit tries on the first copy; its seeds are those of the copies.
        data: DATA with a train and a test split; empty where the command names them.
        seeds: a copy each.
        images: so many of the training images; 0 for all.
        authorised: the network of whoever holds a key.
        image_size: side in pixels; 0 leaves the images as they are.
    """

    name: str
    protections: tuple[Contender, ...]
    attacks: Plan
    data: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    images: int = 0
    authorised: str = "convnet:width=24"
    image_size: int = 0

    def __post_init__(self) -> None:
        if not self.seeds or self.images < 0 or self.image_size < 0:
            raise ConfigError(f"the plan {self.name}: seeds must be given, images and image_size be 0 or more")
        names = [each.name for each in self.protections]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"the plan {self.name} has two protections named {sorted(twice)[0]}; give name = ...")
        if not self.plain():
            raise ConfigError(f'the plan {self.name} has no plain hacker: a network with the counter-measure "none"')
        parse_network(self.authorised)

    def to_dict(self) -> dict[str, Any]:
        """As JSON; a key's usual layout goes without saying, as it did before there was any other."""
        data = asdict(self)
        for each in data["protections"]:
            if not each["layout"]:
                del each["layout"]
        return data

    def plain(self) -> tuple[str, ...]:
        """The networks of hackers who try nothing and know nothing, in the plan's order."""
        return tuple(network for network, how in self.attacks.pairs() if how == "none" and network != AUTHORISED)

    def attacks_on(self, seed: int) -> Plan:
        """What the audit of the copy with this seed tries: on all but the first the plain hackers alone."""
        if seed == self.seeds[0]:
            return replace(self.attacks, seeds=(seed,))
        return replace(self.attacks, seeds=(seed,), hackers=(Hackers(self.plain()),), screening=0.0, budget_check=False)


def check_name(name: str) -> None:
    """Refuse a name that is no folder's.

    Raises:
        ConfigError: it has other characters than letters, digits, "-", "_" and ".", or begins with a dot.
    """
    if not name or name.startswith(".") or not all(c.isalnum() or c in "-_." for c in name):
        raise ConfigError(f"'{name}' names no protection: use letters, digits, '-', '_' and '.'")


SMALL = "vgg:depth=8,width=8"
BENCHES: dict[str, Bench] = {
    "quick": Bench(
        name="quick",
        data=("fashion-mini",),
        images=4000,
        authorised="convnet:width=24,stem=2,frozen_stem=true",
        protections=(
            *(Contender(method) for method in ("random-noise", "lsp", "ops", "ar", "cuda", "pil", "texture")),
            Contender("em", settings={"network": SMALL, "steps": 10, "rounds": 15}),
            Contender("rem", "quick", {"network": SMALL, "network_steps": 200}, name="rem"),
            Contender("tap", "quick", {"network": SMALL, "network_epochs": 15, "steps": 40}, name="tap"),
            Contender("learnability-lock", "quick", {"network": SMALL}, name="learnability-lock"),
            Contender("uge", "quick", name="uge"),
            Contender("null-space", "quick", name="null-space"),
            Contender("reversible", "quick", name="reversible"),
            Contender("em", settings={"network": SMALL, "steps": 10, "rounds": 15}, key="reversible"),
        ),
        attacks=Plan(
            name="quick",
            hackers=(Hackers((SMALL,), ("none", "jpeg:10", "blur:1", "projection", "clean-mixed:100")),),
            epochs=12,
            reason="The quick comparison is small: 4,000 gray images, one seed, one small hacker, few epochs",
        ),
    ),
    "leaderboard": Bench(
        name="leaderboard",
        seeds=(0, 1, 2),
        authorised="convnet:width=32,stem=2,frozen_stem=true",
        protections=(
            *(Contender(method) for method in ("random-noise", "lsp", "ops", "ar", "cuda", "pil", "texture")),
            *(Contender(method, "quick", name=method) for method in ("em", "rem", "tap", "learnability-lock")),
            Contender("uge"),
            Contender("null-space"),
            Contender("reversible"),
        ),
        attacks=Plan(
            name="leaderboard",
            hackers=(
                Hackers(("resnet:depth=8,width=16", "vgg:depth=8,width=16")),
                Hackers(
                    ("resnet:depth=8,width=16",),
                    ("grayscale", "jpeg:10", "projection", "adversarial", "ueraser", "clean-mixed:500"),
                ),
                Hackers((AUTHORISED,)),
            ),
        ),
    ),
}


def read_bench(text: str) -> Bench:
    """A comparison by its name in `BENCHES`, or from a TOML file.

    Raises:
        ConfigError: neither, or a file that says something else.
    """
    if text in BENCHES:
        return BENCHES[text]
    if not text.endswith(".toml"):
        raise unknown_name("plan", text, [*BENCHES, "FILE.toml"])
    return bench_of(read_toml(Path(text), "plan"), Path(text).stem)


KINDS: dict[str, tuple[str, type, type | None]] = {  # entry -> in words, its type, that of its items
    "data": ("a list of text", list, str),
    "seeds": ("a list of whole numbers", list, int),
    "images": ("a whole number", int, None),
    "image_size": ("a whole number", int, None),
    "authorised": ("text", str, None),
}


def bench_of(content: dict[str, Any], name: str) -> Bench:
    """A comparison from the content of a file; whatever is not of it belongs to the audit's plan.

    Raises:
        ConfigError: an entry that is unknown or not of its type.
    """
    content = dict(content)
    values: dict[str, Any] = {}
    for entry, (words, kind, item) in KINDS.items():
        if entry not in content:
            continue
        value = content.pop(entry)
        if type(value) is not kind or (isinstance(value, list) and not all(type(each) is item for each in value)):
            raise ConfigError(f"plan: {entry} is {words}, got {value!r}")
        values[entry] = tuple(value) if isinstance(value, list) else value
    protections = content.pop("protections", [])
    if not isinstance(protections, list):
        raise ConfigError('plan: protections are blocks of their own, [[protections]] with method = "NAME"')
    values["protections"] = tuple(_contender(block) for block in protections)
    return Bench(name=name, attacks=plan_of(content, name), **values)


def _contender(block: Any) -> Contender:
    kinds = {"method": str, "preset": str, "name": str, "key": str, "settings": dict, "layout": dict}
    if not isinstance(block, dict) or not isinstance(block.get("method"), str):
        raise ConfigError('plan: each [[protections]] names one, as in method = "em"')
    for entry, value in block.items():
        if entry not in kinds:
            raise unknown_name("entry of [[protections]]", entry, kinds)
        if not isinstance(value, kinds[entry]):
            raise ConfigError(f"plan: {entry} of [[protections]] is a {kinds[entry].__name__}, got {value!r}")
    return Contender(**block)
