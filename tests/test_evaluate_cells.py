"""Single cells, found and true, against COCO's own evaluation and hand-counted cases."""

from math import isnan
from typing import Any

import numpy as np
import pytest

from napari_embryo import evaluate
from napari_embryo.data import Sample
from napari_embryo.evaluate import Judged, cell_rows, cell_summary, judge_cells
from napari_embryo.image import Cells

HW = (48, 64)
EMPTY = np.zeros((0, *HW), bool)


def ellipses(rng: np.random.Generator, count: int) -> np.ndarray:
    """Large, so that they overlap."""
    y, x = np.mgrid[: HW[0], : HW[1]]
    centers, axes = rng.uniform((8, 8), (40, 56), (count, 2)), rng.uniform(6, 16, (count, 2))
    each = [((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 <= 1 for (cy, cx), (a, b) in zip(centers, axes, strict=True)]
    return np.stack(each) if each else EMPTY


def moved(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return np.roll(mask, rng.integers(-3, 4, 2), (0, 1))


def sample(name: str = "a", embryo: str = "e", source: str = "s") -> Sample:
    return Sample.of(name, np.zeros(HW, np.uint8), EMPTY, embryo=embryo, source=source)


def found(masks: np.ndarray, scores: Any) -> Cells:
    return Cells(masks, masks.astype(np.float32), np.asarray(scores, np.float32))


def cells_at_random(seed: int, pictures: int = 6) -> list[tuple[np.ndarray, Cells]]:
    """With misses, doubles, inventions, equal scores and pictures without any."""
    rng = np.random.default_rng(seed)
    each = []
    for _ in range(pictures):
        cells = ellipses(rng, int(rng.integers(0, 7)))
        guesses = [moved(rng, cell) for cell in cells for _ in range(rng.integers(0, 3))]
        guesses += list(ellipses(rng, int(rng.integers(0, 3))))
        masks = np.stack(guesses) if guesses else EMPTY
        scores = np.round(rng.random(len(masks)), 1)
        each.append((cells, found(masks, scores)))
    return each


def judged(each: list[tuple[np.ndarray, Cells]]) -> list[Judged]:
    return [judge_cells(sample(f"p{i}", f"e{i // 2}"), cells, answer) for i, (cells, answer) in enumerate(each)]


def by_pycocotools(each: list[tuple[np.ndarray, Cells]]) -> tuple[float, float, float]:
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def packed(cell: np.ndarray) -> Any:
        return mask.encode(np.asfortranarray(cell.astype(np.uint8)))

    truth = COCO()
    true = [(image, cell) for image, (cells, _) in enumerate(each, 1) for cell in cells]
    truth.dataset = {
        "images": [{"id": i + 1, "height": HW[0], "width": HW[1]} for i in range(len(each))],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 1, "iscrowd": 0, "area": 99, "segmentation": packed(cell)}
            for i, (image, cell) in enumerate(true, 1)
        ],
    }
    truth.createIndex()
    answers = [
        {"image_id": image, "category_id": 1, "score": score, "segmentation": packed(cell)}
        for image, (_, answer) in enumerate(each, 1)
        for cell, score in zip(answer.masks, answer.scores.tolist(), strict=True)
    ]
    run = COCOeval(truth, truth.loadRes(answers), "segm")
    run.evaluate()
    run.accumulate()
    run.summarize()
    ap, ap50, ap75 = run.stats[:3]
    return float(ap), float(ap50), float(ap75)


@pytest.mark.parametrize("seed", range(12))
def test_the_average_precision_is_that_of_pycocotools(seed: int) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    each = cells_at_random(seed)
    ours = cell_summary(judged(each))
    assert (ours["ap"], ours["ap50"], ours["ap75"]) == pytest.approx(by_pycocotools(each), abs=1e-6)


def test_a_perfect_answer_scores_one_however_much_the_cells_overlap() -> None:
    cells = ellipses(np.random.default_rng(0), 6)
    assert (cells.sum(0) > 2).any()
    two = [judge_cells(sample(embryo=name), cells, found(cells, np.linspace(0.9, 0.6, 6))) for name in "ab"]
    summary = cell_summary(two)
    for name in ("ap", "ap_low", "ap_high", "ap50", "ap75", "best_iou", "count_right"):
        assert summary[name] == pytest.approx(1), name
    assert (summary["cells"], summary["few"], isnan(summary["few_right"])) == (12, 0, True)


def strip(start: int, length: int) -> np.ndarray:
    mask = np.zeros(HW, bool)
    mask[3, start : start + length] = True
    return mask


TWO = np.stack([strip(0, 10), strip(20, 10)])


@pytest.mark.parametrize(
    ("masks", "scores", "count", "best"),
    [
        ([strip(0, 10), strip(20, 10)], (0.9, 0.8), 2, 1.0),
        ([strip(0, 5), strip(20, 10)], (0.9, 0.8), 2, 0.75),
        ([strip(0, 10), strip(0, 9), strip(20, 10)], (0.9, 0.8, 0.7), 3, 1.0),
        ([strip(0, 10), strip(20, 10)], (0.9, 0.4), 1, 0.5),  # one that is not shown is not found
        ([], (), 0, 0.0),
    ],
)
def test_counts_and_best_overlaps(masks: list[np.ndarray], scores: tuple[float, ...], count: int, best: float) -> None:
    answer = found(np.stack(masks) if masks else EMPTY, scores)
    (row,) = cell_rows([judge_cells(sample("a", "e", "s"), TWO, answer)]).to_dict("records")
    assert tuple(row) == evaluate.CELL_COLUMNS
    assert row == {
        "image": "a",
        "embryo": "e",
        "source": "s",
        "cells": 2,
        "found": count,
        "count_right": count == 2,
        "best_iou": pytest.approx(best),
    }


def test_every_true_cell_counts_alike_and_every_picture() -> None:
    five = np.stack([strip(12 * i, 6) for i in range(5)])
    each = [
        judge_cells(sample("a", "e1"), TWO, found(TWO, (0.9, 0.9))),
        judge_cells(sample("b", "e1"), TWO[:1], found(EMPTY, ())),
        judge_cells(sample("c", "e2"), five, found(five[:3], (0.9, 0.8, 0.7))),
    ]
    summary = cell_summary(each)
    assert (summary["pictures"], summary["embryos"], summary["cells"], summary["few"]) == (3, 2, 8, 2)
    assert summary["best_iou"] == pytest.approx((2 + 0 + 3) / 8)
    assert summary["count_right"] == pytest.approx(1 / 3)
    assert summary["few_right"] == pytest.approx(1 / 2)
    for name in ("ap", "best_iou", "count_right"):
        assert summary[f"{name}_low"] <= summary[name] <= summary[f"{name}_high"], name
    assert isnan(summary["few_right_low"])  # both are of one embryo


def test_pictures_of_one_embryo_do_not_narrow_the_interval() -> None:
    pictures = judged(cells_at_random(3, pictures=8))
    once = cell_summary(pictures)
    often = cell_summary(pictures * 4)
    assert (often["ap_low"], often["ap_high"]) == pytest.approx((once["ap_low"], once["ap_high"]), abs=0.02)


def test_one_embryo_tells_nothing_of_others() -> None:
    told = cell_summary([judge_cells(sample(name), TWO, found(TWO, (0.9, 0.8))) for name in "ab"])
    assert (told["ap"], told["best_iou"], told["count_right"], told["few_right"]) == (1, 1, 1, 1)
    ends = [told[f"{name}_{end}"] for name in ("ap", "best_iou", "count_right", "few_right") for end in ("low", "high")]
    assert np.isnan(ends).all()


@pytest.mark.parametrize(("cells", "ap"), [(TWO, 0.0), (EMPTY, None)])
def test_nothing_found_and_nothing_there(cells: np.ndarray, ap: float | None) -> None:
    summary = cell_summary([judge_cells(sample(), cells, found(EMPTY, ()))])
    assert summary["ap"] == pytest.approx(np.nan if ap is None else ap, nan_ok=True)
    assert summary["count_right"] == (1 if ap is None else 0)
