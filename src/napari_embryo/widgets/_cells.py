"""Single cells as layers: complete, overlapping silhouettes, one layer each. Needs no window."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels, Layer
from napari.utils.colormaps import DirectLabelColormap

from napari_embryo import measure, render
from napari_embryo.cells import Cell, CellFrame, ImageCells, covering
from napari_embryo.image import Cells, cell_names
from napari_embryo.io import LayerData
from napari_embryo.io.cells import CELL, CELLS_RESULT, RESULT, ROWS, RUN
from napari_embryo.io.lazy import LazyPlanes
from napari_embryo.notes import counted
from napari_embryo.results import Index
from napari_embryo.widgets._layers import Source, embryo_of_labels, origin, put_rows, rows_of

OVERLAP = "overlap count"
"""Kind of result: number of cells that cover each pixel."""
TRACKS = "cell tracks"
"""Kind of result: tracks and divisions of the cells."""
BOXES = "cell boxes"
"""Kind of result: the smallest box around each cell, with its score."""

Bools = npt.NDArray[np.bool_]


# --- layers ---------------------------------------------------------------------------------------------------------


class Overlap:
    """Number of cells that cover each pixel: as found, or as currently drawn once they are layers."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.frames: dict[Index, CellFrame] = {}
        self.layers: Callable[[], Sequence[Labels]] | None = None

    def data(self) -> Any:
        """An array for one plane, or a lazy one for many."""
        if len(self.shape) == 2:
            return self.plane(())
        return LazyPlanes(self.plane, self.shape[:-2], self.shape[-2:], np.dtype(np.uint8)).as_dask()

    def plane(self, index: Index) -> npt.NDArray[np.uint8]:
        """(H, W) of one plane."""
        if self.layers is None:
            frame = self.frames.get(index)
            return np.zeros(self.shape[-2:], np.uint8) if frame is None else frame.count()
        same = [layer for layer in self.layers() if layer.data.shape == self.shape]
        return covering(drawn(same, index), self.shape[-2:])


def count_layer(source: Source, overlap: Overlap, about: Mapping[str, Any], run: str) -> LayerData:
    """An Image layer of the number of cells that cover each pixel, in a fixed range, so that planes are comparable."""
    keywords = {
        **source.placed,
        "name": f"{source.image.name} {OVERLAP}",
        "colormap": "inferno",
        "blending": "additive",
        "opacity": 0.6,
        "contrast_limits": (0, 4),
        "interpolation2d": "nearest",
        "visible": len(source.image.shape) > 2,
        "rgb": False,
        "cache": False,
        "metadata": {**origin(source, about), RESULT: OVERLAP, RUN: run},
    }
    return overlap.data(), keywords, "image"


def cell_layer(source: Source, cell: Cell, score: float, about: Mapping[str, Any], run: str) -> LayerData:
    """A Labels layer of one cell for the brush, shown as an outline, since cells overlap."""
    metadata = {
        **origin(source, about),
        RESULT: CELLS_RESULT,
        RUN: run,
        CELL: cell.number,
        "classes": ("cell",),
        "score": score,
        ROWS: sorted(cell.rows, key=lambda row: (row.get("frame") or 0, row.get("plane") or 0)),
    }
    keywords = {
        **source.placed,
        "name": f"{source.image.name} {cell.name}",
        "colormap": colormap(cell.number),
        "features": {"index": [0, cell.number], "class": ["background", cell.name]},
        "opacity": 0.9,
        "metadata": metadata,
    }
    return cell.labels, keywords, "labels"


def boxes_layer(source: Source, cells: ImageCells, about: Mapping[str, Any], run: str) -> LayerData | None:
    """A Shapes layer of each cell's box with its score, hidden at first; None if there are no cells."""
    each = [(cell.number, *box) for cell in cells.cells for box in cell.boxes]
    if not each:
        return None
    numbers, indices, boxes, scores = zip(*each, strict=True)
    keywords = {
        **source.placed,
        "name": f"{source.image.name} boxes",
        "shape_type": "rectangle",
        "edge_color": [[part / 255 for part in render.cell_color(number)] for number in numbers],
        "edge_width": 1,
        "face_color": "transparent",
        "features": {"cell": numbers, "score": scores},
        "text": {"string": "{score:.2f}", "color": "white", "anchor": "upper_left", "size": 10},
        "visible": False,
        "metadata": {**origin(source, about), RESULT: BOXES, RUN: run},
    }
    corners = [np.column_stack((np.tile(index, (4, 1)), box)) for index, box in zip(indices, boxes, strict=True)]
    return corners, keywords, "shapes"


