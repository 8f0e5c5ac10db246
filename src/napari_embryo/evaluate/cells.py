"""Metrics of single cells: complete, overlapping masks scored by COCO's protocol, and cell counts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_embryo.data import Sample, rle
from napari_embryo.evaluate.bootstrap import bootstrap_interval, drawn_embryos
from napari_embryo.image import Cells

Masks = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

CELL_COLUMNS = ("image", "embryo", "source", "cells", "found", "count_right", "best_iou")
"""Columns of :func:`cell_rows`."""

IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10))
RECALLS = np.linspace(0, 1, 101)
MOST = 100
"""Cells per image that are scored, highest scores first (COCO's maxDets)."""

SURE = 0.5
"""Lowest score of a cell that is shown and counted (docs/decisions.md, "Score of a shown cell")."""

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
    hw
        Height and width.
    truth, found
        COCO run lengths of each mask; found cells are sorted by score, highest first.
    scores
        (D,) scores of the found cells.
    ious
        (D, G) IoU of every found cell with every true one.
    """

    image: str
    embryo: str
    source: str
    hw: tuple[int, int]
    truth: tuple[str, ...]
    found: tuple[str, ...]
    scores: Floats
    ious: Floats

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
    masks = found.masks[order]
    return Judged(
        sample.name,
        sample.embryo,
        sample.source,
        (cells.shape[1], cells.shape[2]),
        _packed(cells),
        _packed(masks),
        found.scores[order].astype(np.float64),
        _ious(masks, cells),
    )


def _packed(masks: Masks) -> tuple[str, ...]:
    return tuple(rle.compress(rle.encode(mask)) for mask in masks)


def _ious(masks: Masks, others: Masks) -> Floats:
    """(D, G) IoU; 0 where both masks are empty."""
    first, second = (m.reshape(len(m), int(np.prod(m.shape[1:]))).astype(np.float32) for m in (masks, others))
    both = (first @ second.T).astype(np.float64)
    either = first.sum(1)[:, None] + second.sum(1) - both
    ious: Floats = both / np.maximum(either, 1)
    return ious


# --- average precision ----------------------------------------------------------------------------------------------


def average_precision(judged: Sequence[Judged]) -> dict[str, float]:
    """COCO's mask AP of complete silhouettes, by faster-coco-eval; masks may overlap.

    Returns
    -------
    dict
        ``ap`` (mean over IoU 0.50, 0.55 ... 0.95), ``ap50`` and ``ap75``; NaN if there is no true cell.

    Raises
    ------
    ModuleNotFoundError
        If faster-coco-eval is not installed; the message says how to install it.
    """
    if not any(one.truth for one in judged):
        return {"ap": nan, "ap50": nan, "ap75": nan}
    if not any(one.found for one in judged):
        return {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
    precision = _precision_by_coco(judged)
    return {"ap": float(precision.mean()), "ap50": float(precision[0].mean()), "ap75": float(precision[5].mean())}


def _precision_by_coco(judged: Sequence[Judged]) -> Floats:
    """(10, 101) precision by threshold and recall."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ModuleNotFoundError(
            "scoring cells needs faster-coco-eval, which is not installed: pip install faster-coco-eval"
        ) from error
    images = [{"id": i, "height": one.hw[0], "width": one.hw[1]} for i, one in enumerate(judged, start=1)]
    truth = COCO({"images": images, "categories": [{"id": 1, "name": "cell"}], "annotations": _true(judged)})
    found = truth.loadRes(_found(judged))
    run = COCOeval_faster(truth, found, "segm", print_function=lambda *_: None)
    run.params.maxDets = [MOST]
    run.evaluate()
    run.accumulate()
    precision: Floats = np.asarray(run.eval["precision"], np.float64)[:, :, 0, 0, -1]
    return precision


