"""Fragmentation ratio of an embryo and its grade."""

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
    """The grade of a fragmentation ratio in [0, 1]: A below 0.10, B below 0.25, C up to 0.50, D above.

    Raises
    ------
    ValueError
        If the ratio is outside [0, 1].
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"the fragmentation ratio is {ratio}, but must be between 0 and 1")
    if ratio > GRADES["C"][1]:
        return "D"
    return next(name for name, (low, _) in reversed(GRADES.items()) if name != "D" and ratio >= low)


def fragmentation(fragments: npt.ArrayLike, embryo: npt.ArrayLike, regressed: float | None = None) -> Row:
    """The fragmentation ratio of one image, from its masks and, if available, by regression.

    Parameters
    ----------
    fragments, embryo
        (H, W) bool; their union is the embryo, the basis of the ratio (docs/decisions.md, "Basis of the ratio").
    regressed
        The regression head's ratio in [0, 1].

    Returns
    -------
    dict
        Row with the keys ``RATIO_COLUMNS``: both ratios and their grades (``grade`` is that of the regressed ratio, or
        of the mask's if there is none; ``grade_low`` and ``grade_high`` are its interval), the difference of the ratios
        and of the grades, and the basis. Values are None without an embryo or a regressed ratio.
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
