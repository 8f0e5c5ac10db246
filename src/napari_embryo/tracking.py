"""Follow cells from frame to frame and through divisions, linked by laptrack (Jaqaman et al. 2008)."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import pi

import numpy as np
import numpy.typing as npt

from napari_embryo.image import Cells

Masks = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Node = tuple[int, int]
"""Frame, and index of the cell in it."""

LONGEST_GAP = 3
"""A cell missed in fewer consecutive frames than this keeps its identity."""

FARTHEST = 0.8
"""Cost above which two silhouettes are different cells: the mean of 1 - IoU and their distance over the diameter."""

FARTHEST_DAUGHTER = 0.6
"""The same for a daughter cell, whose overlap is the share of it that lies in the mother."""

LARGEST_DAUGHTER = 0.9
"""Area of a daughter's silhouette over her mother's: half of a ball has 0.63, and what is larger is no half."""

SMALLEST_DAUGHTER = 0.1
"""The same for what is too small to be a daughter, such as a fragment."""


@dataclass(frozen=True)
class Tracks:
    """Identities of cells in a time-lapse.

    Parameters
    ----------
    ids
        For every frame, the track of each of its cells in order; tracks are numbered from 1 as they appear.
    parents
        Track of a daughter -> track of its mother. A mother's track ends where it divides.
    """

    ids: tuple[tuple[int, ...], ...]
    parents: Mapping[int, int]

    @property
    def count(self) -> int:
        """Number of tracks; they are numbered from 1 to this."""
        return max((track for frame in self.ids for track in frame), default=0)


def tracks(frames: Iterable[Cells]) -> Tracks:
    """:func:`link` the cells found in the frames of a time-lapse."""
    return link(found.masks for found in frames)


def link(frames: Iterable[Masks]) -> Tracks:
    """Follow cells through a time-lapse.

    The cost of a link is the mean of two numbers (docs/decisions.md, "Cost of linking cells"): one minus the overlap of
    the silhouettes, and the distance of their centroids over the cells' diameter. Only a few frames are held in memory.

    Parameters
    ----------
    frames
        (N, H, W) complete silhouettes of each frame in order of time; N may vary and may be 0.
    """
    costs = _Costs.of(frames)
    return _named(costs.counts, _linked(costs), costs)


@dataclass(frozen=True, eq=False)
class _Frame:
    """(N, H*W) silhouettes in single precision for matrix products, with areas (N,) and centroids (N, 2)."""

    pixels: npt.NDArray[np.float32]
    areas: Floats
    centroids: Floats

    @classmethod
    def of(cls, masks: Masks) -> "_Frame":
        areas = masks.sum((1, 2)).astype(np.float64)
        filled = np.maximum(areas, 1)
        y = masks.sum(2) @ np.arange(masks.shape[1]) / filled
        x = masks.sum(1) @ np.arange(masks.shape[2]) / filled
        pixels = masks.reshape(len(masks), masks.shape[1] * masks.shape[2]).astype(np.float32)
        return cls(pixels, areas, np.stack((y, x), axis=1))

    @property
    def diameters(self) -> Floats:
        return np.sqrt(4 * np.maximum(self.areas, 1) / pi)


@dataclass(frozen=True, eq=False)
class _Costs:
    """What it costs to link a cell, or a mother, with a cell or a daughter up to ``LONGEST_GAP`` frames later."""

    counts: tuple[int, ...]
    same: Mapping[tuple[Node, Node], float]
    daughter: Mapping[tuple[Node, Node], float]
    shrunk: Mapping[tuple[Node, Node], float]
    """Area of the later cell over that of the earlier one."""

    @classmethod
    def of(cls, frames: Iterable[Masks]) -> "_Costs":
        recent: deque[_Frame] = deque(maxlen=LONGEST_GAP)
        counts: list[int] = []
        same: dict[tuple[Node, Node], float] = {}
        daughter: dict[tuple[Node, Node], float] = {}
        shrunk: dict[tuple[Node, Node], float] = {}
        for number, masks in enumerate(frames):
            frame = _Frame.of(np.asarray(masks, bool))
            for back, before in enumerate(reversed(recent), start=1):
                overlaps = before.pixels @ frame.pixels.T
                same |= _by_pair(_same(before, frame, overlaps), number - back, number)
                daughter |= _by_pair(_daughter(before, frame, overlaps), number - back, number)
                shrunk |= _by_pair(frame.areas / np.maximum(before.areas, 1)[:, None], number - back, number)
            recent.append(frame)
            counts.append(len(masks))
        return cls(tuple(counts), same, daughter, shrunk)


def _by_pair(values: Floats, earlier: int, later: int) -> dict[tuple[Node, Node], float]:
    return {((earlier, i), (later, j)): float(value) for (i, j), value in np.ndenumerate(values)}


def _same(before: _Frame, after: _Frame, overlaps: npt.NDArray[np.float32]) -> Floats:
    either = before.areas[:, None] + after.areas - overlaps
    diameter = (before.diameters[:, None] + after.diameters) / 2
    return (1 - overlaps / np.maximum(either, 1)) / 2 + _distances(before, after) / diameter / 2


def _daughter(mothers: _Frame, daughters: _Frame, overlaps: npt.NDArray[np.float32]) -> Floats:
    outside = 1 - overlaps / np.maximum(daughters.areas, 1)
    cost = outside / 2 + _distances(mothers, daughters) / mothers.diameters[:, None] / 2
    is_half = daughters.areas <= LARGEST_DAUGHTER * mothers.areas[:, None]
    return np.where(is_half, cost, np.inf)


def _distances(before: _Frame, after: _Frame) -> Floats:
    between: Floats = np.linalg.norm(before.centroids[:, None] - after.centroids, axis=-1)
    return between


def _linked(costs: _Costs) -> list[tuple[Node, Node]]:
    """Pairs of an earlier and a later silhouette of one cell, or of a mother and a daughter."""
    if not any(costs.counts):
        return []
    from laptrack import LapTrack

    def same(a: Floats, b: Floats) -> float:
        return costs.same[_ordered(a, b)]

    def daughter(a: Floats, b: Floats) -> float:
        return costs.daughter[_ordered(a, b)]

    # Not linking costs as much as the farthest allowed link, so every nearer link without a competitor is made,
    # however few cells there are to estimate the costs from.
    tracker = LapTrack(
        metric=same,
        cutoff=FARTHEST,
        track_start_cost=FARTHEST,
        track_end_cost=FARTHEST,
        gap_closing_metric=same,
        gap_closing_cutoff=FARTHEST,
        gap_closing_max_frame_count=LONGEST_GAP,
        splitting_metric=daughter,
        splitting_cutoff=FARTHEST_DAUGHTER,
        segment_start_cost=FARTHEST,
        segment_end_cost=FARTHEST,
        no_splitting_cost=FARTHEST_DAUGHTER,
        no_merging_cost=FARTHEST,
    )
    places = [np.array([(t, i) for i in range(n)], float).reshape(-1, 2) for t, n in enumerate(costs.counts)]
    return [(_node(a), _node(b)) for a, b in tracker.predict(places).edges()]


def _ordered(a: Floats, b: Floats) -> tuple[Node, Node]:
    earlier, later = sorted(((int(a[0]), int(a[1])), (int(b[0]), int(b[1]))))
    return earlier, later


def _node(place: Sequence[int]) -> Node:
    return int(place[0]), int(place[1])


def _named(counts: Sequence[int], edges: Iterable[tuple[Node, Node]], costs: _Costs) -> Tracks:
    """Number the tracks in the order in which they appear; a mother's ends with her division."""
    before, mothers = _origins([(t, i) for t, n in enumerate(counts) for i in range(n)], edges, costs)
    names: dict[Node, int] = {}
    parents: dict[int, int] = {}
    free = 0
    for node in ((frame, i) for frame, count in enumerate(counts) for i in range(count)):
        if node in before:
            names[node] = names[before[node]]
            continue
        free += 1
        names[node] = free
        if node in mothers:
            parents[free] = names[mothers[node]]
    ids = tuple(tuple(names[frame, i] for i in range(count)) for frame, count in enumerate(counts))
    return Tracks(ids, parents)


