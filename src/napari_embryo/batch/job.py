"""The values of a batch: what is to be done, what was left out, and what became of each job."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_embryo.io import Found, Plane
from napari_embryo.notes import Note
from napari_embryo.settings import BatchSettings

Row = Mapping[str, str | int | float | None]
Status = Literal["done", "partly done", "failed", "left out"]

LEFT_OUT = "left out"
"""The step of what is no picture of an embryo, as turned out when it was opened."""


@dataclass(frozen=True, slots=True)
class Job:
    """One image of a batch: a picture, a time-lapse or a focal stack.

    Parameters
    ----------
    root
        The folder that the files are named from.
    files
        Relative to ``root``.
    name
        Unique in the batch, and the first part of the results' names: subfolders as in ``root``, joined by ``/``.
    home
        The folder of its embryo, relative to ``root``; not that of the files where each focal plane has a folder.
    planes
        The focal planes that the files' folders stand for, if any does.
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
        """Its files, as the reading of folders takes them."""
        home, planes = Path(self.root, self.home), self.planes or (None,) * len(self.files)
        return tuple(Found(path, home, plane) for path, plane in zip(self.paths, planes, strict=True))

    @property
    def source(self) -> str:
        """What a table calls it: the file, or the first of several."""
        return printable(self.files[0])


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A picture that is not done, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Everything a batch will do, known before a pixel is read.

    Parameters
    ----------
    jobs
        In natural order.
    left_out
        Pictures that are not done, each with its reason.
    problems
        Folders and files that cannot be looked at.
    notes
        What was assumed of the files' names.
    out
        Folder for the results.
    settings
        What is done with every image.
    sources
        What the batch was asked to do.
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
    """What could not be done.

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
        """One line for a reader."""
        said = self.reason if os.path.basename(self.file) in self.reason else f"{self.file}: {self.reason}"  # noqa: PTH119 - printable text, not a path
        return f"{said} {self.hint}".strip()


@dataclass(frozen=True)
class Output:
    """A file that was written: its name relative to the folder of results, and its digest."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Parameters
    ----------
    job
        Its name.
    stamp
        Sizes and dates of its files when they were read.
    sha256
        Digest of its files.
    rows
        Of the table of measurements.
    outputs
        Files that were written.
    failures
        What could not be done: all of it where nothing was written, else single pictures.
    notes
        What a user should know.
    doubt
        From 0 to 1, how unsure the network is; None where it does not tell.
    seconds
        How long it took.
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
    """Sizes and dates of a job's files, to tell whether they have changed; empty where one of them is gone."""
    try:
        return _stamp(job)
    except OSError:
        return ""


def _stamp(job: Job) -> str:
    stats = (os.stat(os.path.join(job.root, file)) for file in job.files)  # noqa: PTH116, PTH118 - a million of them
    return ";".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)
