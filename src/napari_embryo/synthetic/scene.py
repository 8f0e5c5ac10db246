"""The setting of an embryo and its illumination: an open dish under a microscope, or the well of an incubator."""

from dataclasses import dataclass
from math import cos, pi, sin, tau

import numpy as np

from napari_embryo.synthetic.embryo import Picture, Style
from napari_embryo.synthetic.optics import (
    Point,
    add_vesicle,
    around,
    grains,
    line,
    polar,
    size_of,
    smooth_noise,
    step,
    wobble,
)


@dataclass(frozen=True)
class Scene:
    """Imaging conditions. Gray values are 0..255; ``light`` is the direction of the relief in radians.

    ``exposure`` scales all gray values; ``absorption`` is how much darker a cell is than the background; with
    ``rim_follows_light`` the wall of the well is brightest where cells are dark, as in incubators.
    """

    shape: tuple[int, int]
    style: Style
    level: float
    contrast: float
    light: float
    embossing: float
    softness: float
    noise: float
    sharpening: float
    well_center: Point
    well_radius: float
    exposure: float = 1.0
    absorption: float = 9.0
    rim_follows_light: bool = False


def choose_scene(rng: np.random.Generator, shape: tuple[int, int], style: Style) -> Scene:
    """Random light and camera settings, as found in real images of this style."""
    middle, side = np.array(shape) / 2, min(shape)
    shift = rng.uniform(-0.06, 0.06, 2) * side
    incubator = style == "incubator"
    return Scene(
        shape=shape,
        style=style,
        level=rng.uniform(100, 138) if incubator else float(rng.choice([rng.uniform(120, 155), rng.uniform(155, 225)])),
        contrast=rng.uniform(0.85, 1.2),
        light=rng.normal(-pi / 2, 0.25) if incubator else rng.uniform(0, tau),
        embossing=rng.uniform(1.2, 2.2) if incubator else rng.uniform(0.25, 0.7),
        softness=rng.uniform(0.55, 0.85) * max(side / 390, 0.6),
        noise=rng.uniform(0.8, 1.8) if incubator else rng.uniform(1.0, 3.2),
        sharpening=rng.uniform(0.3, 0.9) if incubator else rng.uniform(0.4, 1.2),
        well_center=(float(middle[0] + shift[0]), float(middle[1] + shift[1])),
        well_radius=rng.uniform(0.40, 0.43) * side,
    )


def place(rng: np.random.Generator, scene: Scene, radius: float) -> Point:
    """Random center of an embryo of this outer radius: near the middle of the frame, or anywhere in the well."""
    if scene.style == "microscope":
        y, x = np.array(scene.shape) / 2 + rng.normal(0, 0.012, 2) * min(scene.shape)
        return float(y), float(x)
    away, toward = max(scene.well_radius - radius, 0) * np.sqrt(rng.uniform(0, 1)), rng.uniform(0, tau)
    return scene.well_center[0] + away * sin(toward), scene.well_center[1] + away * cos(toward)


def paint_field(rng: np.random.Generator, scene: Scene) -> Picture:
    """The lit dish, or the well with its wall, without an embryo."""
    picture = _background(rng, scene)
    if scene.style == "incubator":
        _add_bottom_dust(rng, picture, scene)
        _add_well(rng, picture, scene)
    return picture


def _background(rng: np.random.Generator, scene: Scene) -> Picture:
    rows, columns = np.mgrid[-1 : 1 : scene.shape[0] * 1j, -1 : 1 : scene.shape[1] * 1j]
    tilt, slope = rng.uniform(0, tau), rng.uniform(1, 9)
    uneven = slope * (np.cos(tilt) * columns + np.sin(tilt) * rows) - rng.uniform(0, 6) * (rows**2 + columns**2)
    return np.asarray(scene.level + uneven + 1.5 * smooth_noise(rng, scene.shape, 25), np.float32)


def _add_well(rng: np.random.Generator, picture: Picture, scene: Scene) -> None:
    """The wall of an incubator's well: an overexposed rim, brighter on one side, surrounded by dark, lathed plastic."""
    distance, angle = polar(scene.shape, scene.well_center)
    beyond = distance - scene.well_radius * (1 + wobble(rng, 0.006, (2, 3))(angle))
    width = scene.well_radius
    side = rng.choice([-pi / 2, pi / 2]) + rng.normal(0, 0.4)
    side = scene.light if scene.rim_follows_light else side
    facing = 0.5 + 0.5 * np.cos(angle - side)
    rim = (40 + 260 * facing**1.5) * np.where(beyond < 0, line(beyond, 0.03 * width), line(beyond, 0.02 * width))
    outside = step(beyond, 0.02 * width)
    picture *= 1 - outside
    picture += outside * _plastic(rng, scene, beyond, angle, side) + rim


