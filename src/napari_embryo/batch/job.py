"""The values of a batch: jobs, what is left out, and the outcome of each job."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_embryo.io import Found, Plane, stored_files
from napari_embryo.notes import Note
from napari_embryo.settings import BatchSettings

Row = Mapping[str, str | int | float | None]
Status = Literal["done", "partly done", "failed", "left out"]

LEFT_OUT = "left out"
"""The step of what is no picture of an embryo, as turned out when it was opened."""


@dataclass(frozen=True, slots=True)
class Job:
    """One image of a batch: a single plane, a time-lapse or a focal stack.

    Parameters
    ----------
    root
        The folder to which file names are relative.
    files
        Relative to ``root``.
    name
        Unique in the batch, and the first part of the names of results: subfolders as in ``root``, joined by ``/``.
    home
        The folder of its embryo, relative to ``root``; differs from that of the files if focal planes have folders.
    planes
        The focal planes represented by folders of the files, if any.
    why
        Why several files are one image.
    """

    root: str
    files: tuple[str, ...]
    name: str
    home: str = ""
    planes: tuple[Plane | None, ...] = ()
    why: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(Path(self.root, file) for file in self.files)

    @property
    def found(self) -> tuple[Found, ...]:
        """Its files, in the form used for reading folders."""
        home, planes = Path(self.root, self.home), self.planes or (None,) * len(self.files)
        return tuple(Found(path, home, plane) for path, plane in zip(self.paths, planes, strict=True))

    @property
    def source(self) -> str:
        """Name in tables: the file, or the first of several."""
        return printable(self.files[0])


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An image that is not processed, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Everything that a batch will do, made before a pixel is read.

    Parameters
    ----------
    jobs
        In natural order.
    left_out
        Images that are not processed, each with its reason.
    problems
        Folders and files that cannot be read.
    notes
        Assumptions about the file names.
    out
        Folder for the results.
    settings
        How to process every image.
    sources
        Requested files and folders.
    """

    jobs: tuple[Job, ...]
    left_out: tuple[LeftOut, ...]
    problems: "tuple[Problem, ...]"
    notes: tuple[Note, ...]
    out: Path
    settings: BatchSettings
    sources: tuple[Path, ...]


@dataclass(frozen=True)
class Problem:
    """A failure.

    Parameters
    ----------
    file
        The file, or the name of the image.
    step
        ``reading``, ``segmenting``, ``writing`` and so on.
    reason
        What happened.
    hint
        What to do about it.
    """

    file: str
    step: str
    reason: str
    hint: str = ""

    def text(self) -> str:
        """One line of text."""
        said = self.reason if os.path.basename(self.file) in self.reason else f"{self.file}: {self.reason}"  # noqa: PTH119 - printable text, not a path
        return f"{said} {self.hint}".strip()


@dataclass(frozen=True)
class Output:
    """A file that was written: its name relative to the folder of results, and its digest."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    Parameters
    ----------
    job
        Name of the job.
    stamp
        Sizes and dates of its files when they were read.
    sha256
        Digest of its files.
    rows
        Rows of the table of measurements.
    outputs
        Files written.
    failures
        Failures: of the whole image if nothing was written, otherwise of single planes.
    notes
        Messages for the user.
    doubt
        Uncertainty of the network from 0 to 1; None if unknown.
    seconds
        Duration.
    """

    job: str
    stamp: str = ""
    sha256: str = ""
    rows: tuple[Row, ...] = ()
    outputs: tuple[Output, ...] = ()
    failures: tuple[Problem, ...] = ()
    notes: tuple[Note, ...] = ()
    doubt: float | None = None
    seconds: float = 0.0

    @property
    def status(self) -> Status:
        if not self.failures:
            return "done"
        if all(failure.step == LEFT_OUT for failure in self.failures):
            return "left out"
        return "partly done" if self.outputs else "failed"


def printable(path: str) -> str:
    r"""A path as text that can be written anywhere: bytes that are not UTF-8 as ``\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def stamp_of(job: Job) -> str:
    """Sizes and dates of a job's files, to detect changes; empty if a file is gone."""
    try:
        return _stamp(job)
    except OSError:
        return ""


def _stamp(job: Job) -> str:
    files = (stored for file in job.files for stored in stored_files(os.path.join(job.root, file)))  # noqa: PTH118 - a million
    stats = map(os.stat, files)
    return ";".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)
