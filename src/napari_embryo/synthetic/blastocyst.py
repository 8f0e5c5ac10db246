"""Blastocysts: zona pellucida, a scalloped trophectoderm, a cavity with cells out of focus, an inner cell mass.

First the anatomy (curves and masks: the ground truth), then the painting, which depends only on the anatomy. The
proportions were measured on real human blastocysts: inner diameter, thickness of the zona, share of each part, strength
of its texture.
"""

from dataclasses import dataclass
from math import cos, sin, tau

import numpy as np
import numpy.typing as npt

from napari_embryo.synthetic.embryo import Floats, Mask, Picture, Style, SyntheticEmbryo, check_request, pixel_size
from napari_embryo.synthetic.optics import (
    ANGLES,
    Point,
    add_vesicle,
    around,
    blur,
    camera,
    ellipse_radius,
    grains,
    line,
    mosaic,
    polar,
    relief,
    scatter,
    signed_distance,
    size_of,
    smooth_noise,
    step,
    tabulated,
    warp_field,
    wobble,
)
from napari_embryo.synthetic.scene import Scene, add_scale_bar, choose_scene
from napari_embryo.synthetic.zona import Zona, draw_zona, paint_inner_edge, paint_surroundings, paint_zona

RADIUS_OF_FRAME: dict[Style, tuple[float, float]] = {"microscope": (0.35, 0.42), "incubator": (0.22, 0.30)}
"""Radius of the zona's inner edge relative to the shorter side of the image."""


@dataclass(frozen=True, eq=False)
class Anatomy(Zona):
    """A blastocyst's parts: thickness of the trophectoderm at each pixel's angle, its cell there, and the ICM."""

    te_thickness: Picture
    te_cell: npt.NDArray[np.intp]
    icm: Mask

    @property
    def hollow(self) -> Mask:
        """Everything the trophectoderm encloses: cavity and inner cell mass."""
        return self.depth > self.te_thickness

    @property
    def te(self) -> Mask:
        return self.inside & ~self.hollow & ~self.icm

    def masks(self) -> dict[str, Mask]:
        return {"ICM": self.icm, "TE": self.te, "ZP": self.zona}


def draw_blastocyst(
    seed: int,
    shape: tuple[int, int] = (390, 440),
    style: Style = "microscope",
    scale_bar: bool = False,
) -> SyntheticEmbryo:
    """A human blastocyst in Hoffman modulation contrast.

    Parameters
    ----------
    seed
        The same seed, shape and style give the same embryo.
    shape
        (height, width) in pixels, 64 or more each.
    style
        ``microscope``: the embryo fills the frame; ``incubator``: it lies in its well.
    scale_bar
        Burn a 25 um scale bar into the image, as many microscopes do.

    Returns
    -------
    SyntheticEmbryo
        With masks ``ICM``, ``TE``, ``ZP``: disjoint, ICM and TE inside the zona's inner edge.
    """
    check_request(style, shape)
    rng = np.random.default_rng(seed)
    scene = choose_scene(rng, shape, style)
    anatomy = draw_anatomy(rng, draw_zona(rng, scene, RADIUS_OF_FRAME[style]))
    picture = paint(rng, anatomy, scene)
    if scale_bar:
        add_scale_bar(picture, pixel_size(style, shape)[1])
    image = camera(rng, picture, scene.softness, scene.noise, scene.sharpening)
    return SyntheticEmbryo(image, anatomy.masks(), pixel_size(style, shape), seed)


def draw_anatomy(rng: np.random.Generator, zona: Zona, thickness: float = 1.0) -> Anatomy:
    """Curves and masks of a blastocyst that fills this shell; ``thickness`` above 1 gives a younger trophectoderm."""
    count, height = int(rng.integers(8, 17)), thickness * rng.uniform(0.11, 0.19)
    te_thickness, te_cell = _scallops(rng, zona.angle, zona.radius, count, height)
    return Anatomy(**vars(zona), te_thickness=te_thickness, te_cell=te_cell, icm=_inner_cell_mass(rng, zona))


