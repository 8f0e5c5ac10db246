"""Average precision of the masks that were found, by COCO's protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SURE = 0.5
"""Lowest score of a cell that is shown and counted (docs/decisions.md, "Score of a shown cell")."""

IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10))
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Matches:
    """Which of the masks found in one image are correct.

    Parameters
    ----------
    scores
        (D,) scores of the found masks, highest first.
    hits
        (10, D): whether each is correct, for each of ``IOU_THRESHOLDS``.
    true
        Number of true masks.
    """

    scores: Floats
    hits: npt.NDArray[np.bool_]
    true: int

    @classmethod
    def of(cls, ious: Floats, scores: Floats) -> Self:
        """Match masks.

        Parameters
        ----------
        ious
            (D, G): IoU of every found with every true mask.
        scores
            (D,) scores of the found masks, in any order.
        """
        order = np.argsort(-scores, kind="stable")
        hits = np.stack([_hits(ious[order], threshold) for threshold in IOU_THRESHOLDS])
        return cls(scores[order], hits, ious.shape[1])


def _hits(ious: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """(D,): each found mask in turn takes the best-fitting true one that is still free."""
    free, hits = np.ones(ious.shape[1], bool), np.zeros(len(ious), bool)
    for i, row in enumerate(ious):
        possible = np.where(free & (row >= min(threshold, 1 - 1e-10)), row, -1.0)
        if (possible >= 0).any():
            hits[i] = True
            free[len(row) - 1 - int(np.argmax(possible[::-1]))] = False  # the last one in a tie, as in COCO's code
    return hits


def average_precision(pictures: Sequence[Matches]) -> Floats:
    """COCO's average precision over images, (10,): one for each of ``IOU_THRESHOLDS``.

    It is the mean over 101 recalls of the best precision at that recall or beyond; NaN without a true mask. The mean
    of the ten is COCO's AP.
    """
    true = sum(each.true for each in pictures)
    if not true:
        return np.full(len(IOU_THRESHOLDS), np.nan)
    order = np.argsort(-np.concatenate([each.scores for each in pictures]), kind="stable")
    right = np.concatenate([each.hits for each in pictures], axis=1)[:, order].cumsum(axis=1)
    if not right.size:
        return np.zeros(len(IOU_THRESHOLDS))
    precision = right / np.arange(1, right.shape[1] + 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(envelope, ((0, 0), (0, 1)))
    at = [np.searchsorted(row / true, RECALLS) for row in right]
    return np.array([row[places].mean() for row, places in zip(padded, at, strict=True)])
