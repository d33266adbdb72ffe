"""Counter-measures that a generator is trained against: what they do to a batch, and that they pass gradients on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uge.errors import ConfigError
from uge.protect.expectation import Expected, linear_probe, needs_probe, parse_measure


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(channels: int = 3) -> Tensor:
    return 0.3 + 0.4 * torch.rand(6, channels, 9, 8, generator=rng())


def test_jitter_draws_for_each_image_and_keeps_gray_gray() -> None:
    through = parse_measure("jitter")
    x = pictures()
    x[1] = x[0]
    seen = through(x, rng(), None)
    assert seen.shape == x.shape and seen.min() >= 0 and seen.max() <= 1
    assert torch.equal(seen, through(x, rng(), None)) and not torch.equal(seen, through(x, rng(1), None))
    assert not torch.allclose(seen[0], seen[1], atol=0.02)
    gray = through(pictures(1).expand(-1, 3, -1, -1), rng(), None)
    assert torch.allclose(gray, gray[:, :1].expand_as(gray), atol=1e-6)
    assert through(pictures(1), rng(), None).shape == (6, 1, 9, 8)


def test_projection_takes_away_all_that_a_linear_classifier_decides_with() -> None:
    weights = torch.randn(4, 3 * 9 * 8, generator=rng())
    x = pictures()
    seen = parse_measure("projection")(x, rng(), weights)
    logits = seen.flatten(1) @ weights.T
    assert (logits - logits[:, :1]).std(0).max() < 1e-3  # the same for every image
    before = x.flatten(1) @ weights.T
    assert (before - before[:, :1]).std(0)[1:].min() > 0.1
    assert torch.allclose(seen.mean(0), x.mean(0), atol=1e-4)


def test_a_probe_that_has_learnt_nothing_takes_away_nothing_that_is_not_a_number() -> None:
    probe = linear_probe(3 * 9 * 8, 4)
    weights = next(probe.parameters()).detach()
    assert weights.shape == (4, 3 * 9 * 8) and not weights.any() and not probe(pictures()).any()
    assert parse_measure("projection")(pictures(), rng(), weights).isfinite().all()


@pytest.mark.parametrize("name", ["jitter", "projection", "jitter+jpeg:30", "grayscale+projection", "blur", "none"])
def test_gradients_pass(name: str) -> None:
    x = pictures().requires_grad_()
    seen = parse_measure(name)(x, rng(), torch.randn(4, x[0].numel(), generator=rng()))
    (seen * torch.randn(seen.shape, generator=rng(1))).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_names_are_known_and_errors_hint_at_all_of_them() -> None:
    assert needs_probe(["none", "blur+projection"]) and not needs_probe(["jitter", "blur"])
    with pytest.raises(ConfigError, match="did you mean 'projection'"):
        parse_measure("projecton")
    with pytest.raises(ConfigError, match="did you mean 'jitter'"):
        parse_measure("blur+jiter")
    with pytest.raises(ConfigError, match="filter 'jitter:2': it takes no number"):
        parse_measure("jitter:2")


def test_a_network_that_expects_filters_sees_each_of_them_and_its_labels_stay() -> None:
    x, y = pictures(), torch.arange(6)
    expected, draws = Expected(("none", "grayscale", "projection")), rng()
    seen = [expected.batch(x, y, draws) for _ in range(12)]
    gray = parse_measure("grayscale")(x, draws, None)
    kinds = {("plain" if torch.equal(each, x) else "gray" if torch.equal(each, gray) else "other") for each, _ in seen}
    assert kinds == {"plain", "gray"} and all(torch.equal(labels, y) for _, labels in seen)
    assert torch.equal(Expected(("projection",)).batch(x, y, draws)[0], x)  # what needs a probe is left out
