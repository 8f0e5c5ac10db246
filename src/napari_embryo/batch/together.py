"""Process images as one stream through one network: open ahead, segment in shared batches, write, and report."""

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_embryo import io
from napari_embryo.batch.job import LEFT_OUT, Job, Outcome, Output, Problem, Row, printable, stamp_of
from napari_embryo.batch.names import safe_part
from napari_embryo.batch.resume import digest_of_files
from napari_embryo.image import Cells, EmbryoImage, Finding
from napari_embryo.notes import Failure, Note
from napari_embryo.settings import BatchSettings

if TYPE_CHECKING:
    from napari_embryo.pipeline import ImageResult
    from napari_embryo.predict import Predictor


@dataclass
class _Case:
    """A job in progress."""

    job: Job
    weights: str
    start: float = field(default_factory=time.perf_counter)
    stamp: str = ""
    sha256: str = ""
    opened: int = 0
    ended: int = 0
    is_open: bool = True
    rows: list[Row] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    failures: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    doubts: list[float] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return not self.is_open and self.ended == self.opened

    def fail(self, step: str, reason: str, hint: str = "") -> None:
        """Record a failure."""
        self.failures.append(Problem(self.job.source, step, reason, hint))

    def take(self, image: EmbryoImage, result: "ImageResult", out: Path) -> None:
        """Record a finished image."""
        self.ended += 1
        if result.reason is not None and not any(result.reason in failure.reason for failure in self.failures):
            self.fail("writing", result.reason)
        origin: Row = {"weights": self.weights, "date": datetime.now(UTC).isoformat(timespec="seconds")}
        self.rows += [{**row, "file": self._file_of(row, image), **origin} for row in result.rows]
        self.outputs += [Output(file.relative_to(out).as_posix(), _digest(file)) for file in result.files]

    def _file_of(self, row: Row, image: EmbryoImage) -> str:
        """The file of the plane of a row."""
        from napari_embryo.pipeline import file_names

        index = tuple(int(row[name] or 0) for name in ("frame", "plane") if name in row)
        place = int(np.ravel_multi_index(index, image.shape[:-2])) if index else 0
        name = file_names(image)[place]
        if name is None:
            return self.job.source
        home = os.path.commonpath([os.path.dirname(file) for file in self.job.files])  # noqa: PTH120
        return printable(f"{home}/{name}" if home else name)

    def outcome(self, out: Path) -> Outcome:
        """The outcome of the job."""
        self._check_unchanged(out)
        seconds = time.perf_counter() - self.start
        doubt = float(np.mean(self.doubts)) if self.doubts else None
        rows, outputs = tuple(self.rows), tuple(self.outputs)
        failures, notes = tuple(self.failures), tuple(dict.fromkeys(self.notes))
        return Outcome(self.job.name, self.stamp, self.sha256, rows, outputs, failures, notes, doubt, seconds)

    def _check_unchanged(self, out: Path) -> None:
        """Discard results of a file that is still being written."""
        stamp = stamp_of(self.job)
        if stamp and self.stamp and stamp != self.stamp:
            self.fail("reading", "the file was changed while it was being read.", "Start the batch again.")
            self.stamp = ""  # so that it is processed again
            for output in self.outputs:
                (out / output.name).unlink(missing_ok=True)
            self.rows, self.outputs = [], []


def together(
    jobs: Sequence[Job], predictor: "Predictor", settings: BatchSettings, out: Path, weights: str
) -> Iterator[Outcome | None]:
    """Process jobs in order; yield the outcome of each, and None for every plane in between.

    Parameters
    ----------
    jobs
        The jobs.
    predictor
        The network.
    settings
        How to process them.
    out
        Folder for the results.
    weights
        Name of the network in the table.
    """
    from napari_embryo.pipeline import ImageResult, PlaneResult, segment_all_to_files

    cases: deque[_Case] = deque()
    of_image: dict[str, _Case] = {}
    images = _opened(jobs, settings, cases, of_image, weights)
    stems = ((image, _stem(out, image.name)) for image in images)
    told = len(predictor.notes)
    for image, progress in segment_all_to_files(stems, predictor, overlays=settings.overlays):
        case = of_image[image.name]
        case.notes += predictor.notes[told:]
        told = len(predictor.notes)
        match progress.item:
            case ImageResult() as result:
                case.take(image, result, out)
            case Failure() as failure:
                case.fail("reading", failure.reason)
            case PlaneResult() as result:
                case.doubts.append(doubt_of(result.finding))
        yield None
        while cases and cases[0].is_complete:
            yield cases.popleft().outcome(out)
    for case in cases:
        yield case.outcome(out)


def _stem(out: Path, name: str) -> Path:
    stem = out / name
    stem.parent.mkdir(parents=True, exist_ok=True)
    return stem


def _opened(
    jobs: Sequence[Job], settings: BatchSettings, cases: deque[_Case], of_image: dict[str, _Case], weights: str
) -> Iterator[EmbryoImage]:
    """Open every image in turn; failures are recorded in their jobs."""
    for job in jobs:
        case = _Case(job, weights)
        cases.append(case)
        try:
            case.stamp, case.sha256 = stamp_of(job), digest_of_files(job)
            planned = io.plan_group(job.found, settings.grouping)
            pictures = tuple(image for image in planned.images if image.header.role == "picture")
            edited = replace(planned, images=pictures).edited(_choices(settings)) if pictures else planned
        except (OSError, ValueError) as error:
            case.fail("reading", str(error))
        else:
            for problem in planned.problems:
                case.fail("reading", problem)
            if (whole := io.part_of(planned)) is not None:
                case.fail(LEFT_OUT, f"a part of {whole.name}, which is opened as a whole.")
                pictures = ()
            elif planned.images and not pictures:
                case.fail(LEFT_OUT, "a file of results or labels, not an image of an embryo.")
            yield from _images(edited.images if pictures else (), case, of_image)
        case.is_open = False


def _images(planned: Sequence[io.PlannedImage], case: _Case, of_image: dict[str, _Case]) -> Iterator[EmbryoImage]:
    from napari_embryo.pipeline import with_files

    for one in planned:
        try:
            image = io.open_image(one)
        except (OSError, ValueError) as error:
            case.fail("reading", str(error))
            continue
        name = case.job.name if len(planned) == 1 else f"{case.job.name}_{safe_part(one.name)}"
        case.notes += (Note("info", text) for text in one.notes)
        for problem in one.problems:
            case.fail("reading", problem)
        case.opened += 1
        of_image[name] = case
        yield with_files(image.with_data(image.data, name=name), one)


def _choices(settings: BatchSettings) -> io.OpenChoices:
    names = (field.name for field in fields(io.OpenChoices))
    return io.OpenChoices(**{name: getattr(settings, name) for name in names})


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_UNSURE = (0.2, 0.8)
"""Probabilities between these count as uncertain."""


def doubt_of(found: Finding) -> float:
    """Uncertainty of a network about an image, from 0 to 1; 1 if it found nothing.

    For parts: the share of uncertain pixels among those that may belong to one. For cells: one minus the mean score.
    """
    if isinstance(found, Cells):
        return 1 - float(found.scores.mean()) if len(found.scores) else 1.0
    some = found.probabilities[:, ::2, ::2]
    low, high = _UNSURE
    inside = np.count_nonzero(some > low)
    return np.count_nonzero((some > low) & (some < high)) / inside if inside else 1.0
