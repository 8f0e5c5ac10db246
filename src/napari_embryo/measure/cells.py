"""Single cells: what each covers, and how much of it lies over or below others."""

import numpy as np
import numpy.typing as npt

from napari_embryo.image import Cells
from napari_embryo.measure.objects import Row, measure_masks

CELLS = "cells"
"""What the row of all cells of a picture together is called."""

CELL_COLUMNS = ("overlap", "score", "n_cells")
"""The columns that :func:`measure_cells` adds."""


def measure_cells(found: Cells, pixel_size_um: tuple[float, float] | None = None) -> list[Row]:
    """Measure the cells of one picture: all together, then each as a whole, also where others cover it.

    Parameters
    ----------
    found
        The cells of one picture, with their scores; there may be none.
    pixel_size_um
        Height and width of a pixel in micrometers, where known.

    Returns
    -------
    list of dict
        Rows as :func:`measure_masks` makes them with ``CELL_COLUMNS`` beside: ``overlap`` is the share of a cell's area
        that other cells cover, too, of all together the share that more than one covers; ``score`` is how sure the
        network is of the cell; ``n_cells``, in the first row alone, is how many there are. That row is the only one of
        a picture without cells; it has no label.
    """
    scores = found.scores.tolist()
    covered = found.masks.sum(axis=0)
    rows = measure_masks(covered[None] > 0, [CELLS], pixel_size_um)
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
