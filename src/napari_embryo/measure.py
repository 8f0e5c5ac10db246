"""Masks -> one row of numbers per object, and how far two masks agree.

Every column names its unit. What cannot be known (micrometres without a pixel size, the shape of an empty mask) is
None, an empty field in a table.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo.image import EmbryoImage, Segmentation
from napari_embryo.settings import FRAGMENT_CLASSES, GRADES

Mask = npt.NDArray[np.bool_]
Row = dict[str, str | int | float | None]

COLUMNS = (
    "class",
    "label",
    "area_px",
    "area_um2",
    "n_parts",
    "equivalent_diameter_px",
    "equivalent_diameter_um",
    "major_axis_um",
    "minor_axis_um",
    "eccentricity",
    "centroid_y_px",
    "centroid_x_px",
)
"""The columns of a row, in order."""


def measure_masks(
    masks: npt.ArrayLike, classes: Sequence[str], pixel_size_um: tuple[float, float] | None = None
) -> list[Row]:
    """Measure each class of one picture as a whole, however many parts it has.

    Parameters
    ----------
    masks
        (C, H, W) bool; they may overlap.
    classes
        C names; the label of ``classes[i]`` is i + 1.
    pixel_size_um
        Height and width of a pixel in micrometres, where known. They may differ.

    Returns
    -------
    list of dict
        One row per class with the keys ``COLUMNS``:

        * ``area_px``, ``area_um2``; 0 for an empty class;
        * ``n_parts``: how many pieces, pixels that touch at a corner being one piece;
        * ``equivalent_diameter_px``, ``equivalent_diameter_um``: diameter of the disc of the same area;
        * ``major_axis_um``, ``minor_axis_um``: full axes of the ellipse with the same second moments;
        * ``eccentricity`` of that ellipse, 0 for a disc;
        * ``centroid_y_px``, ``centroid_x_px``: pixel (0, 0) has its centre at 0, 0.
    """
    stack = np.asarray(masks, bool)
    if stack.ndim != 3 or len(stack) != len(classes):
        raise ValueError(
            f"masks of shape {stack.shape} do not fit the {len(classes)} classes {', '.join(classes)}; "
            f"({len(classes)}, height, width) is needed"
        )
    _check_pixel_size(pixel_size_um)
    return [_row(mask, name, i + 1, pixel_size_um) for i, (mask, name) in enumerate(zip(stack, classes, strict=True))]


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


def measure_all(found: Segmentation, pixel_size_um: tuple[float, float] | None = None) -> list[Row]:
    """:func:`measure_masks`; where fragments and embryo were found, the row of the fragments has their ratio, too.

    The embryo is then measured as a whole, with its fragments.
    """
    return _measure(found.masks, found.classes, pixel_size_um, found.numbers.get("ratio_regressed"))


def measure_labels(
    labels: npt.NDArray[np.integer],
    classes: Sequence[str],
    pixel_size_um: tuple[float, float] | None = None,
    regressed: float | None = None,
) -> list[Row]:
    """:func:`measure_all` of labels, such as a hand has corrected: what each pixel is called is what it is.

    Parameters
    ----------
    labels
        (H, W): 0 background, i + 1 is ``classes[i]``; other labels are not measured.
    classes
        Names of the labels.
    pixel_size_um
        Height and width of a pixel in micrometres, where known.
    regressed
        What a network told of the picture's fragmentation ratio.
    """
    masks = np.stack([np.asarray(labels) == label for label in range(1, len(classes) + 1)])
    return _measure(masks, classes, pixel_size_um, regressed)


def _measure(
    masks: npt.NDArray[np.bool_],
    classes: Sequence[str],
    pixel_size_um: tuple[float, float] | None,
    regressed: float | None,
) -> list[Row]:
    if not set(FRAGMENT_CLASSES) <= set(classes):
        return measure_masks(masks, classes, pixel_size_um)
    fragments, embryo = (list(classes).index(name) for name in FRAGMENT_CLASSES)
    whole = masks.copy()
    whole[embryo] |= whole[fragments]
    rows = measure_masks(whole, classes, pixel_size_um)
    rows[fragments] |= fragmentation(whole[fragments], whole[embryo], regressed)
    return rows


def where(image: EmbryoImage, index: Sequence[int]) -> Row:
    """The first columns of a row: which image, and which picture of it."""
    places = dict(zip(image.axes, index, strict=False))
    row: Row = {"image": image.name}
    if "T" in places:
        row |= {"frame": places["T"], "hours": image.hours[places["T"]] if image.hours else None}
    if "F" in places:
        row |= {"plane": places["F"], "focus_um": image.focus_um[places["F"]] if image.focus_um else None}
    return row


# --- in words -------------------------------------------------------------------------------------------------------


def said(rows: Iterable[Mapping[str, Any]]) -> str:
    """What one picture's rows say, in a sentence: ratio and grade of the fragments, or the areas."""
    rows = list(rows)
    graded = next((row for row in rows if row.get("ratio_basis")), None)
    if graded is not None:
        return ratio_said(graded)
    areas = [f"{row['class']} {_area_said(row)}" for row in rows]
    return f"Areas: {', '.join(areas)}." if areas else ""


