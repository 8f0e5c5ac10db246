"""Fragments: clusters of drops without a nucleus, in the gaps between cells, under the zona and on top of cells.

Annotators draw one outline around a dense cluster. The mask does the same: small gaps within a cluster are closed.
"""

from dataclasses import dataclass
from math import pi, tau

import numpy as np
import numpy.typing as npt

from napari_embryo.synthetic.blob import Blob, Cytoplasm, Window, rim, rounded, shade, union
from napari_embryo.synthetic.embryo import Mask, Picture
from napari_embryo.synthetic.optics import Point, blur, size_of, step, wobble
from napari_embryo.synthetic.scene import Scene
from napari_embryo.synthetic.zona import Zona

MOST_FRAGMENTS = 700
GROUND = 0.6
"""Opacity of a dense cluster."""

GAP = 0.055
"""Width up to which a gap within a cluster is closed, relative to the zona's inner radius."""

MOST_OPEN = 20
"""Area from which a hole within a cluster is not filled, in squares of the gap width."""

LEAST_BLUR = 0.25
"""Softness in pixels below which blurring has no visible effect."""

SMALLEST, LARGEST = 0.035, 0.28
"""Radius of a fragment relative to the zona's inner radius."""


@dataclass(frozen=True, eq=False)
class Fragments:
    """The drops, lowest first, and the region (H, W) that an annotator would outline."""

    drops: tuple[Blob, ...]
    mask: Mask


@dataclass(frozen=True, eq=False)
class Cluster:
    """Where drops of one cluster may be placed: pixels ``seats`` (N, 2) with cumulative ``chances``."""

    seats: npt.NDArray[np.intp]
    chances: npt.NDArray[np.float64]
    typical: float
    softness: float

    def seat(self, rng: np.random.Generator) -> Point:
        y, x = self.seats[np.searchsorted(self.chances, rng.uniform(0, self.chances[-1]))]
        return float(y), float(x)


def draw_fragments(rng: np.random.Generator, zona: Zona, cells: list[Blob], share: float) -> Fragments:
    """Add clusters of drops until their region covers ``share`` of the embryo's area."""
    body = union(cells, zona.shape)
    clusters = _clusters(rng, zona, body, share)
    drops, bare, region = list[Blob](), np.zeros(zona.shape, np.bool_), np.zeros(zona.shape, np.bool_)
    while len(drops) < MOST_FRAGMENTS:
        missing = share * int((body | region).sum()) - int(region.sum())
        if missing <= 0.002 * share * body.sum():
            break
        drops += _fall(rng, zona, clusters, bare, missing)
        region = _closed(bare, GAP * zona.radius) & (zona.depth > 0)
    return Fragments(tuple(drops), region)


def _clusters(rng: np.random.Generator, zona: Zona, body: Mask, share: float) -> list[Cluster]:
    """A few clusters, mostly in the gaps between the cells."""
    seats = np.argwhere(zona.depth > 0.04 * zona.radius)
    upon_cells = rng.choice([0.01, 0.06, 0.3])
    open_to = np.where(body, upon_cells, 1.0)[tuple(seats.T)]
    hearts = seats[rng.choice(len(seats), 1 + rng.poisson(0.9), p=open_to / open_to.sum())]
    size = zona.radius * rng.lognormal(np.log(0.05 + 0.05 * share), 0.4)
    width = zona.radius * max(np.sqrt(share / len(hearts)), SMALLEST)
    return [_cluster(rng, seats, open_to, heart, width * rng.uniform(0.35, 0.7), size) for heart in hearts]


def _cluster(
    rng: np.random.Generator,
    seats: npt.NDArray[np.intp],
    open_to: npt.NDArray[np.float64],
    heart: npt.NDArray[np.intp],
    width: float,
    size: float,
) -> Cluster:
    """A cluster around ``heart``, about ``width`` wide and elongated in one direction, with some stray drops."""
    turn, long = rng.uniform(0, tau), rng.uniform(1, 2.5)
    dy, dx = (seats - heart).T / width
    along, across = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
    near = np.exp(-0.5 * ((along / long) ** 2 + across**2)) + rng.choice([1e-7, 1e-5, 1e-3])
    softness = rng.choice([0.3, 0.5, 1.0, 3.0], p=[0.4, 0.3, 0.2, 0.1])
    return Cluster(seats, np.cumsum(open_to * near), size * rng.lognormal(0, 0.3), float(softness))


def _fall(rng: np.random.Generator, zona: Zona, clusters: list[Cluster], bare: Mask, missing: float) -> list[Blob]:
    """Drops that cover about ``missing`` more pixels of ``bare``, none of them much larger than that."""
    fallen, before = list[Blob](), int(bare.sum())
    largest = np.sqrt(1.2 * missing / pi)
    while bare.sum() - before < 0.7 * missing and len(fallen) < MOST_FRAGMENTS // 4:
        cluster = clusters[rng.integers(len(clusters))]
        radius = cluster.typical * rng.lognormal(0, 0.5)
        radius = max(min(radius, LARGEST * zona.radius, largest), SMALLEST * zona.radius)
        room = zona.depth - np.float32(0.02 * zona.radius)
        fallen.append(drop(rng, zona.shape, cluster.seat(rng), radius, zona.unit, cluster.softness, room))
        bare[fallen[-1].window] |= fallen[-1].mask
    return fallen


def drop(
    rng: np.random.Generator,
    shape: tuple[int, int],
    at: Point,
    radius: float,
    unit: float,
    softness: float,
    room: Picture | None = None,
) -> Blob:
    """A slightly irregular round drop."""
    uneven = wobble(rng, 0.08, (2, 3))
    return rounded(shape, at, radius, lambda a: np.asarray(radius * (1 + uneven(a)), np.float32), unit, softness, room)


def _closed(mask: Mask, gap: float) -> Mask:
    """The mask with gaps and holes closed that are narrower than a few ``gap`` pixels."""
    from scipy.ndimage import label

    closed = mask | (blur(mask, max(gap, 0.6)) > 0.5)
    parts, _ = label(~closed)
    small = np.bincount(parts.ravel()) < MOST_OPEN * gap**2
    return np.asarray(closed | small[parts], np.bool_)


def paint_drop(rng: np.random.Generator, one: Blob, stuff: Cytoplasm, unit: float, scene: Scene) -> Picture:
    """Paint a drop: granular if large, glassy if small, brighter or darker than what is below."""
    grain = min(one.radius / (14 * unit), 1.0) * stuff.piece(rng, size_of(one.edge))
    body = step(one.edge, unit) * (grain + 12 * shade(one, scene) + rng.normal(2 - 0.6 * scene.absorption, 7))
    drawn = body + rng.uniform(0.4, 0.9) * rim(one, scene.light, unit)
    return blur(drawn, unit * one.softness) if one.softness * unit > LEAST_BLUR else np.asarray(drawn, np.float32)


def paint_ground(
    rng: np.random.Generator, picture: Picture, fragments: Fragments, stuff: Cytoplasm, unit: float
) -> None:
    """Fill the gaps of dense clusters with drops too small to be distinguished."""
    if not fragments.drops:
        return
    window = _box(fragments.mask)
    cover = GROUND * blur(fragments.mask[window], 2 * unit)
    picture[window] *= 1 - cover
    picture[window] += cover * (stuff.piece(rng, size_of(cover)) + rng.normal(-4, 4))


def _box(mask: Mask) -> Window:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
