"""Metrics of single cells: complete, overlapping masks scored by COCO's protocol, and cell counts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_embryo.data import Sample
from napari_embryo.evaluate.bootstrap import bootstrap_interval, drawn_embryos
from napari_embryo.image import Cells
from napari_embryo.measure.average_precision import SURE, Matches, average_precision

Masks = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

CELL_COLUMNS = ("image", "embryo", "source", "cells", "found", "count_right", "best_iou")
"""Columns of :func:`cell_rows`."""

MOST = 100
"""Cells per image that are scored, highest scores first (COCO's maxDets)."""

LEAST_SCORE = 0.001
"""Lowest score of a cell that enters the average precision; the network has already discarded the others."""

FEW = 4
"""Embryos of up to this many cells are also reported separately."""


@dataclass(frozen=True, eq=False)
class Judged:
    """The true and the found cells of one image, in compact form.

    Parameters
    ----------
    image, embryo, source
        Those of the sample.
    scores
        (D,) of those found, the highest first.
    ious
        (D, G) IoU of every found cell with every true one.
    """

    image: str
    embryo: str
    source: str
    scores: Floats
    ious: Floats

    @property
    def true(self) -> int:
        """How many true cells there are."""
        return int(self.ious.shape[1])

    @property
    def best(self) -> Floats:
        """(G,): for every true cell the best IoU with a cell found above the score threshold; 0 if there is none."""
        best: Floats = self.ious[self.scores >= SURE].max(axis=0, initial=0.0)
        return best

    @property
    def count(self) -> int:
        """Number of cells found above the score threshold."""
        return int((self.scores >= SURE).sum())


def judge_cells(sample: Sample, cells: Masks, found: Cells) -> Judged:
    """Compare the cells found in one image with the true ones.

    Parameters
    ----------
    sample
        The sample the image belongs to.
    cells
        (G, H, W) true complete silhouettes.
    found
        Single cells with their scores, including low ones.
    """
    order = np.argsort(-found.scores, kind="stable")[:MOST]
    scores = found.scores[order].astype(np.float64)
    return Judged(sample.name, sample.embryo, sample.source, scores, _ious(found.masks[order], cells))


def _ious(masks: Masks, others: Masks) -> Floats:
    """(D, G) IoU; 0 where both masks are empty."""
    first, second = (m.reshape(len(m), int(np.prod(m.shape[1:]))).astype(np.float32) for m in (masks, others))
    both = (first @ second.T).astype(np.float64)
    either = first.sum(1)[:, None] + second.sum(1) - both
    ious: Floats = both / np.maximum(either, 1)
    return ious


# --- tables ---------------------------------------------------------------------------------------------------------


def cell_rows(judged: Iterable[Judged]) -> pd.DataFrame:
    """One row per image: true and found cell counts, and the mean best IoU of the true cells."""
    return pd.DataFrame([_row(one) for one in judged], columns=list(CELL_COLUMNS))


def _row(one: Judged) -> dict[str, object]:
    return {
        "image": one.image,
        "embryo": one.embryo,
        "source": one.source,
        "cells": one.true,
        "found": one.count,
        "count_right": one.count == one.true,
        "best_iou": float(one.best.mean()) if one.true else nan,
    }


def cell_summary(judged: Sequence[Judged]) -> dict[str, float]:
    """Summary over all images, with 95 % bootstrap intervals over embryos.

    Returns
    -------
    dict
        ``pictures``, ``embryos``, ``cells``; ``ap``, ``ap50``, ``ap75``: COCO's, of complete silhouettes;
        ``best_iou``: mean over true cells of the best IoU with one found for sure; ``count_right``: share of the
        pictures with as many cells as there are, and ``few_right`` of the ``few`` pictures with up to 4. ``ap``,
        ``best_iou``, ``count_right`` and ``few_right`` also with ``_low`` and ``_high``; NaN where there is nothing to
        tell it from, or one embryo alone.
    """
    embryos = np.array([one.embryo for one in judged], str)
    best = np.concatenate([one.best for one in judged]) if judged else np.zeros(0)
    right = np.array([one.count == one.true for one in judged], float)
    few = np.array([one.true <= FEW for one in judged], bool)
    whose = np.repeat(embryos, [one.true for one in judged])
    return {
        "pictures": len(judged),
        "embryos": len(np.unique(embryos)),
        "cells": len(best),
        **_precision(judged, embryos),
        **_mean("best_iou", best, whose),
        **_mean("count_right", right, embryos),
        "few": int(few.sum()),
        **_mean("few_right", right[few], embryos[few]),
    }


def _mean(name: str, values: Floats, embryos: npt.NDArray[np.str_]) -> Mapping[str, float]:
    if not len(values):
        return {name: nan, f"{name}_low": nan, f"{name}_high": nan}
    low, high = bootstrap_interval(values, embryos)
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}


def _precision(judged: Sequence[Judged], embryos: npt.NDArray[np.str_]) -> Mapping[str, float]:
    pictures = [Matches.of(one.ious, one.scores) for one in judged]
    each = average_precision(pictures)
    low, high = _precision_interval(pictures, embryos)
    return {"ap": float(each.mean()), "ap50": float(each[0]), "ap75": float(each[5]), "ap_low": low, "ap_high": high}


def _precision_interval(pictures: Sequence[Matches], embryos: npt.NDArray[np.str_]) -> tuple[float, float]:
    if not any(each.true for each in pictures) or len(np.unique(embryos)) < 2:
        return nan, nan
    drawn = [average_precision([pictures[i] for i in places]).mean() for places in drawn_embryos(embryos)]
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return float(low), float(high)
