"""Work of a worker: open the images of jobs, segment them together, write and report the outcomes."""

import hashlib
import json
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from napari_embryo import library
from napari_embryo.batch.folder import is_disk_full
from napari_embryo.batch.job import Job, Outcome, Plan, Problem, stamp_of
from napari_embryo.batch.together import together
from napari_embryo.notes import Note
from napari_embryo.settings import BatchSettings, SegmentSettings

if TYPE_CHECKING:
    from napari_embryo.predict import Predictor


@dataclass(frozen=True)
class Work:
    """Information for every worker.

    Parameters
    ----------
    out
        Folder for the results.
    settings
        Settings with the path of the weights instead of their name.
    weights
        Name of the weights as given by the user.
    weights_sha256
        Digest of their file.
    recipe
        Digest of everything that a result depends on besides the image.
    """

    out: Path
    settings: BatchSettings
    weights: str
    weights_sha256: str
    recipe: str


@dataclass(frozen=True)
class Started:
    """A worker is ready; names its device."""

    device: str
    family: str
    weights: str
    notes: tuple[Note, ...] = ()


def work_of(plan: Plan) -> Work:
    """Information for the workers of a plan.

    Raises
    ------
    FileNotFoundError
        If there are no such weights.
    """
    segment = plan.settings.segment
    digest = _sha256(segment)
    return Work(plan.out.absolute(), plan.settings, segment.weights, digest, recipe_of(plan.settings, digest))


def _sha256(settings: SegmentSettings) -> str:
    with library.find(settings.weights, settings.family).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recipe_of(settings: BatchSettings, weights_sha256: str) -> str:
    """Digest of everything that a result depends on besides the image: settings and weights."""
    said = settings.model_dump(mode="json", exclude={"include", "exclude"})
    for name in ("device", "batch_size", "weights", "family"):  # give the same result, or follow from the digest
        del said["segment"][name]
    return hashlib.sha256(json.dumps([said, weights_sha256], sort_keys=True).encode()).hexdigest()[:16]


def prepare(work: Work) -> Iterator[Started]:
    """Load the network and check the settings before any image is opened."""
    predictor = loaded(work.settings.segment, work.weights_sha256)
    weights = f"{work.weights} ({work.weights_sha256[:12]})"
    yield Started(str(predictor.device), predictor.family.name, weights, tuple(predictor.notes))


@lru_cache(maxsize=1)
def loaded(settings: SegmentSettings, sha256: str) -> "Predictor":
    """Load the network once per process.

    Raises
    ------
    ValueError
        If this computer has different weights of that name.
    """
    from napari_embryo.pipeline import load_predictor

    own = _sha256(settings)
    if own != sha256:
        raise ValueError(
            f"{settings.weights}: a worker has different weights of that name (sha256 {own[:12]}, not {sha256[:12]}); "
            "install the same version everywhere, or give the path of a checkpoint that all workers can read"
        )
    return load_predictor(settings)


def segment_jobs(work: Work, jobs: Sequence[Job]) -> Iterator[Outcome | None]:
    """Segment the images of some jobs and write the results.

    Yields an outcome per job, and None for every plane in between.

    Raises
    ------
    OSError
        If there is no disk space for the results.
    """
    left = {job.name: job for job in jobs}
    try:
        predictor = loaded(work.settings.segment, work.weights_sha256)
        for item in together(jobs, predictor, work.settings, work.out, _named(work)):
            if item is not None:
                del left[item.job]
            yield item
    except Exception as error:  # whatever one image raises must not end the others
        if is_disk_full(error):
            raise
        if len(jobs) > 1:
            for job in left.values():
                yield from segment_jobs(work, [job])
        else:
            yield Outcome(jobs[0].name, stamp_of(jobs[0]), failures=(_failure_of(error, jobs[0].source),))


def _named(work: Work) -> str:
    return f"{work.weights} {work.weights_sha256[:12]}"


_STEPS = {
    "napari_embryo.io.ome": "writing",
    "napari_embryo.io.atomic": "writing",
    "napari_embryo.io": "reading",
    "napari_embryo.geometry": "segmenting",
    "napari_embryo.models": "segmenting",
    "napari_embryo.predict": "segmenting",
    "napari_embryo.explain": "explaining",
    "napari_embryo.tracking": "measuring",
    "napari_embryo.measure": "measuring",
    "napari_embryo.render": "drawing",
}
_HINTS = {
    "reading": "Export or copy the file again, or save it as TIFF with another program.",
    "writing": "Check that the folder of results is still writable.",
}
_ASK = "Please report it, with the file if you may share it."


def _failure_of(error: Exception, file: str) -> Problem:
    """Message for an unexpected error."""
    step = step_of(error)
    said = " ".join(str(error).split())[:300]
    reason = said if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {said}"
    return Problem(file, step, reason, _HINTS.get(step, _ASK))


def step_of(error: BaseException) -> str:
    """The step that raised an error, derived from the innermost module in its traceback."""
    step = "working on it"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__", ""))
        step = next((step for module, step in _STEPS.items() if f"{name}.".startswith(f"{module}.")), step)
    return step
