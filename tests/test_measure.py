"""Measurements against closed forms, and how they scale."""

import csv
import io
import warnings
from math import hypot, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.image import Cells, EmbryoImage, Parts
from napari_embryo.measure import (
    CELL_COLUMNS,
    COLUMNS,
    RATIO_COLUMNS,
    cells_said,
    dice,
    far_apart_said,
    fragmentation,
    grade,
    iou,
    measure_all,
    measure_labels,
    measure_masks,
    pooled_iou,
    range_said,
    said,
    where,
    zona_thickness_um,
)

SIZES = st.floats(0.05, 20, allow_nan=False)
PAIRS = array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


def ellipse(shape: tuple[int, int], half_axes: tuple[float, float], center: tuple[float, float]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((y - center[0]) / half_axes[0]) ** 2 + ((x - center[1]) / half_axes[1]) ** 2 <= 1


def measure_one(mask: np.ndarray, size: tuple[float, float] | None = None) -> dict:
    return measure_masks(mask[None], ["ICM"], size)[0]


def test_disc_against_closed_forms() -> None:
    row = measure_one(ellipse((220, 240), (80, 80), (105, 118)), (0.5, 0.5))
    assert row["area_um2"] == pytest.approx(pi * 40**2, rel=2e-3)
    assert row["equivalent_diameter_um"] == pytest.approx(80, rel=1e-3)
    assert row["equivalent_diameter_px"] == pytest.approx(160, rel=1e-3)
    assert row["major_axis_um"] == pytest.approx(80, rel=2e-3)
    assert row["minor_axis_um"] == pytest.approx(80, rel=2e-3)
    assert row["eccentricity"] == pytest.approx(0, abs=0.05)
    assert (row["centroid_y_px"], row["centroid_x_px"]) == pytest.approx((105, 118))
    assert (row["class"], row["label"], row["n_parts"]) == ("ICM", 1, 1)


def test_ellipse_against_closed_forms() -> None:
    row = measure_one(ellipse((220, 240), (50, 90), (105, 118)), (2.0, 2.0))
    assert row["area_px"] == pytest.approx(pi * 50 * 90, rel=2e-3)
    assert row["major_axis_um"] == pytest.approx(360, rel=2e-3)
    assert row["minor_axis_um"] == pytest.approx(200, rel=2e-3)
    assert row["eccentricity"] == pytest.approx(sqrt(1 - (50 / 90) ** 2), rel=2e-3)


def test_a_disc_sampled_with_oblong_pixels_is_a_disc() -> None:
    row = measure_one(ellipse((200, 200), (80, 40), (100, 100)), (0.25, 0.5))
    assert row["major_axis_um"] == pytest.approx(40, rel=5e-3)
    assert row["minor_axis_um"] == pytest.approx(40, rel=5e-3)
    assert row["eccentricity"] < 0.1
    assert row["area_um2"] == pytest.approx(pi * 20**2, rel=2e-3)
    assert (row["centroid_y_px"], row["centroid_x_px"]) == pytest.approx((100, 100))


@given(height=SIZES, width=SIZES)
def test_areas_and_lengths_scale_with_the_pixel(height: float, width: float) -> None:
    mask = ellipse((40, 50), (12, 17), (20, 24))
    plain, scaled = measure_one(mask, (1.0, 1.0)), measure_one(mask, (height, width))
    assert scaled["area_px"] == plain["area_px"]
    assert scaled["area_um2"] == pytest.approx(plain["area_um2"] * height * width)
    assert scaled["equivalent_diameter_um"] == pytest.approx(plain["equivalent_diameter_um"] * sqrt(height * width))
    assert (scaled["centroid_y_px"], scaled["centroid_x_px"]) == pytest.approx((20, 24))
    axes = sorted([24 * height, 34 * width], reverse=True)
    assert [scaled["major_axis_um"], scaled["minor_axis_um"]] == pytest.approx(axes, rel=0.03)


@given(factor=SIZES)
def test_shape_does_not_depend_on_the_unit(factor: float) -> None:
    mask = ellipse((40, 50), (12, 17), (20, 24))
    plain, scaled = measure_one(mask), measure_one(mask, (factor, factor))
    for column in ("eccentricity", "n_parts", "centroid_y_px", "centroid_x_px"):
        assert scaled[column] == pytest.approx(plain[column])


def test_without_a_pixel_size_micrometers_are_empty_fields_in_a_table() -> None:
    row = measure_one(ellipse((40, 40), (10, 10), (20, 20)))
    unknown = [name for name in COLUMNS if "_um" in name]
    assert [row[name] for name in unknown] == [None] * len(unknown)
    assert all(row[name] is not None for name in COLUMNS if name not in unknown)
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS)
    writer.writeheader()
    writer.writerow(row)
    read = next(csv.DictReader(io.StringIO(table.getvalue())))
    assert {read[name] for name in unknown} == {""}


