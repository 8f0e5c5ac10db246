"""The largest embryo of an image, without neighbors and dirt, and a box around it for a closer look."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_embryo import geometry
from napari_embryo.geometry import Box, hw_of
from napari_embryo.image import Cells, Finding

_NEAR = 0.25
"""Cells closer than twice this share of a cell's diameter are one embryo (docs/decisions.md, "Largest embryo")."""


def embryo_box(finding: Finding, below: float, everything: bool = False) -> Box | None:
    """Box with a margin around the largest connected object or group of cells; None if not worth a closer look.

    With ``everything``, the box is around all that was found.
    """
    if below <= 0:
        return None
    inside = np.asarray(finding.masks.any(axis=0)) if everything else _largest_group(finding)
    if not inside.any():
        return None
    rows, columns = ndimage.find_objects(inside.astype(np.uint8))[0]
    box = (rows.start, columns.start, rows.stop, columns.stop)
    return geometry.closer_look(box, hw_of(inside), below)


def _largest_group(finding: Finding) -> npt.NDArray[np.bool_]:
    """(H, W): the largest connected part of what was found; single cells also connect across narrow gaps."""
    found: npt.NDArray[np.bool_] = np.asarray(finding.masks.any(axis=0))
    if not found.any():
        return found
    groups = np.where(found, ndimage.label(_joined(finding, found))[0], 0)
    largest: npt.NDArray[np.bool_] = np.equal(groups, _largest(groups) + 1)
    return largest


def _joined(finding: Finding, found: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Union of what was found; single cells with the narrow gaps between them."""
    if not isinstance(finding, Cells) or ndimage.label(found)[1] < 2:
        return found
    area = float(np.median(finding.masks.sum((1, 2))))
    near: npt.NDArray[np.bool_] = ndimage.distance_transform_edt(~found) <= _NEAR * np.sqrt(4 * area / np.pi)
    return near


def _largest(parts: npt.NDArray[np.integer[Any]]) -> int:
    """Index (label - 1) of the part with the most pixels."""
    return int(np.argmax(np.bincount(parts.ravel())[1:]))


def one_embryo(finding: Finding) -> Finding:
    """Remove neighbors and dirt: parts as in :func:`largest_embryo`, single cells as a whole.

    For cells, the group with the most pixels is kept, and its cells are renumbered.
    """
    if not isinstance(finding, Cells):
        return replace(finding, masks=largest_embryo(finding.masks))
    largest = _largest_group(finding)
    kept = [2 * int((mask & largest).sum()) > int(mask.sum()) for mask in finding.masks]
    return replace(
        finding,
        masks=finding.masks[kept],
        probabilities=finding.probabilities[kept],
        scores=finding.scores[kept],
    )


def largest_embryo(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(C, H, W) masks without neighbors and dirt.

    Connected parts of all classes form one object. The largest object is kept, and so are those centered within the
    ellipse that fills its box, such as an inner cell mass inside a broken ring.
    """
    parts, count = ndimage.label(masks.any(axis=0))
    if count < 2:
        return masks
    boxes = ndimage.find_objects(parts)
    main = boxes[_largest(parts)]
    belongs: npt.NDArray[np.bool_] = np.array([False, *(_lies_in(box, main) for box in boxes)])[parts]
    return masks & belongs


def _lies_in(box: tuple[slice, slice], around: tuple[slice, slice]) -> bool:
    """Whether the center of a box lies in the ellipse that fills another."""
    offsets = [(s.start + s.stop - a.start - a.stop) / (a.stop - a.start) for s, a in zip(box, around, strict=True)]
    return bool(np.hypot(*offsets) <= 1)
