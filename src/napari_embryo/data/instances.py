"""Label pictures with one number per cell, as Cellpose, StarDist and micro-sam write them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_embryo.data.polygons import check_cells
from napari_embryo.data.sample import Bools, Remark

_LARGE = 0.2
"""Share of a cell's pixels from which a separate area is more than a stray brush stroke."""
_SOFT = 20
"""So many numbers beside a dominating 255 are no cells but soft edges."""
ONE_VALUE = "a mask of the single value 255 was read as one cell"
SEPARATE = "one number stands for separate areas, read as one cell"


def cells_of_labels(path: Path, values: npt.NDArray[Any]) -> tuple[Bools, tuple[Remark, ...]]:
    """(N, H, W) bool, a cell for each number but 0, and what is doubtful about them.

    Raises
    ------
    ValueError
        If the numbers cannot be those of single cells.
    """
    numbers, areas = np.unique(values[values != 0], return_counts=True)
    _check(path, values, numbers, areas)
    cells: Bools = values[None] == numbers[:, None, None]
    parts = [_large_parts(cell) for cell in cells]
    if len(cells) == 1 and parts[0] > 1:
        raise ValueError(
            f"{path}: {parts[0]} separate areas have the same number, {numbers[0]:g}; every cell needs a number of "
            "its own, as Cellpose and StarDist write them"
        )
    separate = [Remark(SEPARATE, f"{number:g}") for number, count in zip(numbers, parts, strict=True) if count > 1]
    single = [Remark(ONE_VALUE, path.name)] if numbers.tolist() == [255] else []
    return cells, (*separate, *single)


def _check(path: Path, values: npt.NDArray[Any], numbers: npt.NDArray[Any], areas: npt.NDArray[np.intp]) -> None:
    if len(numbers) and numbers[0] < 0:
        raise ValueError(f"{path}: the label {numbers[0]:g}; labels are whole numbers from 0, the background, upwards")
    if len(numbers) > _SOFT and numbers[-1] == 255 and areas[-1] > areas.sum() / 2:
        raise ValueError(
            f"{path}: one area of 255 with soft edges; every cell needs its own number. Save the labels as they "
            "are, without smoothing"
        )
    check_cells(len(numbers), values.shape)


def _large_parts(cell: Bools) -> int:
    rows, columns = ndimage.find_objects(cell.astype(np.uint8))[0]
    parts, count = ndimage.label(cell[rows, columns], np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return int((sizes >= _LARGE * sizes.sum()).sum())
