"""The single cells of an image, tracked from plane to plane, numbered, and listed in rows.

Both the files of the command line and the layers of the window show the result of :func:`follow`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from napari_embryo.data import rle
from napari_embryo.image import EmbryoImage, as_cells, cell_names
from napari_embryo.results import AttentionMap, Index, PlaneResult, Row
from napari_embryo.tracking import Tracks, link

FOLLOWED = ("TYX", "FYX")
"""Axes along which a cell keeps its number (docs/decisions.md, "No divisions through focal planes")."""

NOT_FOLLOWED = (
    "the cells are numbered by their score in every plane: choose one focal plane of a time-lapse, or the sharpest, "
    "to follow them"
)

Masks = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True, eq=False)
class CellFrame:
    """The cells of one plane as run lengths, so that a long time-lapse can be kept until its cells are tracked.

    Parameters
    ----------
    index
        Position of the plane along the leading axes of the image.
    hw
        Height and width.
    runs
        COCO run lengths of each cell, highest score first.
    scores
        Confidence of the network in each.
    rows
        The row of all cells together, then one per cell; empty for a plane that could not be processed.
    maps
        Attention maps, if shown.
    """

    index: Index
    hw: tuple[int, int]
    runs: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    rows: Sequence[Row] = ()
    maps: tuple[AttentionMap, ...] = ()

    @classmethod
    def of(cls, result: PlaneResult, maps: tuple[AttentionMap, ...] = ()) -> Self:
        """Keep what is needed of a plane.

        Raises
        ------
        TypeError
            If parts of an embryo were found, not cells.
        """
        found = as_cells(result.finding)
        height, width = found.masks.shape[1:]
        runs = tuple(rle.compress(rle.encode(mask)) for mask in found.masks)
        return cls(result.index, (height, width), runs, tuple(map(float, found.scores)), result.rows, maps)

    @property
    def masks(self) -> Masks:
        """(N, H, W)."""
        each = [rle.decode(runs, self.hw) for runs in self.runs]
        return np.stack(each) if each else np.zeros((0, *self.hw), bool)

    @property
    def together(self) -> list[Row]:
        """The row of all cells; empty for a plane that could not be processed."""
        return list(self.rows[:1])

    def count(self) -> npt.NDArray[np.uint8]:
        """(H, W): number of cells that cover each pixel."""
        return covering(self.masks, self.hw)


def covering(masks: Iterable[Masks], hw: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """(H, W): number of masks that cover each pixel."""
    count = np.zeros(hw, np.uint8)
    for mask in masks:
        count += mask
    return count


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell throughout all planes.

    Parameters
    ----------
    number
        Its number and label, from 1.
    labels
        Array of the image's shape: ``number`` within the cell, 0 elsewhere.
    rows
        Its measurements, a row per plane in which it was found.
    boxes
        For each of these, the corners (4, 2: y, x in pixels) of the smallest box around it, and its score.
    """

    number: int
    labels: Labels
    rows: list[Row]
    boxes: list[tuple[Index, npt.NDArray[np.float64], float]]

    @property
    def name(self) -> str:
        return cell_names(self.number)[-1]


