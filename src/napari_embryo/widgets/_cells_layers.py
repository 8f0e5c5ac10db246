"""Layers of a run that finds single cells: one for each cell, the overlap count, and the tracks of a time-lapse."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from napari.layers import Image, Labels, Layer
from napari.utils.notifications import show_info, show_warning
from napari.viewer import Viewer

from napari_embryo.cells import CellFrame, ImageCells
from napari_embryo.io import LayerData
from napari_embryo.notes import Failure, counted
from napari_embryo.results import PlaneResult
from napari_embryo.widgets._cells import (
    Overlap,
    boxes_layer,
    cell_layer,
    cells_of,
    count_layer,
    tracks_layer,
)
from napari_embryo.widgets._layers import MapStack, Source, map_layer, missed_text
from napari_embryo.widgets._parts_layers import Found, Started, redraw
from napari_embryo.widgets._worker import add_layer, show

CORRECT = "Correct each in its own layer with napari's brush."
NOTHING = "No cell was found with sufficient confidence."
OUTLINE = 2
"""Width of outlines in pixels; fills would hide the cells below."""


@dataclass(eq=False)
class CellResults:
    """The layers of one run: maps and overlap count appear plane by plane, the cells when all planes are done.

    Cells of a time-lapse are known only at the end, since they may be missed in some frames.
    """

    viewer: Viewer
    source: Source
    done: int = 0
    missed: list[Failure] = field(default_factory=list)
    cells: ImageCells | None = None
    layers: list[Labels] = field(default_factory=list)
    _started: Started | None = None
    _stacks: dict[str, MapStack] = field(default_factory=dict)
    _shown: list[Layer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = uuid4().hex
        self.overlap = Overlap(self.source.image.shape)
        self.count: Image | None = None

    @property
    def frames(self) -> list[CellFrame]:
        """The finished planes."""
        return list(self.overlap.frames.values())

    def take(self, item: object) -> None:
        """Add the result of a step of the segmentation."""
        match item:
            case Started():
                self._started = item
            case Found(item=frame, notes=notes):
                show(notes)
                self._take_picture(frame)
            case ImageCells():
                self._add_cells(item)

    def _take_picture(self, item: PlaneResult | CellFrame | Failure) -> None:
        match item:
            case CellFrame():
                self._put(item)
            case Failure():
                self.missed.append(item)

    def _put(self, frame: CellFrame) -> None:
        self.done += 1
        self.overlap.frames[frame.index] = frame
        for found in frame.maps:
            self._stacks.setdefault(found.name, MapStack(self.source.image.shape)).put(frame.index, found)
        if self.count is None:
            self.count = self._add(frame)
        else:
            redraw(self.viewer, self.source, self._shown, frame.index)

    def _about(self) -> Mapping[str, Any]:
        if self._started is None:
            raise ValueError("a result arrived before the network was loaded")
        return self._started.about

    def _add(self, frame: CellFrame) -> Image:
        """Add maps, and the overlap count above them."""
        about = self._about()
        for number, found in enumerate(frame.maps):
            layer = map_layer(self.source, self._stacks[found.name], found, about, visible=number == 0)
            self._shown.append(add_layer(self.viewer, layer))
        count = add_layer(self.viewer, count_layer(self.source, self.overlap, about, self.run))
        self._shown.append(count)
        return count

    def _add_cells(self, cells: ImageCells) -> None:
        """Add the cells, the first one last, so that it is on top and ready for the brush."""
        self.cells, about = cells, self._about()
        for more in (boxes_layer, tracks_layer):
            if (layer := more(self.source, cells, about, self.run)) is not None:
                add_layer(self.viewer, layer)
        each = zip(cells.cells, cells.scores(), strict=True)
        data = [cell_layer(self.source, cell, score, about, self.run) for cell, score in each]
        self.layers = [self._add_cell(layer) for layer in data[::-1]][::-1]
        if self.count is not None:
            self.count.visible = False
        run, layers = self.run, self.viewer.layers
        self.overlap.layers = lambda: cells_of(layers, run)
        self.overlap.frames.clear()

    def _add_cell(self, data: LayerData) -> Labels:
        layer: Labels = add_layer(self.viewer, data)
        layer.contour = OUTLINE
        layer.selected_label = layer.metadata["cell"]
        layer.metadata["failures"] = [(list(miss.index), miss.reason) for miss in self.missed]
        return layer

    # --- how it went

    def outcome(self, device: str) -> str:
        """Summarize the run in a line, and show failures."""
        total = self.done + len(self.missed)
        frames = "" if total == 1 else f"{self.done} of {total} frames. "
        return f"Done on {device}. {frames}{self.said()}"

    def said(self) -> str:
        """Summarize what was found, without how the run ended.

        Raises
        ------
        ValueError
            If no plane could be processed; the message is the reason.
        """
        if not self.done:
            raise ValueError(self.missed[0].reason if self.missed else "there was nothing to process")
        if self.missed:
            show_warning(missed_text(self.missed, self.done + len(self.missed)))
        if self.cells is not None and self.cells.note:
            show_warning(f"{self.source.image.name}: {self.cells.note}")
        return self._cells_said()

    def _cells_said(self) -> str:
        scores = [] if self.cells is None else self.cells.scores()
        if not scores:
            show_info(f"{self.source.image.name}: {NOTHING}")
            return NOTHING
        sure = f"{max(scores):.2f}" if len(scores) == 1 else f"{max(scores):.2f} to {min(scores):.2f}"
        return f"{counted(len(scores), 'cell')}{self._followed_said()}, score {sure}. {CORRECT}"

    def _followed_said(self) -> str:
        if self.cells is None or not self.cells.followed or len(self.cells.frames) < 2:
            return ""
        divisions = self.cells.divisions
        return " tracked" + (f", {counted(divisions, 'division')}" if "T" in self.source.image.axes else "")
