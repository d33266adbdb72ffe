"""Keys with a view on CIFAR-10, null-space and reversible: its price, and what hackers learn without the key.

    python benchmarks/quality/null_space.py --data CIFAR.zip --stage locked
    python benchmarks/quality/null_space.py --data CIFAR.zip --stage locked-small
    python benchmarks/quality/null_space.py --data CIFAR.zip --stage small --settings NAME ... [--brief]
    python benchmarks/quality/null_space.py --data CIFAR.zip --stage full --settings NAME ...
    python benchmarks/quality/null_space.py --data CIFAR.zip --stage lossy --settings NAME ...

`locked` trains the authorised network on the views of the originals, for many layouts, without any generator: what a
layout costs before it protects anything; layouts of two and three levels (`-l2`, `-l3`) exist in this stage alone.
`small` (16x16, 4,000 images) and `full` (32x32) protect, check that the view of the copy is the view of the original,
and train the authorised network and hackers, each beside its clean ceiling; `locked-small` is to `small` what `locked`
is to `full`; with `--brief` three hackers have to do, on the copy alone.
`lossy` (16x16) asks what a recipient loses whose copies went through JPEG, and who forces the view all the same.

Every finished training is a row of `benchmarks/results/null_space/records.jsonl`; a killed run goes on where it
stopped. Keys lie in `runs/`, which is not committed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from uge.attack.filtered import Jpeg
from uge.audit.plan import AUTHORISED, Cell
from uge.audit.quality import psnr, ssim
from uge.audit.run import Audit
from uge.data.images import ImageSet, normalisation_of
from uge.data.sources import load
from uge.keys.key import VIEWS, Key, load_key, new_key, save_key
from uge.keys.keyed_view import derive, views_digest
from uge.keys.null_space import Groups, NullSpace
from uge.networks import NetworkSpec, parse_network
from uge.protect import PROTECTIONS, resolve_config
from uge.protect.keyed import KeyedConfig, KeyedProtection
from uge.protect.reversible import PRESETS
from uge.records import append_record, config_hash, read_records
from uge.runtime import environment, generator_for
from uge.training import recommended_recipe

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "null_space" / "records.jsonl"
RUNS = ROOT / "runs" / "null_space"

NETWORK = "convnet:width=32"
VGG, RESNET = "vgg:depth=8,width=16", "resnet:depth=8,width=16"
PLAIN = (AUTHORISED, VGG, RESNET, "mlp")
BRIEF = ((VGG, "none"), (VGG, "grayscale"), (AUTHORISED, "none"))  # hackers of a search
ATTACKS = ("grayscale", "jpeg:30", "blur:1", "grayscale+blur:1", "grayscale+jpeg:30", "projection")  # of the vgg hacker
STUDENTS = ("distillation:soft", "distillation:hard")  # of the authorised network, on the copy alone
STAGES = ("locked", "locked-small", "small", "full", "lossy")
QUALITIES = (95, 75)  # JPEG, 4:2:0
LAYOUTS: dict[str, dict[str, Any]] = {
    f"p{cell}-s{size}": {"cell": cell, "group_size": size} for cell in (4, 8, 16) for size in (3, 4, 6, 8, 12)
} | {
    "p8-s8-random": {"cell": 8, "group_size": 8, "signs": "random"},
    "p8-s12-random": {"cell": 8, "group_size": 12, "signs": "random"},
    "p8-s4-tied": {"cell": 8, "group_size": 4, "channels": "tied"},
    "p8-s6-tied": {"cell": 8, "group_size": 6, "channels": "tied"},
    "p8-s12-tied": {"cell": 8, "group_size": 12, "channels": "tied"},
    "reversible": {"epsilon_255": 8},
    "reversible-full": {"epsilon_255": 8, "magnitudes": "full"},
    "reversible16": {"epsilon_255": 16},
    "reversible16-full": {"epsilon_255": 16, "magnitudes": "full"},
    "reversible24-full": {"epsilon_255": 24, "magnitudes": "full"},
    "reversible13-full": {"epsilon_255": 13, "magnitudes": "full"},  # as large a change on average as reversible16
}
LAYOUTS |= {
    f"p4-s{size}-l{levels}": {"cell": 4, "group_size": size, "levels": levels}
    for levels, size in ((2, 4), (2, 6), (2, 8), (2, 12), (3, 6), (3, 12))
}
TWO = ("vgg:depth=8,width=16", "convnet:width=32")  # the first reference networks
SETTINGS: dict[str, dict[str, Any]] = {  # what is written after a "+" in the name of a setting
    "plain": {"filters": ("none",)},
    "gray": {"filters": ("none", "grayscale")},
    "filters": {"filters": ("none", "none", "grayscale", "grayscale", "blur", "jpeg:30")},
    "combined": {"filters": PRESETS["combined"].filters},
    "projection": {"filters": (*PRESETS["combined"].filters, "projection")},
    "full-magnitude": {"least_magnitude": 1.0},
    "steep": {"gain": 5.0},
    "epsilon16": {"epsilon_255": 16},
    "no-patterns": {"class_patterns": 0},
    "texture": {"class_patterns": 4},
    "long": {"epochs": 40},
    "young": {"run_epochs": 2},
    "half-texture": {"texture": 0.5},
    "misdirecting": {"misdirection": 1.0, "references": TWO},
    "misdirecting-light": {"misdirection": 0.3, "references": TWO},
    "misdirecting3": {"misdirection": 3.0, "references": TWO},
    "misdirecting-alone": {"misdirection": 1.0, "shortcut": 0.0, "references": TWO},
    "mlp-reference": {"references": (*TWO, "mlp:width=128")},
    "mlp-references": {"references": (*TWO, "mlp:width=128", "mlp:width=256")},  # as the preset has them
    "mlp-surrogates": {"surrogates": (*TWO, "mlp:width=128", "mlp:width=256")},
    "plainer": {"filters": ("none", "none", *PRESETS["combined"].filters)},
    "wide": {"generator_width": 64},
    "longer": {"epochs": 80},
    "headroom": {"headroom": True},
    "coarse": {"generator_patch": 4, "class_patterns": 16},
    "ud": {"undistillation": 1.0},
    "fd": {"feature_distance": 1.0, "encoder": "own"},
    "fd-alone": {"feature_distance": 1.0, "encoder": "own", "shortcut": 0.0},
}
SMALL = {"epochs": 20, "run_epochs": 10, "generator_width": 24}


@dataclass(frozen=True)
class Pyramid(NullSpace):
    """The view of a null space of several levels, for its price alone: real numbers, no integers, and no copies.

    The means of the cells of one level, all channels together, are the values of a coarser gray image, which has groups
    of its own; its cells of cells are not offset.
    """

    levels: int = 1

    def view(self, copies: Tensor, nonces: Sequence[bytes]) -> Tensor:
        seen = copies.float()
        for level in range(self.levels - 1, 0, -1):
            side = self.cell**level
            means = F.avg_pool2d(seen.mean(1, keepdim=True), side)
            cell = max(2, min(self.cell, *means.shape[2:]))
            coarse = replace(self, secret=derive(self.secret, f"level {level}"), cell=cell)
            removed = means - _without(coarse.groups(nonces, means.shape[1:], tied=False), means)
            seen = seen - F.interpolate(removed, scale_factor=side, mode="nearest")
        for tied, members in self.kinds(nonces):
            groups = self.groups([nonces[i] for i in members.tolist()], copies.shape[1:], tied=tied)
            seen[members] = _without(groups, seen[members])
        return seen


def _without(groups: Groups, images: Tensor) -> Tensor:
    """x_g - sigma_g (sigma_g . x_g) / n_g in real numbers."""
    x = groups.arrange(images)
    return (x - (groups.spread(groups.sums(x)) / (groups.units * x.shape[1]))[:, None]).view(images.shape)


def method_of(layout: dict[str, Any]) -> str:
    return "reversible" if "epsilon_255" in layout else "null-space"


def setting(name: str) -> tuple[dict[str, Any], KeyedConfig]:
    """A name such as "p8-s6+gray+steep": a layout, then settings."""
    layout, *parts = name.split("+")
    if layout not in LAYOUTS or (unknown := [part for part in parts if part not in SETTINGS]):
        sys.exit(f"unknown setting '{name}'; layouts: {list(LAYOUTS)}; settings: {list(SETTINGS)}")
    chosen = LAYOUTS[layout]
    overrides: dict[str, Any] = SMALL | {"epsilon_255": chosen.get("epsilon_255", 8)}
    for part in parts:
        overrides |= SETTINGS[part]
    config = resolve_config("default", overrides, method=method_of(chosen))
    assert isinstance(config, KeyedConfig) and not unknown
    return chosen, config


class Stage:
    """One data set at one size."""

    def __init__(self, name: str, data: str, seed: int, device: str = "cpu", brief: bool = False) -> None:
        self.name = name
        self.seed = seed
        self.device = device
        self.brief = brief
        small = name in ("locked-small", "small", "lossy")
        side = (16, 16) if small else None
        self.clean = load(data, "train", image_size=side, convert=True)
        self.test = load(data, "test", image_size=side, convert=True)
        self.dataset = Path(data).stem
        if small:
            self.clean = self.clean.take(4000, generator_for(0, "grid subset"))
        self.epochs = 40 if small else 30
        self.folder = RUNS / self.dataset / name
        self.done = {
            (row["stage"], row["setting"], row["cell"])
            for row in read_records(RESULTS)
            if row["dataset"] == self.dataset
        }

    def key(self, name: str, layout: dict[str, Any]) -> Key:
        """One key a layout, kept so that a killed run goes on."""
        place = self.folder / "keys" / f"{name}-{self.seed}"
        file = Path(f"{place}.recipient.uge")
        view_kind = VIEWS[method_of(layout)] if "levels" not in layout else Pyramid
        if not file.exists():
            kind, options = parse_network(NETWORK)
            spec = NetworkSpec(kind, self.clean.channels, self.clean.image_size, self.clean.classes, options)
            statistics = normalisation_of(self.clean.images)
            recipe = recommended_recipe(NETWORK, self.epochs)
            key = new_key(spec, self.clean.class_names, *statistics, recipe, view=view_kind.draw(**layout))
            if view_kind is Pyramid:  # no kind of key that a file could hold
                return key
            place.parent.mkdir(parents=True, exist_ok=True)
            save_key(key, place)
        return load_key(file)

    def run(self, about: dict[str, Any], copy: ImageSet, key: Key, cells: list[Cell]) -> None:
        audit = Audit(
            copy,
            self.test,
            self.folder / config_hash(about),
            key=key,
            clean=self.clean,
            recipe=partial(recommended_recipe, epochs=self.epochs),
            device=self.device,
        )
        config = about.get("config", {})
        audit.headroom_255 = config["epsilon_255"] if config.get("headroom") else 0
        for cell in cells:
            name = f"{cell.role}/{cell.network}/{cell.countermeasure}/{cell.trained_on}/{cell.seed}"
            setting = "clean" if cell.trained_on == "clean" and cell.role != AUTHORISED else about["setting"]
            if (self.name, setting, name) in self.done:
                continue
            tell(f"{about['setting']}: {name}")
            row = audit.run([cell])[0]
            append_record(RESULTS, about | row | {"setting": setting, "cell": name})
            self.done.add((self.name, setting, name))

    def locked(self, name: str) -> None:
        """The price of a layout's view; the same network without any view stands beside it."""
        layout = LAYOUTS[name]
        key = self.key(name, layout)
        assert key.view is not None
        copy = replace(self.clean, nonces=tuple(key.view.nonces(self.clean.images)))
        cells = [Cell(role, AUTHORISED, "none", self.seed, "clean") for role in ("hacker", AUTHORISED)]
        self.run(self.about(name, layout), copy, key, cells)

    def trained(self, name: str) -> tuple[KeyedProtection[Any], Key, ImageSet, dict[str, Any]]:
        """The protection of a setting, the key, the copy, and what names them in the records."""
        layout, config = setting(name)
        key = self.key(name.partition("+")[0], layout)
        assert key.view is not None
        about = self.about(name, layout) | {"config": config.to_dict()}
        tell(f"{name}: protecting")
        workdir = self.folder / f"{name}-{config_hash(about)}-{self.seed}.partial"
        protection = PROTECTIONS[key.view.kind](
            self.clean, key.view, config, seed=self.seed, workdir=workdir, device=self.device
        )
        protection.train()
        images = torch.cat(list(protection.copies()))
        return protection, key, replace(self.clean, images=images, nonces=tuple(protection.nonces)), about

    def protected(self, name: str) -> None:
        """Protect, check, attack."""
        protection, key, copy, about = self.trained(name)
        if (self.name, name, f"measures/{self.seed}") not in self.done:
            measured = self.measures(protection, copy.images) | {"protect_seconds": protection.log[-1]["seconds"]}
            append_record(RESULTS, about | {"cell": f"measures/{self.seed}", "kind": "measures"} | measured)
        if self.brief:
            self.run(about, copy, key, [Cell("hacker", *hacker, self.seed) for hacker in BRIEF])
            return
        cells = []
        for source in ("published", "clean"):
            cells += [Cell("hacker", VGG, attack, self.seed, source) for attack in ("none", *ATTACKS)]
            cells += [Cell("hacker", network, "none", self.seed, source) for network in PLAIN if network != VGG]
            cells += [Cell(AUTHORISED, seed=self.seed, trained_on=source)]
        cells += [Cell("hacker", VGG, how, self.seed) for how in STUDENTS]
        self.run(about, copy, key, cells)

    def lossy(self, name: str) -> None:
        """The authorised network on copies that went through JPEG, with the nonces they had before."""
        protection, key, copy, about = self.trained(name)
        views = protection.space.view(copy.images, protection.nonces)
        for quality in (None, *QUALITIES):
            images = copy.images if quality is None else Jpeg(quality).pixels(copy.images)
            error = (protection.space.view(images, protection.nonces) - views).square().mean().sqrt()
            facts = {"jpeg_quality": quality, "view_error_rms": round(float(error), 3)}
            reencoded = about | facts | {"setting": name if quality is None else f"{name}, JPEG {quality}"}
            self.run(reencoded, replace(copy, images=images), key, [Cell(AUTHORISED, seed=self.seed)])

    def about(self, name: str, layout: dict[str, Any]) -> dict[str, Any]:
        return {"stage": self.name, "setting": name, "dataset": self.dataset, "layout": layout, "seed": self.seed}

    def measures(self, protection: KeyedProtection[Any], images: Tensor) -> dict[str, Any]:
        """Exactness, size and look of a copy, and how well its surrogates read it at the end."""
        space, original, nonces = protection.space, protection.clean.images, protection.nonces
        views = space.integer_view(images, nonces)
        same = (views == space.integer_view_of_originals(original)).flatten(1).all(1)
        change = (images.int() - original.int()).float()
        last = [row["shortcut"] for row in protection.log[-90:] if row["shortcut"] is not None]
        ratios = psnr(original[:1000], images[:1000])
        return {
            "views_identical": int(same.sum()),
            "images": len(images),
            "views_sha256": views_digest(views),
            "epsilon_measured_255": int(change.abs().max()),
            "budget_used": round(float(change.square().mean().sqrt()) / protection.config.epsilon_255, 4),
            "psnr_db": round(float(ratios[ratios.isfinite()].mean()), 2),  # an image may not move at all
            "ssim": round(float(ssim(original[:1000], images[:1000]).mean()), 4),
            "shortcut_loss": round(sum(last) / len(last), 4) if last else None,
            "still": protection.log[-1]["still"],
            "environment": environment(self.device),
        }


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--stage", required=True, choices=STAGES)
    parser.add_argument("--settings", nargs="*", help="names such as p8-s6+gray; all layouts by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--brief", action="store_true", help="small and full: train few hackers, nobody on originals")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = arguments.settings or (list(LAYOUTS) if arguments.stage.startswith("locked") else [])
    if not names:
        sys.exit("name the --settings of this stage")
    stage = Stage(arguments.stage, arguments.data, arguments.seed, arguments.device, arguments.brief)
    works = {"locked": stage.locked, "locked-small": stage.locked, "lossy": stage.lossy}
    work = works.get(arguments.stage, stage.protected)
    for name in names:
        work(name)


if __name__ == "__main__":
    main()
