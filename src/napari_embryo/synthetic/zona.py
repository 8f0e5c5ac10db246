"""The zona pellucida, the shell around embryos of every stage: its geometry and appearance."""

from dataclasses import dataclass
from math import tau

import numpy as np

from napari_embryo.synthetic.embryo import Mask, Picture
from napari_embryo.synthetic.optics import (
    Point,
    ellipse_radius,
    grains,
    line,
    polar,
    size_of,
    smooth_noise,
    step,
    wobble,
)
from napari_embryo.synthetic.scene import Scene, add_debris, paint_field, place


@dataclass(frozen=True, eq=False)
class Zona:
    """The shell around an embryo.

    ``radius`` is the mean radius of the shell's inner edge; ``depth`` and ``angle`` (H, W) are each pixel's depth below
    that edge (negative outside) and direction from the center; ``zona_thickness`` (H, W) depends on the angle.
    """

    shape: tuple[int, int]
    center: Point
    radius: float
    angle: Picture
    depth: Picture
    zona_thickness: Picture

    @property
    def unit(self) -> float:
        """Size of a fine detail in pixels: 1 in a microscope image 390 pixels high, with a visible minimum."""
        return max(self.radius / 155, 0.4)

    @property
    def inside(self) -> Mask:
        return self.depth > 0

    @property
    def surroundings(self) -> tuple[slice, slice]:
        """The part of the frame that the shell affects."""
        near = self.depth > -self.zona_thickness - 30 * self.unit
        rows, columns = (np.flatnonzero(near.any(axis=axis)) for axis in (1, 0))
        return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)

    def seen_in(self, window: tuple[slice, slice]) -> "Zona":
        """The same shell relative to a window of the frame."""
        corner = window[0].start, window[1].start
        parts = self.angle[window], self.depth[window], self.zona_thickness[window]
        center = self.center[0] - corner[0], self.center[1] - corner[1]
        return Zona(size_of(parts[0]), center, self.radius, *parts)

    @property
    def zona(self) -> Mask:
        return (self.depth <= 0) & (self.depth > -self.zona_thickness)


def draw_zona(
    rng: np.random.Generator,
    scene: Scene,
    of_frame: tuple[float, float],
    growth: float = 1.0,
    clear: float = 1.15,
) -> Zona:
    """A slightly oval, uneven shell; ``of_frame`` is the range of its inner radius relative to the shorter side.

    ``growth`` widens and thins the same shell, as an expanding embryo does. ``clear`` times its radius stays within the
    well.
    """
    at_first = rng.uniform(*of_frame) * min(scene.shape)
    center = _in_frame(place(rng, scene, clear * at_first), scene.shape, 1.1 * at_first)
    radius = growth * at_first
    distance, angle = polar(scene.shape, center)
    depth = _inner_edge(rng, angle, radius) - distance
    return Zona(scene.shape, center, radius, angle, depth, _thickness(rng, angle, at_first) / np.float32(growth**2))


def _in_frame(at: Point, shape: tuple[int, int], margin: float) -> Point:
    """The nearest point at least ``margin`` away from the frame's border; the middle if there is none."""
    y, x = (
        min(max(p, margin), side - margin) if side > 2 * margin else side / 2 for p, side in zip(at, shape, strict=True)
    )
    return y, x


def _inner_edge(rng: np.random.Generator, angle: Picture, radius: float) -> Picture:
    flat = np.sqrt(1 - min(abs(rng.normal(0, 0.08)), 0.25))
    ellipse = ellipse_radius(angle, (radius / flat, radius * flat), rng.uniform(0, tau))
    return ellipse * (1 + wobble(rng, 0.007, (2, 3, 4, 5))(angle))


def _thickness(rng: np.random.Generator, angle: Picture, radius: float) -> Picture:
    mean = radius * rng.uniform(0.09, 0.22)
    return np.asarray(mean * np.clip(1 + wobble(rng, 0.1, (1, 2, 3))(angle), 0.6, 1.4), np.float32)


def paint_zona(rng: np.random.Generator, a: Zona) -> Picture:
    """Paint the zona: glassy, of the background's gray, increasingly granular toward a ragged outer edge."""
    outer = a.depth + a.zona_thickness
    ragged = outer + 2.5 * a.unit * smooth_noise(rng, a.shape, 3 * a.unit)
    body = step(ragged, 3 * a.unit) * step(-a.depth, 1.5 * a.unit)
    outward = np.clip(-a.depth / a.zona_thickness, 0, 1.3) ** rng.uniform(0.7, 2)
    texture = rng.uniform(4, 8) * smooth_noise(rng, a.shape, 0.9 * a.unit) + 3 * smooth_noise(rng, a.shape, 3 * a.unit)
    edge = line(ragged - 3 * a.unit, 5 * a.unit) * (outer > -4 * a.unit)
    dust = rng.uniform(10, 24) * grains(rng, (0.004 * body + 0.03 * edge) * outward, 0.9 * a.unit)
    shells = 6 * np.sin(-a.depth / (rng.uniform(2.5, 4) * a.unit)) * np.exp(a.depth / (9 * a.unit)) * body
    glow = 5 * line(outer + 5 * a.unit, 4 * a.unit) - rng.uniform(3, 9) * line(outer - 2 * a.unit, 4 * a.unit)
    return np.asarray(body * (texture * (0.3 + outward) - rng.uniform(0, 6)) + dust + shells + glow, np.float32)


def paint_inner_edge(rng: np.random.Generator, a: Zona, scene: Scene, strength: float = 1.0) -> Picture:
    """Paint the sharp dark edge between zona and cells, stronger away from the light, with a bright line beside it."""
    lit = np.cos(a.angle - scene.light)
    uneven = 1 + wobble(rng, 0.25, (1, 2, 3, 5, 8))(a.angle) - 0.35 * scene.embossing * lit
    dark = -rng.uniform(70, 105) * line(a.depth, rng.uniform(1.2, 1.9) * a.unit)
    bright = rng.uniform(18, 45) * line(a.depth - 4 * a.unit, 1.8 * a.unit)
    drawn = np.clip(uneven, 0.3, 1.7) * dark + np.clip(2 - uneven, 0.2, 1.6) * bright
    return np.asarray(strength * drawn, np.float32)


def paint_surroundings(rng: np.random.Generator, scene: Scene, a: Zona) -> Picture:
    """Paint the dish or well, with dirt that stays clear of the embryo."""
    picture = paint_field(rng, scene)
    add_debris(rng, picture, -a.depth - a.zona_thickness, a.unit, scene.contrast)
    return picture
