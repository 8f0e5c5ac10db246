"""Measure single cells and how much they overlap."""

import numpy as np
import numpy.typing as npt

from napari_embryo.image import Cells
from napari_embryo.measure.objects import Row, measure_masks

ALL_CELLS = "cells"
"""Class name of the row for all cells of an image together."""

CELL_COLUMNS = ("overlap", "score", "n_cells")
"""The columns that :func:`measure_cells` adds."""


def measure_cells(found: Cells, pixel_size_um: tuple[float, float] | None = None) -> list[Row]:
    """Measure the cells of one image: all together, then each as a whole, including parts covered by others.

    Parameters
    ----------
    found
        The cells of one image with their scores; there may be none.
    pixel_size_um
        Height and width of a pixel in micrometers, if known.

    Returns
    -------
    list of dict
        Rows of :func:`measure_masks` with the additional ``CELL_COLUMNS``: ``overlap`` is the share of a cell's area
        that is also covered by other cells, and for all cells together the share covered by more than one; ``score`` is
        the confidence of the network; ``n_cells``, in the first row only, is the number of cells. An image without
        cells has only this row, which has no label.
    """
    scores = found.scores.tolist()
    covered = found.masks.sum(axis=0)
    rows = measure_masks(covered[None] > 0, [ALL_CELLS], pixel_size_um)
    rows[0] |= {"label": None, **_of_cell(_share(covered > 1, covered > 0), None, len(scores))}
    each = measure_masks(found.masks, found.classes, pixel_size_um)
    for row, mask, score in zip(each, found.masks, scores, strict=True):
        rows.append({**row, **_of_cell(_share(covered > 1, mask), score, None)})
    return rows


def _of_cell(overlap: float | None, score: float | None, n_cells: int | None) -> Row:
    return dict(zip(CELL_COLUMNS, (overlap, score, n_cells), strict=True))


def _share(part: npt.NDArray[np.bool_], whole: npt.NDArray[np.bool_]) -> float | None:
    area = int(whole.sum())
    return int((part & whole).sum()) / area if area else None
