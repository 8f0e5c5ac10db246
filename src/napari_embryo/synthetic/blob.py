"""Blobs, common to cells and fragments: a rounded outline in a window of the frame, lit from one side."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from napari_embryo.synthetic.embryo import Mask, Picture
from napari_embryo.synthetic.optics import Curve, Point, grains, line, polar, relief, smooth_noise
from napari_embryo.synthetic.scene import Scene
from napari_embryo.synthetic.zona import Zona

Window = tuple[slice, slice]

SHADOW = 10.0
"""How far beyond its outline a blob affects the image, in units of fine detail."""


MOST_EMBOSSED = 1.6
"""Relief does not grow beyond this height, since cells are flattened."""


@dataclass(frozen=True, eq=False)
class Blob:
    """One cell or fragment.

    ``window`` is the part of the frame it affects; ``edge`` is the distance to its outline there, positive inside.
    ``softness`` is how far out of focus it lies, in units of fine detail.
    """

    window: Window
    edge: Picture
    radius: float
    softness: float

    @property
    def mask(self) -> Mask:
        """Its mask within its window."""
        return self.edge > 0


def rounded(
    shape: tuple[int, int], at: Point, radius: float, outline: Curve, unit: float, softness: float, room: Picture | None
) -> Blob:
    """A blob whose outline lies ``outline(angle)`` from a point, clipped to where ``room`` is positive."""
    window = _window(shape, at, 1.5 * radius + SHADOW * unit)
    rows, columns = window
    local = at[0] - rows.start, at[1] - columns.start
    distance, angle = polar((rows.stop - rows.start, columns.stop - columns.start), local)
    edge = outline(angle) - distance
    return Blob(window, edge if room is None else np.minimum(edge, room[window]), radius, softness)


def _window(shape: tuple[int, int], at: Point, reach: float) -> Window:
    """Extend to at least 2 by 2 pixels, so that there is a slope."""
    low = [min(max(0, int(p - reach)), side - 2) for p, side in zip(at, shape, strict=True)]
    high = [max(start + 2, min(side, int(p + reach) + 2)) for p, start, side in zip(at, low, shape, strict=True)]
    return slice(low[0], high[0]), slice(low[1], high[1])


def silhouette(blob: Blob, shape: tuple[int, int]) -> Mask:
    """The blob's mask in the whole frame."""
    return union([blob], shape)


def union(blobs: Iterable[Blob], shape: tuple[int, int]) -> Mask:
    """Union of the blobs in the frame."""
    covered = np.zeros(shape, np.bool_)
    for blob in blobs:
        covered[blob.window] |= blob.mask
    return covered


@dataclass(frozen=True, eq=False)
class Cytoplasm:
    """One large granular texture from which every blob gets a piece; separate noise for each would be slow."""

    gray: Picture

    def piece(self, rng: np.random.Generator, size: tuple[int, int]) -> Picture:
        start = [int(rng.integers(0, whole - part + 1)) for whole, part in zip(self.gray.shape, size, strict=True)]
        return self.gray[start[0] : start[0] + size[0], start[1] : start[1] + size[1]]


def prepare_cytoplasm(rng: np.random.Generator, zona: Zona, scene: Scene) -> Cytoplasm:
    """Granular at several scales, embossed along the light; large enough for any blob in this zona."""
    unit = zona.unit
    longest = min(int(3 * zona.radius + 3 * SHADOW * unit), max(zona.shape))
    size = longest + 24, longest + 24
    finest, fine, middle, coarse = (smooth_noise(rng, size, sigma * unit) for sigma in (0.8, 1.4, 2.8, 9.0))
    relieved = relief(1.2 * fine + 1.2 * middle, scene.light) * max(unit, 0.6)
    embossed = rng.uniform(3, 8) * min(scene.embossing, MOST_EMBOSSED) * relieved
    specks = rng.uniform(3, 11) * grains(rng, np.full(size, 0.03, np.float32), unit)
    return Cytoplasm(np.asarray(rng.uniform(2, 6) * finest + 2 * fine + 3.5 * coarse + specks + embossed, np.float32))


def dome(blob: Blob) -> Picture:
    """Height of a ball above the plane, flattened at the top."""
    inward = np.clip(blob.edge / blob.radius, 0, 1)
    return np.asarray(blob.radius * np.sqrt(inward * (2 - inward)), np.float32)


def shade(blob: Blob, scene: Scene) -> Picture:
    """The relief of a ball in this light, about 1 high near the outline."""
    return min(scene.embossing, MOST_EMBOSSED) * np.clip(relief(dome(blob), scene.light), -1.5, 1.5)


def rim(blob: Blob, light: float, unit: float) -> Picture:
    """Rim: dark and broad away from the light, bright inside toward the light, with a halo; finer on small blobs."""
    away = 0.5 - 0.5 * np.clip(relief(blob.edge, light), -1, 1)
    unit = unit * min(1.0, max(0.4, blob.radius / (20 * unit)))
    thin = -(14 + 34 * away) * line(blob.edge - 0.5 * unit, 1.5 * unit)
    broad = -26 * away * line(blob.edge - 4 * unit, 4 * unit)
    bright = 34 * (1 - away) ** 2 * line(blob.edge - 4.5 * unit, 2.6 * unit)
    beyond = (12 - 20 * away) * line(blob.edge + 3 * unit, 2.5 * unit)
    return np.asarray(thin + broad + bright + beyond, np.float32)
