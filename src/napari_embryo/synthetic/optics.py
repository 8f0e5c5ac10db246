"""Building blocks of every drawing: smooth noise, closed curves, soft lines, relief, and the camera.

Gray values are differences from the empty background until ``camera`` converts them to eight bits. Lengths are in
pixels.
"""

from collections.abc import Callable
from math import tau

import numpy as np
import numpy.typing as npt

from napari_embryo.synthetic.embryo import Floats, Mask, Picture

Curve = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
Point = tuple[float, float]


def size_of(picture: npt.NDArray[np.generic]) -> tuple[int, int]:
    """Height and width."""
    return picture.shape[0], picture.shape[1]


def blur(values: npt.NDArray[np.generic], sigma: float) -> Picture:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values.astype(np.float32), sigma, truncate=3.0), np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Picture:
    """Gaussian noise with blobs of about ``sigma`` pixels, mean 0 and standard deviation 1."""
    step = max(1, int(sigma / 2))
    coarse = rng.standard_normal([side // step + 8 for side in shape], dtype=np.float32)
    field = _enlarge(blur(coarse, sigma / step), step)[: shape[0], : shape[1]]
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), np.float32)


def _enlarge(values: Picture, step: int) -> Picture:
    """Interpolate linearly between values ``step`` pixels apart; the last row and column serve only as neighbors."""
    for axis in range(2 if step > 1 else 0):
        at, between = np.divmod(np.arange((values.shape[axis] - 1) * step), step)
        weight = (between / np.float32(step)).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        values = values.take(at, axis) * (1 - weight) + values.take(at + 1, axis) * weight
    return values


def warp_field(rng: np.random.Generator, shape: tuple[int, int], sigma: float, pixels: float) -> Picture:
    """(2, H, W): displacement of every pixel by a smooth distortion."""
    return np.stack([smooth_noise(rng, shape, sigma) for _ in range(2)]) * np.float32(pixels)


ANGLES = 4096
"""Number of directions in tables of functions of the angle."""


def tabulated(angle: Picture) -> npt.NDArray[np.intp]:
    """Index of each angle in a table of ``ANGLES`` directions."""
    return np.asarray(np.floor(angle % tau * (ANGLES / tau)), np.intp) % ANGLES


def wobble(rng: np.random.Generator, amplitude: float, harmonics: tuple[int, ...]) -> Curve:
    """A smooth periodic function of the angle with an amplitude of about ``amplitude`` and mean 0."""
    waves = [(n, rng.normal(0, amplitude / np.sqrt(len(harmonics))), rng.uniform(0, tau)) for n in harmonics]

    def curve(angle: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(sum(height * np.cos(n * angle + phase) for n, height, phase in waves), np.float32)

    return curve


def polar(shape: tuple[int, int], center: Point) -> tuple[Picture, Picture]:
    """Distance from the center and angle (0 is right, pi/2 is down) of every pixel."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    y, x = (rows - center[0]).astype(np.float32), (columns - center[1]).astype(np.float32)
    return np.hypot(y, x), np.arctan2(y, x)


def ellipse_radius(angle: Picture, radii: Point, tilt: float) -> Picture:
    """Radius of an ellipse with half axes ``radii``, tilted by ``tilt``, at each angle."""
    long, short = radii
    return np.asarray(long * short / np.hypot(short * np.cos(angle - tilt), long * np.sin(angle - tilt)), np.float32)


def signed_distance(mask: Mask) -> Picture:
    """Distance to the mask's edge: positive inside, negative outside."""
    from scipy.ndimage import distance_transform_edt

    inside, outside = distance_transform_edt(mask), distance_transform_edt(~mask)
    return blur(np.where(mask, inside - 0.5, 0.5 - outside), 0.7)


def line(distance: Floats, width: float) -> Picture:
    """A soft line of height 1 where the distance is 0."""
    return np.asarray(np.exp(-0.5 * (distance / width) ** 2), np.float32)


def step(distance: Floats, width: float) -> Picture:
    """0 outside, 1 inside, over about ``width`` pixels."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance / max(width, 1e-3)), np.float32)


def mosaic(points: npt.NDArray[np.float64], where: Mask, warp: Picture) -> tuple[Picture, npt.NDArray[np.intp]]:
    """Divide the plane into cells around points (y, x), their walls bent by ``warp`` (2, H, W) pixels.

    Returns the distance to the nearest wall inside ``where`` (0 elsewhere) and the cell of each pixel (-1 elsewhere).
    """
    from scipy.spatial import KDTree

    pixels = np.argwhere(where) + warp[:, where].T
    near, owner = KDTree(points).query(pixels, k=2)
    wall, cell = np.zeros(where.shape, np.float32), np.full(where.shape, -1, np.intp)
    wall[where], cell[where] = (near[:, 1] - near[:, 0]) / 2, owner[:, 0]
    return wall, cell


def scatter(rng: np.random.Generator, where: Mask, spacing: float) -> npt.NDArray[np.float64]:
    """Points (y, x) of a jittered grid inside a mask, about ``spacing`` apart."""
    ys, xs = (np.arange(-spacing, side + spacing, spacing) for side in where.shape)
    grid = np.stack(np.meshgrid(ys, xs, indexing="ij"), -1).reshape(-1, 2)
    return grid + rng.uniform(-0.45, 0.45, grid.shape) * spacing


def grains(rng: np.random.Generator, density: Floats, size: float) -> Picture:
    """Dark granules with a pale halo, ``density`` per pixel, each about 1 high."""
    dots = (rng.random(density.shape, dtype=np.float32) < density) * rng.uniform(0.4, 1.0, density.shape)
    core, halo = blur(dots, size), blur(dots, 2 * size)
    return np.asarray(-7.0 * size**2 * core + 10.0 * size**2 * halo, np.float32)


def relief(height: Floats, direction: float) -> Picture:
    """A height map as Hoffman contrast shows it: its slope along one direction."""
    dy, dx = np.gradient(height)
    return np.asarray(np.cos(direction) * dx + np.sin(direction) * dy, np.float32)


def vesicle(shape: tuple[int, int], center: Point, radius: float) -> tuple[Picture, Picture]:
    """A small bright drop with a dark rim: (difference in gray, opacity 0..1)."""
    distance = radius - polar(shape, center)[0]
    return 0.7 * step(distance - 0.25 * radius, 0.3 * radius) - line(distance, 0.9), step(distance, 0.8)


def around(picture: Picture, at: Point, reach: float) -> tuple[Picture, Point]:
    """A view of the part of an image within ``reach`` of a point, and the point's position in it."""
    low = [max(0, int(p - reach)) for p in at]
    high = [max(start, min(side, int(p + reach) + 2)) for p, start, side in zip(at, low, picture.shape, strict=True)]
    return picture[low[0] : high[0], low[1] : high[1]], (at[0] - low[0], at[1] - low[1])


def add_vesicle(picture: Picture, center: Point, radius: float, contrast: float) -> None:
    """Draw a drop into an image, covering what is below."""
    part, at = around(picture, center, radius + 4)
    gray, cover = vesicle(size_of(part), at, radius)
    part *= 1 - 0.5 * cover
    part += contrast * gray


def camera(
    rng: np.random.Generator, picture: Picture, softness: float, noise: float, sharpening: float
) -> npt.NDArray[np.uint8]:
    """Apply lens blur, sensor noise and the sharpening of frame grabbers, and convert to eight bits."""
    seen = blur(picture, softness)
    seen = seen + noise * smooth_noise(rng, size_of(seen), 0.6)
    seen = seen + sharpening * (seen - blur(seen, 1.5))
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)
