"""Outlines -> masks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_embryo.data.sample import Bools
from napari_embryo.geometry import Box

Ring = npt.NDArray[np.float64]
"""(N, 2) of (y, x); the center of a pixel has whole numbers."""


@dataclass(frozen=True, eq=False)
class Patch:
    """A painted region.

    Parameters
    ----------
    corner
        Row and column of its first pixel in the picture.
    mask
        (h, w) bool.
    """

    corner: tuple[int, int]
    mask: Bools


Outline = Ring | Patch
_CIRCLE_CORNERS = 180
MOST_WORK = 2**30
"""Pixels that the outlines of one picture may cover together, counting a pixel once for each outline, and bytes that
the masks of its cells may take. Annotations of embryos stay far below it."""
_MOST_CROSSINGS = 20_000_000
_MOST_CORNERS = 100_000


def fill(outlines: Iterable[Outline], shape: tuple[int, ...]) -> Bools:
    """(H, W) bool: every pixel whose center lies in or on one of the outlines; the picture's edges cut them off.

    Where a ring crosses itself, the even-odd rule holds.

    Raises
    ------
    ValueError
        If an outline is too complex to be that of anything in a picture.
    """
    mask = np.zeros(shape, bool)
    for outline in outlines:
        if isinstance(outline, Patch):
            _add_patch(mask, outline)
        else:
            _add_ring(mask, outline)
    return mask


def _add_patch(mask: Bools, patch: Patch) -> None:
    rows, columns = (
        (max(start, 0), min(start + length, room))
        for start, length, room in zip(patch.corner, patch.mask.shape, mask.shape, strict=True)
    )
    if rows[0] < rows[1] and columns[0] < columns[1]:
        top, left = patch.corner
        mask[slice(*rows), slice(*columns)] |= patch.mask[
            rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left
        ]


def _add_ring(mask: Bools, ring: Ring) -> None:
    """Fill it within its bounding box, so that many small outlines on a large picture take no time."""
    box = _bounds(ring, mask.shape)
    top, left, bottom, right = box
    if top < bottom and left < right:
        mask[top:bottom, left:right] |= _fill_box(ring, box)


def _bounds(ring: Ring, shape: tuple[int, ...]) -> Box:
    """Top, left, bottom and right of the pixels that the ring may cover."""
    low = np.clip(np.floor(ring.min(axis=0)), 0, shape)
    high = np.clip(np.floor(ring.max(axis=0)) + 1, 0, shape)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def check_work(outlines: Iterable[Outline], shape: tuple[int, ...]) -> None:
    """Refuse a drawing that would take minutes to fill.

    Raises
    ------
    ValueError
        If its outlines cover the picture many hundreds of times.
    """
    covered, count = 0, 0
    for outline in outlines:
        count += 1
        if isinstance(outline, Patch):
            covered += outline.mask.size
        else:
            top, left, bottom, right = _bounds(outline, shape)
            covered += (bottom - top) * (right - left)
    if covered > MOST_WORK:
        raise ValueError(
            f"{count} outlines cover {covered:.2g} pixels of an image of {shape[0]} x {shape[1]}; this is not a "
            "drawing of an embryo. Remove the outlines that were made by mistake"
        )


def check_cells(count: int, shape: tuple[int, ...]) -> None:
    """Refuse more cells than memory can hold.

    Raises
    ------
    ValueError
        Naming their number.
    """
    if count * shape[0] * shape[1] > MOST_WORK:
        raise ValueError(
            f"{count} cells are drawn on an image of {shape[0]} x {shape[1]} pixels, more than can be kept in memory; "
            "an embryo has fewer. Remove those that were made by mistake"
        )


def stacked(masks: Sequence[Bools], shape: tuple[int, ...]) -> Bools:
    """(N, H, W) of masks; N may be 0."""
    return np.stack(masks) if masks else np.zeros((0, *shape), bool)


def _fill_box(ring: Ring, box: Box) -> Bools:
    """Each row is inside from its first crossing with the outline to the second, from the third to the fourth..."""
    top, left, bottom, right = box
    height, width = bottom - top, right - left
    rows, x = _crossings(ring, top, bottom)
    at = (rows - top) * (width + 1) + np.clip(np.ceil(x) - left, 0, width).astype(np.intp)
    toggles = np.bincount(at, minlength=height * (width + 1)).reshape(height, width + 1)
    inside: Bools = np.cumsum(toggles, axis=1)[:, :-1] % 2 == 1
    on_edge = (x == np.rint(x)) & (x >= left) & (x < right)
    inside[rows[on_edge] - top, x[on_edge].astype(np.intp) - left] = True
    _add_level_edges(inside, ring, box)
    return inside


def _crossings(ring: Ring, top: int, bottom: int) -> tuple[npt.NDArray[np.intp], Ring]:
    """Rows that the outline crosses, and where; an edge includes its upper end but not its lower one."""
    start, end = ring, np.roll(ring, -1, axis=0)
    goes_down = start[:, :1] <= end[:, :1]
    upper, lower = np.where(goes_down, start, end), np.where(goes_down, end, start)
    first, last = (np.clip(np.ceil(y), top, bottom).astype(np.intp) for y in (upper[:, 0], lower[:, 0]))
    if len(ring) > _MOST_CORNERS or (last - first).sum() > _MOST_CROSSINGS:
        raise ValueError(
            f"an outline of {len(ring)} points crosses the image's rows {(last - first).sum()} times; the outline of "
            "a cell has some hundred points. Draw it again"
        )
    edge = np.repeat(np.arange(len(ring)), last - first)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
    (y0, x0), (y1, x1) = upper[edge].T, lower[edge].T
    return rows, x0 + (rows - y0) * (x1 - x0) / (y1 - y0)


def _add_level_edges(inside: Bools, ring: Ring, box: Box) -> None:
    """Corners and horizontal edges that run through the centers of pixels; the crossings miss these."""
    top, left, bottom, right = box
    is_on_row = (ring[:, 0] == np.rint(ring[:, 0])) & (ring[:, 0] >= top) & (ring[:, 0] < bottom)
    following = np.roll(ring, -1, axis=0)
    for (y0, x0), (y1, x1) in zip(ring[is_on_row], following[is_on_row], strict=True):
        first, last = (min(x0, x1), max(x0, x1)) if y0 == y1 else (x0, x0)
        begin, end = (int(np.clip(x, left, right)) - left for x in (np.ceil(first), np.floor(last) + 1))
        inside[int(y0) - top, begin:end] = True


def rectangle(corners: Ring) -> Ring:
    """From two opposite corners, or from all four."""
    if len(corners) == 4:
        return corners
    (top, left), (bottom, right) = corners
    return np.array([(top, left), (top, right), (bottom, right), (bottom, left)])


def circle(points: Ring) -> Ring:
    """From the center and a point on the circle."""
    center, edge = points
    angle = np.linspace(0, 2 * np.pi, _CIRCLE_CORNERS, endpoint=False)
    radius = float(np.hypot(*(edge - center)))
    return np.stack((center[0] + radius * np.sin(angle), center[1] + radius * np.cos(angle)), axis=1)


def blastocyst_masks(drawn: Mapping[str, Sequence[Outline]], shape: tuple[int, ...]) -> tuple[Bools, Bools]:
    """ICM, TE, ZP masks (3, H, W) and which of them are known (3,), from the outlines drawn.

    ZP = zp_outer minus zp_inner; ICM = icm; TE = zp_inner minus cavity minus icm. ICM and TE are unknown where the
    cavity or the ICM is not drawn.

    Raises
    ------
    ValueError
        If zp_outer or zp_inner is missing.
    """
    filled = {label: fill(outlines, shape) for label, outlines in drawn.items()}
    lacking = {"zp_outer", "zp_inner"} - filled.keys()
    if lacking:
        raise ValueError(
            f"a blastocyst needs the outlines zp_outer and zp_inner; {' and '.join(sorted(lacking))} missing"
        )
    nothing = np.zeros(shape, bool)
    icm, cavity = filled.get("icm", nothing), filled.get("cavity", nothing)
    inner = filled["zp_inner"]
    complete = {"icm", "cavity"} <= filled.keys()
    masks = np.stack((icm, inner & ~cavity & ~icm, filled["zp_outer"] & ~inner))
    known = np.array((complete, complete, True))
    return masks & known[:, None, None], known
