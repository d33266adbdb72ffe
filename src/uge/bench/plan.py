"""Plans of comparisons: which data, which protections, how many copies of each, and what the audit tries on them.

A plan is one of `BENCHES` or a TOML file; what is said of hackers and of the recipient is said as in an audit's plan:

    data = ["eurosat"]
    seeds = [0, 1, 2]         # a copy each, with a key of its own; on all but the first the plain hackers alone
    images = 2000             # of the training split; 0: all
    authorised = "vgg:depth=8,width=16"
    epochs = 15

    [[protections]]
    method = "sealed"

    [[protections]]
    method = "em"
    name = "em-small"
    settings = {network = "vgg:depth=8,width=16", rounds = 15}

    [[hackers]]
    networks = ["vgg:depth=8,width=16"]
    countermeasures = ["none", "grayscale", "jpeg:10"]
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from uge.audit.plan import AUTHORISED, Hackers, Plan, check_entries, plan_of, planned
from uge.errors import ConfigError, unknown_name
from uge.outside import read_toml
from uge.protect import resolve_config
from uge.protection import Settings


@dataclass(frozen=True)
class Contender:
    """A protection of a comparison: a method, settings in the place of its defaults, and a name for the leaderboard."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        self.config()
        object.__setattr__(self, "name", self.name or self.method)
        check_name(self.name)

    def config(self) -> Settings:
        """Its settings.

        Raises:
            ConfigError: an unknown method or setting, or a value that is out of range.
        """
        return resolve_config(self.method, self.settings)


@dataclass(frozen=True)
class Bench:
    """A comparison.

    Attributes:
        name: for the page.
        protections: whom to compare.
        attacks: what the audit tries on the first copy, and the recipient's network; its seeds are those of the copies.
        data: DATA with a train and a test split; empty where the command names them.
        seeds: a copy each.
        images: so many of the training images; 0 for all.
        image_size: side in pixels; 0 leaves the images as they are.
    """

    name: str
    protections: tuple[Contender, ...]
    attacks: Plan
    data: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    images: int = 0
    image_size: int = 0

    def __post_init__(self) -> None:
        if not self.seeds or self.images < 0 or self.image_size < 0:
            raise ConfigError(f"the plan {self.name}: seeds must be given, images and image_size be 0 or more")
        names = [each.name for each in self.protections]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"the plan {self.name} has two protections named {sorted(twice)[0]}; give name = ...")
        if not self.plain():
            raise ConfigError(f'the plan {self.name} has no plain hacker: a network with the counter-measure "none"')

    def plain(self) -> tuple[str, ...]:
        """The networks of hackers who try nothing and know nothing, in the plan's order."""
        return tuple(network for network, how in self.attacks.pairs() if how == "none" and network != AUTHORISED)

    def attacks_on(self, seed: int) -> Plan:
        """What the audit of the copy with this seed tries: on all but the first the plain hackers alone."""
        if seed == self.seeds[0]:
            return replace(self.attacks, seeds=(seed,))
        plain = (Hackers(self.plain()),)
        return replace(self.attacks, seeds=(seed,), hackers=plain, budget_check=False, subsets=0)

    def unlocked(self, seed: int) -> Plan:
        """The user of a copy that was opened: he is no hacker, so nobody asks what it is worth to him."""
        own = (Hackers((self.attacks.authorised,)),)
        return Plan("unlocked", own, epochs=self.attacks.epochs, seeds=(seed,), subsets=0)


def check_name(name: str) -> None:
    """Refuse a name that is no folder's.

    Raises:
        ConfigError: it has other characters than letters, digits, "-", "_" and ".", or begins with a dot.
    """
    if not name or name.startswith(".") or not all(c.isalnum() or c in "-_." for c in name):
        raise ConfigError(f"'{name}' names no protection: use letters, digits, '-', '_' and '.'")


TINY, SMALL = "vgg:depth=8,width=8", "resnet:depth=8,width=16"
PLAIN = tuple(Contender(method) for method in ("random-noise", "lsp", "ops", "ar", "cuda", "pil"))
BENCHES: dict[str, Bench] = {
    "quick": Bench(
        name="quick",
        data=("eurosat",),
        images=2000,
        protections=(
            Contender("sealed", {"steps": 300}),
            Contender(
                "uge",
                {
                    "epsilon_255": 16,
                    "gradient_matching": 1.0,
                    "feature_objective": "misalignment",  # in so short a time the distance shows nothing
                    "encoder": "own",
                    "epochs": 10,
                    "generator_width": 16,
                    "run_epochs": 8,
                },
            ),
            Contender("random-noise"),
            Contender("pil"),
            Contender("em", {"network": TINY, "steps": 10, "rounds": 15}),
            Contender("learnability-lock", {"network": TINY, "rounds": 20}),
        ),
        attacks=Plan(
            name="quick",
            hackers=(Hackers((TINY,), ("none", "grayscale", "jpeg:10", "clean-mixed:100")),),
            epochs=12,
            subsets=1,
            reason="The quick comparison is small: 2,000 images, one seed, one small hacker, few epochs",
        ),
    ),
    "leaderboard": Bench(
        name="leaderboard",
        seeds=(0, 1, 2),
        protections=(
            Contender("sealed"),
            Contender("uge"),
            *PLAIN,
            Contender("em", {"network": SMALL, "steps": 10, "rounds": 20}),
            Contender(
                "rem",
                {"network": SMALL, "network_steps": 400, "steps": 5, "step_share": 0.4, "draws": 1}
                | {"attack_steps": 2, "attack_share": 0.75},
            ),
            Contender("tap", {"network": SMALL, "network_epochs": 20, "steps": 60}),
            Contender("dune", {"network": SMALL, "network_epochs": 20}),
            Contender("bait"),
            Contender("learnability-lock", {"network": SMALL, "rounds": 20}),
        ),
        attacks=Plan(
            name="leaderboard",
            authorised="convnet:width=32,stem=2,frozen_stem=true",
            hackers=(
                Hackers((SMALL, "vgg:depth=8,width=16")),
                Hackers((SMALL,), ("grayscale", "jpeg:10", "projection", "adversarial", "ueraser", "clean-mixed:500")),
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


def bench_of(content: dict[str, Any], name: str) -> Bench:
    """A comparison from the content of a file; whatever is not of it belongs to the audit's plan.

    Raises:
        ConfigError: an entry that is unknown or not of its type.
    """
    own = {field.name for field in fields(Bench)} - {"name", "attacks"}
    check_entries(content.get("protections"), Contender, "[[protections]]")
    attacks = plan_of({entry: value for entry, value in content.items() if entry not in own}, name)
    bench = {entry: value for entry, value in content.items() if entry in own}
    return planned({"protections": []} | bench | {"name": name, "attacks": asdict(attacks)}, Bench)
