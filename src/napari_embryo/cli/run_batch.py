"""Shared by ``segment`` and ``batch``: run a plan and report progress in words or as JSON lines."""

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Protocol

from rich.progress import Progress as Bar

from napari_embryo import measure
from napari_embryo.batch import Again, Outcome, Plan, Started, StoppedError, Summary, Workers, run
from napari_embryo.batch.job import LEFT_OUT
from napari_embryo.cli.terminal import bar as make_bar
from napari_embryo.cli.terminal import console, print_notes
from napari_embryo.image import Progress
from napari_embryo.notes import RESEARCH_USE, counted

INTERRUPTED = 130
"""Exit code that shells expect of a program stopped with Ctrl-C."""

_SHOWN = 20
"""Largest number of lines of one kind in the terminal; the files list all."""


class Teller(Protocol):
    """Reports progress to a user or a scheduler."""

    def planned(self, plan: Plan) -> None:
        """Report before the first image."""

    def step(self, progress: Progress) -> None:
        """Report a step of the run."""

    def ended(self, plan: Plan, summary: Summary) -> None:
        """Report the end of the run."""

    def stopped(self, reason: str, left: int) -> None:
        """Report that the run has ended early."""


def run_batch(plan: Plan, workers: Workers, again: Again, teller: Teller) -> int:
    """Run a plan and return the exit code.

    Returns
    -------
    int
        0 if every image was processed, 1 if some were not, 2 if none was, 130 after Ctrl-C or a request to end.
    """
    teller.planned(plan)
    last = Progress(0, len(plan.jobs), "")
    with interruptible(), closing(run(plan, workers, again)) as steps:
        try:
            while True:
                last = next(steps)
                teller.step(last)
        except StopIteration as finished:
            summary: Summary = finished.value
        except KeyboardInterrupt:
            teller.stopped("Interrupted", last.total - last.done)
            return INTERRUPTED
        except StoppedError as error:
            teller.stopped(str(error), last.total - last.done)
            return 1
    teller.ended(plan, summary)
    if not summary.done + summary.partly_done:
        return 2
    return 1 if summary.failed or summary.partly_done or plan.problems else 0


@contextmanager
def interruptible() -> Iterator[None]:
    """Treat a request to end, such as one sent by a scheduler, like Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread, which gets no signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Words:
    """Output for people: a progress bar, then a summary.

    Parameters
    ----------
    is_for_few
        Also report what was found in every image.
    """

    def __init__(self, is_for_few: bool = False) -> None:
        self.is_for_few, self._found, self._failures = is_for_few, list[str](), list[str]()
        self._bar: Bar | None = None

    def planned(self, plan: Plan) -> None:
        stacks = [job for job in plan.jobs if job.why]
        for job in stacks[:_SHOWN]:
            console.print(f"{job.name}: {counted(len(job.files), 'file')} as one image ({job.why})", markup=False)
        if len(stacks) > _SHOWN:
            console.print(f"... and {len(stacks) - _SHOWN} more images of several files")
        print_notes(plan.notes)
        for reason, left in groupby(sorted(plan.left_out, key=lambda each: each.reason), key=lambda each: each.reason):
            paths = [each.path for each in left]
            console.print(f"left out: {counted(len(paths), 'file')} ({reason}), such as {paths[0]}", markup=False)

    def step(self, progress: Progress) -> None:
        match progress.item:
            case Started() as started:
                console.print(f"{started.family} on {started.device}, weights {started.weights}", markup=False)
                print_notes(started.notes)
                self._bar = make_bar()
                self._bar.start()
                self._bar.add_task("images", total=progress.total)
            case Outcome() as outcome:
                self._failures += [failure.text() for failure in outcome.failures if failure.step != LEFT_OUT]
                self._found += _found(outcome) if self.is_for_few else ()
        if self._bar is not None:
            self._bar.update(self._bar.tasks[0].id, completed=progress.done)

    def ended(self, plan: Plan, summary: Summary) -> None:
        self._close()
        for line in self._found:
            console.print(line, markup=False)
        print_notes(summary.notes)
        failures = [*(problem.text() for problem in plan.problems), *self._failures]
        done, failed = summary.done + summary.partly_done, summary.failed + len(plan.problems)
        if summary.left_out:
            console.print(f"left out: {counted(summary.left_out, 'file')} of results or labels; see not_done.csv")
        before = f" ({summary.skipped} of them before, unchanged)" if summary.skipped else ""
        console.print(
            f"{counted(done, 'image')} done{before}, {failed} failed; results in {plan.out.resolve()}", markup=False
        )
        for failure in failures[:_SHOWN]:
            console.print(f"failed: {escaped(failure)}", style="red", markup=False)
        if len(failures) > _SHOWN:
            console.print(f"... and {len(failures) - _SHOWN} more; see not_done.csv and contact_sheet.html")
        if summary.failed and not self._failures:
            console.print("Images that failed before were not tried again; use --retry-failed.")
        console.print(RESEARCH_USE, style="dim")

    def stopped(self, reason: str, left: int) -> None:
        self._close()
        console.print(f"{reason}: {counted(left, 'image')} left. The same command continues with them.", markup=False)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def escaped(text: str) -> str:
    """Text on one line, whatever a file name contains."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _found(outcome: Outcome) -> Iterator[str]:
    """Print the number of cells, or that mask and regression differ by more than one grade."""
    for name, rows in groupby(outcome.rows, key=itemgetter("image")):
        own: Sequence[Any] = list(rows)
        if counted_cells := measure.cells_said(own):
            yield f"{name}: {counted_cells}"
        if far_apart := measure.far_apart_said(own):
            yield f"warning: {name}: {far_apart}"
    yield from (replace(note, text=f"{outcome.job}: {note.text}").line for note in outcome.notes)


class JsonLines:
    """Output for schedulers: one JSON object per line on standard output."""

    def planned(self, plan: Plan) -> None:
        self._say(
            "plan", images=len(plan.jobs), left_out=len(plan.left_out), problems=[p.text() for p in plan.problems]
        )

    def step(self, progress: Progress) -> None:
        match progress.item:
            case Started() as started:
                self._say("started", total=progress.total, device=started.device, weights=started.weights)
            case Outcome() as outcome:
                self._say(
                    "image",
                    done=progress.done,
                    total=progress.total,
                    image=outcome.job,
                    status=outcome.status,
                    seconds=round(outcome.seconds, 3),
                    reasons=[failure.text() for failure in outcome.failures],
                )

    def ended(self, plan: Plan, summary: Summary) -> None:
        self._say(
            "finished",
            done=summary.done,
            partly_done=summary.partly_done,
            failed=summary.failed,
            left_out=summary.left_out,
            skipped=summary.skipped,
            out=str(plan.out.resolve()),
        )

    def stopped(self, reason: str, left: int) -> None:
        self._say("stopped", reason=reason, left=left)

    def _say(self, event: str, **about: Any) -> None:
        sys.stdout.write(json.dumps({"event": event, **about}) + "\n")
        sys.stdout.flush()


def print_plan(plan: Plan, most: int = 200) -> None:
    """List what would be done, without doing it."""
    Words().planned(plan)
    for job in islice(plan.jobs, most):
        console.print(f"{escaped(job.source)} -> {job.name}", markup=False)
    if len(plan.jobs) > most:
        console.print(f"... and {len(plan.jobs) - most} more")
    for problem in plan.problems:
        console.print(f"cannot be processed: {escaped(problem.text())}", style="red", markup=False)
    console.print(f"{counted(len(plan.jobs), 'image')} to do, {counted(len(plan.left_out), 'file')} left out")
