"""Single cells between computing and layers: complete silhouettes that overlap, each a layer of its own. No window."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from napari.layers import Labels, Layer
from napari.utils.colormaps import DirectLabelColormap

from napari_embryo import measure, render
from napari_embryo.data.report import counted
from napari_embryo.image import EmbryoImage, Segmentation
from napari_embryo.io import LayerData
from napari_embryo.io.cells import CELL, CELLS, RESULT, ROWS, RUN
from napari_embryo.io.lazy import LazyPlanes
from napari_embryo.tracking import link
from napari_embryo.widgets._layers import Index, Map, Source, embryo_of_labels, origin, put_rows, rows_of

OVERLAP = "overlap count"
"""Kind of result: how many cells cover each pixel."""
TRACKS = "cell tracks"
"""Kind of result: where the cells went and how they divided."""
BOXES = "cell boxes"
"""Kind of result: the smallest box around each cell, with its score."""

FOLLOWED = ("TYX", "FYX")
"""Stacks through which a cell keeps its identity; in focal planes of a film it could only keep it along one axis."""

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.unsignedinteger[Any]]
Row = dict[str, Any]


# --- one picture ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CellFrame:
    """The cells of one picture, a bit per pixel, so that a long film can wait for its cells to be followed."""

    index: Index
    hw: tuple[int, int]
    packed: npt.NDArray[np.uint8]
    scores: tuple[float, ...]
    maps: tuple[Map, ...]
    rows: list[Row]

    @classmethod
    def of(cls, index: Index, found: Segmentation, maps: tuple[Map, ...], rows: Iterable[Mapping[str, Any]]) -> Self:
        """What is kept of a segmentation into single cells.

        Raises
        ------
        ValueError
            When it has no scores: then its classes are no cells.
        """
        if found.scores is None:
            raise ValueError(f"{', '.join(found.classes)} came without scores; single cells have one each")
        height, width = found.masks.shape[1:]
        packed = np.packbits(found.masks.reshape(len(found.masks), height * width), axis=1)
        named = [dict(row) for row in rows if row["class"] in found.classes]
        return cls(index, (height, width), packed, tuple(map(float, found.scores)), maps, named)

    @property
    def masks(self) -> Bools:
        """(C, H, W)."""
        height, width = self.hw
        bits = np.unpackbits(self.packed, axis=1, count=height * width)
        return bits.astype(bool).reshape(-1, height, width)

    def count(self) -> npt.NDArray[np.uint8]:
        """(H, W): how many cells cover each pixel."""
        return covering(self.masks, self.hw)

    def row(self, place: int) -> Row:
        """What the cell at ``place`` measures."""
        name = cell_names(place + 1)[-1]
        return next((row for row in self.rows if row["class"] == name), {})


def covering(masks: Iterable[Bools], hw: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """(H, W): how many of the masks cover each pixel."""
    count = np.zeros(hw, np.uint8)
    for mask in masks:
        count += mask
    return count


def cell_names(count: int) -> tuple[str, ...]:
    """The names of so many cells, from "cell 1" on."""
    return tuple(f"cell {number}" for number in range(1, count + 1))


# --- all pictures ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell through all pictures.

    Parameters
    ----------
    number
        From 1; its label.
    labels
        The image's shape: ``number`` within the cell, 0 elsewhere.
    rows
        What it measures, a row per picture in which it was found.
    boxes
        And there the corners (4, 2: y, x in pixels) of the smallest box around it, and its score.
    """

    number: int
    labels: Numbers
    rows: list[Row]
    boxes: list[tuple[Index, npt.NDArray[np.float64], float]]

    @property
    def name(self) -> str:
        return f"cell {self.number}"

    @property
    def score(self) -> float:
        """The mean over the pictures in which it was found."""
        return float(np.mean([row["score"] for row in self.rows]))


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of an image.

    Parameters
    ----------
    cells
        By number.
    parents
        Child -> mother, by number.
    followed
        Whether a number means the same cell in every picture; else it is its rank in its own picture.
    note
        Why they were not followed, where they should have been.
    """

    cells: tuple[Cell, ...]
    parents: Mapping[int, int] = field(default_factory=dict)
    followed: bool = False
    note: str = ""

    @property
    def divisions(self) -> int:
        return len(set(self.parents.values()))

    def paths(self) -> tuple[npt.NDArray[np.float64], dict[int, list[int]]]:
        """Data (N, 4: number, t, y, x in pixels) and graph (child -> mothers) of a napari Tracks layer."""
        points = [
            (cell.number, row["frame"], row["centroid_y_px"], row["centroid_x_px"])
            for cell in self.cells
            for row in cell.rows
            if row.get("centroid_y_px") is not None
        ]
        there = {number for number, *_ in points}
        graph = {child: [mother] for child, mother in self.parents.items() if child in there and mother in there}
        return np.array(points, np.float64).reshape(-1, 4), graph


def arranged(frames: Iterable[CellFrame], image: EmbryoImage) -> Cells:
    """The cells of all pictures of an image, by identity where it has one axis to follow them along.

    Through focal planes nothing divides (our decision): there is no mother and no child.
    """
    ordered = sorted(frames, key=lambda frame: frame.index)
    if len(ordered) < 2 or image.axes not in FOLLOWED:
        return Cells(_gathered(ordered, _ranks(ordered), image.shape), note=_not_followed(ordered, image))
    try:
        tracks = link(frame.masks for frame in ordered)
    except ModuleNotFoundError as error:
        return Cells(_gathered(ordered, _ranks(ordered), image.shape), note=f"{RANKED}: {error}")
    parents = tracks.parents if "T" in image.axes else {}
    return Cells(_gathered(ordered, tracks.ids, image.shape), parents, followed=True)


RANKED = "the cells are numbered by their score in every picture on its own"


def _not_followed(frames: Sequence[CellFrame], image: EmbryoImage) -> str:
    if len(frames) < 2:
        return ""
    return f"{RANKED}: of a film of focal planes take one plane, or the sharpest, to follow them"


def _ranks(frames: Iterable[CellFrame]) -> list[list[int]]:
    return [list(range(1, len(frame.scores) + 1)) for frame in frames]


def _gathered(
    frames: Sequence[CellFrame], numbers: Sequence[Sequence[int]], shape: tuple[int, ...]
) -> tuple[Cell, ...]:
    last = max((number for frame in numbers for number in frame), default=0)
    # Pages of zeros take no memory until they are written.
    cells = [Cell(number, np.zeros(shape, np.min_scalar_type(last)), [], []) for number in range(1, last + 1)]
    for frame, of_frame in zip(frames, numbers, strict=True):
        for place, (number, mask) in enumerate(zip(of_frame, frame.masks, strict=True)):
            cell = cells[number - 1]
            cell.labels[frame.index][mask] = number
            cell.rows.append(_row_of(frame, place, number))
            if mask.any():
                cell.boxes.append((frame.index, _corners(mask), frame.scores[place]))
    return tuple(cells)


def _corners(mask: Bools) -> npt.NDArray[np.float64]:
    """Around the pixels, whose centers are whole numbers."""
    ys, xs = np.nonzero(mask)
    top, bottom, left, right = ys.min() - 0.5, ys.max() + 0.5, xs.min() - 0.5, xs.max() + 0.5
    return np.array([(top, left), (top, right), (bottom, right), (bottom, left)])


def _row_of(frame: CellFrame, place: int, number: int) -> Row:
    """A cell's row under its own number and name."""
    return {**frame.row(place), "class": f"cell {number}", "label": number, "score": frame.scores[place]}


