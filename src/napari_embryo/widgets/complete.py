"""Complete cell: turn a rough or cut-off painted blastomere into a plausible whole silhouette."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels
from napari.viewer import Viewer
from qtpy.compat import isalive
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_embryo import measure
from napari_embryo.families import shape_code_families
from napari_embryo.image import Progress
from napari_embryo.io.editable import EditablePlanes
from napari_embryo.io.layers import NAMESPACE
from napari_embryo.notes import RESEARCH_USE
from napari_embryo.results import Index
from napari_embryo.widgets._editors import BUNDLED, LayerChoice, WeightsEditor
from napari_embryo.widgets._form import NoteLabel, Scrolled, form_layout
from napari_embryo.widgets._torch_import import prepare_for_torch
from napari_embryo.widgets._worker import RunPanel, Steps

GUESS = "A completed outline is a guess based on the shapes of other cells: check it."
HELP = (
    "Paint what you see of one cell, roughly or only its visible part, and press Complete. Undo (Ctrl+Z) restores what "
    "you painted."
)
AT_LEAST = 0.5
"""Probability from which a pixel belongs to the cell."""
SMALLEST = 16
"""Smallest number of pixels with a meaningful shape."""


@dataclass(frozen=True, eq=False)
class Painted:
    """One cell as it was when Complete was pressed."""

    layer: Labels
    label: int
    index: Index
    mask: npt.NDArray[np.bool_]

    @property
    def name(self) -> str:
        return f"{self.layer.name}, label {self.label}"

    def is_as_it_was(self) -> bool:
        """Whether it has not been painted on since."""
        now = self.layer.data[self.index]
        return now.shape == self.mask.shape and bool(((now == self.label) == self.mask).all())


def painted(layer: Labels, viewer: Viewer) -> Painted:
    """The selected label in the current frame.

    Raises
    ------
    ValueError
        If it cannot be completed; the message says what to do.
    """
    _check_layer(layer, viewer)
    leading = layer.data.shape[:-2]
    where = np.rint(layer.world_to_data(viewer.dims.point)).astype(int)[: len(leading)]
    index = tuple(int(np.clip(place, 0, size - 1)) for place, size in zip(where, leading, strict=True))
    label = int(layer.selected_label)
    mask = np.asarray(layer.data[index]) == label
    if label == 0:
        raise ValueError(f"{layer.name}: label 0 is the background; select the label of the cell in the layer controls")
    if mask.sum() < SMALLEST:
        here = " in this frame" if index else ""
        raise ValueError(
            f"{layer.name}: {mask.sum()} pixels of label {label} are painted{here}; paint what you see of the cell, "
            f"at least {SMALLEST} pixels, or select its label"
        )
    return Painted(layer, label, index, mask)


def _check_layer(layer: Labels, viewer: Viewer) -> None:
    if layer.multiscale or not isinstance(layer.data, np.ndarray | EditablePlanes):
        kind = "multiscale" if layer.multiscale else type(layer.data).__name__
        raise ValueError(
            f"{layer.name}: these are {kind} labels; only labels in memory can be completed: duplicate the layer"
        )
    if not layer.editable:
        raise ValueError(f"{layer.name}: these labels cannot be painted; unlock the layer or duplicate it")
    if viewer.dims.ndisplay == 3:
        raise ValueError("the viewer shows three dimensions; switch to two, so that there is one frame to complete")
    ndim, shown = viewer.dims.ndim, tuple(viewer.dims.displayed)
    if shown != (ndim - 2, ndim - 1):
        raise ValueError("the viewer shows other axes than height and width; roll them back")


def completing(mask: npt.NDArray[np.bool_], weights: str) -> Steps[npt.NDArray[np.bool_]]:
    """Load the shape code and complete a mask; return (H, W) bool."""
    yield Progress(0, 1, "Completing the cell …")
    prepare_for_torch()
    from napari_embryo import completion

    return completion.complete(mask, weights) >= AT_LEAST


def put(cell: Painted, whole: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Write a silhouette as one undoable step, keeping other labels; return the cell's new mask."""
    free = cell.layer.data[cell.index] == 0
    with cell.layer.block_history():
        for change, value in ((cell.mask & ~whole, 0), (whole & free & ~cell.mask, cell.label)):
            places = tuple(np.full(int(change.sum()), place) for place in cell.index)
            cell.layer.data_setitem((*places, *np.nonzero(change)), value, refresh=False)
    cell.layer.refresh()
    return np.asarray(cell.layer.data[cell.index] == cell.label)


