"""``train --stream``: training with JSON lines as output, controlled by pause, resume and stop."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_embryo import library, recipes, stream
from napari_embryo.image import Progress
from napari_embryo.notes import Note
from napari_embryo.settings import Recipe
from napari_embryo.stream import Finished

Say = Callable[[stream.Event], None]
FINISHED_ALREADY = Note("info", "this training had already finished; nothing is left to learn")
FAILURES = (OSError, ValueError, ArithmeticError, MemoryError)
"""Errors of a training run that a user can fix: files, settings, a non-finite loss, memory."""


def follow(
    steps: Generator[Progress, None, Finished],
    out: Path,
    is_stopped: Callable[[], bool],
    tell: Callable[[Progress], None],
) -> Finished:
    """Run to the end, or until ``is_stopped``, which is called before every step and may wait."""
    has_learned = False
    try:
        while not is_stopped():
            progress = next(steps)
            has_learned = has_learned or not isinstance(progress.item, Note)
            tell(progress)
    except StopIteration as end:
        if not has_learned:
            tell(Progress(0, 0, FINISHED_ALREADY.text, FINISHED_ALREADY))
        outcome: Finished = end.value
        return outcome
    finally:
        steps.close()
    from napari_embryo import train

    return train.stopped(out)


def add_best(outcome: Finished, name: str) -> Path | None:
    """Add the best weights to the user's models, unless an earlier part of the training has done so.

    Returns
    -------
    Path or None
        The model; None if no epoch was finished.

    Raises
    ------
    OSError
        If they cannot be added; the message says where they are.
    """
    if not outcome.best_epoch or outcome.best is None:
        return None
    try:
        return library.copy_of(outcome.best) or library.add_to_library(outcome.best, name)
    except (OSError, ValueError) as error:
        raise OSError(
            f"the best weights could not be added to your models ({error}); they are in {outcome.best.resolve()}"
        ) from error


def train(order: Callable[[], tuple[Recipe, Path]], resume: bool) -> int:
    """Train and write events; return the exit code.

    Parameters
    ----------
    order
        Returns the recipe and the folder; its errors are reported like all others.
    resume
        Resume the run there.
    """
    with _lines() as (write, is_read):
        orders = Orders()
        say: Say = lambda event: write(stream.encode(event))  # noqa: E731 - a name for what it does
        orders.listen()
        try:
            _train(*order(), resume, orders, say, is_read)
        except FAILURES as error:
            say(stream.Error(message=str(error)))
            return 1
    return 0


def _train(
    recipe: Recipe,
    out: Path,
    resume: bool,
    orders: "Orders",
    say: Say,
    is_read: Callable[[], bool],
) -> None:
    prepared = recipes.prepare(recipe)
    say(stream.Report(text=prepared.text, rows=tuple(dict(row) for row in prepared.report.rows)))
    steps = recipes.run(prepared, out, resume)
    outcome = follow(steps, out, lambda: not is_read() or orders.is_stopped(say), lambda p: say(told(p)))
    say(outcome.model_copy(update={"added": _added(outcome, recipe.name, say)}))


def _added(outcome: Finished, name: str, say: Say) -> Path | None:
    """The training is done even if its weights cannot be added to the models."""
    try:
        return add_best(outcome, name)
    except OSError as error:
        say(stream.Noted(note=Note("warning", str(error))))
        return None


def told(progress: Progress) -> stream.Event:
    """Convert what training yields to an event."""
    match progress.item:
        case stream.Step() | stream.Epoch() as event:
            return event
        case Note() as note:
            return stream.Noted(note=note)
    raise TypeError(f"a training yielded {progress.item!r}; a step, an epoch or a note was expected")


class Orders:
    """Commands from standard input; its end, or Ctrl-C, means stop."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._paused = self._stopped = False

    def listen(self) -> None:
        """Start listening in a thread that ends with the program."""
        signal.signal(signal.SIGINT, lambda *_: self.take("stop"))
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def _listen(self) -> None:
        for line in _raw_lines(0):
            self.take(line.strip())
        self.take("stop")

    def take(self, order: str) -> None:
        """Handle one command; unknown ones are ignored."""
        with self._changed:
            self._paused = order == "pause" if order in ("pause", "resume") else self._paused
            self._stopped = self._stopped or order == "stop"
            self._changed.notify_all()

    def is_stopped(self, say: Say) -> bool:
        """Whether to stop; waits while paused and reports it."""
        with self._changed:
            if self._paused and not self._stopped:
                say(stream.Paused())
                self._changed.wait_for(lambda: self._stopped or not self._paused)
                if not self._stopped:
                    say(stream.Resumed())
            return self._stopped


def _raw_lines(descriptor: int) -> Iterator[str]:
    """Lines of a file descriptor; Python's own reader would hold a lock that makes the program end with an error."""
    waiting = b""
    while chunk := _read(descriptor):
        *lines, waiting = (waiting + chunk).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in lines)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # closed by the other side
        return b""


@contextmanager
def _lines() -> Iterator[tuple[Callable[[str], None], Callable[[], bool]]]:
    """Reserve standard output for our lines; output of libraries goes to standard error.

    Yields a function that writes a line and one that tells whether anybody still reads.
    """
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    gone = threading.Event()

    def write(line: str) -> None:
        try:
            _write_all(own, f"{line}\n".encode())
        except OSError:  # the observer is gone; the end of its input stops the training
            gone.set()

    try:
        yield write, lambda: not gone.is_set()
    finally:
        os.dup2(own, 1)
        os.close(own)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
