"""Number, areas and scores of cells, in a line that follows the slider and the brush."""

from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.viewer import Viewer

from napari_embryo import measure
from napari_embryo.cells import covering
from napari_embryo.io.cells import CELL, RESULT, RUN
from napari_embryo.notes import counted
from napari_embryo.results import Index
from napari_embryo.widgets._cells import (
    OVERLAP,
    cells_of,
    drawn,
    is_cell,
    measure_cells_again,
    names_of,
    others_said,
)
from napari_embryo.widgets._cells_layers import OUTLINE
from napari_embryo.widgets._form import NoteLabel
from napari_embryo.widgets._layers import embryo_of_labels, index_at, rows_of
from napari_embryo.widgets._parts_readout import checksum
from napari_embryo.widgets._readout import FollowingLine


class CellsLine(FollowingLine):
    """The cells of the current frame, in the run whose layer was selected last.

    Painted cells are measured again, and the overlap count is updated.

    Parameters
    ----------
    viewer
        The viewer whose layers are shown.
    """

    def __init__(self, viewer: Viewer) -> None:
        line = NoteLabel()
        super().__init__(viewer, line)
        self.line = line
        self._run = ""
        self._layers: list[Labels] = []
        # The labels on which each visited frame was measured.
        self._known: dict[Index, tuple[int, ...]] = {}
        viewer.layers.events.inserted.connect(self._follow_inserted)
        viewer.layers.events.removed.connect(self._follow_list)
        self._show("")
        for layer in viewer.layers:
            _dress(layer)
        self._follow_active()

    def _follow_active(self, _: Any = None) -> None:
        layer = self._viewer.layers.selection.active if self._alive else None
        if layer is None or layer.metadata.get(RUN) == self._run:
            return
        if is_cell(layer):
            self._run, self._known = str(layer.metadata[RUN]), {}
            self._follow_list()
        elif isinstance(layer, Labels):
            self._run = ""
            self._follow_list()

    def _follow_inserted(self, event: Any) -> None:
        if self._alive:
            _dress(event.value)
            self._follow_list()

    def _follow_list(self, _: Any = None) -> None:
        """Handle added and removed cells; removed ones cover nothing."""
        if not self._alive:
            return
        layers = cells_of(self._viewer.layers, self._run) if self._run else []
        self._listen([layer for layer in self._layers if layer not in layers], on=False)
        self._listen([layer for layer in layers if layer not in self._layers], on=True)
        self._layers = layers
        self._soon()

    def _listen(self, layers: list[Labels], on: bool) -> None:
        for layer in layers:
            for event in (layer.events.paint, layer.events.set_data, layer.events.data):
                (event.connect if on else event.disconnect)(self._soon)

    def _look(self) -> None:
        """Measure the current frame if it has changed."""
        layers = [layer for layer in self._layers if layer.data.shape == self._layers[0].data.shape]
        if not layers:
            self._show("")
            return
        index = index_at(layers[0], self._viewer.dims.point, embryo_of_labels(layers[0]))
        if self._has_changed(layers, index):
            measure_cells_again(layers, index)
            self._count_again(layers, index)
        named = zip(names_of(layers), layers, strict=True)
        cells = _said([(name, row) for name, layer in named for row in rows_of(layer, index)])
        others = others_said(layers, [np.asarray(layer.data[index]) for layer in layers])
        self._show(f"{cells} {others}." if others else cells)

    def _has_changed(self, layers: list[Labels], index: Index) -> bool:
        """Whether a frame has changed since its last visit; at first, whether areas differ from the measurements."""
        masks = list(drawn(layers, index))
        now, before = tuple(map(checksum, masks)), self._known.get(index)
        self._known[index] = now
        if before is not None:
            return now != before
        measured = [sum(row["area_px"] for row in rows_of(layer, index)) for layer in layers]
        return measured != [int(mask.sum()) for mask in masks]

    def _count_again(self, layers: list[Labels], index: Index) -> None:
        for layer in self._viewer.layers:
            if _counts(layer, self._run):
                if isinstance(layer.data, np.ndarray) and layer.data.shape == layers[0].data.shape:
                    layer.data[index] = covering(drawn(layers, index), layer.data.shape[-2:])
                layer.refresh(extent=False)

    def _show(self, text: str) -> None:
        self.line.setText(text)
        self.line.setVisible(bool(text))


def _counts(layer: Layer, run: str) -> bool:
    return isinstance(layer, Image) and layer.metadata.get(RESULT) == OVERLAP and layer.metadata.get(RUN) == run


def _dress(layer: Layer) -> None:
    """Restore outline and label of a cell from a file or of a duplicate, which napari does not keep."""
    if is_cell(layer) and not layer.contour:
        layer.contour, layer.selected_label = OUTLINE, layer.metadata[CELL]


def _said(named: list[tuple[str, dict[str, Any]]]) -> str:
    """Such as: 2 cells: cell 1 5,120 px (score 0.98), cell 2 4,870 px (score 0.95)."""
    if not named:
        return "No cell here."
    each = [f"{name} {measure.area_said(row)}{_score_said(row)}" for name, row in named]
    return f"{counted(len(named), 'cell')}: {', '.join(each)}."


def _score_said(row: dict[str, Any]) -> str:
    """The score, which a file may lack."""
    return "" if np.isnan(row["score"]) else f" (score {row['score']:.2f})"
