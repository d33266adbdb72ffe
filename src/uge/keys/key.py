"""The key: the definition of the authorised network as data, and the file that carries it.

A key file is a safetensors file: the initial weights as tensors (a seed does not survive a torch release), and one
metadata entry `uge-key` that holds everything else as JSON, with a SHA-256 over all of it, because safetensors itself
has no checksum. With a passphrase the file lies inside the envelope of `sealed.py`.

Both files of a pair hold the authorised network, the secret of its view where there is one, and the fingerprint of the
key that signs what is published. Only the protector's holds the signing key.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from uge.data.images import ImageSet, repeated
from uge.errors import KeyFileError, PublishError, UgeError
from uge.keys import sealed, signature
from uge.keys.keyed_view import KeyedView
from uge.keys.null_space import NullSpace
from uge.keys.reversible import Reversible
from uge.networks import NetworkSpec, build_network
from uge.runtime import write_atomically
from uge.training import Recipe

FORMAT_VERSION = 3
VIEWS: dict[str, type[KeyedView]] = {kind.kind: kind for kind in (NullSpace, Reversible)}
ROLES = ("protector", "recipient")
NORMALISATION = ("0.mean", "0.std")  # the buffers of `uge.networks.Normalise` in a state_dict


@dataclass(frozen=True, eq=False)
class Key:
    """What the authorised user gets and nobody else.

    Attributes:
        network: the architecture.
        mean: channel means for the normalisation, on the scale [0, 1].
        std: channel standard deviations, same scale.
        recipe: the recommended training.
        weights: the initial `state_dict` of `build_network(network, mean, std, ...)`, on the CPU.
        class_names: one name an output of the network, in label order.
        fingerprint: of the key that signs what is published, SHA-256 in hexadecimal.
        view: the secret of the authorised view; None where the network sees the images as they are.
        signing_key: 32 bytes, the protector's alone; None in what a recipient holds.
    """

    network: NetworkSpec
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: Recipe
    weights: dict[str, Tensor] = field(repr=False)
    class_names: tuple[str, ...]
    fingerprint: str
    view: KeyedView | None = None
    signing_key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.signing_key is not None and self.fingerprint != _fingerprint(self.signing_key):
            raise KeyFileError("the key's fingerprint is not that of its signing key; use the files of one pair")
        if twice := repeated(self.class_names):
            raise KeyFileError(f"two classes of the key are called {twice!r}; give each a name of its own")
        if len(self.class_names) != self.network.classes:
            raise KeyFileError(
                f"the key's network has {self.network.classes} outputs for {len(self.class_names)} class names;"
                " give one name an output"
            )
        if not len(self.mean) == len(self.std) == self.network.channels:
            raise KeyFileError(
                f"expected {self.network.channels} channel means and standard deviations,"
                f" got {len(self.mean)} and {len(self.std)}"
            )

    def network_module(self) -> nn.Module:
        """The authorised network with its initial weights: a fresh module at each call.

        Raises:
            KeyFileError: the weights do not fit the architecture.
            ConfigError: the architecture cannot be built here (a timm model without timm).
        """
        network = build_network(self.network, self.mean, self.std, seed=0)  # every drawn weight is replaced below
        network.load_state_dict(_fitting(self.weights, network.state_dict(), self.network, "the key"))
        return network

    def public_facts(self) -> dict[str, Any]:
        """What may be shown of a key: the kind of network and how to train it; no weights, no statistic of an image."""
        return {
            "network": self.network.label,
            "channels": self.network.channels,
            "image_size": list(self.network.image_size),
            "classes": self.network.classes,
            "class_names": list(self.class_names),
            "values": sum(tensor.numel() for tensor in self.weights.values()),
            "recipe": self.recipe.to_dict(),
            "view": self.view and {"kind": self.view.kind} | self.view.layout,
            "fingerprint": self.fingerprint,
            "format_version": FORMAT_VERSION,
        }

    def sign(self, message: bytes) -> tuple[bytes, bytes]:
        """The public key that goes with `fingerprint`, and its signature of the message.

        Raises:
            KeyFileError: this is the recipient's part of the key, which cannot sign.
        """
        if self.signing_key is None:
            raise KeyFileError("the recipient's key cannot sign; publish with the protector's (NAME.protector.uge)")
        return signature.public_key_of(self.signing_key), signature.sign(self.signing_key, message)

    def digest(self) -> str:
        """SHA-256 that names this key in private records: over all that the recipient holds.

        It does not give the secrets away, but whoever has a key can tell that it is this one.
        """
        return hashlib.sha256(key_to_bytes(self, "recipient")).hexdigest()

    def check_fits(self, images: ImageSet) -> None:
        """Refuse images that the authorised network was not defined for.

        Raises:
            KeyFileError: other classes, channels or image size than the key's.
        """
        mend = "use the key that was made for this data, or make one with 'uge key new'"
        if images.classes != self.network.classes:
            raise KeyFileError(f"the key is for {self.network.classes} classes, the data has {images.classes}; {mend}")
        if images.class_names != self.class_names:  # the same number in another order would train on wrong labels
            label, ours, theirs = next(
                (i, a, b) for i, (a, b) in enumerate(zip(self.class_names, images.class_names, strict=True)) if a != b
            )
            raise KeyFileError(f"the key's class {label} is {ours!r}, the data's is {theirs!r}; {mend}")
        if images.channels != self.network.channels:
            raise KeyFileError(
                f"the key is for images of {self.network.channels} channels, the data has {images.channels}; {mend}"
            )
        if images.image_size != self.network.image_size:
            expected, got = ("x".join(map(str, size)) for size in (self.network.image_size, images.image_size))
            raise KeyFileError(f"the key is for {expected} pixels, the data has {got}; {mend}, or give --image-size")


def new_key(
    spec: NetworkSpec,
    class_names: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    recipe: Recipe,
    *,
    weights_file: Path | None = None,
    view: KeyedView | None = None,
) -> Key:
    """Define an authorised network.

    Args:
        spec: the architecture.
        class_names: one name an output.
        mean: channel means of the clean images, on the scale [0, 1].
        std: channel standard deviations, same scale.
        recipe: the recommended training.
        weights_file: a safetensors file with the `state_dict` to start from; drawn from secret randomness if None.
        view: `NullSpace.draw()` for a network that is blind to the perturbation, `Reversible.draw()` for one that
            undoes it.

    Raises:
        KeyFileError: the weights file cannot be read or does not fit.
        ConfigError: the network cannot be built.
    """
    if weights_file is None:
        weights = _secret_weights(spec, mean, std)
    else:
        weights = _weights_from_file(Path(weights_file), spec, mean, std)
    signing_key = signature.new_signing_key()
    fingerprint = _fingerprint(signing_key)
    return Key(spec, tuple(mean), tuple(std), recipe, weights, tuple(class_names), fingerprint, view, signing_key)


def save_key(key: Key, name: Path | str, *, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """Write NAME.protector.uge (may publish) and NAME.recipient.uge (may learn), readable by their owner only.

    Args:
        key: as `new_key` made it, with its signing key.
        name: of the pair.
        passphrase: seals both files; None leaves them open to whoever gets hold of them.

    Raises:
        KeyFileError: one of them exists (a key is never overwritten), the place cannot be written, or the key is a
            recipient's.
    """
    paths = tuple(Path(f"{name}.{role}.uge") for role in ROLES)
    for path in paths:
        if path.exists():
            raise KeyFileError(f"{path} exists, and a key is never overwritten; choose another name or move it away")
    contents = [key_to_bytes(key, role) for role in ROLES]
    if passphrase is not None:
        contents = [sealed.seal(content, passphrase) for content in contents]
    try:
        for path, content in zip(paths, contents, strict=True):
            write_atomically(path, content, mode=0o600)
    except BaseException as error:  # Ctrl-C, too
        for path in paths:  # half a pair is no key
            with suppress(OSError):
                path.unlink()
        if isinstance(error, PublishError):
            raise KeyFileError(str(error)) from error
        raise
    return paths[0], paths[1]


def load_key(path: Path | str, *, role: str | None = None, passphrase: bytes | None = None) -> Key:
    """Read a key file.

    Args:
        path: either file of the pair.
        role: "protector" or "recipient" where only that one will do.
        passphrase: opens a sealed file; an open one needs none.

    Raises:
        KeyFileError: missing, no key, damaged, sealed, of another format version, or of the other role.
    """
    data = _read(path)
    if sealed.is_sealed(data):
        if passphrase is None:
            raise KeyFileError(f"key {path} is sealed; give its passphrase (--passphrase-file FILE, or at a terminal)")
        data = sealed.unseal(data, passphrase, str(path))
    return key_from_bytes(data, str(path), role=role)


def is_sealed(path: Path | str) -> bool:
    """Whether a key file needs a passphrase.

    Raises:
        KeyFileError: it cannot be read.
    """
    return sealed.is_sealed(_read(path))


def _read(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise KeyFileError(f"cannot read key {path}: {error.strerror or error}") from error


def _fingerprint(signing_key: bytes) -> str:
    return signature.fingerprint_of(signature.public_key_of(signing_key))


def key_to_bytes(key: Key, role: str) -> bytes:
    """The content of a key file.

    Raises:
        KeyFileError: a protector's file is asked for, but the key is a recipient's.
    """
    facts: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "role": role,
        "network": key.network.to_dict(),
        "mean": list(key.mean),
        "std": list(key.std),
        "recipe": key.recipe.to_dict(),
        "class_names": list(key.class_names),
        "fingerprint": key.fingerprint,
        "view": key.view and {"kind": key.view.kind, "secret": key.view.secret.hex()} | key.view.layout,
    }
    if role == "protector":
        if key.signing_key is None:
            raise KeyFileError("the recipient's key has no signing key, so no protector's file can be made of it")
        facts["signing_key"] = key.signing_key.hex()
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in key.weights.items()}
    facts["sha256"] = _digest(facts, weights)
    return safetensors.save(weights, metadata={"uge-key": json.dumps(facts)})


def key_from_bytes(data: bytes, where: str, *, role: str | None = None) -> Key:
    """Read the content of a key file; `where` names it in errors (see `load_key`)."""
    facts = _facts_from(data, where)
    try:
        weights = safetensors.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise KeyFileError(f"key {where} is cut short or damaged; copy it again from its source") from error
    stated = facts.pop("sha256", None)
    if stated != _digest(facts, weights):
        raise KeyFileError(f"key {where} is damaged (its checksum does not match); copy it again from its source")
    if role is not None and facts.get("role") != role:
        raise KeyFileError(f"key {where} is the {facts.get('role')}'s file; this needs the {role}'s (NAME.{role}.uge)")
    try:
        view = facts["view"]
        signing_key = facts.get("signing_key")
        return Key(
            network=NetworkSpec.from_dict(facts["network"]),
            mean=tuple(facts["mean"]),
            std=tuple(facts["std"]),
            recipe=Recipe(**facts["recipe"]),
            weights=weights,
            class_names=tuple(facts["class_names"]),
            fingerprint=str(facts["fingerprint"]),
            view=view and VIEWS[view.pop("kind")](**view | {"secret": bytes.fromhex(view["secret"])}),
            signing_key=signing_key and bytes.fromhex(signing_key),
        )
    except (KeyError, TypeError, ValueError, IndexError, UgeError) as error:
        raise KeyFileError(f"key {where} holds a network or recipe that this version cannot use: {error}") from error


def _facts_from(data: bytes, where: str) -> dict[str, Any]:
    """The JSON part of a key file: 8 bytes of length, then the safetensors header with our entry in its metadata."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts = json.loads(header["__metadata__"]["uge-key"])
        version = facts["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise KeyFileError(
            f"{where} is no key of uge, or damaged; expected NAME.protector.uge or NAME.recipient.uge"
        ) from error
    if version != FORMAT_VERSION:
        raise KeyFileError(
            f"key {where} has format version {version}, this uge reads {FORMAT_VERSION}; use the uge that wrote it"
        )
    return facts