def _scallops(
    rng: np.random.Generator, angle: Picture, radius: float, count: int, height: float
) -> tuple[Picture, npt.NDArray[np.intp]]:
    """A layer of ``count`` lens-shaped cells about ``height`` high: its thickness and the cell at each angle."""
    edges = np.concatenate([[0.0], np.cumsum(rng.gamma(7.0, size=count))])
    edges /= edges[-1]
    turn = (np.arange(ANGLES) / ANGLES + rng.uniform(0, 1)) % 1
    cell = np.minimum(np.searchsorted(edges, turn, side="right") - 1, count - 1)
    across = (turn - edges[cell]) / np.diff(edges)[cell]
    skewed = across ** rng.uniform(0.7, 1.4, count)[cell]
    flat = np.minimum(rng.lognormal(np.log(height), 0.4, count), np.minimum(2.4 * np.diff(edges), 0.3))
    lens = 1 - np.abs(2 * skewed - 1) ** rng.uniform(1.7, 3.5, count)[cell]
    thickness = radius * (0.025 + 0.03 * _joined(rng.uniform(0, 1, count), across, cell) + flat[cell] * lens)
    entry = tabulated(angle)
    return thickness.astype(np.float32)[entry], cell[entry]


def _joined(at_walls: Floats, across: Floats, cell: npt.NDArray[np.intp]) -> Floats:
    """Values given at the walls between cells, interpolated from one wall to the next."""
    return at_walls[cell] * (1 - across) + np.roll(at_walls, -1)[cell] * across


def _inner_cell_mass(rng: np.random.Generator, zona: Zona) -> Mask:
    """A lobed clump lying against the trophectoderm, some of its cells bulging into the cavity."""
    size, toward = zona.radius * rng.uniform(0.33, 0.48), rng.uniform(0, tau)
    away = zona.radius - size * rng.uniform(0.85, 1.0)
    middle = zona.center[0] + away * sin(toward), zona.center[1] + away * cos(toward)
    distance, angle = polar(zona.shape, middle)
    flat = rng.uniform(0.85, 1.0)
    outline = ellipse_radius(angle, (size / flat, size * flat), toward + tau / 4 + rng.normal(0, 0.3))
    body = distance < outline * (1 + wobble(rng, 0.08, (2, 3, 4, 5, 7, 9))(angle))
    for _ in range(rng.integers(2, 6)):
        body |= _bulging_cell(rng, zona.shape, middle, size, toward)
    return np.asarray(body & (zona.depth > zona.radius * rng.uniform(0.02, 0.05)), np.bool_)


def _bulging_cell(rng: np.random.Generator, shape: tuple[int, int], middle: Point, size: float, toward: float) -> Mask:
    angle, away = toward + tau / 2 + rng.normal(0, 0.8), size * rng.uniform(0.6, 0.85)
    place_of = middle[0] + away * sin(angle), middle[1] + away * cos(angle)
    return polar(shape, place_of)[0] < size * rng.uniform(0.25, 0.42)


def paint(rng: np.random.Generator, anatomy: Anatomy, scene: Scene) -> Picture:
    """Gray values of the embryo and its surroundings."""
    surroundings = paint_surroundings(rng, scene, anatomy)
    embryo = paint_zona(rng, anatomy) + _cavity(rng, anatomy, scene) + _trophectoderm(rng, anatomy, scene)
    cover = blur(anatomy.icm, 1.2 * anatomy.unit)
    embryo = embryo * (1 - cover) + cover * _icm_body(rng, anatomy, scene) + _icm_outline(rng, anatomy)
    embryo += paint_inner_edge(rng, anatomy, scene)
    _drops(rng, embryo, anatomy)
    return surroundings + scene.contrast * embryo


def _cavity(rng: np.random.Generator, a: Anatomy, scene: Scene) -> Picture:
    """Fluid, with the trophectoderm above and below out of focus."""
    far = _far_cells(rng, a, 0.42, rng.uniform(6, 9), scene)
    near = _far_cells(rng, a, rng.uniform(0.26, 0.36), rng.uniform(1.5, 4) / scene.embossing**0.5, scene)
    patchy = np.clip(0.7 + 0.6 * smooth_noise(rng, a.shape, 25 * a.unit), 0, 1.5)
    clouds = 8 * smooth_noise(rng, a.shape, 9 * a.unit) + 7 * smooth_noise(rng, a.shape, 4 * a.unit) * patchy
    fluid = far + patchy * near + clouds + rng.normal(-6, 5) + _cells_behind(rng, a)
    return np.asarray((fluid + _far_drops(rng, a)) * blur(a.hollow, 1.5 * a.unit), np.float32)