def _true(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """COCO annotations; ids start at 1, since 0 counts as unmatched."""
    each = [(image, one.hw, text) for image, one in enumerate(judged, start=1) for text in one.truth]
    return [
        {"id": i, "image_id": image, "category_id": 1, "iscrowd": 0, "area": _area(text), **_mask(text, hw)}
        for i, (image, hw, text) in enumerate(each, start=1)
    ]


def _found(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    return [
        {"image_id": image, "category_id": 1, "score": float(score), **_mask(text, one.hw)}
        for image, one in enumerate(judged, start=1)
        for text, score in zip(one.found, one.scores, strict=True)
    ]


def _mask(text: str, hw: tuple[int, int]) -> dict[str, Any]:
    return {"segmentation": {"size": list(hw), "counts": text}}


def _area(text: str) -> int:
    return sum(rle.decompress(text)[1::2])


@dataclass(frozen=True, eq=False)
class _Matched:
    """Which found cells of one image are correct; average precision is computed from these of many images."""

    scores: Floats
    hits: npt.NDArray[np.bool_]
    """(10, D) by threshold."""
    true: int

    @classmethod
    def of(cls, one: Judged) -> "_Matched":
        hits = np.stack([_hits(one.ious, threshold) for threshold in IOU_THRESHOLDS])
        return cls(one.scores, hits, len(one.truth))


def _hits(ious: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """(D,): each found cell, highest score first, takes the best-fitting true cell that is still free."""
    free, hits = np.ones(ious.shape[1], bool), np.zeros(len(ious), bool)
    for i, row in enumerate(ious):
        open_ones = np.where(free & (row >= min(threshold, 1 - 1e-10)), row, -1.0)
        if (open_ones >= 0).any():
            hits[i] = True
            free[len(row) - 1 - int(np.argmax(open_ones[::-1]))] = False  # the last one in a tie, as in COCO's code
    return hits


def _mean_precision(matched: Sequence[_Matched]) -> float:
    """The same AP for any resample of images, for the intervals; NaN without a true cell."""
    true = sum(one.true for one in matched)
    if not true:
        return nan
    order = np.argsort(-np.concatenate([one.scores for one in matched]), kind="stable")
    right = np.concatenate([one.hits for one in matched], axis=1)[:, order].cumsum(axis=1)
    if not right.size:
        return 0.0
    precision = right / np.arange(1, right.shape[1] + 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(envelope, ((0, 0), (0, 1)))
    at = [np.searchsorted(row / true, RECALLS) for row in right]
    return float(np.mean([row[places] for row, places in zip(padded, at, strict=True)]))


# --- tables ---------------------------------------------------------------------------------------------------------


def cell_rows(judged: Iterable[Judged]) -> pd.DataFrame:
    """One row per image: true and found cell counts, and the mean best IoU of the true cells."""
    return pd.DataFrame([_row(one) for one in judged], columns=list(CELL_COLUMNS))


def _row(one: Judged) -> dict[str, object]:
    return {
        "image": one.image,
        "embryo": one.embryo,
        "source": one.source,
        "cells": len(one.truth),
        "found": one.count,
        "count_right": one.count == len(one.truth),
        "best_iou": float(one.best.mean()) if one.truth else nan,
    }


def cell_summary(judged: Sequence[Judged]) -> dict[str, float]:
    """Summary over all images, with 95 % bootstrap intervals over embryos.

    Returns
    -------
    dict
        ``pictures``, ``embryos``, ``cells``; ``ap``, ``ap50``, ``ap75`` (:func:`average_precision`); ``best_iou``: mean
        over true cells of the best IoU with a cell found above the score threshold; ``count_right``: fraction of images
        with the right number of cells, ``few_right``: the same of the ``few`` images with up to 4 cells. ``ap``,
        ``best_iou``, ``count_right`` and ``few_right`` also with ``_low`` and ``_high``, which are NaN with fewer than
        two embryos.
    """
    embryos = np.array([one.embryo for one in judged], str)
    best = np.concatenate([one.best for one in judged]) if judged else np.zeros(0)
    right = np.array([one.count == len(one.truth) for one in judged], float)
    few = np.array([len(one.truth) <= FEW for one in judged], bool)
    whose = np.repeat(embryos, [len(one.truth) for one in judged])
    return {
        "pictures": len(judged),
        "embryos": len(np.unique(embryos)),
        "cells": len(best),
        **average_precision(judged),
        **_precision_interval(judged, embryos),
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


def _precision_interval(judged: Sequence[Judged], embryos: npt.NDArray[np.str_]) -> Mapping[str, float]:
    if not any(one.truth for one in judged) or len(np.unique(embryos)) < 2:
        return {"ap_low": nan, "ap_high": nan}
    matched = [_Matched.of(one) for one in judged]
    drawn = [_mean_precision([matched[i] for i in places]) for places in drawn_embryos(embryos)]
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return {"ap_low": float(low), "ap_high": float(high)}
