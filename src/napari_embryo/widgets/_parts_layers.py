"""Results of a run of the Segment widget, as layers that appear with the first plane and fill up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from napari.layers import Labels, Layer
from napari.utils.notifications import show_warning
from napari.viewer import Viewer

from napari_embryo import measure
from napari_embryo.cells import CellFrame
from napari_embryo.image import as_parts
from napari_embryo.io.cells import ROWS
from napari_embryo.notes import Failure, Note
from napari_embryo.results import Index, PlaneResult
from napari_embryo.widgets._layers import (
    LabelStack,
    MapStack,
    Source,
    index_at,
    labels_layer,
    map_layer,
    missed_text,
    put_rows,
)
from napari_embryo.widgets._worker import add_layer, show


@dataclass(frozen=True)
class Started:
    """Information available once the network is loaded."""

    about: Mapping[str, Any]
    classes: tuple[str, ...]
    devices: Mapping[str, str | None]


@dataclass(frozen=True)
class Found:
    """Result of one step, and messages for the user."""

    item: PlaneResult | CellFrame | Failure
    notes: tuple[Note, ...]


@dataclass(eq=False)
class Results:
    """The layers of one run, which appear with the first plane and fill up with the others."""

    viewer: Viewer
    source: Source
    what: str
    labels: Labels | None = None
    done: int = 0
    missed: list[Failure] = field(default_factory=list)
    _started: Started | None = None
    _stacks: dict[str, MapStack] = field(default_factory=dict)
    _layers: list[Layer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stack = LabelStack(self.source.image.shape)

    def take(self, item: object) -> None:
        """Add the result of a step of :func:`segment`."""
        if isinstance(item, Started):
            self._started = item
        elif isinstance(item, Found):
            show(item.notes)
            self._take_picture(item.item)

    def _take_picture(self, item: PlaneResult | CellFrame | Failure) -> None:
        match item:
            case PlaneResult():
                self._put(item)
            case Failure():
                self._miss(item)

    def _miss(self, missed: Failure) -> None:
        self.missed.append(missed)
        if self.labels is not None:
            self.labels.metadata["failures"] = self._failures()

    def _failures(self) -> list[tuple[list[int], str]]:
        return [(list(miss.index), miss.reason) for miss in self.missed]

    def _put(self, frame: PlaneResult) -> None:
        self.done += 1
        self._stack.put(frame.index, as_parts(frame.finding).labels())
        for found in frame.maps:
            self._stacks.setdefault(found.name, MapStack(self.source.image.shape)).put(frame.index, found)
        if self.labels is None:
            self.labels = self._add(frame)
        else:
            redraw(self.viewer, self.source, self._layers, frame.index)
        put_rows(self.labels, frame.index, frame.rows)

    def _add(self, frame: PlaneResult) -> Labels:
        """Add the maps first, so that the labels are on top and ready for the brush."""
        if self._started is None:
            raise ValueError("a result arrived before the network was loaded")
        about, classes = self._started.about, self._started.classes
        for number, found in enumerate(frame.maps):
            layer = map_layer(self.source, self._stacks[found.name], found, about, visible=number == 0)
            self._layers.append(add_layer(self.viewer, layer))
        labels = add_layer(self.viewer, labels_layer(self.source, self._stack, classes, about, self.what))
        labels.metadata["failures"] = self._failures()
        self._layers.append(labels)
        return labels

    def outcome(self, device: str) -> str:
        """Summarize the run in a line, and show failures."""
        total = self.done + len(self.missed)
        if not self.done:
            raise ValueError(self.missed[0].reason if self.missed else "there was nothing to process")
        if self.missed:
            show_warning(missed_text(self.missed, total))
        self._warn()
        frames = "" if total == 1 else f"{self.done} of {total} frames. {self._range()}"
        return f"Done on {device}. {frames}Correct the labels with napari's brush."

    def _range(self) -> str:
        """Range of fragmentation over the frames, if ratios were estimated."""
        said = "" if self.labels is None else measure.range_said(self.labels.metadata[ROWS])
        return f"{said} " if said else ""

    def _warn(self) -> None:
        """Warn where mask and regression disagree, so that the user checks."""
        if self.labels is not None and (apart := measure.far_apart_said(self.labels.metadata[ROWS])):
            show_warning(f"{self.source.image.name}: {apart}")


def redraw(viewer: Viewer, source: Source, layers: Sequence[Layer], index: Index) -> None:
    """Redraw a frame if it is shown; the others are drawn when the slider reaches them."""
    if index_at(layers[-1], viewer.dims.point, source.image) == index or viewer.dims.ndisplay == 3:
        for layer in layers:
            layer.refresh(extent=False)