def test_an_empty_class_has_area_0_and_no_shape() -> None:
    row = measure_one(np.zeros((9, 9), bool), (0.5, 0.5))
    assert (row["area_px"], row["area_um2"], row["n_parts"], row["equivalent_diameter_um"]) == (0, 0, 0, 0)
    assert row["eccentricity"] is row["centroid_y_px"] is row["major_axis_um"] is None


def test_one_row_per_class_however_many_parts_and_classes_may_overlap() -> None:
    masks = np.zeros((3, 30, 30), bool)
    masks[0, 2:6, 2:6] = masks[0, 20:24, 20:24] = True
    masks[1, 0:10, 0:10] = True
    rows = measure_masks(masks, ["ICM", "TE", "ZP"])
    assert [row["class"] for row in rows] == ["ICM", "TE", "ZP"]
    assert [row["label"] for row in rows] == [1, 2, 3]
    assert [row["area_px"] for row in rows] == [32, 100, 0]
    assert [row["n_parts"] for row in rows] == [2, 1, 0]
    assert all(tuple(row) == COLUMNS for row in rows)


def test_parts_that_touch_at_a_corner_are_one() -> None:
    assert measure_one(np.eye(6, dtype=bool))["n_parts"] == 1


@pytest.mark.parametrize("size", [None, (0.4, 0.7)])
@pytest.mark.parametrize("points", [[(3, 3)], [(3, 3), (3, 4)], [(1, 1), (7, 7)], [(0, i) for i in range(9)]])
def test_masks_of_a_few_pixels_are_measured_in_silence(points, size) -> None:
    mask = np.zeros((9, 9), bool)
    mask[tuple(np.array(points).T)] = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = measure_one(mask, size)
    assert row["area_px"] == len(points)
    assert all(np.isfinite(value) for value in row.values() if isinstance(value, float))


@pytest.mark.parametrize(
    ("masks", "classes", "size"),
    [
        (np.zeros((4, 4), bool), ["ICM"], None),
        (np.zeros((2, 4, 4), bool), ["ICM"], None),
        (np.zeros((1, 4, 4), bool), ["ICM"], (0.0, 1.0)),
        (np.zeros((1, 4, 4), bool), ["ICM"], (float("nan"), 1.0)),
        (np.zeros((1, 4, 4), bool), ["ICM"], (float("inf"), 1.0)),
    ],
)
def test_what_cannot_be_measured_is_refused(masks, classes, size) -> None:
    with pytest.raises(ValueError, match=r"needed|positive"):
        measure_masks(masks, classes, size)


@pytest.mark.parametrize("size", [(1.0, 1.0), (0.5, 0.5), (0.25, 0.25)])
def test_thickness_of_a_round_zona(size: tuple[float, float]) -> None:
    outer, inner = (ellipse((300, 300), (r, r), (150, 150)) for r in (120, 95))
    assert zona_thickness_um(outer & ~inner, size) == pytest.approx(25 * size[0], rel=0.01)


