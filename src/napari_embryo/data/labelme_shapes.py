"""LabelMe's shapes -> outlines."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo.data.labels import canonical
from napari_embryo.data.polygons import Outline, Patch, Ring, circle, rectangle
from napari_embryo.data.sample import Remark
from napari_embryo.notes import counted

_FEWEST_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "oriented_rectangle": 4, "rotation": 4, "mask": 2}
_WITHOUT_AREA = frozenset(("point", "points", "line", "linestrip", "lines"))
_FARTHEST = 1e7
"""A coordinate beyond this is no place in a picture."""
NO_AREA = "shapes without an area were left out"


@dataclass(frozen=True, eq=False)
class Shape:
    """One shape that has an area.

    Parameters
    ----------
    label
        Its canonical label.
    written
        The label as it is in the file.
    group
        LabelMe's ``group_id``; shapes of one group are parts of one object.
    outline
        What it covers.
    """

    label: str
    written: str
    group: Any
    outline: Outline


def parse(shapes: Sequence[Mapping[str, Any]]) -> tuple[list[Shape], tuple[Remark, ...]]:
    """The shapes that have an area, and remarks on those that have none, such as stray points.

    Raises
    ------
    ValueError, KeyError, TypeError, IndexError, AttributeError
        If a shape is damaged.
    """
    lacking = [_lacks(each) for each in shapes]
    good = [_shape(each) for each, reason in zip(shapes, lacking, strict=True) if not reason]
    return good, tuple(Remark(NO_AREA, reason) for reason in lacking if reason)


def _kind(shape: Mapping[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")


def _lacks(shape: Mapping[str, Any]) -> str:
    """Why a shape covers nothing; empty where it covers something."""
    kind, label, count = _kind(shape), str(shape["label"]), len(shape["points"])
    if kind in _WITHOUT_AREA:
        return f"{label} is a {kind}"
    if kind not in _FEWEST_POINTS:
        raise ValueError(f"{label} is a {kind}; draw it as {', '.join(_FEWEST_POINTS)}")
    return f"{label}: {counted(count, 'point')} for a {kind}" if count < _FEWEST_POINTS[kind] else ""


def _shape(shape: Mapping[str, Any]) -> Shape:
    written = str(shape["label"])
    points = np.asarray(shape["points"], float)[:, ::-1]
    if points.shape[1:] != (2,) or not (np.abs(points) < _FARTHEST).all():
        raise ValueError(f"{written}: invalid coordinates")
    return Shape(canonical(written), written, shape.get("group_id"), _outline(shape, written, points))


def _outline(shape: Mapping[str, Any], written: str, points: Ring) -> Outline:
    match _kind(shape):
        case "mask":
            return _patch(written, points, shape["mask"])
        case "rectangle":
            return rectangle(points)
        case "circle":
            return circle(points)
    return points


def _patch(written: str, points: Ring, encoded: str) -> Patch:
    """What LabelMe's AI tool has painted: a PNG of the box between two corners, both of which belong to it."""
    first, last = np.rint(points[:2].min(axis=0)).astype(int), np.rint(points[:2].max(axis=0)).astype(int)
    height, width = (last - first + 1).tolist()
    mask = decoded(encoded, written, (height, width)) > 0
    return Patch((int(first[0]), int(first[1])), mask if mask.ndim == 2 else mask[..., 0])


def decoded(encoded: str, what: str, hw: tuple[int, int]) -> npt.NDArray[Any]:
    """The pixels of a picture in base64, which is not decoded unless it has the size expected.

    Raises
    ------
    ValueError
        If it is no picture, or one of another size.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(base64.b64decode(encoded))) as picture:
            if (picture.height, picture.width) != hw:
                raise ValueError(
                    f"{what}: a mask of {picture.height} x {picture.width} pixels for a box of {hw[0]} x {hw[1]}"
                )
            return np.asarray(picture)
    except (binascii.Error, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{what}: its mask is not an image ({error})") from error