def _far_cells(rng: np.random.Generator, a: Anatomy, spacing: float, softness: float, scene: Scene) -> Picture:
    """Dark bodies in a bright net, embossed along the light."""
    points = scatter(rng, a.inside, a.radius * spacing)
    wall, cell = mosaic(points, a.hollow, warp_field(rng, a.shape, 14 * a.unit, 8 * a.unit))
    body = rng.normal(-18, 13, len(points))[cell] * step(wall - 9 * a.unit, 6 * a.unit)
    net = rng.uniform(12, 26) * line(wall, 5 * a.unit)
    bulged = 16 * scene.embossing * relief(blur(np.minimum(wall, 14 * a.unit), 2 * a.unit), scene.light)
    return blur((body + net + bulged) * a.hollow, softness * a.unit)


def _cells_behind(rng: np.random.Generator, a: Anatomy) -> Picture:
    """Further rows of trophectoderm cells behind the sharp one, increasingly out of focus."""
    return _row_behind(rng, a, 0.05, rng.uniform(0.7, 1.6)) + _row_behind(rng, a, 0.16, rng.uniform(2, 4))


def _row_behind(rng: np.random.Generator, a: Anatomy, gap: float, softness: float) -> Picture:
    thickness, cell = _scallops(rng, a.angle, a.radius, int(rng.integers(7, 13)), 0.14)
    beyond = a.depth - thickness - (gap + rng.uniform(0, 0.08)) * a.radius
    shade = rng.normal(-6, 16, int(cell.max()) + 1)[cell] * (beyond < 0)
    lines = 30 * line(beyond - 4 * a.unit, 3.5 * a.unit) - 48 * line(beyond, 2 * a.unit)
    seen = np.clip(0.5 + 0.8 * smooth_noise(rng, a.shape, 20 * a.unit), 0, 1.3)
    return blur(seen * (shade + lines), softness * a.unit)


def _far_drops(rng: np.random.Generator, a: Anatomy) -> Picture:
    """Nuclei and loose cells that show as soft, broken rings."""
    drawn = np.zeros(a.shape, np.float32)
    for _ in range(rng.integers(1, 6)):
        angle, away = rng.uniform(0, tau), a.radius * rng.uniform(0.1, 0.75)
        _add_soft_ring(rng, drawn, (a.center[0] + away * sin(angle), a.center[1] + away * cos(angle)), a.unit)
    return np.asarray(drawn * np.clip(0.8 + 0.6 * smooth_noise(rng, a.shape, 8 * a.unit), 0, 1.5), np.float32)


def _add_soft_ring(rng: np.random.Generator, picture: Picture, at: Point, unit: float) -> None:
    part, local = around(picture, at, 45 * unit)
    away, angle = polar(size_of(part), local)
    distance = away - rng.uniform(8, 24) * unit * (1 + wobble(rng, 0.08, (2, 3))(angle))
    width = rng.uniform(1.5, 4) * unit
    ring = line(distance - 2 * width, width) - line(distance, width) - 0.5 * step(-distance, width)
    part += rng.uniform(8, 26) * ring


def _trophectoderm(rng: np.random.Generator, a: Anatomy, scene: Scene) -> Picture:
    """Flat cells: granular, bright against the zona, a dark line toward the cavity."""
    layer = a.inside & ~a.hollow
    to_cavity = -signed_distance(a.hollow)
    cells = int(a.te_cell.max()) + 1
    shade = rng.normal(-14, 14, cells)[a.te_cell]
    glare = rng.uniform(10, 75, cells)[a.te_cell] * np.exp(-np.maximum(a.depth, 0) / (6 * a.unit))
    dusk = -28 * line(to_cavity, 5 * a.unit)
    inner = shade + glare + dusk + _cytoplasm(rng, a.shape, a.unit, 1.0) + _hidden_edges(rng, a)
    dome = relief(blur(np.minimum(to_cavity, a.depth) * layer, 1.5 * a.unit), scene.light)
    return np.asarray(
        blur(layer, 0.8) * (inner + 26 * scene.embossing * dome) + _cavity_line(rng, a, to_cavity), np.float32
    )