def _area_said(row: Mapping[str, Any]) -> str:
    return f"{row['area_px']:,} px" if row.get("area_um2") is None else f"{row['area_um2']:,.0f} µm²"


def ratio_said(row: Mapping[str, Any]) -> str:
    """Both ratios of a row and what grade that is."""
    return f"{ratios_said(row)}: {grade_said(row)}."


def ratios_said(row: Mapping[str, Any]) -> str:
    """The ratio from the mask and the regressed one."""
    from_mask, regressed = row["ratio_from_mask"], row["ratio_regressed"]
    parts = ["no embryo in the mask" if from_mask is None else f"{percent(from_mask)} of the embryo (mask)"]
    parts += [] if regressed is None else [f"{percent(regressed)} (regression)"]
    return f"Fragments {', '.join(parts)}"


def grade_said(row: Mapping[str, Any]) -> str:
    """One grade with its interval, or both where mask and regression differ."""
    if row["grade"] is None:
        return "no grade"
    if row["grades_apart"]:
        return f"grade {row['grade_from_mask']} (mask), {row['grade']} (regression)"
    return f"grade {row['grade']} ({100 * row['grade_low']:.0f}-{100 * row['grade_high']:.0f} %)"


def percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"


def far_apart(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows in which mask and regression disagree by more than one grade."""
    return [row for row in rows if (row.get("grades_apart") or 0) > 1]


def far_apart_said(rows: Iterable[Mapping[str, Any]]) -> str:
    """How many of an image's pictures :func:`far_apart` finds, and which; empty where it finds none."""
    graded = [row for row in rows if row.get("ratio_basis")]
    found = far_apart(graded)
    if not found:
        return ""
    if len(graded) == 1:
        return f"mask and regression are {found[0]['grades_apart']} grades apart. {ratio_said(found[0])}"
    places = [_place_said(row) for row in found]
    more = f" and {len(places) - 5} more" if len(places) > 5 else ""
    return (
        f"mask and regression are more than a grade apart in {len(found)} of {len(graded)} pictures: "
        f"{', '.join(places[:5])}{more}"
    )


def _place_said(row: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {row[name]}" for name in ("frame", "plane") if row.get(name) is not None)


def range_said(rows: Iterable[Mapping[str, Any]]) -> str:
    """From the least to the most fragmented picture of a stack; empty where nothing was graded."""
    graded = [row for row in rows if row.get("grade")]
    if not graded:
        return ""
    ratios = [row["ratio_from_mask"] if row["ratio_regressed"] is None else row["ratio_regressed"] for row in graded]
    grades = sorted(row["grade"] for row in graded)
    return f"Fragments {percent(min(ratios))} to {percent(max(ratios))}, grades {grades[0]} to {grades[-1]}."


def _check_pixel_size(pixel_size_um: tuple[float, float] | None) -> None:
    if pixel_size_um is not None and not all(0 < side < float("inf") for side in pixel_size_um):
        raise ValueError(f"pixel size {pixel_size_um} um must be positive; give (height, width) or None")


def _row(mask: Mask, name: str, label: int, pixel_size_um: tuple[float, float] | None) -> Row:
    area = int(mask.sum())
    known = {"class": name, "label": label, **_areas(area, pixel_size_um), **_shape(mask, pixel_size_um)}
    return {column: known.get(column) for column in COLUMNS}


def _areas(area_px: int, pixel_size_um: tuple[float, float] | None) -> Row:
    row: Row = {"area_px": area_px, "equivalent_diameter_px": sqrt(4 * area_px / pi)}
    if pixel_size_um is not None:
        area_um2 = area_px * pixel_size_um[0] * pixel_size_um[1]
        row |= {"area_um2": area_um2, "equivalent_diameter_um": sqrt(4 * area_um2 / pi)}
    return row


def _shape(mask: Mask, pixel_size_um: tuple[float, float] | None) -> Row:
    if not mask.any():
        return {"n_parts": 0}
    from scipy.ndimage import find_objects, label
    from skimage.measure import regionprops_table

    wanted = ("centroid", "axis_major_length", "axis_minor_length", "eccentricity")
    box = find_objects(mask.astype(np.uint8))[0]
    table = regionprops_table(mask[box].astype(np.uint8), properties=wanted, spacing=pixel_size_um or (1.0, 1.0))
    found = {key: float(values[0]) for key, values in table.items()}
    step = pixel_size_um or (1.0, 1.0)
    row: Row = {
        "n_parts": int(label(mask[box], np.ones((3, 3)))[1]),
        "eccentricity": found["eccentricity"],
        "centroid_y_px": box[0].start + found["centroid-0"] / step[0],
        "centroid_x_px": box[1].start + found["centroid-1"] / step[1],
    }
    if pixel_size_um is not None:
        row |= {"major_axis_um": found["axis_major_length"], "minor_axis_um": found["axis_minor_length"]}
    return row


def zona_thickness_um(zona: npt.ArrayLike, pixel_size_um: tuple[float, float]) -> float | None:
    """Mean thickness of a closed ring.

    It is the difference of the radii of two discs: one has the area within the ring's outer edge, one that within its
    inner edge.

    Parameters
    ----------
    zona
        (H, W) bool.
    pixel_size_um
        Height and width of a pixel in micrometres.

    Returns
    -------
    float or None
        None where the mask encloses nothing, or next to nothing (less than a disc as thick as the ring): it is empty,
        open, hatched, or cut by the picture's border.
    """
    from scipy.ndimage import binary_fill_holes

    _check_pixel_size(pixel_size_um)
    ring = np.asarray(zona, bool)
    filled = binary_fill_holes(ring)
    pixel_area = pixel_size_um[0] * pixel_size_um[1]
    outer, inner = (sqrt(int(part.sum()) * pixel_area / pi) for part in (filled, filled & ~ring))
    return outer - inner if 0 < outer < 2 * inner else None


def iou(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Intersection over union of two masks of the same shape; 1 where both are empty."""
    return pooled_iou([(a, b)])


def dice(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Dice coefficient (F1 over pixels) of two masks of the same shape; 1 where both are empty."""
    both, either = _intersection_union(a, b)
    return 2 * both / (both + either) if either else 1.0


def pooled_iou(pairs: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]) -> float:
    """Intersection over union of many pairs of masks as if they were one picture (micro average).

    1 where all are empty. The mean of ``iou`` over the same pairs (macro average) instead gives every picture the same
    weight.
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
