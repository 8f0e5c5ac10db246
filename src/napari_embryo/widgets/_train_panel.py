"""The buttons of a training run, and the question before closing."""

from collections.abc import Callable
from typing import Any
from weakref import ref

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QMainWindow, QMessageBox, QPushButton, QWidget

from napari_embryo.image import Progress
from napari_embryo.widgets._train_process import Child
from napari_embryo.widgets._worker import RunPanel


class TrainPanel(RunPanel):
    """Train, Pause and Stop; the process is asked to stop and keeps its results.

    Parameters
    ----------
    on_run
        Called by the Train button.
    on_end
        Called when a training run has ended, in whatever way.
    """

    def __init__(self, on_run: Callable[[], None], on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        # The panel may be partly destroyed when this is called; the list is not.
        self._children: list[Child] = []
        super().__init__("Training", on_run)
        self.destroyed.connect(_CloseAll(self._children))

    @property
    def child(self) -> Child | None:
        """The training process."""
        return self._children[0] if self._children else None

    def follow(self, child: Child) -> None:
        """The process started by this panel, controlled by Pause and Stop."""
        self._children[:] = [child]
        self._stopping = False

    def cancel(self) -> None:
        """Stop after the current step; best and last are kept."""
        if self.child is None:
            super().cancel()
            return
        self._stopping = True
        self.child.stop()
        self.cancel_button.setEnabled(False)
        self.pause_button.setEnabled(False)
        self.status.setText("Stopping after the current step; the best and the last state are kept …")

    def set_paused(self, paused: bool) -> None:
        """Handle a message of the process."""
        self.pause_button.setText("Resume" if paused else "Pause")
        self.pause_button.setEnabled(self.running and not self._stopping)

    def _pause_or_resume(self) -> None:
        if self.child is not None:
            self.child.resume() if self.pause_button.text() == "Resume" else self.child.pause()
            self.pause_button.setEnabled(False)

    def _make(self, on_run: Callable[[], None]) -> None:
        super()._make(on_run)
        self._stopping = False
        self.pause_button = QPushButton("Pause")
        self.pause_button.clicked.connect(lambda _: self._pause_or_resume())
        self.run_button.setText("Train")
        self.cancel_button.setText("Stop")
        self.cancel_button.setToolTip("Takes effect after the current step; the best and the last state are kept.")
        self.buttons.insertWidget(1, self.pause_button)
        self.pause_button.setEnabled(False)

    def _show(self, progress: Progress) -> None:
        said = self.status.text()
        super()._show(progress)
        if self._stopping:
            self.status.setText(said)

    def _end(self) -> None:
        self._children.clear()
        super()._end()
        self._on_end()

    def _show_running(self, running: bool) -> None:
        super()._show_running(running)
        self.pause_button.setText("Pause")
        self.pause_button.setEnabled(running)


class _CloseAll:
    def __init__(self, children: list[Child]) -> None:
        self._children = children

    def __call__(self, *_: Any) -> None:
        for child in self._children:
            child.close()


class CloseGuard(QObject):
    """Asks before the window or the dock is closed while training is running.

    Parameters
    ----------
    widget
        The widget with the training run.
    panel
        Its buttons.
    put_back
        Docks the widget again.
    """

    def __init__(self, widget: QWidget, panel: TrainPanel, put_back: Callable[[], None]) -> None:
        super().__init__(widget)
        self._widget, self._panel, self._put_back = widget, panel, put_back
        # Qt owns the window: a reference would keep a closed viewer alive.
        self._seen: ref[QMainWindow] | None = None
        self._closing = False
        widget.installEventFilter(self)

    @property
    def _window(self) -> QMainWindow | None:
        return None if self._seen is None else self._seen()

    def ended(self) -> None:
        """Close a window that waited for the end of training."""
        if self._closing and self._window is not None:
            self._closing = False
            QTimer.singleShot(0, self._window.close)

    def wants_to_stop(self) -> bool:
        """Ask the user."""
        asked = QMessageBox(
            QMessageBox.Icon.Question,
            "A training is running",
            "Stop the training? The best and the last state are kept, and it can be resumed later.",
            parent=self._window,
        )
        stop = asked.addButton("Stop and close", QMessageBox.ButtonRole.AcceptRole)
        asked.addButton("Continue training", QMessageBox.ButtonRole.RejectRole)
        asked.exec()
        return asked.clickedButton() is stop

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if event is None:
            return False
        if watched is self._widget:
            self._follow(event)
        elif event.type() == QEvent.Type.Close and self._panel.running and self._by_the_user():
            self._ask_before_closing()
            event.ignore()
            return True
        return False

    def _follow(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.Show:
            self._watch(self._widget.window())
        elif event.type() == QEvent.Type.ParentChange and self._widget.parent() is None and self._panel.running:
            widget = self._widget  # kept alive by the function until the user has answered
            QTimer.singleShot(0, lambda: self._ask_before_leaving(widget))

    def _watch(self, window: QWidget | None) -> None:
        if isinstance(window, QMainWindow) and window is not self._window:
            self._seen = ref(window)
            window.installEventFilter(self)

    def _by_the_user(self) -> bool:
        """Whether a script's ``viewer.close()`` has already closed the canvas, which cannot be prevented."""
        center = self._window.centralWidget() if self._window is not None else None
        parts = center.findChildren(QWidget, options=Qt.FindChildOption.FindDirectChildrenOnly) if center else []
        return any(part.isVisible() for part in parts)

    def _ask_before_closing(self) -> None:
        if not self._closing and self.wants_to_stop():
            self._closing = self._panel.running
            self._panel.cancel()
            if not self._closing:  # training ended while the question was open
                self._closing = True
                self.ended()

    def _ask_before_leaving(self, widget: QWidget) -> None:
        if self.wants_to_stop():
            self._panel.cancel()
        elif widget.parent() is None:
            self._put_back()