def test_thickness_of_a_zona_in_oblong_pixels() -> None:
    outer, inner = (ellipse((300, 300), (r, r / 2), (150, 150)) for r in (120, 95))
    assert zona_thickness_um(outer & ~inner, (0.5, 1.0)) == pytest.approx(12.5, rel=0.01)


def test_an_open_zona_has_no_thickness_even_with_a_pinhole() -> None:
    outer, inner = (ellipse((99, 99), (r, r), (49, 49)) for r in (45, 35))
    ring = outer & ~inner
    ring[40:58, 70:] = False
    ring[10, 49] = False
    assert ring[9, 49]
    assert zona_thickness_um(ring, (1.0, 1.0)) is None


@pytest.mark.parametrize("mask", [np.zeros((9, 9), bool), np.ones((9, 9), bool), np.arange(81).reshape(9, 9) % 9 == 4])
def test_a_zona_that_encloses_nothing_has_no_thickness(mask: np.ndarray) -> None:
    assert zona_thickness_um(mask, (1.0, 1.0)) is None


def counted(a: np.ndarray, b: np.ndarray) -> tuple[int, int, int]:
    """True positives, false positives, false negatives, pixel by pixel."""
    both = [(bool(p), bool(q)) for p, q in zip(a.ravel(), b.ravel(), strict=True)]
    return both.count((True, True)), both.count((False, True)), both.count((True, False))


@given(PAIRS)
def test_overlap_scores_against_counting(pair: tuple[np.ndarray, np.ndarray]) -> None:
    hit, extra, missed = counted(*pair)
    expected_iou = hit / (hit + extra + missed) if hit + extra + missed else 1.0
    expected_f1 = 2 * hit / (2 * hit + extra + missed) if hit + extra + missed else 1.0
    assert iou(*pair) == pytest.approx(expected_iou)
    assert dice(*pair) == pytest.approx(expected_f1)
    assert dice(*pair) == pytest.approx(2 * iou(*pair) / (1 + iou(*pair)))
    assert iou(*pair) == iou(*pair[::-1])


@given(PAIRS, PAIRS)
def test_pooled_iou_is_that_of_one_large_picture(first, second) -> None:
    joined = [np.concatenate([first[i].ravel(), second[i].ravel()]) for i in (0, 1)]
    assert pooled_iou([first, second]) == pytest.approx(iou(*joined))


def test_macro_and_micro_differ_as_they_should() -> None:
    large, small = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    large[:] = True
    small[0, 0] = True
    pairs = [(large, large), (small, np.zeros_like(small))]
    assert np.mean([iou(*pair) for pair in pairs]) == pytest.approx(0.5)
    assert pooled_iou(pairs) == pytest.approx(100 / 101)


def test_two_empty_masks_agree() -> None:
    nothing = np.zeros((5, 5), bool)
    assert iou(nothing, nothing) == dice(nothing, nothing) == pooled_iou([]) == 1


def test_masks_of_different_shapes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="resize"):
        iou(np.zeros((1, 5), bool), np.zeros((5, 5), bool))


def test_centroid_of_a_ring_lies_in_its_middle() -> None:
    outer, inner = (ellipse((99, 99), (r, r), (45, 52)) for r in (40, 30))
    row = measure_one(outer & ~inner, (0.3, 0.3))
    assert hypot(row["centroid_y_px"] - 45, row["centroid_x_px"] - 52) < 1e-6


# --- fragments ------------------------------------------------------------------------------------------------------


def shares(fragments: int, cells: int, beside: int = 0) -> np.ndarray:
    """(10, 10) labels of so many pixels each; ``beside`` of them belong to nothing known."""
    labels = np.zeros(100, np.uint8)
    labels[:fragments] = 1
    labels[fragments : fragments + cells] = 2
    labels[100 - beside :] = 9 if beside else labels[100 - beside :]
    return labels.reshape(10, 10)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0, "A"), (0.0999, "A"), (0.1, "B"), (0.2499, "B"), (0.25, "C"), (0.5, "C"), (0.5001, "D"), (1, "D")],
)
def test_grades_at_their_edges(ratio: float, expected: str) -> None:
    assert grade(ratio) == expected


