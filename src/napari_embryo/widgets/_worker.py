"""The only way from the window to computing: long work in a worker thread, with results as layers."""

from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from napari.layers import Layer
from napari.qt.threading import create_worker
from napari.utils.notifications import notification_manager, show_error, show_info, show_warning
from napari.viewer import Viewer
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget
from superqt.utils import GeneratorWorker

from napari_embryo.image import Progress
from napari_embryo.io import LayerData
from napari_embryo.notes import Note
from napari_embryo.widgets._form import NoteLabel

R = TypeVar("R")
Steps = Generator[Progress, None, R]

READABLE = (ValueError, OSError, MemoryError, ImportError)
"""Errors whose message tells the user what is wrong and what to do; any other error is a bug."""


class UnexpectedError(Exception):
    """A bug in the program, shown to the user with its traceback."""


class Job(Generic[R]):
    """A generator in a worker thread; the callbacks are called on the main thread.

    Parameters
    ----------
    work
        Creates the generator.
    on_step
        Called with every :class:`Progress`.
    on_result
        Called with the return value of the generator; not called after canceling.
    on_error
        Called with the exception raised.
    on_end
        Called last, in any case.
    """

    def __init__(
        self,
        work: Callable[[], Steps[R]],
        on_step: Callable[[Progress], None],
        on_result: Callable[[R], None],
        on_error: Callable[[Exception], object],
        on_end: Callable[[], None],
    ) -> None:
        self.canceled = False
        self._left = False
        self._steps = work()
        self._worker = create_worker(
            _plainly, self._steps, _worker_class=GeneratorWorker, _ignore_errors=True, _start_thread=False
        )
        self._worker.yielded.connect(self._unless_left(on_step))
        self._worker.returned.connect(self._unless_left(on_result))
        self._worker.errored.connect(self._unless_left(on_error))
        self._worker.warned.connect(lambda warning: notification_manager.receive_warning(*warning))
        self._worker.finished.connect(self._close)
        self._worker.finished.connect(self._unless_left(on_end))

    def start(self) -> None:
        self._worker.start()

    def cancel(self) -> None:
        """Stop after the current step."""
        self.canceled = True
        self._worker.quit()

    def leave(self) -> None:
        """Stop without callbacks, since the window is closing."""
        self._left = True
        self._worker.quit()

    def _unless_left(self, call: Callable[..., object]) -> Callable[..., None]:
        def called(*values: Any) -> None:
            # napari also asks its workers to quit when the window closes.
            closing = self._worker.abort_requested and not self.canceled
            if not self._left and not closing:
                call(*values)

        return called

    def _close(self) -> None:
        # A canceled generator still holds its files and its network.
        self._steps.close()


def _plainly(steps: Steps[R]) -> Steps[R]:
    # superqt takes a RuntimeError for a deleted window and then never reports the end of the work.
    try:
        return (yield from steps)
    except RuntimeError as error:
        raise UnexpectedError(str(error)) from error


