"""All measurements of one image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo.families import FRAGMENT_CLASSES
from napari_embryo.image import Cells, EmbryoImage, Finding
from napari_embryo.measure.cells import measure_cells
from napari_embryo.measure.fragments import fragmentation
from napari_embryo.measure.objects import Row, measure_masks


def measure_all(found: Finding, pixel_size_um: tuple[float, float] | None = None) -> list[Row]:
    """:func:`measure_masks`; for fragments and embryo, the row of the fragments also has their ratio.

    The embryo is then measured as a whole, including its fragments. For single cells: :func:`measure_cells`.
    """
    if isinstance(found, Cells):
        return measure_cells(found, pixel_size_um)
    return _measure(found.masks, found.classes, pixel_size_um, found.numbers.get("ratio_regressed"))


def measure_labels(
    labels: npt.NDArray[np.integer],
    classes: Sequence[str],
    pixel_size_um: tuple[float, float] | None = None,
    regressed: float | None = None,
) -> list[Row]:
    """:func:`measure_all` for labels, such as manually corrected ones: each pixel belongs to one class.

    Parameters
    ----------
    labels
        (H, W): 0 is background, i + 1 is ``classes[i]``; other labels are not measured.
    classes
        Names of the labels.
    pixel_size_um
        Height and width of a pixel in micrometers, if known.
    regressed
        The fragmentation ratio estimated by a network.
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
    """The first columns of a row: the image and the plane."""
    places = dict(zip(image.axes, index, strict=False))
    files = image.metadata.get("frame_files", ())
    row: Row = {"image": image.name, "file": _at(files, places.get("T", 0)) or (files[0] if len(files) == 1 else None)}
    if "T" in places:
        frame = places["T"]
        row |= {"frame": frame, "run": _at(image.metadata.get("runs"), frame), "hours": _at(image.hours, frame)}
    if "F" in places:
        row |= {"plane": places["F"], "focus_um": image.focus_um[places["F"]] if image.focus_um else None}
    return row


def _at(values: Sequence[Any] | None, place: int) -> Any:
    return values[place] if values is not None and place < len(values) else None
