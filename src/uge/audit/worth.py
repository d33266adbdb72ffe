"""What a copy is worth: how many originals would teach a hacker as much as the whole copy does.

His accuracy against n originals is a curve: the means over subsets of a few sizes, and chance at n = 0, made monotone
by isotonic regression and interpolated linearly in log(1 + n). The copy is worth the smallest n whose accuracy is that
of the hacker on the copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from statistics import fmean
from typing import Any

import numpy as np

SMALLEST = 50  # originals; below that a curve is noise, and a worth only said to be less
REPLICATES = 1000  # of the bootstrap
SUBSETS = 3  # of each size, from which on an interval is told


def sizes_of(originals: int) -> list[int]:
    """How many originals the hackers of a curve get, besides none and all: 50, 100, 200, 500, 1000, ..."""
    steps = (SMALLEST * step * 10**power for power in range(len(str(originals))) for step in (1, 2, 4))
    return list(takewhile(lambda size: size < originals, steps))


def isotonic(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The rising sequence that is closest to a sequence, by weighted least squares; float [..., K], weights [K] > 0.

        c_k = max over i <= k of min over j >= k of the weighted mean of values i..j

    Robertson, Wright & Dykstra, Order Restricted Statistical Inference, 1988, theorem 1.4.4.
    """
    count = values.shape[-1]
    sums = np.concatenate([np.zeros_like(values[..., :1]), np.cumsum(values * weights, -1)], -1)
    total = np.concatenate([[0.0], np.cumsum(weights)])
    means = np.full((*values.shape, count), -np.inf)  # [..., i, j]
    for i in range(count):
        means[..., i, i:] = (sums[..., i + 1 :] - sums[..., i : i + 1]) / (total[i + 1 :] - total[i])
    least = np.minimum.accumulate(means[..., ::-1], -1)[..., ::-1]  # over j, from k on
    return np.stack([least[..., : k + 1, k].max(-1) for k in range(count)], -1)


def originals_at(accuracy: float, sizes: Sequence[int], curve: Sequence[float]) -> float:
    """The smallest number of originals whose accuracy on a rising curve reaches this one, in percent.

    The curve has an accuracy a size, from chance, and the sizes rise from 0.

    Returns:
        0 for no more than chance; infinity for more than the end of the curve.
    """
    if accuracy <= curve[0]:
        return 0.0
    if accuracy > curve[-1]:
        return np.inf
    end = int(np.searchsorted(curve, accuracy))  # the first that reaches it
    low, high = curve[end - 1], curve[end]
    low_size, high_size = np.log1p(sizes[end - 1]), np.log1p(sizes[end])
    return float(np.expm1(low_size + (accuracy - low) / (high - low) * (high_size - low_size)))


def worth(
    accuracies: Sequence[float], curve: Mapping[int, Sequence[float]], chance: float, test_images: int
) -> dict[str, Any]:
    """What a copy is worth to one hacker, with an interval of 95 %.

    The interval is a bootstrap over the subsets, the hacker's seeds, and the test images (binomial). With three subsets
    it is narrow rather than wide, with fewer there is none.

    Args:
        accuracies: of the hacker on the copy, in percent, one a seed.
        curve: size -> his accuracies on so many originals, one a subset; the largest size is all of them.
        chance: in percent.
        test_images: on which accuracies were measured.

    Returns:
        `curve`: number of originals, mean accuracy, and what isotonic regression makes of it, from none to all.
        `originals`: what the copy is worth, and the ends of `interval`; None in their place stands for more than all.
    """
    sizes = [0, *sorted(curve)]
    subsets = [len(curve[size]) for size in sizes[1:]]
    weights = np.array([max(subsets), *subsets], dtype=float)
    means = np.array([chance, *(fmean(curve[size]) for size in sizes[1:])])
    rising = isotonic(np.maximum(means, chance), weights)
    interval = None
    if min(subsets) >= SUBSETS:
        rng = np.random.default_rng(0)
        draws = np.stack([_resampled(curve[size], test_images, rng) for size in sizes[1:]], -1)
        draws = np.concatenate([np.full((REPLICATES, 1), chance), np.maximum(draws, chance)], -1)
        drawn = zip(_resampled(accuracies, test_images, rng), isotonic(draws, weights), strict=True)
        found = [originals_at(accuracy, sizes, each) for accuracy, each in drawn]
        interval = [_finite(end) for end in np.quantile(found, [0.025, 0.975], method="nearest")]
    points = zip(sizes, means, rising, strict=True)
    return {
        "curve": [
            {"originals": size, "accuracy": round(float(mean), 3), "fitted": round(float(fitted), 3)}
            for size, mean, fitted in points
        ],
        "originals": _finite(originals_at(fmean(accuracies), sizes, rising.tolist())),
        "interval": interval,
    }


def _resampled(accuracies: Sequence[float], test_images: int, rng: np.random.Generator) -> np.ndarray:
    """Means of some trainings drawn again, each measured on test images drawn again; float [REPLICATES]."""
    drawn = rng.choice(np.array(accuracies) / 100, (REPLICATES, len(accuracies)))
    return 100 * rng.binomial(test_images, drawn).mean(-1) / test_images


def _finite(originals: float) -> float | None:
    return round(float(originals), 1) if np.isfinite(originals) else None