def _origins(
    nodes: Sequence[Node], edges: Iterable[tuple[Node, Node]], costs: _Costs
) -> tuple[dict[Node, Node], dict[Node, Node]]:
    """The earlier silhouette of the same cell, or the mother, of each node that has one.

    Linking allows two daughters at most, in the very next frame. So the daughters of a cell are looked for among all
    that follow her or begin near her: a third one, or one that is first seen after a frame in which she was lost.
    """
    following: dict[Node, list[Node]] = defaultdict(list)
    for earlier, later in edges:
        following[earlier].append(later)
    linked = {later for each in following.values() for later in each}
    found = _daughters(nodes, following, [node for node in nodes if node not in linked], costs)
    divided = {mother: daughters for mother, daughters in found.items() if len(daughters) > 1}
    mothers = {daughter: mother for mother, daughters in divided.items() for daughter in daughters}
    going_on = ((node, later) for node, later in following.items() if node not in divided)
    return {_most_alike(node, later, costs): node for node, later in going_on}, mothers


def _daughters(
    nodes: Sequence[Node], following: Mapping[Node, Sequence[Node]], starts: Sequence[Node], costs: _Costs
) -> dict[Node, list[Node]]:
    """Whom each cell may have divided into; a cell that goes on as large as she was has not divided."""
    candidates = {node: [later for later in following.get(node, ()) if _is_half(node, later, costs)] for node in nodes}
    may_divide = [node for node in nodes if not _goes_on(node, following.get(node, ()), costs)]
    for start in starts:
        near = [node for node in may_divide if node in _reach(start, costs) and _is_half(node, start, costs)]
        if near:
            nearest = min(near, key=lambda node: costs.daughter[node, start])
            candidates[nearest].append(start)
    return {node: candidates[node] for node in may_divide}


def _goes_on(node: Node, later: Sequence[Node], costs: _Costs) -> bool:
    return any(costs.shrunk[node, each] > LARGEST_DAUGHTER for each in later)


def _reach(start: Node, costs: _Costs) -> set[Node]:
    """Cells of the few frames before."""
    frame = start[0]
    earlier = range(max(0, frame - LONGEST_GAP), frame)
    return {(t, i) for t in earlier for i in range(costs.counts[t])}


def _is_half(mother: Node, later: Node, costs: _Costs) -> bool:
    """Whether a later cell has the place and the size of a daughter."""
    is_near = costs.daughter.get((mother, later), np.inf) <= FARTHEST_DAUGHTER
    return is_near and SMALLEST_DAUGHTER <= costs.shrunk[mother, later] <= LARGEST_DAUGHTER


def _most_alike(node: Node, later: Sequence[Node], costs: _Costs) -> Node:
    return min(later, key=lambda each: costs.same[node, each])
