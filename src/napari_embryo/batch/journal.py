"""The journal of a folder of results: one SQLite file, written by the main process of a run."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from napari_embryo.batch.job import Outcome, Output, Problem, Row, Status
from napari_embryo.notes import Note

COMMIT_EVERY = 0.5
"""Seconds of results that may be lost in a power failure and are then computed again."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS job (
    name TEXT PRIMARY KEY,
    recipe TEXT NOT NULL,
    stamp TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    status TEXT NOT NULL,
    outputs TEXT NOT NULL,
    failures TEXT NOT NULL,
    notes TEXT NOT NULL,
    rows TEXT NOT NULL,
    doubt REAL,
    seconds REAL NOT NULL,
    finished TEXT NOT NULL
) WITHOUT ROWID
"""
_INSERT = """
INSERT OR REPLACE INTO job VALUES
    (:name, :recipe, :stamp, :sha256, :status, :outputs, :failures, :notes, :rows, :doubt, :seconds, :finished)
"""


class Known(NamedTuple):
    """The part of the journal entry of a job needed to tell whether it is done."""

    recipe: str
    stamp: str
    sha256: str
    status: Status
    written: str

    @property
    def outputs(self) -> list[str]:
        """Names of the files that were written."""
        return [line[_NAME_AT:] for line in self.written.splitlines()]


_NAME_AT = 64 + 2
"""Where a name begins in a line of digests, which are written as the program sha256sum does."""


def _digests(outputs: Iterable[Output]) -> str:
    return "".join(f"{output.sha256:64}  {output.name}\n" for output in outputs)


def _outputs(written: str) -> tuple[Output, ...]:
    return tuple(Output(line[_NAME_AT:], line[: _NAME_AT - 2].strip()) for line in written.splitlines())


class Journal:
    """The record of a folder of results; stays intact if the process is killed.

    Parameters
    ----------
    path
        The SQLite file; created if needed.

    Raises
    ------
    ValueError
        If the file is not a journal of this program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # A worker thread of the window may close what another one has opened.
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{path}: the journal of this folder of results cannot be used ({error}). Move it away to start over."
            ) from error
        self._committed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(sqlite3.OperationalError):  # on a full disk, earlier entries are kept
            self.commit()
        self._db.close()

    def record(self, outcome: Outcome, recipe: str) -> None:
        """Record the outcome of a job; it is on the disk half a second later."""
        self._begin()
        self._db.execute(_INSERT, {**_as_columns(outcome), "recipe": recipe})
        if time.monotonic() - self._committed > COMMIT_EVERY:
            self.commit()

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Write recorded outcomes to the disk."""
        self._committed = time.monotonic()
        if self._db.in_transaction:
            self._db.execute("COMMIT")

    def known(self) -> dict[str, Known]:
        """Every job by its name, without rows."""
        found = self._db.execute("SELECT name, recipe, stamp, sha256, status, outputs FROM job")
        shared: dict[str, Any] = {}
        return {
            name: Known(shared.setdefault(recipe, recipe), stamp, digest, shared.setdefault(status, status), written)
            for name, recipe, stamp, digest, status, written in found
        }

    def restamp(self, job: str, stamp: str) -> None:
        """Record that a file has a new date but unchanged content."""
        self._begin()
        self._db.execute("UPDATE job SET stamp = ? WHERE name = ?", (stamp, job))

    def rows(self) -> Iterator[Row]:
        """Rows of the table of measurements, image by image."""
        for (rows,) in self._db.execute("SELECT rows FROM job WHERE rows != '[]' ORDER BY name"):
            yield from json.loads(rows)

    def failures(self) -> Iterator[tuple[str, Problem]]:
        """All failures, with the names of their jobs."""
        for name, failures in self._db.execute("SELECT name, failures FROM job WHERE failures != '[]' ORDER BY name"):
            for failure in json.loads(failures):
                yield name, Problem(**failure)

    def outcomes(self, most: int = -1) -> Iterator[Outcome]:
        """Outcomes of the jobs without rows: failed ones first, then by decreasing doubt."""
        query = (
            "SELECT name, stamp, sha256, outputs, failures, notes, doubt, seconds FROM job "
            "ORDER BY failures = '[]', doubt IS NULL, doubt DESC, name LIMIT ?"
        )
        for name, stamp, digest, outputs, failures, notes, doubt, seconds in self._db.execute(query, (most,)):
            yield Outcome(
                name,
                stamp,
                digest,
                outputs=_outputs(outputs),
                failures=tuple(Problem(**failure) for failure in json.loads(failures)),
                notes=tuple(Note(**note) for note in json.loads(notes)),
                doubt=doubt,
                seconds=seconds,
            )

    def states(self) -> dict[str, Status]:
        """How every job ended."""
        return dict(self._db.execute("SELECT name, status FROM job").fetchall())

    def count(self, jobs: Iterable[str]) -> Counter[Status]:
        """Number of these jobs by status."""
        status = self.states()
        return Counter(status[name] for name in jobs if name in status)


def _as_columns(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.job,
        "stamp": outcome.stamp,
        "sha256": outcome.sha256,
        "status": outcome.status,
        "outputs": _digests(outcome.outputs),
        "failures": json.dumps([asdict(failure) for failure in outcome.failures]),
        "notes": json.dumps([asdict(note) for note in outcome.notes]),
        "rows": json.dumps([_plain(row) for row in outcome.rows]),
        "doubt": outcome.doubt,
        "seconds": outcome.seconds,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _plain(row: Row) -> dict[str, Any]:
    """Convert NumPy numbers to Python's, and NaN to None."""
    return {name: None if value != value else value for name, value in row.items()}