def _digest(facts: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """SHA-256 over the facts and over every tensor's name, type, shape and bytes, in one fixed order."""
    hasher = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name]
        hasher.update(repr((name, str(tensor.dtype), list(tensor.shape))).encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def _secret_weights(spec: NetworkSpec, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Tensor]:
    """Initial weights that nobody can search for.

    torch's CPU generator uses 32 bits of its seed, few enough to try them all. So the seed only draws the values; the
    place of each value inside its tensor comes from the operating system's generator. The entries of an initial tensor
    are independent and of one distribution, which a random order keeps. Two draws tell the drawn tensors from the
    constant ones (norms, tables of positions), which stay as they are.
    """
    weights, other = (build_network(spec, mean, std, secrets.randbits(32)).state_dict() for _ in range(2))
    for name, tensor in weights.items():
        weights[name] = tensor.contiguous()
        if not torch.equal(tensor, other[name]):
            words = torch.frombuffer(bytearray(secrets.token_bytes(8 * tensor.numel())), dtype=torch.int64)
            weights[name] = tensor.reshape(-1)[words.argsort()].view(tensor.shape)
    return dict(weights)


def _weights_from_file(
    path: Path, spec: NetworkSpec, mean: tuple[float, ...], std: tuple[float, ...]
) -> dict[str, Tensor]:
    """Initial weights that the protector supplies."""
    try:
        given = safetensors.load_file(path)
    except OSError as error:
        raise KeyFileError(f"cannot read weights file {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise KeyFileError(f"weights file {path} is no safetensors file, or damaged: {error}") from error
    expected = build_network(spec, mean, std, seed=0).state_dict()
    normalisation = {name: expected[name] for name in NORMALISATION}
    for name, constants in normalisation.items():
        if name in given and not torch.equal(given[name], constants):
            raise KeyFileError(
                f"weights file {path} normalises with {name} = {given[name].flatten().tolist()}, the key with"
                f" {constants.flatten().tolist()}; make the key with the file's normalisation, or remove {name} from it"
            )
    return _fitting(given | normalisation, expected, spec, f"weights file {path}")


def _fitting(given: dict[str, Tensor], expected: dict[str, Tensor], spec: NetworkSpec, where: str) -> dict[str, Tensor]:
    """`given` in the order and number types of `expected`, or an error that names the first misfit."""
    missing = [name for name in expected if name not in given]
    if missing:
        raise KeyFileError(
            f"{where} lacks {len(missing)} of the {len(expected)} tensors of network {spec.label}, the first is"
            f" '{missing[0]}'; give the state_dict of uge.networks.build_network(...)"
        )
    unknown = [name for name in given if name not in expected]
    if unknown:
        raise KeyFileError(
            f"{where} has {len(unknown)} tensors that network {spec.label} does not know, the first is '{unknown[0]}'"
        )
    for name, tensor in expected.items():
        if given[name].shape != tensor.shape:
            raise KeyFileError(
                f"{where}: tensor '{name}' has shape {list(given[name].shape)}, network {spec.label} needs"
                f" {list(tensor.shape)}"
            )
        if tensor.is_floating_point() and not given[name].isfinite().all():
            raise KeyFileError(f"{where}: tensor '{name}' holds values that are not finite")
    return {name: given[name].to(tensor.dtype).contiguous() for name, tensor in expected.items()}