class RunPanel(QWidget):
    """Run and Cancel buttons, progress, and the result in words.

    Parameters
    ----------
    what
        Name of the work, such as "Segmentation".
    on_run
        Called by the Run button.
    """

    def __init__(self, what: str, on_run: Callable[[], None]) -> None:
        super().__init__()
        self._what = what
        self._job: Job[Any] | None = None
        self._last: Progress | None = None
        self._outcome = ""
        self._returned = False
        self._on_cut_short: Callable[[str], None] | None = None
        self._make(on_run)
        # The panel may be partly destroyed when this is called; the list is not.
        self._jobs: list[Job[Any]] = []
        self.destroyed.connect(LeaveAll(self._jobs))

    def _make(self, on_run: Callable[[], None]) -> None:
        self.run_button, self.cancel_button = QPushButton("Run"), QPushButton("Cancel")
        self.bar, self.status = QProgressBar(), NoteLabel()
        self.cancel_button.setEnabled(False)
        self.bar.setVisible(False)
        self.run_button.clicked.connect(lambda _: on_run())
        self.cancel_button.clicked.connect(lambda _: self.cancel())
        self.buttons = QHBoxLayout()
        self.buttons.addWidget(self.run_button)
        self.buttons.addWidget(self.cancel_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self.buttons)
        layout.addWidget(self.bar)
        layout.addWidget(self.status)

    @property
    def running(self) -> bool:
        return self._job is not None

    def start(
        self,
        work: Callable[[], Steps[R]],
        on_step: Callable[[Progress], None],
        on_result: Callable[[R], str],
        on_cut_short: Callable[[str], None] | None = None,
    ) -> None:
        """Run a generator; one at a time.

        Parameters
        ----------
        work
            Creates the generator.
        on_step
            Called with every step.
        on_result
            Called with the return value of the generator; returns a line that summarizes it.
        on_cut_short
            Called last if it was canceled or failed, with the line that says so; may start remaining work.
        """
        if self._job is not None:
            raise ValueError(f"{self._what} is already running; cancel it or wait")
        self._on_cut_short, self._returned = on_cut_short, False
        self._job = Job(work, self._stepping(on_step), self._resulting(on_result), self._fail, self._end)
        self._jobs.append(self._job)
        self._last, self._outcome = None, ""
        self._show_running(True)
        self._job.start()

    def cancel(self) -> None:
        """Stop after the current step; finished results are kept."""
        if self._job is not None:
            self._job.cancel()
            self.cancel_button.setEnabled(False)
            self.status.setText("Canceling after the current step …")

    def refuse(self, reason: Exception | str) -> None:
        """Show why it cannot be started."""
        self.status.setText(str(reason))
        show_error(f"{self._what}: {reason}")

    def _stepping(self, on_step: Callable[[Progress], None]) -> Callable[[Progress], None]:
        def stepped(progress: Progress) -> None:
            self._last = progress
            self._show(progress)
            try:
                on_step(progress)
            except READABLE as error:
                self.cancel()
                self._fail(error)

        return stepped

    def _resulting(self, on_result: Callable[[R], str]) -> Callable[[R], None]:
        def came(result: R) -> None:
            self._returned = True
            try:
                self._outcome = on_result(result)
            except READABLE as error:
                self._fail(error)

        return came

    def _show(self, progress: Progress) -> None:
        self.bar.setRange(0, progress.total if progress.done else 0)
        self.bar.setValue(progress.done)
        if self._job is not None and not self._job.canceled:
            count = f"{progress.done} of {progress.total}: " if progress.done else ""
            self.status.setText(count + progress.message)

    def _fail(self, error: Exception) -> None:
        self._outcome = tell(error, self._what)

    def _end(self) -> None:
        job, self._job = self._job, None
        self._jobs.clear()
        self._show_running(False)
        self.status.setText(self._outcome or (self._canceled() if job and job.canceled else ""))
        if self._on_cut_short is not None and not self._returned:
            self._on_cut_short(self.status.text())

    def _canceled(self) -> str:
        if self._last is None or not self._last.done:
            return "Canceled before anything was done."
        return f"Canceled: {self._last.done} of {self._last.total} done and kept."

    def _show_running(self, running: bool) -> None:
        self.run_button.setEnabled(not running)
        self.cancel_button.setEnabled(running)
        self.bar.setRange(0, 0)
        self.bar.setVisible(running)
        self.status.setText("Starting …" if running else "")


class LeaveAll:
    """Stop the jobs in a list that outlives its widget; called when the widget is destroyed."""

    def __init__(self, jobs: list[Job[Any]]) -> None:
        self._jobs = jobs

    def __call__(self, *_: Any) -> None:
        for job in self._jobs:
            # On exit Qt may already have deleted the worker.
            with suppress(RuntimeError):
                job.leave()


def tell(error: Exception, what: str) -> str:
    """Show an error to the user and return the line shown."""
    if isinstance(error, READABLE):
        said = f"{what} stopped: {str(error) or type(error).__name__}"
        show_error(said)
        return said
    cause = error.__cause__ if isinstance(error, UnexpectedError) and error.__cause__ else error
    said = (
        f"{what} stopped by an unexpected {type(cause).__name__}: {cause}. "
        "Please report it with the traceback that napari shows with this message."
    )
    bug = UnexpectedError(said)
    bug.__cause__ = cause
    notification_manager.receive_error(UnexpectedError, bug, cause.__traceback__)
    return said


def add_layer(viewer: Viewer, layer_data: LayerData) -> Layer:
    """Add a layer; napari numbers a name that is taken, so nothing is replaced."""
    layer = Layer.create(*layer_data)
    viewer.add_layer(layer)
    return layer


def show(notes: Iterable[Note]) -> None:
    """Show notes as napari notifications, each at its level."""
    for note in notes:
        (show_warning if note.level == "warning" else show_info)(note.text)