@pytest.mark.parametrize("ratio", [-0.01, 1.01, float("nan")])
def test_a_ratio_is_a_share(ratio: float) -> None:
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        grade(ratio)


def test_a_ratio_from_labels() -> None:
    fragment, embryo = measure_labels(shares(12, 28, beside=20), FRAGMENT_CLASSES, (0.5, 0.5), regressed=0.6)
    assert tuple(fragment) == (*COLUMNS, *RATIO_COLUMNS)
    assert tuple(embryo) == COLUMNS
    assert (fragment["area_px"], embryo["area_px"], embryo["area_um2"]) == (12, 40, 10)
    assert (fragment["ratio_from_mask"], fragment["grade_from_mask"]) == (0.3, "C")
    assert (fragment["ratio_regressed"], fragment["grade"]) == (0.6, "D")
    assert (fragment["grade_low"], fragment["grade_high"], fragment["ratio_basis"]) == (0.5, 1.0, "embryo")
    assert (fragment["ratio_difference"], fragment["grades_apart"]) == (pytest.approx(0.3), 1)


@pytest.mark.parametrize(
    ("fragments", "cells", "regressed", "from_mask", "shown"),
    [(5, 0, None, 1.0, "D"), (0, 20, None, 0.0, "A"), (0, 0, None, None, None), (0, 0, 0.3, None, "C")],
)
def test_a_ratio_where_something_is_erased(fragments, cells, regressed, from_mask, shown) -> None:
    row = measure_labels(shares(fragments, cells), FRAGMENT_CLASSES, regressed=regressed)[0]
    assert (row["ratio_from_mask"], row["grade"]) == (from_mask, shown)
    assert row["grades_apart"] is row["ratio_difference"] is None
    assert said([row])


@given(arrays(np.uint8, (6, 7), elements=st.integers(0, 2)))
def test_labels_measure_as_the_masks_they_came_from(labels: np.ndarray) -> None:
    """Whether or not the embryo's mask reaches under its fragments."""
    fragments, cells = labels == 1, labels == 2
    for embryo in (cells, cells | fragments):
        masks = np.stack((fragments, embryo))
        found = Parts(FRAGMENT_CLASSES, masks, masks.astype(np.float32), {"ratio_regressed": 0.2}, ("fragment",))
        assert measure_all(found) == measure_labels(found.labels(), FRAGMENT_CLASSES, regressed=0.2)


def test_labels_of_a_blastocyst_are_measured_pixel_by_pixel() -> None:
    rows = measure_labels(shares(12, 28), BLASTOCYST_CLASSES, (0.5, 0.5))
    assert [(row["class"], row["area_px"]) for row in rows] == [("ICM", 12), ("TE", 28), ("ZP", 0)]
    assert all(tuple(row) == COLUMNS for row in rows)
    assert said(rows) == "Areas: ICM 3 µm², TE 7 µm², ZP 0 µm²."


def test_a_row_begins_with_where_it_is_from() -> None:
    image = EmbryoImage(np.zeros((2, 3, 4, 5)), "TFYX", "film", hours=(20.0, 40.0))
    known = {"runs": (2, 200), "frame_files": ("RUN2.png", "RUN200.png")}
    place = {"frame": 1, "run": 200, "hours": 40.0, "plane": 2, "focus_um": None}
    assert where(image.with_data(image.data, metadata=known), (1, 2)) == {
        "image": "film",
        "file": "RUN200.png",
        **place,
    }
    assert where(image, (1, 2)) == {"image": "film", "file": None, **place, "run": None}
    one = EmbryoImage(np.zeros((4, 5)), "YX", "a", metadata={"frame_files": ("a.png",)})
    assert where(one, ()) == {"image": "a", "file": "a.png"}


