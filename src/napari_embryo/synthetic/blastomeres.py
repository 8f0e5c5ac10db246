"""The cells of a cleavage-stage embryo: balls pressed together in the zona, granular and translucent.

They are pushed apart and seen from above, so that they hide parts of one another as real ones do; every silhouette is
complete. Their size, their elongation and how much they overlap follow annotated human embryos of 2 to 9 cells.
"""

from math import atan2, cos, pi, sin, tau

import numpy as np
import numpy.typing as npt

from napari_embryo.synthetic.blob import Blob, Cytoplasm, rim, rounded, shade
from napari_embryo.synthetic.embryo import Picture
from napari_embryo.synthetic.optics import (
    add_vesicle,
    blur,
    ellipse_radius,
    grains,
    line,
    polar,
    size_of,
    smooth_noise,
    step,
    wobble,
)
from napari_embryo.synthetic.scene import Scene
from napari_embryo.synthetic.zona import Zona

FILLING = 0.85
"""Radius of a single cell over the zona's inner radius."""

SHRINKING = 0.4
"""A cell's radius goes with the number of cells to the power of minus this."""

UNEVENNESS = 0.11
"""Standard deviation of the logarithm of a cell's radius."""


def filling(share: float) -> float:
    """Radius of a single cell over the zona's, where ``share`` of the embryo is fragments."""
    return float(FILLING * np.sqrt(1 - share))


def draw_cells(rng: np.random.Generator, zona: Zona, count: int, filling: float, drift: float = 0.0) -> list[Blob]:
    """Cells that together fill their part of the zona, the highest last.

    ``drift`` moves each cell a little around its place, giving the same cells at another time.
    """
    sizes = np.exp(rng.normal(0, UNEVENNESS, count).clip(-0.3, 0.3))
    radii = sizes * filling * zona.radius / count**SHRINKING
    places = _pushed_apart(rng, radii, zona.radius, _lean(rng, filling))
    phases = rng.uniform(0, tau, (count, 2)) + drift * rng.uniform(0.5, 1.5, (count, 2))
    places[:, 1:] += 0.02 * zona.radius * np.sin(phases)
    order = np.argsort(places[:, 0])
    return [_cell(rng, zona, places[i], float(radii[i])) for i in order]


def _lean(rng: np.random.Generator, filling: float) -> npt.NDArray[np.float64]:
    """How far cells make room for fragments in every step of pushing, as a share of the zona's radius."""
    toward = rng.uniform(0, tau)
    return 0.04 * (1 - filling / FILLING) * np.array([0, sin(toward), cos(toward)])


def _pushed_apart(
    rng: np.random.Generator, radii: npt.NDArray[np.float64], room: float, lean: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Centers (z, y, x) of balls that rest against one another inside a larger ball, sinking to its middle plane."""
    places = rng.normal(0, 0.35 * room, (len(radii), 3))
    pressed, sinking = 0.8 * radii, rng.uniform(0.92, 0.99)
    for _ in range(60):
        between = places[:, None] - places[None]
        distance = np.linalg.norm(between, axis=-1) + 1e-6
        overlap = np.clip(pressed[:, None] + pressed[None] - distance, 0, None)
        np.fill_diagonal(overlap, 0)
        places = places + 0.3 * (between / distance[..., None] * overlap[..., None]).sum(axis=1) + room * lean
        places[:, 0] *= sinking
        away = np.linalg.norm(places, axis=1) + 1e-6
        places *= np.minimum(1, np.maximum(0.97 * room - pressed, 0) / away)[:, None]
    return places


def _cell(rng: np.random.Generator, zona: Zona, at: npt.NDArray[np.float64], radius: float) -> Blob:
    """Flattened by its neighbors: longer along the zona than across it."""
    aside = float(np.hypot(at[1], at[2])) / zona.radius
    pressure = min(aside / 0.3, 1.0)
    longer = 1 + pressure * abs(rng.normal(0.3, 0.12)) + 0.5 * (1 - pressure) * abs(rng.normal(0.1, 0.1))
    tilt = atan2(at[1], at[2]) + pi / 2 + rng.normal(0, 0.3)
    axes = radius * longer**0.5, radius / longer**0.5
    bumps, ripples = wobble(rng, 0.03, (2, 3)), wobble(rng, 0.006, (5, 7, 9))

    def outline(angle: Picture) -> Picture:
        return np.asarray(ellipse_radius(angle, axes, tilt) * (1 + bumps(angle) + ripples(angle)), np.float32)

    softness = 0.4 + 0.9 * max(-float(at[0]) / zona.radius, 0)
    middle = zona.center[0] + float(at[1]), zona.center[1] + float(at[2])
    room = zona.depth - np.float32(0.02 * zona.radius)
    return rounded(zona.shape, middle, radius, outline, zona.unit, softness, room)


def paint_cell(rng: np.random.Generator, cell: Blob, stuff: Cytoplasm, unit: float, scene: Scene) -> Picture:
    """A granular ball, dark away from the light; softer where it lies below the focus."""
    size = size_of(cell.edge)
    inner = np.asarray(
        stuff.piece(rng, size) + 17 * shade(cell, scene) - scene.absorption + rng.normal(0, 4), np.float32
    )
    _add_inside(rng, inner, cell, unit)
    uneven = np.clip(1 + 0.3 * smooth_noise(rng, size, 10 * unit), 0.4, 1.6)
    return blur(step(cell.edge, 1.5 * unit) * inner + uneven * rim(cell, scene.light, unit), unit * cell.softness)


def _add_inside(rng: np.random.Generator, inner: Picture, cell: Blob, unit: float) -> None:
    """Contents of a cell that are not fragments: a nucleus in some, small vesicles, many dark organelles."""
    seats = np.argwhere(cell.edge > 0.45 * cell.radius)
    if len(seats) == 0:
        return
    if rng.random() < 0.3:
        _add_nucleus(rng, inner, seats[rng.integers(len(seats))], cell.radius)
    for _ in range(rng.poisson(0.7)):
        y, x = seats[rng.integers(len(seats))]
        add_vesicle(inner, (float(y), float(x)), rng.uniform(1.5, 4) * unit, rng.uniform(8, 25))
    if rng.random() < 0.3:
        crowd = np.exp(-((polar(size_of(inner), seats[rng.integers(len(seats))])[0] / (0.4 * cell.radius)) ** 2))
        inner += rng.uniform(4, 14) * grains(rng, 0.08 * crowd, unit) - rng.uniform(0, 12) * crowd


def _add_nucleus(rng: np.random.Generator, inner: Picture, at: npt.NDArray[np.intp], radius: float) -> None:
    """A smooth disc with a soft, faint rim and a few nucleoli."""
    away = polar(size_of(inner), (float(at[0]), float(at[1])))[0]
    size = radius * rng.uniform(0.22, 0.32)
    within = step(size - away, 0.15 * size)
    inner *= 1 - 0.6 * within
    inner += rng.normal(0, 7) * within - rng.uniform(3, 10) * line(size - away, 0.12 * size)
    for _ in range(rng.integers(0, 5)):
        nucleolus = at + rng.normal(0, 0.35 * size, 2)
        inner -= rng.uniform(6, 14) * line(polar(size_of(inner), (nucleolus[0], nucleolus[1]))[0], 0.12 * size)
