"""Objects outside the zona that resemble fragments but are none: clumps of cumulus cells, granules."""

from math import cos, sin, tau

import numpy as np

from napari_embryo.synthetic.blob import Blob
from napari_embryo.synthetic.embryo import Picture
from napari_embryo.synthetic.fragments import drop
from napari_embryo.synthetic.optics import grains, smooth_noise, step
from napari_embryo.synthetic.zona import Zona


def draw_clumps(rng: np.random.Generator, zona: Zona) -> list[Blob]:
    """Clumps of small cells at the outer edge of the zona or close to it."""
    heaps = [_heap(rng, zona) for _ in range(rng.poisson(1.3))]
    return [one for heap in heaps for one in heap]


def _heap(rng: np.random.Generator, zona: Zona) -> list[Blob]:
    outer = zona.radius + float(zona.zona_thickness.mean())
    toward, away = rng.uniform(0, tau), outer + zona.radius * rng.uniform(0.04, 0.35)
    heart = np.array([zona.center[0] + away * sin(toward), zona.center[1] + away * cos(toward)])
    size, count, softness = rng.uniform(0.03, 0.08), int(rng.integers(1, 14)), rng.choice([0.3, 0.6, 2.5])
    spread = size * np.sqrt(count) * rng.uniform(0.5, 0.9)
    room = -zona.depth - zona.zona_thickness * np.float32(0.8)
    return [
        drop(rng, zona.shape, (y, x), zona.radius * size * rng.lognormal(0, 0.35), zona.unit, float(softness), room)
        for y, x in heart + rng.normal(0, spread * zona.radius, (count, 2))
        if 0 <= y < zona.shape[0] and 0 <= x < zona.shape[1]
    ]


def paint_granules(rng: np.random.Generator, zona: Zona) -> Picture:
    """Grains at the outer edge of the zona and under its inner edge, more on one side."""
    beyond = -zona.depth - zona.zona_thickness
    clinging = rng.choice([0.0, 0.004, 0.02]) * np.exp(-np.abs(beyond) / (7 * zona.unit)) * (beyond > -4 * zona.unit)
    below = rng.choice([0.0, 0.003, 0.012]) * np.exp(-np.abs(zona.depth - 4 * zona.unit) / (3 * zona.unit))
    sided = np.clip(0.5 + np.cos(zona.angle - rng.uniform(0, tau)), 0, 1.5)
    return rng.uniform(14, 40) * grains(rng, sided * (clinging + below * zona.inside), 1.2 * zona.unit)


def paint_fluid(rng: np.random.Generator, zona: Zona) -> Picture:
    """The fluid around the cells: cloudy, and full of fine grains in some embryos."""
    clouds = rng.uniform(1, 4) * smooth_noise(rng, zona.shape, 6 * zona.unit) - rng.uniform(0, 8)
    grit = rng.choice([0.5, 2.0, 4.5]) * smooth_noise(rng, zona.shape, 1.8 * zona.unit)
    return np.asarray(step(zona.depth, 2 * zona.unit) * (clouds + grit), np.float32)