# --- layers ---------------------------------------------------------------------------------------------------------


class Overlap:
    """How many cells cover each pixel: as they were found, and once they are layers, as these are drawn now."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.frames: dict[Index, CellFrame] = {}
        self.layers: Callable[[], Sequence[Labels]] | None = None

    def data(self) -> Any:
        """An array of one picture, or a lazy one of many."""
        if len(self.shape) == 2:
            return self.plane(())
        return LazyPlanes(self.plane, self.shape[:-2], self.shape[-2:], np.dtype(np.uint8)).as_dask()

    def plane(self, index: Index) -> npt.NDArray[np.uint8]:
        """(H, W) of one picture."""
        if self.layers is None:
            frame = self.frames.get(index)
            return np.zeros(self.shape[-2:], np.uint8) if frame is None else frame.count()
        same = [layer for layer in self.layers() if layer.data.shape == self.shape]
        return covering(drawn(same, index), self.shape[-2:])


def count_layer(source: Source, overlap: Overlap, about: Mapping[str, Any], run: str) -> LayerData:
    """An Image layer of how many cells cover each pixel; the range is fixed, so that pictures can be compared."""
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


def cell_layer(source: Source, cell: Cell, about: Mapping[str, Any], run: str) -> LayerData:
    """A Labels layer of one cell for the brush: an outline, since cells lie on each other."""
    metadata = {
        **origin(source, about),
        RESULT: CELLS,
        RUN: run,
        CELL: cell.number,
        "classes": ("cell",),
        "score": cell.score,
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


def boxes_layer(source: Source, cells: Cells, about: Mapping[str, Any], run: str) -> LayerData | None:
    """A Shapes layer of each cell's box with its score, hidden at first; None where there is no cell."""
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


