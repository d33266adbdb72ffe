"""What no null-space key hides: the eigenvalues of the mean projection E[P_N], 16x16 RGB, for several layouts.

    python benchmarks/quality/eigenvalues.py

Eigenvectors come from one half of the nonces, their values v' E[P_N] v from the other, so that chance does not make
them small. Directions below 1/(4 s) count as clean. A row a layout goes to
`benchmarks/results/eigenvalues/records.jsonl`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uge.keys.null_space import NullSpace
from uge.records import append_record, read_records
from uge.runtime import environment, generator_for

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "eigenvalues" / "records.jsonl"
SHAPE = (3, 16, 16)
NONCES = 8_000
LAYOUTS: list[dict[str, Any]] = [
    {"cell": cell, "group_size": size, "signs": signs}
    for signs in ("balanced", "random")
    for cell, size in ((4, 6), (8, 4), (8, 6), (8, 12), (16, 6))
]


def values(layout: dict[str, Any]) -> Tensor:
    """v' E[P_N] v for the eigenvectors v, rising with the eigenvalues; float64 [D]."""
    drawn = torch.randint(256, (2, NONCES // 2, 12), generator=generator_for(0, "nonces"), dtype=torch.uint8)
    space = NullSpace(bytes(32), **layout)
    one, other = (space.mean_projection([bytes(row) for row in half.tolist()], SHAPE) for half in drawn)
    directions = torch.linalg.eigh(one).eigenvectors
    return (directions * (other @ directions)).sum(0)


def main() -> None:
    done = [row["layout"] for row in read_records(RESULTS)]
    for layout in LAYOUTS:
        if layout in done:
            continue
        found, limit = values(layout), 1 / (4 * layout["group_size"])
        row = {
            "layout": layout,
            "shape": list(SHAPE),
            "nonces": NONCES,
            "directions": len(found),
            "limit": round(limit, 5),
            "clean_directions": int((found < limit).sum()),
            "half_clean_directions": int((found < 2 * limit).sum()),
            "least": round(float(found.min()), 5),
            "median": round(float(found.median()), 5),
            "greatest": round(float(found.max()), 5),
            "environment": environment(),
        }
        append_record(RESULTS, row)
        print(
            {name: row[name] for name in ("layout", "limit", "clean_directions", "least", "median", "greatest")},
            flush=True,
        )


if __name__ == "__main__":
    main()