def changed_said(cell: Painted, now: npt.NDArray[np.bool_]) -> str:
    """Area before and after, and overlap with what was painted."""
    before, after = int(cell.mask.sum()), int(now.sum())
    share = f"{100 * (after - before) / before:+.0f}\N{NO-BREAK SPACE}%"
    areas = f"{_area_said(cell, before)} → {_area_said(cell, after)} ({share})"
    return f"{cell.name}: {areas}, IoU with what was painted {measure.iou(cell.mask, now):.2f}. Undo: Ctrl+Z."


def _area_said(cell: Painted, pixels: int) -> str:
    size = dict(cell.layer.metadata.get(NAMESPACE, {})).get("pixel_size_um")
    return f"{pixels:,} px" if size is None else f"{pixels * size[0] * size[1]:,.0f} µm²"


class CompleteWidget(QWidget):
    """Choose the labels of a cell and press Complete.

    Parameters
    ----------
    napari_viewer
        Viewer with the labels.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.labels, self.about = LayerChoice(napari_viewer, Labels), NoteLabel()
        self.weights = WeightsEditor(BUNDLED, shape_code_families())
        self.keep = QCheckBox("Keep every painted pixel")
        self.keep.setToolTip("Only add to what is painted; otherwise the whole outline is smoothed.")
        self.panel = RunPanel("Completing", self.run)
        self.panel.run_button.setText("Complete")
        self._watched: Labels | None = None
        self._lay_out()
        self.labels.widget.changed.connect(self._watch)
        napari_viewer.layers.selection.events.active.connect(self._follow_active)
        self.reset_choices()
        self._follow_active()

    def _lay_out(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        fields = QWidget()
        rows = form_layout(fields)
        for label, widget in (
            ("Labels", self.labels.native),
            ("", self.about),
            ("Shape code", self.weights.native),
            ("", self.keep),
        ):
            rows.addRow(label, widget)
        for part in (NoteLabel(HELP), fields):
            column.addWidget(part)
        column.addStretch(1)
        whole = QVBoxLayout(self)
        whole.addWidget(Scrolled(content), stretch=1)
        whole.addWidget(self.panel)
        whole.addWidget(NoteLabel(f"{GUESS} {RESEARCH_USE}"))
        self.setMinimumWidth(300)

    def use(self, family: str, weights: str) -> None:
        """Choose weights of one of the families with a shape code."""
        if family in shape_code_families():
            self.weights.value = weights

    def reset_choices(self, _: Any = None) -> None:
        """Follow the layer list; napari calls it when a layer is added, removed or renamed."""
        self.labels.refresh()
        self._watch()

    def _follow_active(self, _: Any = None) -> None:
        """Choose a layer when it is painted."""
        active = self._viewer.layers.selection.active if self._alive else None
        if isinstance(active, Labels):
            self.labels.refresh()
            self.labels.value = active

    def _watch(self, _: Any = None) -> None:
        """Show which label will be completed."""
        layer = self.labels.value
        if layer is not self._watched:
            if self._watched is not None:
                self._watched.events.selected_label.disconnect(self._describe)
            if layer is not None:
                layer.events.selected_label.connect(self._describe)
            self._watched = layer
        self._describe()

    @property
    def _alive(self) -> bool:
        """Disconnect, since Python may keep this object longer than Qt does and napari would still call it."""
        return bool(isalive(self))  # type: ignore[no-untyped-call]

    def _describe(self, _: Any = None) -> None:
        if not self._alive:
            return
        layer = self.labels.value
        if layer is None:
            self.about.setText("Add a Labels layer and paint a cell, or segment an image into cells first.")
            return
        frame = ", in the current frame" if layer.ndim > 2 else ""
        self.about.setText(f"Label {layer.selected_label}{frame}")

    def run(self) -> None:
        """Complete the chosen cell in a worker."""
        layer = self.labels.value
        if layer is None:
            self.panel.refuse("there is no Labels layer; add one and paint what you see of a cell")
            return
        try:
            cell = painted(layer, self._viewer)
        except ValueError as error:
            self.panel.refuse(error)
            return
        weights, keep = self.weights.value, self.keep.isChecked()
        self.panel.start(
            lambda: completing(cell.mask, weights), lambda _: None, lambda whole: self._put(cell, whole, keep)
        )

    def _put(self, cell: Painted, whole: npt.NDArray[np.bool_], keep: bool) -> str:
        if cell.layer not in self._viewer.layers:
            raise ValueError(f"{cell.name}: the layer was removed; nothing was changed")
        if not cell.is_as_it_was():
            raise ValueError(
                f"{cell.name}: the cell was painted on in the meantime, so nothing was changed; press Complete again"
            )
        if not whole.any():
            raise ValueError(
                f"{cell.name}: the shape code found no cell of such a shape, so nothing was changed; paint more of it"
            )
        return changed_said(cell, put(cell, whole | cell.mask if keep else whole))
