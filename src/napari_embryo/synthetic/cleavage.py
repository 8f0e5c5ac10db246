"""Cleavage-stage embryos: 2 to 8 round, translucent cells that overlap, with fragments between and upon them.

Cells are balls pushed apart inside the zona and seen from above, so that they hide parts of one another as real ones
do; every silhouette is complete.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import tau

import numpy as np
import numpy.typing as npt

from napari_embryo.synthetic.embryo import Mask, Picture, Style, SyntheticEmbryo, check_request, pixel_size
from napari_embryo.synthetic.optics import (
    Point,
    blur,
    camera,
    grains,
    line,
    polar,
    relief,
    size_of,
    smooth_noise,
    step,
    wobble,
)
from napari_embryo.synthetic.scene import Scene, choose_scene
from napari_embryo.synthetic.zona import Zona, draw_zona, paint_inner_edge, paint_surroundings, paint_zona

RADIUS_OF_FRAME: dict[Style, tuple[float, float]] = {"microscope": (0.31, 0.37), "incubator": (0.19, 0.22)}
"""Radius of the zona's inner edge over the shorter side of the picture."""

MOST_CELLS = 16
MOST_FRAGMENTED = 0.6
MOST_FRAGMENTS = 600
FILLING = 0.9
"""Radius of one ball with the volume of all cells together, over the zona's inner radius."""


@dataclass(frozen=True, eq=False)
class Blob:
    """One cell or fragment.

    ``edge`` (H, W) is the distance to its outline, positive inside; ``height`` lies between -1, the bottom of the zona,
    and 1, its top.
    """

    edge: Picture
    radius: float
    height: float

    @property
    def mask(self) -> Mask:
        return self.edge > 0

    def seen_in(self, window: tuple[slice, slice]) -> "Blob":
        return replace(self, edge=self.edge[window])


def draw_cleavage(
    seed: int,
    n_cells: int | None = None,
    fragmentation: float | None = None,
    shape: tuple[int, int] = (500, 500),
    style: Style = "incubator",
) -> SyntheticEmbryo:
    """An embryo of a few overlapping translucent cells.

    Parameters
    ----------
    seed
        The same arguments give the same embryo.
    n_cells
        1 to 16; drawn from 2 to 8 where not given.
    fragmentation
        Share of the embryo's area that is fragments, 0 to 0.6; about met (``fragmentation_ratio`` of the result is
        exact). Drawn where not given, most often below 0.15.
    shape
        (height, width) in pixels, 64 or more each.
    style
        ``incubator``: in its well; ``microscope``: it fills the frame.

    Returns
    -------
    SyntheticEmbryo
        With ``cells``, ``fragments`` and masks ``ZP`` and ``embryo`` (cells and fragments together).
    """
    check_request(style, shape)
    rng = np.random.default_rng(seed)
    # both are always drawn, so that giving one of them changes nothing else
    usual_count, usual_share = int(rng.integers(2, 9)), float(rng.beta(1, 9))
    count = usual_count if n_cells is None else n_cells
    share = min(usual_share, MOST_FRAGMENTED) if fragmentation is None else fragmentation
    _check_within("n_cells", count, 1, MOST_CELLS)
    _check_within("fragmentation", share, 0, MOST_FRAGMENTED)
    scene = choose_scene(rng, shape, style)
    zona = draw_zona(rng, scene, RADIUS_OF_FRAME[style])
    cells = draw_cells(rng, zona, count, filling(share))
    fragments = draw_fragments(rng, zona, cells, share)
    picture = paint(rng, zona, cells, fragments, scene)
    image = camera(rng, picture, scene.softness, scene.noise, scene.sharpening)
    return truth(image, zona, cells, fragments, pixel_size(style, shape), seed)


def _check_within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} = {value} cannot be drawn; give {low} to {high}")


def truth(
    image: npt.NDArray[np.uint8],
    zona: Zona,
    cells: Sequence[Blob],
    fragments: Sequence[Blob],
    pixel_size_um: tuple[float, float],
    seed: int,
    hours: float | None = None,
) -> SyntheticEmbryo:
    """The picture with everything that was drawn into it."""
    silhouettes = np.stack([cell.mask for cell in cells])
    debris = np.any([f.mask for f in fragments], axis=0) if fragments else np.zeros(zona.shape, bool)
    masks = {"ZP": zona.zona, "embryo": silhouettes.any(axis=0) | debris}
    return SyntheticEmbryo(image, masks, pixel_size_um, seed, silhouettes, debris, hours)


