"""Agreement of two masks."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


def iou(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Intersection over union of two masks of the same shape; 1 if both are empty."""
    return pooled_iou([(a, b)])


def dice(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Dice coefficient (F1 over pixels) of two masks of the same shape; 1 if both are empty."""
    both, either = _intersection_union(a, b)
    return 2 * both / (both + either) if either else 1.0


def pooled_iou(pairs: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]) -> float:
    """Intersection over union of many pairs of masks as if they were one image (micro average).

    1 if all are empty. The mean of ``iou`` over the pairs (macro average) instead gives every image the same weight.
    """
    counts = np.array([_intersection_union(a, b) for a, b in pairs], np.int64).reshape(-1, 2).sum(axis=0)
    return float(counts[0] / counts[1]) if counts[1] else 1.0


def _intersection_union(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[int, int]:
    first, second = np.asarray(a, bool), np.asarray(b, bool)
    if first.shape != second.shape:
        raise ValueError(
            f"masks of shapes {first.shape} and {second.shape} cannot be compared; resize one to the other"
        )
    return int(np.count_nonzero(first & second)), int(np.count_nonzero(first | second))
