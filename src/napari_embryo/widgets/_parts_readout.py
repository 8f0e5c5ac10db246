"""Measurements of the current labels, in a line that follows the slider and the brush."""

from typing import Any
from weakref import WeakKeyDictionary, WeakSet
from zlib import crc32

import numpy as np
import numpy.typing as npt
from napari.layers import Labels
from napari.viewer import Viewer

from napari_embryo import measure
from napari_embryo.io.cells import ROWS
from napari_embryo.notes import RESEARCH_ONLY
from napari_embryo.results import Index
from napari_embryo.widgets._cells import is_cell
from napari_embryo.widgets._form import NoteLabel
from napari_embryo.widgets._layers import embryo_of_labels, index_at, is_measurable, measure_again, rows_of
from napari_embryo.widgets._readout import FollowingLine

FAR_APART = "Mask and regression are {} grades apart: check the image before you use either."


class MeasuredLine(FollowingLine):
    """Ratio and grade, or areas, of the current frame, in the labels selected last.

    Corrected labels are measured again and the rows in their layer's metadata are updated, one frame at a time, so that
    the window stays responsive.

    Parameters
    ----------
    viewer
        The viewer whose layers are shown.
    """

    def __init__(self, viewer: Viewer) -> None:
        line, warning = NoteLabel(), NoteLabel()
        super().__init__(viewer, line, warning)
        self.line, self.warning = line, warning
        warning.setStyleSheet("font-weight: bold")
        self._layer: Labels | None = None
        self._due: set[Index] = set()
        # For every frame, the checksum of the labels on which its rows were measured.
        self._known: WeakKeyDictionary[Labels, dict[Index, int]] = WeakKeyDictionary()
        # Labels from a file without rows: each frame is measured when it is first shown.
        self._unmeasured: WeakSet[Labels] = WeakSet()
        viewer.layers.events.removed.connect(self._follow_removed)
        self._show([])
        self._follow_active()

    def _follow_active(self, _: Any = None) -> None:
        layer = self._viewer.layers.selection.active if self._alive else None
        if is_cell(layer):
            self._leave()
            self._show([])
        elif isinstance(layer, Labels) and layer is not self._layer and is_measurable(layer):
            self._follow(layer)

    def _leave(self) -> None:
        """Single cells have a separate line."""
        if self._layer is not None:
            for event in self._events(self._layer):
                event.disconnect(self._soon)
            self._layer.events.data.disconnect(self._all_changed)
        self._layer = None
        self._due.clear()

    def _follow(self, layer: Labels) -> None:
        self._leave()
        self._layer = layer
        self._known.setdefault(layer, {})
        if ROWS not in layer.metadata:
            layer.metadata[ROWS] = []
            self._unmeasured.add(layer)
        for event in self._events(layer):
            event.connect(self._soon)
        layer.events.data.connect(self._all_changed)
        self._soon()

    @staticmethod
    def _events(layer: Labels) -> tuple[Any, ...]:
        """Handle a brush stroke or any other change, such as undo."""
        return layer.events.paint, layer.events.set_data

    def _follow_removed(self, event: Any) -> None:
        if self._alive and event.value is self._layer:
            self._layer = None
            self._due.clear()
            self._show([])

    def trust(self, layer: Labels, index: Index, labels: npt.NDArray[Any]) -> None:
        """Record the labels on which the rows of a frame were measured; anything else counts as a correction."""
        self._known.setdefault(layer, {})[index] = checksum(labels)
        self._soon()

    def _all_changed(self, _: Any = None) -> None:
        """Handle replaced data of the layer."""
        if self._layer is not None and self._alive:
            self._due = {index for index in np.ndindex(self._layer.data.shape[:-2]) if rows_of(self._layer, index)}
            self._soon()

    def _look(self) -> None:
        """Measure the current frame, or one that is due, if it has changed."""
        layer = self._layer
        if layer is None:
            return
        looked_at = index_at(layer, self._viewer.dims.point, embryo_of_labels(layer))
        self._check(layer, looked_at)
        if self._due:
            self._check(layer, self._due.pop())
            self._timer.start()
        self._show(rows_of(layer, looked_at))

    def _check(self, layer: Labels, index: Index) -> None:
        now, known = checksum(np.asarray(layer.data[index])), self._known[layer]
        as_measured = now if layer not in self._unmeasured else None
        if now != known.get(index, as_measured):
            measure_again(layer, index)
        known[index] = now

    def _show(self, rows: list[dict[str, Any]]) -> None:
        graded = [row for row in rows if row.get("grade")]
        research = f" {RESEARCH_ONLY}." if graded else ""
        self.line.setText(measure.said(rows) + research)
        apart = measure.far_apart(graded)
        self.warning.setText(FAR_APART.format(apart[0]["grades_apart"]) if apart else "")
        self.line.setVisible(bool(rows))
        self.warning.setVisible(bool(apart))


def checksum(labels: npt.NDArray[Any]) -> int:
    """Checksum of labels, to detect changes."""
    return crc32(np.asarray(labels, np.uint8).tobytes())
