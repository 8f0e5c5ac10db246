"""Run a plan: distribute remaining jobs over workers, record outcomes, and report them one by one."""

import os
import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_embryo.batch.executors import Workers
from napari_embryo.batch.folder import JOURNAL, OWN, claimed, is_disk_full, remove_leftovers, set_aside
from napari_embryo.batch.job import Job, Outcome, Plan, Problem, stamp_of
from napari_embryo.batch.journal import Journal, Known
from napari_embryo.batch.pool import WorkerError
from napari_embryo.batch.record import write_record
from napari_embryo.batch.resume import Again, left_to_do
from napari_embryo.batch.sheet import write_sheet
from napari_embryo.batch.tables import MEASUREMENTS, Tables
from napari_embryo.batch.work import Started, Work, prepare, segment_jobs, work_of
from napari_embryo.image import Progress
from napari_embryo.notes import Note

CHUNK = 16
"""Largest number of images per task: small images share batches, and the scheduler has less to do."""
_BEAT = 0.5
"""Seconds after which a step is yielded even without results, so that a run can be canceled."""

Do = Callable[[Work, Sequence[Job]], Iterable[Outcome | None]]
Ready = Callable[[Work], Iterable[Started]]


class StoppedError(OSError):
    """The run cannot continue, because all other images would fail as well; finished results are kept."""


@dataclass(frozen=True)
class Summary:
    """Summary of a run.

    Parameters
    ----------
    done, partly_done, failed, left_out
        Number of images of the plan by state, including earlier runs.
    skipped
        Images processed before and unchanged.
    notes
        Messages for the user.
    """

    done: int
    partly_done: int
    failed: int
    left_out: int
    skipped: int
    notes: tuple[Note, ...] = ()


def run(
    plan: Plan, workers: Workers, again: Again = "changed", do: Do = segment_jobs, ready: Ready = prepare
) -> Generator[Progress, None, Summary]:
    """Process the rest of a plan.

    Each :class:`Progress` carries the :class:`Started` of the workers, then an :class:`Outcome` per image, or nothing
    while waiting. Close the generator to stop: finished results are kept, and the next run continues from there.

    Parameters
    ----------
    plan
        From :func:`plan`.
    workers
        From :mod:`napari_embryo.batch.executors`; shut down at the end.
    again
        What to process again.
    do
        Processes jobs in a worker; yields an outcome for each, and None for every plane in between.
    ready
        Prepares a worker; an error here ends the run before any image is opened.

    Raises
    ------
    BusyError
        If another run is writing to the folder.
    StoppedError
        If the disk is full, or a folder is gone.
    """
    work = work_of(plan)
    try:
        # Errors in the settings are reported before anything is written to a new folder.
        started = None if (plan.out / OWN).exists() or not plan.jobs else _started(workers, ready, work)
        with claimed(plan.out) as own, Journal(own / JOURNAL) as journal:
            remove_leftovers(plan.out, _folders(plan))
            write_record(plan, work)
            known = journal.known()
            notes = () if known else set_aside(plan.out / MEASUREMENTS)
            todo = left_to_do(plan, journal, known, work.recipe, again)
            tables = Tables(plan, journal)
            try:
                if todo:
                    yield Progress(0, len(todo), "Computing …", started or _started(workers, ready, work))
                    yield from _follow(_Spread(work, todo, workers, do), journal, tables, known)
            except sqlite3.OperationalError as error:
                raise StoppedError(f"{plan.out}: the journal cannot be written ({error}). {_GO_ON}") from error
            finally:
                workers.shutdown(wait=True, cancel_futures=True)
                remove_leftovers(plan.out, _folders(plan))
                tables.finish()
            return _finish(plan, journal, tables, len(plan.jobs) - len(todo), notes)
    finally:
        workers.shutdown(wait=True, cancel_futures=True)


def _started(workers: Workers, ready: Ready, work: Work) -> Started:
    """Wait until a worker is ready; an error that affects every image is raised here."""
    (started,) = workers.submit(ready, work).result()
    return started  # type: ignore[no-any-return]


def _follow(
    spread: "_Spread", journal: Journal, tables: Tables, known: Mapping[str, Known]
) -> Generator[Progress, None, None]:
    """Record and report outcomes."""
    plan, total, done = tables.plan, len(spread.todo), 0
    for outcomes in spread.outcomes():
        for outcome in outcomes:
            _check_folders(outcome, plan)
            _remove_old(plan.out, known.get(outcome.job), outcome)
            journal.record(outcome, spread.work.recipe)
            done += 1
            yield Progress(done, total, outcome.job, outcome)
        tables.refresh()
        if not outcomes:
            yield Progress(done, total, "")