def filling(share: float) -> float:
    """Radius of all cells in one ball over the zona's, where ``share`` of the embryo is fragments."""
    return float(FILLING * (1 - share) ** (1 / 3))


def draw_cells(rng: np.random.Generator, zona: Zona, count: int, filling: float, drift: float = 0.0) -> list[Blob]:
    """Cells of about equal volume, together as large as a ball of ``filling`` times the zona's radius, highest last.

    ``drift`` moves each a little around its place: the same cells at another time.
    """
    sizes = rng.normal(1, 0.06, count).clip(0.8, 1.2)
    radii = sizes * filling * zona.radius / count ** (1 / 3)
    places = _pushed_apart(rng, radii, zona.radius)
    phases = rng.uniform(0, tau, (count, 2)) + drift * rng.uniform(0.5, 1.5, (count, 2))
    places[:, 1:] += 0.03 * zona.radius * np.sin(phases)
    order = np.argsort(places[:, 0])
    return [_cell(rng, zona, places[i], float(radii[i])) for i in order]


def _pushed_apart(rng: np.random.Generator, radii: npt.NDArray[np.float64], room: float) -> npt.NDArray[np.float64]:
    """Centres (z, y, x) of balls that rest against one another inside a larger ball, sinking to its middle plane."""
    places = rng.normal(0, 0.35 * room, (len(radii), 3))
    for _ in range(60):
        between = places[:, None] - places[None]
        distance = np.linalg.norm(between, axis=-1) + 1e-6
        overlap = np.clip(0.97 * (radii[:, None] + radii[None]) - distance, 0, None)
        np.fill_diagonal(overlap, 0)
        places = places + 0.3 * (between / distance[..., None] * overlap[..., None]).sum(axis=1)
        places[:, 0] *= 0.93
        away = np.linalg.norm(places, axis=1) + 1e-6
        places *= np.minimum(1, np.maximum(0.97 * room - radii, 0) / away)[:, None]
    return places


def _cell(rng: np.random.Generator, zona: Zona, at: npt.NDArray[np.float64], radius: float) -> Blob:
    distance, angle = polar(zona.shape, (zona.centre[0] + float(at[1]), zona.centre[1] + float(at[2])))
    outline = radius * (1 + wobble(rng, 0.03, (2, 3))(angle) + wobble(rng, 0.006, (5, 7, 9))(angle))
    return Blob(np.minimum(outline - distance, zona.depth - 0.02 * zona.radius), radius, float(at[0]) / zona.radius)


def draw_fragments(rng: np.random.Generator, zona: Zona, cells: Sequence[Blob], share: float) -> list[Blob]:
    """Small drops, most of them in the gaps, until they make up ``share`` of the embryo's area."""
    body = np.any([cell.mask for cell in cells], axis=0)
    found, covered = list[Blob](), np.zeros(zona.shape, bool)
    seats = np.argwhere(zona.depth > 0.11 * zona.radius)
    chances = np.cumsum(_attraction(rng, zona, body)[tuple(seats.T)])
    while covered.sum() < share * (body | covered).sum() and len(found) < MOST_FRAGMENTS:
        y, x = seats[np.searchsorted(chances, rng.uniform(0, chances[-1]))]
        found.append(_fragment(rng, zona, (float(y), float(x))))
        covered |= found[-1].mask
    return found


def _attraction(rng: np.random.Generator, zona: Zona, body: Mask) -> Picture:
    """How readily fragments lie at each pixel: in the gaps, towards one side."""
    side, away = rng.uniform(0, tau), 0.7 * zona.radius
    distance, _ = polar(zona.shape, (zona.centre[0] + away * np.sin(side), zona.centre[1] + away * np.cos(side)))
    return np.asarray(np.where(body, 0.12, 1.0) * np.exp(-distance / (0.6 * zona.radius)), np.float32)


