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

    def within(self, picture: Bools) -> Bools:
        """The same region of an array of the picture's size, as a view; the patch lies inside the picture."""
        (top, left), (height, width) = self.corner, self.mask.shape
        view: Bools = picture[top : top + height, left : left + width]
        return view


Outline = Ring | Patch
_CIRCLE_CORNERS = 180
_MOST_WORK = 2**29
"""Pixels that the outlines of one picture may cover together, counting a pixel once for each outline."""
_MOST_CELLS, _MOST_BYTES = 1000, 2**30
"""Cells on one picture, and memory for their masks; annotations of embryos stay far below both."""
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
        _add(mask, outline, (0, 0, shape[0], shape[1]))
    return mask


def cropped(outlines: Sequence[Outline], shape: tuple[int, ...]) -> Patch:
    """The same without what lies around the outlines, so that many small ones on a large picture take little memory."""
    boxes = np.array([_bounds(outline, shape) for outline in outlines]).reshape(-1, 4)
    boxes = boxes[(boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])]
    if not len(boxes):
        return Patch((0, 0), np.zeros((0, 0), bool))
    (top, left), (bottom, right) = boxes[:, :2].min(axis=0).tolist(), boxes[:, 2:].max(axis=0).tolist()
    mask = np.zeros((bottom - top, right - left), bool)
    for outline in outlines:
        _add(mask, outline, (top, left, bottom, right))
    return Patch((top, left), mask)


def _add(mask: Bools, outline: Outline, frame: Box) -> None:
    """Paint an outline on a mask of the pixels in the frame."""
    top, left = frame[:2]
    box = _overlap(_box(outline), frame)
    if box[0] < box[2] and box[1] < box[3]:
        inside = _cut(outline, box) if isinstance(outline, Patch) else _fill_box(outline, box)
        mask[box[0] - top : box[2] - top, box[1] - left : box[3] - left] |= inside


def _cut(patch: Patch, box: Box) -> Bools:
    top, left = patch.corner
    cut: Bools = patch.mask[box[0] - top : box[2] - top, box[1] - left : box[3] - left]
    return cut


def _bounds(outline: Outline, shape: tuple[int, ...]) -> Box:
    """Top, left, bottom and right of the pixels of the picture that the outline may cover."""
    return _overlap(_box(outline), (0, 0, shape[0], shape[1]))


def _box(outline: Outline) -> Box:
    if isinstance(outline, Patch):
        top, left = outline.corner
        return top, left, top + outline.mask.shape[0], left + outline.mask.shape[1]
    low, high = np.floor(outline.min(axis=0)), np.floor(outline.max(axis=0)) + 1
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _overlap(one: Box, other: Box) -> Box:
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def check_work(outlines: Iterable[Outline], shape: tuple[int, ...]) -> None:
    """Refuse a drawing that would take minutes to fill.

    Raises
    ------
    ValueError
        If its outlines cover the picture many hundreds of times.
    """
    covered, count = 0, 0
    for outline in outlines:
        top, left, bottom, right = _bounds(outline, shape)
        covered, count = covered + max(0, bottom - top) * max(0, right - left), count + 1
    if covered > _MOST_WORK:
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
    if count > _MOST_CELLS or count * shape[0] * shape[1] > _MOST_BYTES:
        raise ValueError(
            f"{count} cells are drawn on an image of {shape[0]} x {shape[1]} pixels, more than an embryo has or than "
            "can be kept in memory. Remove those that were made by mistake"
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
