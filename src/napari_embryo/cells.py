"""The single cells of an image: followed from picture to picture, numbered, and listed in rows.

The files of the command line and the layers of the window both show what :func:`follow` makes of the pictures.
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
"""Axes of the stacks through which a cell keeps its number. Through focal planes nothing divides (docs/cells.md)."""

NOT_FOLLOWED = (
    "the cells are numbered by their score in every picture: choose one focal plane of a time-lapse, or the sharpest, "
    "to follow them"
)

Masks = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True, eq=False)
class CellFrame:
    """The cells of one picture as run lengths, so that a long time-lapse can wait for its cells to be followed.

    Parameters
    ----------
    index
        Place of the picture along the image's leading axes.
    hw
        Height and width.
    runs
        COCO's run lengths of each cell, the surest first.
    scores
        How sure the network is of each.
    rows
        The row of all cells together, then one per cell; none for a picture that could not be done.
    maps
        What the network's attention was on, where it is shown.
    """

    index: Index
    hw: tuple[int, int]
    runs: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    rows: Sequence[Row] = ()
    maps: tuple[AttentionMap, ...] = ()

    @classmethod
    def of(cls, result: PlaneResult, maps: tuple[AttentionMap, ...] = ()) -> Self:
        """What is kept of a picture.

        Raises
        ------
        TypeError
            When parts of an embryo were found in it, not cells.
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
        """The row of all cells; empty for a picture that could not be done."""
        return list(self.rows[:1])

    def count(self) -> npt.NDArray[np.uint8]:
        """(H, W): how many cells cover each pixel."""
        return covering(self.masks, self.hw)


def covering(masks: Iterable[Masks], hw: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """(H, W): how many of the masks cover each pixel."""
    count = np.zeros(hw, np.uint8)
    for mask in masks:
        count += mask
    return count


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
        For each of them the corners (4, 2: y, x in pixels) of the smallest box around it, and its score.
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
        Its pictures, in order.
    numbers
        For each picture the number of each of its cells, in their order.
    shape
        Of the image.
    parents
        Daughter -> mother, by number.
    followed
        Whether a number means the same cell in every picture; otherwise it is the cell's rank in its own picture.
    note
        Why they were not followed, where a user would expect it; otherwise empty.
    """

    frames: tuple[CellFrame, ...]
    numbers: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    parents: Mapping[int, int]
    followed: bool
    note: str = ""

    @property
    def count(self) -> int:
        """How many numbers there are; they run from 1 to this."""
        return max((number for frame in self.numbers for number in frame), default=0)

    @property
    def names(self) -> tuple[str, ...]:
        """What the cells are called, by number."""
        return cell_names(self.count)

    @property
    def divisions(self) -> int:
        return len(set(self.parents.values()))

    def scores(self) -> list[float]:
        """For each number the mean score over the pictures in which the cell was found."""
        found: list[list[float]] = [[] for _ in range(self.count)]
        for frame, numbers in zip(self.frames, self.numbers, strict=True):
            for number, score in zip(numbers, frame.scores, strict=True):
                found[number - 1].append(score)
        return [float(np.mean(scores)) for scores in found]

    def rows(self) -> list[Row]:
        """The rows of the table: for each picture that of all cells together, then one per cell."""
        rows: list[Row] = []
        for place, frame in enumerate(self.frames):
            rows += [{**row, **self._followed(None)} for row in frame.together]
            rows += self.rows_at(place)
        return rows

    def rows_at(self, place: int) -> list[Row]:
        """One row per cell of a picture, in the order of the picture's cells, under the cell's own number."""
        frame, numbers = self.frames[place], self.numbers[place]
        return [
            {**row, "class": cell_names(number)[-1], "label": number, "score": score, **self._followed(number)}
            for row, number, score in zip(frame.rows[1:], numbers, frame.scores, strict=True)
        ]

    def _followed(self, number: int | None) -> Row:
        """The columns by which a cell is followed, where it is."""
        if not self.followed:
            return {}
        return {"track": number, "parent": None if number is None else self.parents.get(number)}

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell with its pixels."""
        # Pages of zeros take no memory until they are written.
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
    """Number the cells of an image, by identity where there is one axis to follow them along (``FOLLOWED``).

    Parameters
    ----------
    frames
        The pictures that were done, in any order.
    image
        Where they belong.
    """
    ordered = tuple(sorted(frames, key=lambda frame: frame.index))
    is_followed = image.axes in FOLLOWED
    tracks = link(frame.masks for frame in ordered) if is_followed else _ranked(ordered)
    note = NOT_FOLLOWED if len(ordered) > 1 and not is_followed else ""
    parents = tracks.parents if "T" in image.axes else {}
    return ImageCells(ordered, tracks.ids, image.shape, parents, is_followed, note)


def _ranked(frames: Iterable[CellFrame]) -> Tracks:
    """Every picture on its own: the surest cell is cell 1."""
    return Tracks(tuple(tuple(range(1, len(frame.runs) + 1)) for frame in frames), {})


def _corners(mask: Masks) -> npt.NDArray[np.float64]:
    """Around the pixels, whose centers are whole numbers."""
    ys, xs = np.nonzero(mask)
    top, bottom, left, right = ys.min() - 0.5, ys.max() + 0.5, xs.min() - 0.5, xs.max() + 0.5
    return np.array([(top, left), (top, right), (bottom, right), (bottom, left)])
