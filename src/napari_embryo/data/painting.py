"""Shapes of several classes -> one mask per class, as an annotation tool shows them."""

from collections.abc import Mapping, Sequence

import numpy as np

from napari_embryo.data.labels import canonical
from napari_embryo.data.polygons import Patch, fill
from napari_embryo.data.sample import Bools, Remark

_EXCLUSIVE = ("zp", "te", "icm")
"""Parts of a blastocyst, each of which lies within the one before; a pixel belongs to one of them."""
_RINGS = ("zp", "te")
_WITHIN = 0.99
"""Share of a shape that has to lie in another one to be inside it: hands do not draw to the pixel."""
NESTED = "outlines of one part that lie inside the outline of another were cut out of it"
HOLES = "an outline inside another one of the same part was taken as the inner edge"


def paint(
    shapes: Sequence[tuple[str, Patch]], classes: Sequence[str], shape: tuple[int, ...]
) -> tuple[Bools, tuple[Remark, ...]]:
    """Masks (C, H, W) of shapes drawn one after the other, and what was cut.

    ICM, TE and ZP exclude one another: what lies inside is cut out of what lies around it, in whatever order they were
    drawn, and elsewhere a later shape covers an earlier one. Shapes of all other classes may overlap.

    Parameters
    ----------
    shapes
        Canonical label and region of each shape, in the order of drawing; regions lie inside the picture.
    classes
        In the order of the masks.
    shape
        Height and width.
    """
    drawn: dict[str, list[Patch]] = {}
    for label, patch in shapes:
        drawn.setdefault(label, []).append(patch)
    names = [canonical(name) for name in classes]
    masks = {name: fill(drawn.get(name, ()), shape) for name in names if name not in _EXCLUSIVE}
    parts, cut = _parts({name: drawn[name] for name in _EXCLUSIVE if name in drawn}, _last_first(shapes), shape)
    nothing = np.zeros(shape, bool)
    return np.stack([masks[name] if name in masks else parts.get(name, nothing) for name in names]), cut


def _last_first(shapes: Sequence[tuple[str, Patch]]) -> list[str]:
    return list(dict.fromkeys(label for label, _ in reversed(shapes)))


def _parts(
    drawn: Mapping[str, Sequence[Patch]], last_first: Sequence[str], shape: tuple[int, ...]
) -> tuple[dict[str, Bools], tuple[Remark, ...]]:
    """What is seen of each part of a blastocyst, and what was cut."""
    remarks: list[Remark] = []
    whole: dict[str, Bools] = {}
    for name in (name for name in last_first if name in drawn):
        whole[name], has_hole = _part(drawn[name], name in _RINGS, shape)
        remarks += [Remark(HOLES, name.upper())] * has_hole
    order, around = _order(whole)
    remarks += [Remark(NESTED, " and ".join(name.upper() for name in around))] if around else []
    seen: dict[str, Bools] = {}
    covered = np.zeros(shape, bool)
    for name in reversed(order):
        seen[name] = whole[name] & ~covered
        covered |= whole[name]
    return seen, tuple(remarks)


def _part(patches: Sequence[Patch], may_be_ring: bool, shape: tuple[int, ...]) -> tuple[Bools, bool]:
    """One part's shapes together, and whether one of them was taken as a hole."""
    together, has_hole = np.zeros(shape, bool), False
    largest = 0
    for patch in sorted(patches, key=lambda each: np.count_nonzero(each.mask), reverse=True):
        below, area = patch.within(together), int(np.count_nonzero(patch.mask))
        is_hole = may_be_ring and _is_within(patch.mask, below) and area < _WITHIN * largest
        largest = max(largest, area)
        if is_hole:
            below &= ~patch.mask
            has_hole = True
        else:
            below |= patch.mask
    return together, has_hole


def _is_within(inner: Bools, outer: Bools) -> bool:
    area = np.count_nonzero(inner)
    return bool(area and np.count_nonzero(inner & outer) >= _WITHIN * area)


def _order(parts: Mapping[str, Bools]) -> tuple[list[str], list[str]]:
    """Lowest first, and the parts inside which others lie; ``parts`` come in the reverse order of drawing."""
    order: list[str] = []
    around: list[str] = []
    for name in reversed(list(parts)):
        inside = [i for i, other in enumerate(order) if _is_within(parts[other], parts[name])]
        around += [name] * bool(inside) + [other for other in order if _is_within(parts[name], parts[other])]
        order.insert(min(inside, default=len(order)), name)
    return order, list(dict.fromkeys(around))