@dataclass(frozen=True, eq=False)
class ImageCells:
    """The cells of an image.

    Parameters
    ----------
    frames
        Its planes, in order.
    numbers
        For each plane, the number of each of its cells in order.
    shape
        Shape of the image.
    parents
        Number of a daughter -> number of its mother.
    followed
        Whether a number means the same cell in every plane; otherwise it is the cell's rank in its own plane.
    note
        Why they were not tracked, if a user would expect it; otherwise empty.
    """

    frames: tuple[CellFrame, ...]
    numbers: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    parents: Mapping[int, int]
    followed: bool
    note: str = ""

    @property
    def count(self) -> int:
        """Highest number; all numbers from 1 up are in use."""
        return max((number for frame in self.numbers for number in frame), default=0)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cells by number."""
        return cell_names(self.count)

    @property
    def divisions(self) -> int:
        return len(set(self.parents.values()))

    def scores(self) -> list[float]:
        """For each number, the mean score over the planes in which the cell was found."""
        found: list[list[float]] = [[] for _ in range(self.count)]
        for frame, numbers in zip(self.frames, self.numbers, strict=True):
            for number, score in zip(numbers, frame.scores, strict=True):
                found[number - 1].append(score)
        return [float(np.mean(scores)) for scores in found]

    def rows(self) -> list[Row]:
        """The rows of the table: for each plane that of all cells together, then one per cell."""
        rows: list[Row] = []
        for place, frame in enumerate(self.frames):
            rows += [{**row, **self._followed(None)} for row in frame.together]
            rows += self.rows_at(place)
        return rows

    def rows_at(self, place: int) -> list[Row]:
        """One row per cell of a plane, in the order of its cells, with the number of the cell."""
        frame, numbers = self.frames[place], self.numbers[place]
        return [
            {**row, "class": cell_names(number)[-1], "label": number, "score": score, **self._followed(number)}
            for row, number, score in zip(frame.rows[1:], numbers, frame.scores, strict=True)
        ]

    def _followed(self, number: int | None) -> Row:
        """The tracking columns, if cells are tracked."""
        if not self.followed:
            return {}
        return {"track": number, "parent": None if number is None else self.parents.get(number)}

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell with its label array."""
        # Zero pages take no memory until they are written.
        kind = np.min_scalar_type(self.count)
        cells = tuple(Cell(number, np.zeros(self.shape, kind), [], []) for number in range(1, self.count + 1))
        for place, (frame, numbers) in enumerate(zip(self.frames, self.numbers, strict=True)):
            each = zip(numbers, frame.masks, self.rows_at(place), frame.scores, strict=True)
            for number, mask, row, score in each:
                cell = cells[number - 1]
                cell.labels[frame.index][mask] = number
                cell.rows.append(row)
                if mask.any():
                    cell.boxes.append((frame.index, _corners(mask), score))
        return cells

    def paths(self) -> tuple[npt.NDArray[np.float64], dict[int, list[int]]]:
        """Data (N, 4: number, t, y, x in pixels) and graph (daughter -> mothers) of a napari Tracks layer."""
        points = [
            (row["label"], row["frame"], row["centroid_y_px"], row["centroid_x_px"])
            for cell in self.cells
            for row in cell.rows
            if row.get("centroid_y_px") is not None
        ]
        there = {number for number, *_ in points}
        graph = {child: [mother] for child, mother in self.parents.items() if child in there and mother in there}
        return np.array(points, np.float64).reshape(-1, 4), graph


def follow(frames: Iterable[CellFrame], image: EmbryoImage) -> ImageCells:
    """Number the cells of an image, by identity if there is one axis to track them along (``FOLLOWED``).

    Parameters
    ----------
    frames
        The processed planes, in any order.
    image
        The image they belong to.
    """
    ordered = tuple(sorted(frames, key=lambda frame: frame.index))
    is_followed = image.axes in FOLLOWED
    tracks = link(frame.masks for frame in ordered) if is_followed else _ranked(ordered)
    note = NOT_FOLLOWED if len(ordered) > 1 and not is_followed else ""
    parents = tracks.parents if "T" in image.axes else {}
    return ImageCells(ordered, tracks.ids, image.shape, parents, is_followed, note)


def _ranked(frames: Iterable[CellFrame]) -> Tracks:
    """Number every plane separately: cell 1 has the highest score."""
    return Tracks(tuple(tuple(range(1, len(frame.runs) + 1)) for frame in frames), {})


def _corners(mask: Masks) -> npt.NDArray[np.float64]:
    """Box around the pixels, whose centers are at integers."""
    ys, xs = np.nonzero(mask)
    top, bottom, left, right = ys.min() - 0.5, ys.max() + 0.5, xs.min() - 0.5, xs.max() + 0.5
    return np.array([(top, left), (top, right), (bottom, right), (bottom, left)])