def tracks_layer(source: Source, cells: ImageCells, about: Mapping[str, Any], run: str) -> LayerData | None:
    """A Tracks layer with the mothers of the cells; None if nothing was tracked through time."""
    data, graph = (
        cells.paths()
        if cells.followed and len(cells.frames) > 1 and "T" in source.image.axes
        else (np.zeros((0, 4)), {})
    )
    if not len(data):
        return None
    metadata = {**origin(source, about), RESULT: TRACKS, RUN: run, "parents": dict(cells.parents)}
    keywords = {
        **source.placed,
        "name": f"{source.image.name} tracks",
        "graph": graph,
        "tail_length": len(source.image.data),
        "metadata": metadata,
    }
    return data, keywords, "tracks"


def colormap(count: int) -> DirectLabelColormap:
    """A fixed color for each number."""
    return DirectLabelColormap(color_dict=render.cell_label_colors(count))


# --- as they are drawn now ------------------------------------------------------------------------------------------


def is_cell(layer: Layer | None) -> bool:
    """Whether a layer is one cell of a run."""
    return isinstance(layer, Labels) and layer.metadata.get(RESULT) == CELLS_RESULT


def cells_of(layers: Iterable[Layer], run: str) -> list[Labels]:
    """The cells of one run, by number."""
    cells = (layer for layer in layers if isinstance(layer, Labels) and is_cell(layer))
    found = [layer for layer in cells if layer.metadata.get(RUN) == run]
    return sorted(found, key=lambda layer: int(layer.metadata[CELL]))


def names_of(layers: Iterable[Labels]) -> list[str]:
    """Names of cells: by their number, or by their layer if an earlier cell has the same number (a duplicate)."""
    names: list[str] = []
    for layer in layers:
        name = f"cell {layer.metadata[CELL]}"
        names.append(layer.name if name in names else name)
    return names


def drawn(layers: Iterable[Labels], index: Index) -> Iterator[Bools]:
    """(H, W) of each cell in one plane."""
    for layer in layers:
        yield np.asarray(layer.data[index]) == layer.metadata[CELL]


def others_said(layers: Sequence[Labels], planes: Iterable[npt.NDArray[Any]]) -> str:
    """Describe what is painted in the layers of cells but is not the cell; empty if nothing is.

    Parameters
    ----------
    layers
        Layers of cells.
    planes
        (H, W) labels of each in one plane.
    """
    said = []
    for layer, name, plane in zip(layers, names_of(layers), planes, strict=True):
        number = layer.metadata[CELL]
        if others := int(((plane != 0) & (plane != number)).sum()):
            pixels = counted(others, "pixel")
            said.append(f"{name} has {pixels} of other labels, which do not count: paint with label {number}")
    return "; ".join(said)


def measure_cells_again(layers: Sequence[Labels], index: Index) -> None:
    """Store the current measurements of the cells of one plane in their layers; a removed cell loses its row."""
    embryo = embryo_of_labels(layers[0])
    masks = np.stack(list(drawn(layers, index)))
    names = cell_names(len(layers))
    scores = np.array([_score_at(layer, index) for layer in layers], np.float32)
    found = Cells(masks, masks.astype(np.float32), scores)
    rows = {str(row["class"]): row for row in measure.measure_all(found, embryo.pixel_size_um)}
    for layer, called, name, mask in zip(layers, names_of(layers), names, masks, strict=True):
        own = {"class": called, "label": layer.metadata[CELL], "score": _score_at(layer, index)}
        put_rows(layer, index, [{**measure.where(embryo, index), **rows[name], **own}] if mask.any() else [])


def _score_at(layer: Labels, index: Index) -> float:
    """Score of the cell in this plane; if it was not found here, that of the cell as a whole."""
    return float(next((row["score"] for row in rows_of(layer, index)), layer.metadata["score"]))