def _cytoplasm(rng: np.random.Generator, shape: tuple[int, int], unit: float, strength: float) -> Picture:
    """Granular at every scale, with clusters of dark specks."""
    clusters = np.clip(0.2 + smooth_noise(rng, shape, 6 * unit), 0, 2)
    specks = 38 * grains(rng, 0.035 * clusters, 0.95 * unit)
    fine, middle, coarse = (smooth_noise(rng, shape, sigma * unit) for sigma in (1.0, 2.2, 6.0))
    return np.asarray(strength * (9 * fine + 12 * middle + 11 * coarse + specks), np.float32)


def _hidden_edges(rng: np.random.Generator, a: Anatomy) -> Picture:
    """Edges of neighboring cells that reach under one another."""
    thickness, _ = _scallops(rng, a.angle, a.radius, int(rng.integers(10, 20)), 0.12)
    distance = a.depth - thickness
    return np.asarray(14 * line(distance - 3 * a.unit, 2 * a.unit) - 34 * line(distance, 1.5 * a.unit), np.float32)


def _cavity_line(rng: np.random.Generator, a: Anatomy, to_cavity: Picture) -> Picture:
    sharp = np.clip(0.8 + 0.4 * smooth_noise(rng, a.shape, 14 * a.unit), 0.15, 1.5)
    dark, bright = -75 * line(to_cavity, 1.1 * a.unit), 26 * line(to_cavity + 3.5 * a.unit, 2 * a.unit)
    return np.asarray(sharp * (dark + bright) * a.inside, np.float32)


def _icm_body(rng: np.random.Generator, a: Anatomy, scene: Scene) -> Picture:
    """Densely packed small cells on top of each other: mottled, granular, with occasional arcs of cells."""
    mottled = _cytoplasm(rng, a.shape, a.unit, rng.uniform(0.6, 1.0))
    bumps = smooth_noise(rng, a.shape, 2.5 * a.unit) + 1.5 * smooth_noise(rng, a.shape, 7 * a.unit)
    lit = 18 * min(scene.embossing, 1.5) * relief(bumps * 3 * a.unit, scene.light)
    arcs = sum(_arcs(rng, a, spacing) for spacing in (0.13, 0.2))
    specks = 22 * grains(rng, 0.05 * a.icm, 0.7 * a.unit)
    in_depth = 1.2 * blur(mottled + lit + arcs + specks, rng.choice([0.3, 0.5, 0.7, 1.4]) * a.unit)
    thick = np.clip(signed_distance(a.icm) / (0.3 * a.radius), 0, 1)
    return np.asarray(in_depth - rng.uniform(5, 25) * thick - rng.uniform(5, 22), np.float32)


def _arcs(rng: np.random.Generator, a: Anatomy, spacing: float) -> Picture:
    points = scatter(rng, a.icm, a.radius * spacing)
    wall, cell = mosaic(points, a.icm, warp_field(rng, a.shape, 6 * a.unit, 4 * a.unit))
    broken = np.clip(0.9 * smooth_noise(rng, a.shape, 6 * a.unit), 0, 1.5)
    shade = rng.normal(0, 7, len(points))[cell]
    return np.asarray(
        shade + broken * (16 * line(wall - 3.5 * a.unit, 1.5 * a.unit) - 34 * line(wall, 1.3 * a.unit)), np.float32
    )


def _icm_outline(rng: np.random.Generator, a: Anatomy) -> Picture:
    distance = signed_distance(a.icm)
    sharp = np.clip(0.75 + 0.45 * smooth_noise(rng, a.shape, 12 * a.unit), 0.1, 1.4)
    dark, bright = -62 * line(distance, 1.2 * a.unit), 24 * line(distance + 3.5 * a.unit, 2 * a.unit)
    return np.asarray(sharp * (dark + bright), np.float32)


def _drops(rng: np.random.Generator, embryo: Picture, a: Anatomy) -> None:
    """Vacuoles and loose cells, most of them at the rim of the inner cell mass."""
    rim = np.argwhere(np.abs(signed_distance(a.icm)) < 8 * a.unit)
    for _ in range(rng.poisson(3) if len(rim) else 0):
        y, x = rim[rng.integers(len(rim))]
        if a.hollow[y, x]:
            add_vesicle(embryo, (float(y), float(x)), rng.uniform(2.5, 8) * a.unit, rng.uniform(25, 60))
