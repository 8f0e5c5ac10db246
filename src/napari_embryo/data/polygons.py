"""Outlines -> masks."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from napari_embryo.data.sample import Bools

Ring = npt.NDArray[np.float64]
"""(N, 2) of (y, x); a pixel's center lies at whole numbers."""
Polygons = dict[str, list[Ring]]
"""Rings by label."""
_CIRCLE_CORNERS = 180


def fill(rings: Iterable[Ring], shape: tuple[int, ...]) -> Bools:
    """(H, W) bool: every pixel whose center lies in or on one of the rings; what lies beyond the picture is cut off.

    Where a ring crosses itself, the even-odd rule holds.
    """
    mask = np.zeros(shape, bool)
    for ring in rings:
        mask |= _fill_one(ring, shape)
    return mask


def _fill_one(ring: Ring, shape: tuple[int, ...]) -> Bools:
    """Each row is inside from its first crossing with the outline to the second, from the third to the fourth..."""
    height, width = shape
    rows, x = _crossings(ring, height)
    at = rows * (width + 1) + np.clip(np.ceil(x), 0, width).astype(np.intp)
    toggles = np.bincount(at, minlength=height * (width + 1)).reshape(height, width + 1)
    inside: Bools = np.cumsum(toggles, axis=1)[:, :-1] % 2 == 1
    on_edge = (x == np.rint(x)) & (x >= 0) & (x < width)
    inside[rows[on_edge], x[on_edge].astype(np.intp)] = True
    _add_level_edges(inside, ring)
    return inside


def _crossings(ring: Ring, height: int) -> tuple[npt.NDArray[np.intp], Ring]:
    """Rows that the outline crosses, and where; an edge counts from its upper end on, without its lower."""
    start, end = ring, np.roll(ring, -1, axis=0)
    goes_down = start[:, :1] <= end[:, :1]
    upper, lower = np.where(goes_down, start, end), np.where(goes_down, end, start)
    first, last = (np.clip(np.ceil(y), 0, height).astype(np.intp) for y in (upper[:, 0], lower[:, 0]))
    edge = np.repeat(np.arange(len(ring)), last - first)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
    (y0, x0), (y1, x1) = upper[edge].T, lower[edge].T
    return rows, x0 + (rows - y0) * (x1 - x0) / (y1 - y0)


def _add_level_edges(inside: Bools, ring: Ring) -> None:
    """Corners and horizontal edges that run through centers of pixels; no crossing finds these."""
    height, width = inside.shape
    for (y0, x0), (y1, x1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y0 == np.rint(y0) and 0 <= y0 < height:
            left, right = (min(x0, x1), max(x0, x1)) if y0 == y1 else (x0, x0)
            inside[int(y0), int(np.clip(np.ceil(left), 0, width)) : int(np.clip(np.floor(right) + 1, 0, width))] = True


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


def blastocyst_masks(polygons: Mapping[str, list[Ring]], shape: tuple[int, ...]) -> tuple[Bools, Bools]:
    """ICM, TE, ZP masks (3, H, W) and which of them are known (3,), from the rings drawn.

    ZP = zp_outer minus zp_inner; ICM = icm; TE = zp_inner minus cavity minus icm. ICM and TE are unknown where cavity
    or icm is not drawn.

    Raises
    ------
    ValueError
        When zp_outer or zp_inner is missing.
    """
    drawn = {label: fill(rings, shape) for label, rings in polygons.items()}
    lacking = {"zp_outer", "zp_inner"} - drawn.keys()
    if lacking:
        raise ValueError(f"a blastocyst needs the polygons zp_outer and zp_inner; {', '.join(sorted(lacking))} missing")
    nothing = np.zeros(shape, bool)
    icm, cavity = drawn.get("icm", nothing), drawn.get("cavity", nothing)
    inner = drawn["zp_inner"]
    complete = {"icm", "cavity"} <= drawn.keys()
    masks = np.stack((icm, inner & ~cavity & ~icm, drawn["zp_outer"] & ~inner))
    known = np.array((complete, complete, True))
    return masks & known[:, None, None], known
