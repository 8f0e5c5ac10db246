"""Shapes of several classes -> one mask per class, as an annotation tool shows them."""

from collections.abc import Iterable, Sequence

import numpy as np

from napari_embryo.data.labels import canonical
from napari_embryo.data.sample import Bools, Remark

_EXCLUSIVE = ("zp", "te", "icm")
"""Parts of a blastocyst, each of which lies within the one before; a pixel belongs to one of them."""
_RINGS = ("zp", "te")
_WITHIN = 0.99
"""Share of a shape that has to lie in another one to be inside it: hands do not draw to the pixel."""
NESTED = "outlines of one part that lie inside the outline of another were cut out of it"
HOLES = "an outline inside another one of the same part was taken as the inner edge"


def _unions(shapes: Iterable[tuple[str, Bools]], classes: Sequence[str], shape: tuple[int, ...]) -> dict[str, Bools]:
    """The union of each class's shapes, by canonical name."""
    masks = {canonical(name): np.zeros(shape, bool) for name in classes}
    for label, mask in shapes:
        if label in masks:
            masks[label] |= mask
    return masks


def paint(
    shapes: Sequence[tuple[str, Bools]], classes: Sequence[str], shape: tuple[int, ...]
) -> tuple[Bools, tuple[Remark, ...]]:
    """Masks (C, H, W) of shapes drawn one after the other, and what was cut.

    ICM, TE and ZP exclude one another: what lies inside is cut out of what lies around it, in whatever order they were
    drawn, and elsewhere a later shape covers an earlier one. Shapes of all other classes may overlap.

    Parameters
    ----------
    shapes
        Canonical label and mask (H, W) of each shape, in the order of drawing.
    classes
        In the order of the masks.
    shape
        Height and width.
    """
    remarks: list[Remark] = []
    masks = _unions(((label, mask) for label, mask in shapes if label not in _EXCLUSIVE), classes, shape)
    parts: dict[str, Bools] = {}
    for label in dict.fromkeys(label for label, _ in reversed(shapes) if label in _EXCLUSIVE):
        parts[label], has_hole = _part([mask for name, mask in shapes if name == label], label in _RINGS)
        remarks += [Remark(HOLES, label.upper())] * has_hole
    order, nested = _order(parts)
    remarks += [Remark(NESTED, " and ".join(name.upper() for name in nested))] if nested else []
    for i, label in enumerate(order):
        covered = np.any([parts[later] for later in order[i + 1 :]], axis=0) if order[i + 1 :] else False
        if label in masks:
            masks[label] = parts[label] & ~np.asarray(covered)
    return np.stack([masks[canonical(name)] for name in classes]), tuple(remarks)


def _part(masks: Sequence[Bools], may_be_ring: bool) -> tuple[Bools, bool]:
    """One part's shapes together, and whether one of them was taken as a hole."""
    together, has_hole = np.zeros_like(masks[0]), False
    for mask in sorted(masks, key=np.count_nonzero, reverse=True):
        if may_be_ring and _is_within(mask, together) and np.count_nonzero(mask) < _WITHIN * np.count_nonzero(together):
            together, has_hole = together & ~mask, True
        else:
            together = together | mask
    return together, has_hole


def _is_within(inner: Bools, outer: Bools) -> bool:
    area = np.count_nonzero(inner)
    return bool(area and np.count_nonzero(inner & outer) >= _WITHIN * area)


def _order(parts: dict[str, Bools]) -> tuple[list[str], list[str]]:
    """Lowest first, and the parts inside which others lie; ``parts`` come in the reverse order of drawing."""
    order: list[str] = []
    around: list[str] = []
    for name in reversed(parts):
        inside = [i for i, other in enumerate(order) if _is_within(parts[other], parts[name])]
        around += [name] * bool(inside) + [other for other in order if _is_within(parts[name], parts[other])]
        order.insert(min(inside, default=len(order)), name)
    return order, list(dict.fromkeys(around))