def tracks_layer(source: Source, cells: Cells, about: Mapping[str, Any], run: str) -> LayerData | None:
    """A Tracks layer with the mothers of the cells; None where nothing was followed through time."""
    data, graph = cells.paths() if cells.followed and "T" in source.image.axes else (np.zeros((0, 4)), {})
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
    return isinstance(layer, Labels) and layer.metadata.get(RESULT) == CELLS


def cells_of(layers: Iterable[Layer], run: str) -> list[Labels]:
    """The cells of one run, by number."""
    cells = (layer for layer in layers if isinstance(layer, Labels) and is_cell(layer))
    found = [layer for layer in cells if layer.metadata.get(RUN) == run]
    return sorted(found, key=lambda layer: int(layer.metadata[CELL]))


def names_of(layers: Iterable[Labels]) -> list[str]:
    """What cells are called: by their number, or by their layer where a cell before has that, as duplicates have."""
    names: list[str] = []
    for layer in layers:
        name = f"cell {layer.metadata[CELL]}"
        names.append(layer.name if name in names else name)
    return names


def drawn(layers: Iterable[Labels], index: Index) -> Iterator[Bools]:
    """(H, W) of each cell in one picture."""
    for layer in layers:
        yield np.asarray(layer.data[index]) == layer.metadata[CELL]


def others_said(layers: Sequence[Labels], planes: Iterable[npt.NDArray[Any]]) -> str:
    """Where something is painted in cells' layers that is not the cell; empty where nothing is.

    Parameters
    ----------
    layers
        Of cells.
    planes
        (H, W) labels of each in one picture.
    """
    said = []
    for layer, name, plane in zip(layers, names_of(layers), planes, strict=True):
        number = layer.metadata[CELL]
        if others := int(((plane != 0) & (plane != number)).sum()):
            pixels = counted(others, "pixel")
            said.append(f"{name} has {pixels} of other labels, not counted: paint with label {number}")
    return "; ".join(said)


def measure_cells_again(layers: Sequence[Labels], index: Index) -> None:
    """Put what the cells of one picture measure now into their layers' metadata; a cell that has gone loses its row."""
    embryo = embryo_of_labels(layers[0])
    masks = np.stack(list(drawn(layers, index)))
    names = cell_names(len(layers))
    scores = np.array([_score_at(layer, index) for layer in layers], np.float32)
    found = Segmentation(names, masks, masks.astype(np.float32), scores=scores)
    rows = {str(row["class"]): row for row in measure.measure_all(found, embryo.pixel_size_um)}
    for layer, called, name, mask in zip(layers, names_of(layers), names, masks, strict=True):
        own = {"class": called, "label": layer.metadata[CELL], "score": _score_at(layer, index)}
        put_rows(layer, index, [{**measure.where(embryo, index), **rows[name], **own}] if mask.any() else [])


def _score_at(layer: Labels, index: Index) -> float:
    """How sure the network was of the cell here; where it saw none, of the cell as a whole."""
    return float(next((row["score"] for row in rows_of(layer, index)), layer.metadata["score"]))
