"""Run the missing cells of a plan. Every finished cell is on disk, so any run can be killed and started again."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from uge.attack import needs_guard, needs_teacher, trains_key_network
from uge.audit.plan import AUTHORISED, Cell, Hacker, Plan, Row
from uge.audit.search import decide
from uge.audit.trainer import Trainer
from uge.audit.worker import CELLS, JOB, save_job
from uge.durable import check_writable, remove_folder, write_file
from uge.errors import ConfigError
from uge.records import RECORDS, append_record, is_training, line_of, read_records, read_row
from uge.runners import More


def read_finished(folder: Path) -> list[Row]:
    """The rows of an audit's finished trainings; what else its records may hold is passed over."""
    return [row for row in read_records(folder / RECORDS) if is_training(row) and "error" not in row]


class Audit(Trainer):
    """Trains the cells of a plan, one after the other or several at a time."""

    def run(
        self,
        cells: Sequence[Cell],
        on_cell: Callable[[int, Cell], None] | None = None,
        on_epoch: Callable[[int, int, float], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Train what is missing and return the rows of all cells, in the order of `cells`.

        Args:
            cells: the plan; an authorised cell must precede the hackers that query its trained network.
            on_cell: called with (number from 0, cell) before each missing cell.
            on_epoch: called with (epoch from 1, epochs, test accuracy) during each missing cell.

        Raises:
            ConfigError: a cell that cannot run, before the first one is trained.
            PublishError: the folder cannot be written.
        """
        done = {row["cell"]: row for row in read_finished(self.folder)}
        self._check(cells, done)
        check_writable(self.folder / RECORDS)
        rows = []
        for number, cell in enumerate(cells):
            name = self.cell_name(cell)
            if name not in done:
                if on_cell:
                    on_cell(number, cell)
                done[name] = self.train(cell, on_epoch)
                append_record(self.folder / RECORDS, done[name])
            rows.append(done[name])
        return rows

    def run_plan(
        self,
        plan: Plan,
        hackers: Sequence[Hacker],
        train: Callable[[Path, More[Cell]], Iterator[Row]],
        on_cells: Callable[[Sequence[Cell], Sequence[Cell]], None],
        on_row: Callable[[Cell, Row], None],
        known: Sequence[Row],
        seconds: Callable[[Cell], float],
    ) -> tuple[list[Row], list[Hacker]]:
        """Train what is missing of a plan, stage by stage, several cells at a time.

        A training that fails is a row with its error; the next run tries it again.

        Args:
            plan: what to try.
            hackers: of `uge.audit.plan.possible`.
            train: as `uge.audit.worker.train_cells`, with a runner.
            on_cells: called before each stage with all cells decided by now and those of them that are missing.
            on_row: called with every cell that this run trained and its row.
            known: rows of other audits; the cells among them that this plan has, too, are not trained again.
            seconds: what a cell will take: long ones begin first, so that at the end no worker waits long for another.

        Returns:
            The rows of all cells; `records.jsonl` holds them in the same order. And whom a larger budget would try.

        Raises:
            ConfigError: a cell that cannot run, before the first one of its stage is trained.
            PublishError: the folder cannot be written, or a worker died.
        """
        # Not the authorised networks of other audits: their weights, which students query, lie there.
        others = [row for row in known if "error" not in row and row["kind"] != AUTHORISED]
        done = {row["cell"]: row for row in others} | self._gather()
        job: Path | None = None
        try:
            while True:
                decided = decide(
                    plan,
                    hackers,
                    lambda cell: done.get(self.cell_name(cell)),
                    lambda cell: done.get(self.cell_name(cell), {}).get("seconds") or seconds(cell),
                    key=self.key is not None,
                    originals=self.originals,
                )
                cells = decided.cells
                names = {self.cell_name(cell): cell for cell in cells}
                missing = [cell for name, cell in names.items() if name not in done]
                if not missing:
                    break
                self._check(cells, done)
                on_cells(cells, missing)
                job = job or save_job(self, [network for network, _ in hackers])
                for row in train(job, self._ready(missing, done, seconds)):
                    done[row["cell"]] = row
                    append_record(self.folder / RECORDS, row)
                    on_row(names[row["cell"]], row)
        finally:
            remove_folder(self.folder / JOB)
        rows = [done[self.cell_name(cell)] for cell in cells]
        self._tidy(rows)
        return rows, decided.following

    def _ready(self, missing: Iterable[Cell], done: Container[str], seconds: Callable[[Cell], float]) -> More[Cell]:
        """Hands out cells, long ones first, but those that students of the authorised network wait for before all."""
        teachers = {
            cell: self.cell_name(self._teacher_of(cell)) for cell in missing if needs_teacher(cell.countermeasure)
        }
        asked = set(teachers.values()) & {self.cell_name(cell) for cell in missing}
        waiting = sorted(missing, key=lambda cell: (self.cell_name(cell) in asked, seconds(cell)), reverse=True)

        def more(count: int) -> list[Cell]:
            ready = [cell for cell in waiting if teachers.get(cell) not in asked or teachers[cell] in done][:count]
            for cell in ready:
                waiting.remove(cell)
            return ready

        return more

    def _gather(self) -> dict[str, Row]:
        """Finished rows by cell, also those that a killed run had no time to append; failed ones are tried again."""
        kept = self.folder / CELLS
        done = {row["cell"]: row for row in read_finished(self.folder)}
        check_writable(self.folder / RECORDS)
        for file in sorted(kept.glob("*.json")):
            row = read_row(file)
            if row and is_training(row) and "error" not in row and row["cell"] not in done:
                append_record(self.folder / RECORDS, row)
                done[row["cell"]] = row
        remove_folder(kept)
        return done

    def _tidy(self, rows: Sequence[Row]) -> None:
        """One line a cell, the plan's in its order: the same file whatever interrupted the runs before."""
        names = {row["cell"] for row in rows}
        others = {row["cell"]: row for row in filter(is_training, read_records(self.folder / RECORDS))}
        kept = [*rows, *(row for cell, row in others.items() if cell not in names)]
        write_file(self.folder / RECORDS, "".join(line_of(row) + "\n" for row in kept))
        remove_folder(self.folder / CELLS)

    def _check(self, cells: Sequence[Cell], done: Container[str]) -> None:
        """Fail before hours of training where a later cell is bound to fail."""
        teachers = set()  # those that this run trains
        for cell in cells:
            if cell.trained_on not in self.sources:
                raise ConfigError("this plan trains on the originals: give --clean, or leave those cells out")
            self._spec(cell)
            if needs_guard(cell.countermeasure) and not self._key().opens:
                raise ConfigError(f"'{cell.countermeasure}' asks a guard, which needs a sealed key")
            if trains_key_network(cell.countermeasure) and cell.network != AUTHORISED:
                raise ConfigError(
                    f"'{cell.countermeasure}' trains the authorised network: give the network '{AUTHORISED}' and not"
                    f" '{cell.network}'"
                )
            # The text is judged, and whether there is what it needs.
            self.countermeasure_of(cell, nn.Identity(), nn.Identity())
            if self.cell_name(cell) in done:
                continue
            if needs_teacher(cell.countermeasure) and (cell.seed, cell.trained_on) not in teachers:
                self._trained_weights(cell)
            if cell.role == AUTHORISED and cell.budget == 1:
                teachers.add((cell.seed, cell.trained_on))
