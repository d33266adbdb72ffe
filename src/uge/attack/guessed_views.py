"""Guessed views: a hacker trains on views of the published images under null-space keys that he makes up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from uge.attack.options import whole
from uge.keys.keyed_view import NONCE_BYTES
from uge.keys.null_space import NullSpace
from uge.training import PlainTraining


class GuessedViews(PlainTraining):
    """Every batch passes through the view of a throw-away key, drawn afresh.

        x <- mean over k = 1..K of (x - sum_g sigma_g (sigma_g . x_g) / n_g),   groups and signs of guess k

    Each guess takes one direction in s away, the right one as rarely as any: E[V] = (1 - 1/s) x for random signs, so on
    average the shortcut stays as it is in noise. A control, expected to be weak; what it shows is that a view is worth
    nothing without its key. Ours. Results are cut to 0..1; test images are shown as they are.

    Args:
        settings: what the copy's manifest says; the layout of its null space is that of the guesses.
        views: K; one view is the noisiest.
        group_size: s of the guesses, in the place of the manifest's.
        cell: p of the guesses, in pixels.
        signs: "balanced" or "random".
        channels: "mixed" or "tied".
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        views: str | int = 1,
        group_size: str | int = "",
        cell: str | int = "",
        signs: str = "",
        channels: str = "",
    ) -> None:
        self.views = whole("guessed-views: views", views, 1, 100)
        layout = {"group_size": group_size, "cell": cell, "signs": signs, "channels": channels}
        self.space = space_of("guessed-views", settings, layout)

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        seen = torch.stack([self.view(x, generator) for _ in range(self.views)]).mean(0)
        return seen.clamp(0, 1), y

    def view(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """One guess, with a nonce of its own for each image; float32 [B, C, H, W], which may leave 0..1."""
        drawn = torch.randint(256, (32 + NONCE_BYTES * len(x),), generator=generator, dtype=torch.uint8)
        guess = replace(self.space, secret=bytes(drawn[:32].tolist()))
        nonces = [bytes(part.tolist()) for part in drawn[32:].split(NONCE_BYTES)]
        tied = self.space.channels == "tied" or bool((x == x[:, :1]).all())  # so that gray stays gray
        groups = guess.groups(nonces, x.shape[1:], tied=tied).to(x.device)
        values = groups.arrange(x.contiguous())  # [B, M, U]
        size = groups.units * values.shape[1]
        return (values - (groups.spread(groups.sums(values)) / size)[:, None]).view(x.shape)


def space_of(what: str, settings: Mapping[str, Any], written: Mapping[str, str | int]) -> NullSpace:
    """A null space of the layout that a user wrote, or else the copy's manifest has, or else the default.

    Its secret is to be replaced.

    Raises:
        ConfigError: no such layout; `what` names the counter-measure.
    """
    layout = NullSpace(bytes(32)).layout
    if NullSpace.kind in (settings.get("method"), settings.get("kind")):
        layout |= {name: settings[name] for name in layout if name in settings}
    layout |= {name: value for name, value in written.items() if value != ""}
    sides = {name: whole(f"{what}: {name}", layout[name], 2, 64) for name in ("group_size", "cell")}
    return NullSpace(bytes(32), **layout | sides)
