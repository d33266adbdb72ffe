"""The paper's key: the authorised network itself, an architecture with initial weights that nobody else has.

Its file is a safetensors file: the weights as tensors (a seed does not survive a torch release), and one metadata entry
`uge-key` that holds everything else as JSON, with a SHA-256 over all of it, because safetensors itself has no checksum.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from uge.data.images import ImageSet, class_difference, repeated
from uge.errors import KeyFileError, UgeError
from uge.keys.key import Key, check_facts, checksum, damaged, no_key, signer_in
from uge.keys.signature import new_signer
from uge.networks import NetworkSpec, build_network
from uge.outside import parse_json, typed
from uge.training import Recipe


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightsKey(Key):
    """Defines the network that the recipient trains; it sees copies as they are.

    Attributes:
        network: the architecture.
        mean: channel means for the normalisation, on the scale [0, 1].
        std: channel standard deviations, same scale.
        own_recipe: the recommended training.
        weights: the initial `state_dict` of `build_network(network, mean, std, ...)`, on the CPU.
        class_names: one name an output of the network, in label order.
    """

    kind: ClassVar[str] = "initial-weights"
    opens: ClassVar[bool] = False
    network: NetworkSpec
    mean: tuple[float, ...]
    std: tuple[float, ...]
    own_recipe: Recipe
    weights: dict[str, Tensor] = field(repr=False)
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def public_facts(self) -> dict[str, Any]:
        return super().public_facts() | {
            "network": self.network.label,
            "channels": self.network.channels,
            "image_size": list(self.network.image_size),
            "classes": self.network.classes,
            "class_names": list(self.class_names),
            "values": sum(tensor.numel() for tensor in self.weights.values()),
            "recipe": self.own_recipe.to_dict(),
        }

    def to_bytes(self, role: str) -> bytes:
        facts = self.facts(
            role,
            network=self.network.to_dict(),
            mean=list(self.mean),
            std=list(self.std),
            recipe=self.own_recipe.to_dict(),
            class_names=list(self.class_names),
        )
        weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.weights.items()}
        facts["sha256"] = checksum(facts, weights)
        return safetensors.save(weights, metadata={"uge-key": json.dumps(facts)})

    @classmethod
    def from_bytes(cls, data: bytes, where: str, role: str | None = None) -> Self:
        """Read what `to_bytes` made; `where` names it in messages, `role` is the one that will do.

        Raises:
            KeyFileError: no key, damaged, of another format version, or of the other role.
        """
        facts = _facts_from(data, where)
        check_facts(facts, where, cls.kind, role)
        try:
            weights = safetensors.load(data)
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise damaged(where) from error
        if facts.pop("sha256", None) != checksum(facts, weights):
            raise damaged(where)
        try:
            return cls(
                network=typed(facts["network"], NetworkSpec),
                mean=tuple(facts["mean"]),
                std=tuple(facts["std"]),
                own_recipe=Recipe(**facts["recipe"]),
                weights=weights,
                class_names=tuple(facts["class_names"]),
                **signer_in(facts),
            )
        except (KeyError, TypeError, ValueError, IndexError, UgeError) as error:
            raise KeyFileError(
                f"key {where} holds a network or recipe that this version cannot use: {error}"
            ) from error

    def check_fits(self, images: ImageSet) -> None:
        mend = "use the key that was made for this data, or make one with 'uge key new --initial-weights'"
        if differ := class_difference(self.class_names, images.class_names, "the key", "the data"):
            raise KeyFileError(f"the key does not fit the data: {differ}; {mend}")
        if images.channels != self.network.channels:
            raise KeyFileError(
                f"the key is for images of {self.network.channels} channels, the data has {images.channels}; {mend}"
            )
        if images.image_size != self.network.image_size:
            expected, got = ("x".join(map(str, size)) for size in (self.network.image_size, images.image_size))
            raise KeyFileError(f"the key is for {expected} pixels, the data has {got}; {mend}, or give --image-size")

    def open_each(self, copies: Tensor) -> tuple[Tensor, Tensor]:
        return copies, torch.ones(len(copies), dtype=torch.bool)

    def seen(self, images: Tensor) -> Tensor:
        return images

    def spec(self, like: ImageSet, network: str) -> NetworkSpec:
        return self.network

    def module(self, like: ImageSet, network: str, seed: int) -> nn.Module:
        """The authorised network with its initial weights: a fresh module at each call.

        Raises:
            KeyFileError: the weights do not fit the architecture.
            ConfigError: the architecture cannot be built here (a timm model without timm).
        """
        module = build_network(self.network, self.mean, self.std, seed=0)  # every drawn weight is replaced below
        module.load_state_dict(_fitting(self.weights, module.state_dict(), self.network.label))
        return module

    def recipe(self, network: str, epochs: int) -> Recipe:
        return self.own_recipe


def new_weights_key(
    spec: NetworkSpec, class_names: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...], recipe: Recipe
) -> WeightsKey:
    """Define an authorised network, with weights drawn from secret randomness.

    Args:
        spec: the architecture.
        class_names: one name an output.
        mean: channel means of the clean images, on the scale [0, 1].
        std: channel standard deviations, same scale.
        recipe: the recommended training.

    Raises:
        ConfigError: the network cannot be built.
    """
    return WeightsKey(
        network=spec,
        mean=tuple(mean),
        std=tuple(std),
        own_recipe=recipe,
        weights=_secret_weights(spec, mean, std),
        class_names=tuple(class_names),
        **new_signer(),
    )


def _facts_from(data: bytes, where: str) -> Any:
    """The JSON part of a key file: 8 bytes of length, then the safetensors header with our entry in its metadata."""
    try:
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return parse_json(header["__metadata__"]["uge-key"])
    except (ValueError, KeyError, TypeError) as error:
        raise no_key(where) from error


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


def _fitting(given: dict[str, Tensor], expected: dict[str, Tensor], network: str) -> dict[str, Tensor]:
    """`given` in the order and number types of `expected`, or an error that names the first misfit."""
    if missing := [name for name in expected if name not in given]:
        raise KeyFileError(
            f"the key lacks {len(missing)} of the {len(expected)} tensors of network {network}, the first is"
            f" '{missing[0]}'; give the state_dict of uge.networks.build_network(...)"
        )
    if unknown := [name for name in given if name not in expected]:
        raise KeyFileError(
            f"the key has {len(unknown)} tensors that network {network} does not know, the first is '{unknown[0]}'"
        )
    for name, tensor in expected.items():
        if given[name].shape != tensor.shape:
            raise KeyFileError(
                f"the key: tensor '{name}' has shape {list(given[name].shape)}, network {network} needs"
                f" {list(tensor.shape)}"
            )
        if tensor.is_floating_point() and not given[name].isfinite().all():
            raise KeyFileError(f"the key: tensor '{name}' holds values that are not finite")
    return {name: given[name].to(tensor.dtype).contiguous() for name, tensor in expected.items()}
