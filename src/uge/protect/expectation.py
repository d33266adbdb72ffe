"""What may happen to a copy before a surrogate hacker learns from it, in expectation over counter-measures.

Besides the fixed filters of `uge.filters`:

- `jitter`: brightness and contrast by half to one and a half, saturation from gray to double, drawn for each image;
- `projection`: what a linear probe reads is taken out, as `uge.attack.projection` does. The probe learns beside the
  generator, from the copies of every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from uge import operations
from uge.errors import ConfigError
from uge.filters import Filter, deciding_directions, parse_filter, project
from uge.training import PlainTraining, Recipe

PROBE_RECIPE = Recipe(optimiser="adamw", learning_rate=1e-3, weight_decay=0.0, schedule="constant")

Measure = Callable[[Tensor, torch.Generator, Tensor | None], Tensor]
"""(x float32 [B, C, H, W] in [0, 1], draws, the probe's weights [K, C*H*W]) -> the same shape."""


def linear_probe(values: int, classes: int) -> nn.Module:
    """Logistic regression on pixels, from zero; its first parameter is the weights [K, D]."""
    linear = nn.Linear(values, classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Flatten(), linear)


def parse_measure(text: str) -> Measure:
    """A counter-measure from its text, such as "blur" or "jitter+jpeg:30", one after the other.

    Raises:
        ConfigError: unknown name, or a number that is none, is out of range or is not taken.
    """
    parse_filter(text, _bound(torch.Generator(), None))  # what cannot be read is refused now
    return lambda x, rng, weights: parse_filter(text, _bound(rng, weights))(x)


def parse_measures(texts: Sequence[str]) -> list[Measure]:
    """The counter-measures that a generator expects.

    Raises:
        ConfigError: none at all, or as `parse_measure`.
    """
    if not texts:
        raise ConfigError("filters is empty; give none for no filter")
    return [parse_measure(text) for text in texts]


def drawn(measures: Sequence[Measure], rng: torch.Generator) -> Measure:
    """One of them at random."""
    return measures[int(torch.randint(len(measures), (), generator=rng))]


def needs_probe(texts: Iterable[str]) -> bool:
    """Whether any of these counter-measures takes out what a probe reads."""
    return any("projection" in text.split("+") for text in texts)


def _bound(rng: torch.Generator, weights: Tensor | None) -> dict[str, Filter]:
    """The filters of this module, with these draws and a probe of these weights."""

    def jitter(x: Tensor) -> Tensor:
        factors = torch.rand(3, len(x), generator=rng)
        return operations.jitter(x, 0.5 + factors[0], 0.5 + factors[1], 2 * factors[2])

    def projection(x: Tensor) -> Tensor:
        """Away from what decides the probe's class; the mean image of the batch stays where it is."""
        assert weights is not None
        flat = x.flatten(1)
        return project(flat, deciding_directions(weights), flat.detach().mean(0)).view_as(x)

    return {"jitter": jitter, "projection": projection}


class Expected(PlainTraining):
    """Every batch passes through one of the counter-measures, drawn at random; what needs a probe is left out.

    Args:
        texts: counter-measures as `parse_measure` reads them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.measures = [parse_measure(text) for text in texts if not needs_probe([text])] or [parse_measure("none")]

    @torch.no_grad()
    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return drawn(self.measures, generator)(x, generator, None), y