def _plastic(rng: np.random.Generator, scene: Scene, beyond: Picture, angle: Picture, side: float) -> Picture:
    grooves = smooth_noise(rng, (4, int(np.ptp(beyond)) + 8), 1.2)[0]
    turned = grooves[(beyond - beyond.min()).astype(np.intp)]
    lit = np.clip(0.35 + 0.65 * np.cos(angle - side), 0, 1) ** 1.5 + 0.25 * np.clip(-np.cos(angle - side), 0, 1) ** 3
    dimming = np.exp(-np.maximum(beyond, 0) / (0.5 * scene.well_radius))
    scratched = 0.8 + 0.10 * turned + 0.08 * smooth_noise(rng, scene.shape, 1.5)
    return np.asarray(scene.level * 0.85 * lit * dimming * scratched, np.float32)


def _add_bottom_dust(rng: np.random.Generator, picture: Picture, scene: Scene) -> None:
    """Dust below the bottom of the well, smeared sideways."""
    long = 0.045 * scene.well_radius
    for _ in range(rng.poisson(5)):
        y, x = place(rng, scene, 0.05 * scene.well_radius)
        rows, columns = np.ogrid[: scene.shape[0], : scene.shape[1]]
        flat = ((rows - y) / rng.uniform(0.2 * long, 0.4 * long)) ** 2
        picture -= rng.uniform(8, 30) * np.exp(-flat - ((columns - x) / rng.uniform(0.6 * long, 1.4 * long)) ** 2)


def add_debris(rng: np.random.Generator, picture: Picture, outside: Picture, unit: float, contrast: float) -> None:
    """Specks, drops and strongly defocused objects where ``outside`` (distance from the zona) is positive."""
    near = (outside > 2 * unit) * np.exp(-np.maximum(outside, 0) / (10 * unit))
    picture += contrast * 30 * grains(rng, 0.003 * near, 1.1 * unit)
    free = np.argwhere(outside > 6 * unit)
    for draw in (_add_speck, _add_drop, _add_blurred_blob):
        for _ in range(rng.poisson(1.5) if len(free) else 0):
            y, x = free[rng.integers(len(free))]
            draw(rng, picture, (float(y), float(x)), unit, contrast)


def _add_speck(rng: np.random.Generator, picture: Picture, at: Point, unit: float, contrast: float) -> None:
    """A dark, irregular grain of dirt."""
    part, at = around(picture, at, 10 * unit + 4)
    distance, angle = polar(size_of(part), at)
    inside = rng.uniform(1, 3.5) * unit * (1 + wobble(rng, 0.3, (2, 3, 5))(angle)) - distance
    part -= contrast * rng.uniform(25, 70) * step(inside, 1.2 * unit) - contrast * 12 * line(inside + 3 * unit, unit)


def _add_drop(rng: np.random.Generator, picture: Picture, at: Point, unit: float, contrast: float) -> None:
    """A refracting drop: bright inside a dark ring."""
    add_vesicle(picture, at, rng.uniform(1.5, 6) * unit, contrast * rng.uniform(15, 55))


def _add_blurred_blob(rng: np.random.Generator, picture: Picture, at: Point, unit: float, contrast: float) -> None:
    """A strongly defocused object: a soft shadow in a faint ring."""
    radius = rng.uniform(5, 16) * unit
    part, at = around(picture, at, 2.5 * radius)
    distance = polar(size_of(part), at)[0] - radius
    part += contrast * rng.uniform(0.2, 1) * (9 * step(-distance, radius / 2) - 10 * line(distance, radius / 3))


def add_scale_bar(picture: Picture, um_per_pixel: float, length_um: float = 25.0) -> None:
    """Draw a pale scale bar in the lower right corner."""
    length = round(length_um / um_per_pixel)
    height, width = picture.shape
    bar = slice(height - 8, height - 6), slice(max(width - 12 - length, 0), width - 12)
    picture[bar] = 0.4 * picture[bar] + 0.6 * 215
    for end in (bar[1].start, bar[1].stop - 1):
        picture[height - 14 : height - 6, end] = 0.4 * picture[height - 14 : height - 6, end] + 0.6 * 215
