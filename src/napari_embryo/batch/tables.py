"""The tables of a batch, written from its journal: measurements, and failures."""

import csv
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_embryo.batch.job import LeftOut, Plan, Row
from napari_embryo.batch.journal import Journal
from napari_embryo.io import replacing

MEASUREMENTS = "measurements.csv"
NOT_DONE = "not_done.csv"
WORKBOOK = "measurements.xlsx"

LAST_COLUMNS = ("weights", "date")
"""Provenance columns, after the measurements."""

EVERY = 5.0
"""Seconds between updates of the table; longer if writing it takes longer."""
_SHARE = 0.05
"""Largest share of time spent writing it."""

_FORMULA = re.compile(r"^[=+\-@\t\r]")
_NOT_IN_CELLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_MOST_SHEET_ROWS = 1_000_000
"""Largest number of rows; Excel's limit is 1,048,576."""


class Tables:
    """Keeps the table of measurements up to date while a batch is running.

    Parameters
    ----------
    plan
        The plan of the batch.
    journal
        Source of the tables.
    """

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self.plan, self.journal = plan, journal
        self._next = 0.0

    def refresh(self) -> None:
        """Rewrite the table of measurements if that is due."""
        start = time.monotonic()
        if start < self._next:
            return
        self.journal.commit()
        write_csv(self.plan.out / MEASUREMENTS, self.journal.rows)
        took = time.monotonic() - start
        self._next = start + max(EVERY, took / _SHARE)

    def finish(self) -> None:
        """Write all tables."""
        self.journal.commit()
        write_csv(self.plan.out / MEASUREMENTS, self.journal.rows)
        missing = list(not_done(self.plan, self.journal))
        if missing:
            write_csv(self.plan.out / NOT_DONE, lambda: missing)
        else:
            (self.plan.out / NOT_DONE).unlink(missing_ok=True)

    def write_workbook(self) -> None:
        """Write the tables as a workbook."""
        missing = list(not_done(self.plan, self.journal))
        write_workbook(self.plan.out / WORKBOOK, self.journal.rows, missing)


def not_done(plan: Plan, journal: Journal) -> Iterator[Row]:
    """One row with the reason for every image without a result."""
    for problem in plan.problems:
        yield {"image": "", **asdict(problem)}
    for name, failure in journal.failures():
        yield {"image": name, **asdict(failure)}
    yield from map(_left_out_row, plan.left_out)


def _left_out_row(left: LeftOut) -> Row:
    return {"image": "", "file": left.path, "step": "left out", "reason": left.reason, "hint": ""}


def _columns(rows: Iterable[Row]) -> list[str]:
    """All columns in order of first appearance, provenance last."""
    known = list(dict.fromkeys(key for row in rows for key in row))
    return [*(name for name in known if name not in LAST_COLUMNS), *(name for name in LAST_COLUMNS if name in known)]


def write_csv(path: Path, rows: "Rows") -> None:
    """Replace a table atomically (UTF-8, comma, decimal point); rows are read twice and never held in memory."""
    columns = _columns(rows())
    if not columns and not path.exists():
        return
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([_cell(row.get(name)) for name in columns] for row in rows())


Rows = Any
"""() -> the rows, from the first one."""


def _cell(value: str | int | float | None) -> str | int | float:
    """Round numbers other than counts to six digits; keep text from being taken for a formula."""
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        text = _NOT_IN_CELLS.sub("_", value)
        return f"'{text}" if _FORMULA.match(text) else text
    return float(f"{value:.6g}") if isinstance(value, float) else value


def write_workbook(path: Path, rows: Rows, missing: Sequence[Row]) -> None:
    """Write an Excel workbook with measurements, failures, and the unit of every column."""
    from openpyxl import Workbook

    columns = _columns(rows())
    book = Workbook(write_only=True)
    _add_sheet(book, "measurements", columns, rows())
    _add_sheet(book, "not done", ["image", "file", "step", "reason", "hint"], missing)
    _add_sheet(book, "columns", ["column", "unit"], [{"column": c, "unit": unit_of(c)} for c in columns])
    with replacing(path) as draft:
        book.save(draft)


def _add_sheet(book: Any, title: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font

    sheet = book.create_sheet(title)
    sheet.freeze_panes = "A2"
    head = [WriteOnlyCell(sheet, name) for name in columns]
    for cell in head:
        cell.font = Font(bold=True)
    sheet.append(head)
    for number, row in enumerate(rows):
        if number == _MOST_SHEET_ROWS:
            sheet.append([f"a sheet has no room for more; {MEASUREMENTS} has all rows"])
            return
        sheet.append([_cell(row.get(name)) for name in columns])


_UNITS: Mapping[str, str] = {"_um2": "µm²", "_um": "µm", "_px": "pixels", "_percent": "%"}


def unit_of(column: str) -> str:
    """The unit in a column's name; empty for counts, ratios and names."""
    if column in ("hours", "frame", "plane"):
        return {"hours": "h", "frame": "number from 0", "plane": "number from 0"}[column]
    return next((unit for ending, unit in _UNITS.items() if column.endswith(ending)), "")
