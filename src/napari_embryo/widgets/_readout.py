"""A line below the form that follows the viewer's slider, layers and brush."""

from abc import abstractmethod
from typing import Any

from napari.viewer import Viewer
from qtpy.compat import isalive
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_embryo.widgets._form import NoteLabel

SOON_MS = 150
"""Delay in milliseconds, since a brush stroke or slider movement causes many events."""


class FollowingLine(QWidget):
    """Notes that are updated shortly after a change, once for many events.

    Parameters
    ----------
    viewer
        The viewer whose layers are shown.
    notes
        Labels, one below the other.
    """

    def __init__(self, viewer: Viewer, *notes: NoteLabel) -> None:
        super().__init__()
        self._viewer = viewer
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for note in notes:
            column.addWidget(note)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(SOON_MS)
        self._timer.timeout.connect(self._look)
        viewer.layers.selection.events.active.connect(self._follow_active)
        viewer.dims.events.current_step.connect(self._soon)

    @property
    def _alive(self) -> bool:
        """Disconnect, since Python may keep this object longer than Qt does and napari would still call it."""
        return bool(isalive(self))  # type: ignore[no-untyped-call]

    def _soon(self, _: Any = None) -> None:
        if self._alive and not self._timer.isActive():
            self._timer.start()

    @abstractmethod
    def _look(self) -> None:
        """Update the notes."""

    @abstractmethod
    def _follow_active(self, _: Any = None) -> None:
        """Handle the selection of another layer."""
