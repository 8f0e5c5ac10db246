"""How much of an embryo is fragments, and which grade that is."""

import numpy as np
import numpy.typing as npt

from napari_embryo.measure.objects import Row
from napari_embryo.settings import GRADES

RATIO_COLUMNS = (
    "ratio_from_mask",
    "grade_from_mask",
    "ratio_regressed",
    "grade",
    "grade_low",
    "grade_high",
    "ratio_difference",
    "grades_apart",
    "ratio_basis",
)
"""The columns that :func:`fragmentation` adds to the row of the fragments."""


def grade(ratio: float) -> str:
    """The grade of a fragmentation ratio in [0, 1]: A below 0.10, B below 0.25, C to 0.50, D above.

    Raises
    ------
    ValueError
        Outside [0, 1].
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"a fragmentation ratio of {ratio} came; it is a share between 0 and 1")
    if ratio > GRADES["C"][1]:
        return "D"
    return next(name for name, (low, _) in reversed(GRADES.items()) if name != "D" and ratio >= low)


def fragmentation(fragments: npt.ArrayLike, embryo: npt.ArrayLike, regressed: float | None = None) -> Row:
    """The fragmentation ratio of one picture, from its masks and, where a network told it, by regression.

    Parameters
    ----------
    fragments, embryo
        (H, W) bool; what is either is the embryo, the basis of the ratio (our decision).
    regressed
        The regression head's ratio in [0, 1].

    Returns
    -------
    dict
        With the keys ``RATIO_COLUMNS``: both ratios, their grades (``grade`` is that of the regressed ratio, of the
        mask's where there is none; ``grade_low`` and ``grade_high`` are its interval), how far the ratios are apart,
        how many grades, and the basis. None where there is no embryo or nothing was regressed.
    """
    found = np.asarray(fragments, bool)
    area = int((found | np.asarray(embryo, bool)).sum())
    from_mask = int(found.sum()) / area if area else None
    both = (from_mask, regressed)
    grades = [None if ratio is None else grade(ratio) for ratio in both]
    row: Row = dict.fromkeys(RATIO_COLUMNS)
    row |= {"ratio_from_mask": from_mask, "grade_from_mask": grades[0], "ratio_basis": "embryo"}
    row |= {"ratio_regressed": regressed}
    if shown := grades[1] or grades[0]:
        row |= {"grade": shown, "grade_low": GRADES[shown][0], "grade_high": GRADES[shown][1]}
    if from_mask is not None and regressed is not None:
        names = list(GRADES)
        apart = abs(names.index(grade(from_mask)) - names.index(grade(regressed)))
        row |= {"ratio_difference": abs(from_mask - regressed), "grades_apart": apart}
    return row