def graded(from_mask: float, regressed: float | None = None, **place: int) -> dict:
    fragments = np.arange(1000) < round(1000 * from_mask)
    return {"image": "a", **place, **fragmentation(fragments, np.ones(1000, bool), regressed)}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (graded(0.123), "Fragments 12.3 % of the embryo (mask): grade B (10-25 %)."),
        (graded(0.123, 0.108), "Fragments 12.3 % of the embryo (mask), 10.8 % (regression): grade B (10-25 %)."),
        (
            graded(0.123, 0.051),
            "Fragments 12.3 % of the embryo (mask), 5.1 % (regression): grade B (mask), A (regression).",
        ),
    ],
)
def test_a_ratio_in_words(row: dict, words: str) -> None:
    assert said([row]) == words


def test_grades_that_are_far_apart_are_told() -> None:
    assert far_apart_said([graded(0.123, 0.3)]) == ""
    assert far_apart_said([graded(0.123)]) == ""
    assert "2 grades apart" in far_apart_said([graded(0.123, 0.6)])
    film = [graded(0.05, 0.3 if frame in (1, 4) else 0.05, frame=frame) for frame in range(6)]
    assert far_apart_said(film).endswith("in 2 of 6 images: frame 1, frame 4")
    assert range_said(film) == "Fragments 5.0 % to 30.0 %, grades A to C."
    assert range_said([]) == ""


# --- single cells ---------------------------------------------------------------------------------------------------


def cells_found(*masks: np.ndarray) -> Cells:
    stack = np.stack(masks) if masks else np.zeros((0, 60, 80), bool)
    scores = np.linspace(0.9, 0.6, len(stack), dtype=np.float32)
    return Cells(stack, stack.astype(np.float32), scores)


def block(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((60, 80), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_cells_are_measured_whole_and_with_what_covers_them() -> None:
    """20 x 20 and 20 x 30 overlapping in 20 x 10, the second again by a third in 10 x 5 elsewhere."""
    together, *each = measure_all(
        cells_found(block(10, 10, 20, 20), block(10, 20, 20, 30), block(25, 45, 15, 10)), (2, 2)
    )
    assert tuple(together) == (*COLUMNS, *CELL_COLUMNS) == tuple(each[0])
    assert (together["class"], together["label"], together["n_cells"], together["score"]) == ("cells", None, 3, None)
    assert together["area_px"] == 400 + 600 + 150 - 200 - 25
    assert together["overlap"] == pytest.approx(225 / 925)
    assert [row["class"] for row in each] == ["cell 1", "cell 2", "cell 3"]
    assert [row["label"] for row in each] == [1, 2, 3]
    assert [row["area_um2"] for row in each] == [1600, 2400, 600]
    assert [row["overlap"] for row in each] == pytest.approx([200 / 400, 225 / 600, 25 / 150])
    assert [row["score"] for row in each] == pytest.approx([0.9, 0.75, 0.6])
    plain = measure_masks(cells_found(block(10, 10, 20, 20)).masks, ["cell 1"], (2, 2))[0]
    assert {key: each[0][key] for key in COLUMNS} == plain


def test_no_cell_is_one_row() -> None:
    (row,) = measure_all(cells_found())
    assert (row["class"], row["n_cells"], row["area_px"], row["overlap"]) == ("cells", 0, 0, None)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([], ""),
        ([0], "No cell found"),
        ([1], "1 cell"),
        ([4], "4 cells"),
        ([2, 4, 4], "2 to 4 cells"),
        ([0, 1], "0 to 1 cell"),
    ],
)
def test_how_many_cells_in_words(counts: list[int], words: str) -> None:
    rows = [{"class": "cells", "n_cells": count} for count in counts]
    assert cells_said([*rows, {"class": "cell 1", "n_cells": None}]) == words
    if words:
        assert said(rows) == range_said(rows) == f"{words}."
