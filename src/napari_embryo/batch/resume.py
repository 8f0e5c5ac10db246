"""Determine the remaining jobs: everything unfinished or changed."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from napari_embryo.batch.folder import JOURNAL, OWN
from napari_embryo.batch.job import Job, Plan, Status, stamp_of
from napari_embryo.batch.journal import Journal, Known
from napari_embryo.io import stored_files

Again = Literal["changed", "failed", "all"]
"""What to process again: only changed images, also failed ones, or everything."""


def left_to_do(
    plan: Plan, journal: Journal, known: Mapping[str, Known], recipe: str, again: Again = "changed"
) -> tuple[Job, ...]:
    """The jobs of a plan without a valid result.

    A result is valid as long as settings, weights and the content of its files are unchanged and its outputs exist.
    """
    if again == "all":
        return plan.jobs
    here = _Files(plan.out)
    return tuple(job for job in plan.jobs if not _is_valid(job, known.get(job.name), journal, here, recipe, again))


def states(plan: Plan) -> dict[str, Status]:
    """How the jobs of a plan ended in earlier runs into the same folder; nothing is written."""
    path = plan.out / OWN / JOURNAL
    if not path.is_file():
        return {}
    with Journal(path) as journal:
        known = journal.states()
    return {job.name: known[job.name] for job in plan.jobs if job.name in known}


def _is_valid(job: Job, known: Known | None, journal: Journal, here: "_Files", recipe: str, again: Again) -> bool:
    if known is None or known.recipe != recipe or (again == "failed" and known.status != "done"):
        return False
    stamp = stamp_of(job)
    if not stamp:
        return False  # the run will report what is wrong
    if stamp != known.stamp:
        if _sizes(stamp) != _sizes(known.stamp) or not known.sha256 or digest_of_files(job) != known.sha256:
            return False
        journal.restamp(job.name, stamp)
    return all(map(here.have, known.outputs))


def _sizes(stamp: str) -> list[str]:
    return [part.partition(":")[0] for part in stamp.split(";")]


def digest_of_files(job: Job) -> str:
    """The sha256 of a job's concatenated files."""
    digest = hashlib.sha256()
    for path in (Path(stored) for file in job.paths for stored in stored_files(str(file))):
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


class _Files:
    """Existing files below a folder; every folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root, self._listed = str(root), dict[str, frozenset[str]]()

    def have(self, name: str) -> bool:
        folder, _, file = name.rpartition("/")
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(f"{self.root}/{folder}"))  # noqa: PTH208
            except OSError:
                self._listed[folder] = frozenset()
        return file in self._listed[folder]
