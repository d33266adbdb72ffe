"""Cells and the grid."""

from __future__ import annotations

import pytest

from uge.audit.plan import AUTHORISED, Cell, grid
from uge.errors import ConfigError


@pytest.mark.parametrize(
    ("cell", "knows"),
    [
        (Cell(AUTHORISED), "key"),
        (Cell("hacker", "vgg"), "nothing"),
        (Cell("hacker", AUTHORISED), "architecture"),
        (Cell("hacker", "vgg", "distillation:hard"), "model outputs"),
        (Cell("hacker", AUTHORISED, "distillation"), "model outputs"),
        (Cell("hacker", "vgg", "clean-only:20"), "clean images"),
        (Cell("hacker", AUTHORISED, "jpeg:30+clean-mixed"), "clean images"),
        (Cell("hacker", AUTHORISED, "jpeg:30+cutmix"), "architecture"),
        (Cell("hacker", "vgg", "distillation+cutmix"), "model outputs"),
    ],
)
def test_a_cell_says_what_its_hacker_knows(cell: Cell, knows: str) -> None:
    assert cell.knows == knows


def test_a_cell_of_an_unknown_counter_measure_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown counter-measure 'denoise'"):
        _ = Cell("hacker", "vgg", "denoise").knows


def test_the_grid_holds_every_hacker_on_both_sources_after_the_authorised() -> None:
    cells = grid(["vgg", AUTHORISED], [("mlp", "distillation:hard")], [3, 5])
    assert len(cells) == len(set(cells)) == 2 * 2 * 4
    for seed in (3, 5):
        for source in ("published", "clean"):
            block = [cell for cell in cells if (cell.seed, cell.trained_on) == (seed, source)]
            assert [(cell.role, cell.network, cell.countermeasure) for cell in block] == [
                (AUTHORISED, AUTHORISED, "none"),
                ("hacker", "vgg", "none"),
                ("hacker", AUTHORISED, "none"),
                ("hacker", "mlp", "distillation:hard"),
            ]


def test_without_originals_or_key_the_cells_that_need_them_are_left_out() -> None:
    cells = grid(["vgg"], [("mlp", "distillation:hard")], [0], clean=False, key=False)
    assert cells == [Cell("hacker", "vgg")]
