"""Measure masks: one row of numbers per object.

Every column names its unit. What cannot be measured (micrometers without a pixel size, the shape of an empty mask) is
None, an empty field in a table.
"""

from collections.abc import Sequence
from math import pi, sqrt

import numpy as np
import numpy.typing as npt

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
    """Measure each class of one image as a whole, however many parts it has.

    Parameters
    ----------
    masks
        (C, H, W) bool; they may overlap.
    classes
        C names; the label of ``classes[i]`` is i + 1.
    pixel_size_um
        Height and width of a pixel in micrometers, if known. They may differ.

    Returns
    -------
    list of dict
        One row per class with the keys ``COLUMNS``:

        * ``area_px``, ``area_um2``; 0 for an empty class;
        * ``n_parts``: number of pieces, where pixels that touch at a corner are connected;
        * ``equivalent_diameter_px``, ``equivalent_diameter_um``: diameter of the disc of the same area;
        * ``major_axis_um``, ``minor_axis_um``: full axes of the ellipse with the same second moments;
        * ``eccentricity`` of that ellipse, 0 for a disc;
        * ``centroid_y_px``, ``centroid_x_px``: pixel (0, 0) has its center at 0, 0.
    """
    stack = np.asarray(masks, bool)
    if stack.ndim != 3 or len(stack) != len(classes):
        raise ValueError(
            f"masks of shape {stack.shape} do not fit the {len(classes)} classes {', '.join(classes)}; "
            f"({len(classes)}, height, width) is needed"
        )
    _check_pixel_size(pixel_size_um)
    return [_row(mask, name, i + 1, pixel_size_um) for i, (mask, name) in enumerate(zip(stack, classes, strict=True))]


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

    This is the difference of the radii of two discs, with the areas enclosed by the outer and the inner edge of the
    ring.

    Parameters
    ----------
    zona
        (H, W) bool.
    pixel_size_um
        Height and width of a pixel in micrometers.

    Returns
    -------
    float or None
        None if the mask encloses almost nothing (less than a disc as thick as the ring), because it is empty, open,
        hatched, or cut off by the image border.
    """
    from scipy.ndimage import binary_fill_holes

    _check_pixel_size(pixel_size_um)
    ring = np.asarray(zona, bool)
    filled = binary_fill_holes(ring)
    pixel_area = pixel_size_um[0] * pixel_size_um[1]
    outer, inner = (sqrt(int(part.sum()) * pixel_area / pi) for part in (filled, filled & ~ring))
    return outer - inner if 0 < outer < 2 * inner else None