def _remove_old(out: Path, before: Known | None, outcome: Outcome) -> None:
    """Remove outputs of an earlier run that this one did not write, since they belong to another network or file."""
    for name in set(before.outputs if before else ()) - {output.name for output in outcome.outputs}:
        (out / name).unlink(missing_ok=True)


def _check_folders(outcome: Outcome, plan: Plan) -> None:
    """Stop if a whole folder is gone, since every other image would fail as well."""
    if not outcome.failures:
        return
    gone = next((path for path in (*plan.sources, plan.out) if not os.path.exists(path)), None)  # noqa: PTH110
    if gone is not None:
        raise StoppedError(f"{gone} is gone; was a drive unplugged? {_GO_ON}")


_GO_ON = "Fix that and start the same batch again: it continues with the rest."


def _folders(plan: Plan) -> set[str]:
    return {job.name.rpartition("/")[0] for job in plan.jobs}


@dataclass(frozen=True)
class _Task:
    jobs: tuple[Job, ...]
    attempt: int = 1


class _Spread:
    """Keeps the workers busy, a few tasks ahead, and ensures one outcome per job."""

    def __init__(self, work: Work, todo: Sequence[Job], workers: Workers, do: Do) -> None:
        self.work, self.todo, self._workers = work, todo, workers
        self._do = do
        self._waiting = deque(_chunks(todo, workers.size))
        self._running: dict[Future[Any], _Task] = {}
        self._stopped: StoppedError | None = None

    def outcomes(self) -> Iterator[list[Outcome]]:
        """Outcomes as they arrive; an empty list while waiting."""
        while self._waiting or self._running:
            self._submit()
            done, _ = wait(self._running, timeout=_BEAT, return_when=FIRST_COMPLETED)
            yield [outcome for future in done for outcome in self._ended(future, self._running.pop(future))]
            if self._stopped is not None:
                raise self._stopped

    def _submit(self) -> None:
        """Submit two tasks per worker, unless results are ready and waiting."""
        while self._waiting and len(self._running) < 2 * self._workers.size:
            task = self._waiting.popleft()
            future = self._workers.submit(self._do, self.work, task.jobs)
            self._running[future] = task
            if future.done():
                return

    def _ended(self, future: "Future[Any]", task: _Task) -> list[Outcome]:
        error = future.exception()
        came = future.result() if error is None else getattr(error, "came", [])
        outcomes = [item for item in came if item is not None]
        told = {outcome.job for outcome in outcomes}
        left = tuple(job for job in task.jobs if job.name not in told)
        if error is None or not left:
            return outcomes
        if is_disk_full(error):
            self._stopped = StoppedError(f"disk full: no room for results in {self.work.out}. {_GO_ON}")
        elif len(task.jobs) > 1:
            self._waiting.extendleft(_Task((job,)) for job in reversed(left))
        elif task.attempt == 1 and not getattr(error, "is_overdue", False):
            # A process may be ended for reasons other than its image, such as by an administrator.
            self._waiting.append(_Task(left, 2))
        else:
            outcomes.append(_lost(left[0], error))
        return outcomes


def _chunks(jobs: Sequence[Job], n_workers: int) -> Iterator[_Task]:
    """Group single files into chunks small enough that all workers end together; stacks are separate."""
    size = max(1, min(CHUNK, len(jobs) // (4 * n_workers)))
    chunk: list[Job] = []
    for job in jobs:
        if len(job.files) > 1:
            yield _Task((job,))
            continue
        chunk.append(job)
        if len(chunk) == size:
            yield _Task(tuple(chunk))
            chunk = []
    if chunk:
        yield _Task(tuple(chunk))


def _lost(job: Job, error: BaseException) -> Outcome:
    """Outcome of an image whose process ended."""
    reason = str(error) if isinstance(error, WorkerError) else f"{type(error).__name__}: {error}"
    hint = "Open the file by itself to see what is wrong with it."
    return Outcome(job.name, stamp_of(job), failures=(Problem(job.source, "working on it", reason, hint),))


def _finish(plan: Plan, journal: Journal, tables: Tables, skipped: int, notes: tuple[Note, ...]) -> Summary:
    """Write the final files and return the summary."""
    tables.write_workbook()
    write_sheet(plan, journal)
    count = journal.count(job.name for job in plan.jobs)
    return Summary(count["done"], count["partly done"], count["failed"], count["left out"], skipped, notes)