def _fragment(rng: np.random.Generator, zona: Zona, at: Point) -> Blob:
    distance, angle = polar(zona.shape, at)
    radius = zona.radius * rng.lognormal(np.log(0.075), 0.4)
    outline = radius * (1 + wobble(rng, 0.06, (2, 3))(angle))
    return Blob(np.minimum(outline - distance, zona.depth - 0.02 * zona.radius), radius, 1.0)


def paint(
    rng: np.random.Generator, zona: Zona, cells: Sequence[Blob], fragments: Sequence[Blob], scene: Scene
) -> Picture:
    """Light through the embryo and what surrounds it, in greys."""
    surroundings = paint_surroundings(rng, scene, zona)
    embryo = paint_zona(rng, zona) + paint_inner_edge(rng, zona, scene, strength=0.25)
    for blob, draw, hidden in [(c, _paint_cell, 0.35) for c in cells] + [(f, _paint_fragment, 0.6) for f in fragments]:
        window = _around(blob, 10 * zona.unit)
        part = blob.seen_in(window)
        embryo[window] *= 1 - hidden * step(part.edge, zona.unit)
        embryo[window] += draw(rng, part, zona.unit, scene)
    return surroundings + scene.contrast * embryo


def _around(blob: Blob, margin: float) -> tuple[slice, slice]:
    """The part of the frame where a blob changes anything."""
    near = blob.edge > -margin
    spans = [np.flatnonzero(near.any(axis=axis)) for axis in (1, 0)]
    rows, columns = (slice(int(s[0]), int(s[-1]) + 1) if len(s) > 1 else slice(0, 2) for s in spans)
    return rows, columns


def _paint_cell(rng: np.random.Generator, cell: Blob, unit: float, scene: Scene) -> Picture:
    """A granular ball, lit from one side, with a sharp rim; softer where it lies below the focus."""
    size = size_of(cell.edge)
    fine, middle, coarse = (smooth_noise(rng, size, sigma * unit) for sigma in (1.0, 2.2, 7.0))
    specks = 11 * grains(rng, np.full(size, 0.03, np.float32), unit)
    embossing = min(scene.embossing, 1.6)
    grain = 6 * embossing * relief(1.3 * fine + 1.8 * middle, scene.light)
    shade = 20 * embossing * np.clip(relief(_dome(cell), scene.light), -1.3, 1.3)
    cytoplasm = 3 * fine + 4 * coarse + specks + grain + shade + rng.normal(-9, 4)
    drawn = step(cell.edge, 1.5 * unit) * cytoplasm + _rim(rng, cell, unit, scene)
    return blur(drawn, unit * (0.4 + 0.9 * max(-cell.height, 0)))


def _dome(cell: Blob) -> Picture:
    """Height of a ball over the plane, flattened at the top."""
    inward = np.clip(cell.edge / cell.radius, 0, 1)
    return np.asarray(cell.radius * np.sqrt(inward * (2 - inward)), np.float32)


def _rim(rng: np.random.Generator, blob: Blob, unit: float, scene: Scene) -> Picture:
    """Dark on the side away from the light, bright towards it."""
    dy, dx = np.gradient(blob.edge)
    facing = np.cos(scene.light) * dx + np.sin(scene.light) * dy
    uneven = np.clip(1 + 0.3 * smooth_noise(rng, size_of(blob.edge), 10 * unit), 0.4, 1.6)
    dark = -52 * (1 - 0.4 * facing) * line(blob.edge, 1.4 * unit)
    bright = 26 * (1 + 0.8 * facing) * line(blob.edge - 4 * unit, 2.2 * unit)
    shadow = -14 * line(blob.edge + 3 * unit, 3 * unit)
    return np.asarray(uneven * (dark + bright + shadow), np.float32)


def _paint_fragment(rng: np.random.Generator, fragment: Blob, unit: float, scene: Scene) -> Picture:
    """A small bright drop with a rim."""
    fine = smooth_noise(rng, size_of(fragment.edge), 1.3 * unit)
    lit = 8 * min(scene.embossing, 1.6) * relief(0.8 * _dome(fragment), scene.light)
    body = step(fragment.edge, unit) * (5 * fine + lit + rng.normal(2, 10))
    return blur(body + 0.9 * _rim(rng, fragment, unit, scene), 0.4 * unit)
