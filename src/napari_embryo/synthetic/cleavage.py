"""Cleavage-stage embryos: 2 to 8 round, translucent cells that overlap, with fragments between and on top of them.

First the anatomy (cells and fragments: the ground truth), then the painting. Brightness, contrast, sharpness, the
position in the well, cell sizes and the share of fragments vary as in annotated human embryos.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import pi

import numpy as np
import numpy.typing as npt

from napari_embryo.synthetic.blastomeres import draw_cells, filling, paint_cell
from napari_embryo.synthetic.blob import Blob, prepare_cytoplasm, silhouette
from napari_embryo.synthetic.caption import burn_in
from napari_embryo.synthetic.debris import draw_clumps, paint_fluid, paint_granules
from napari_embryo.synthetic.embryo import Picture, Style, SyntheticEmbryo, check_request, pixel_size
from napari_embryo.synthetic.fragments import Fragments, draw_fragments, paint_drop, paint_ground
from napari_embryo.synthetic.optics import camera, step
from napari_embryo.synthetic.scene import Scene, choose_scene
from napari_embryo.synthetic.zona import Zona, draw_zona, paint_inner_edge, paint_surroundings, paint_zona

RADIUS_OF_FRAME: dict[Style, tuple[float, float]] = {"microscope": (0.30, 0.42), "incubator": (0.19, 0.24)}
"""Radius of the zona's inner edge relative to the shorter side of the image."""

MOST_CELLS = 16
MOST_FRAGMENTED = 0.6

UNFRAGMENTED, SEVERE = 0.12, 0.15
"""Share of embryos without fragments, and of those with a target of 15 % or more."""

CLEAR_OF_THE_WALL = 0.9
"""How close an embryo may come to the wall of the well, relative to its inner radius: a few partly overlap it."""


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
        1 to 16; by default drawn at random from 2 to 8.
    fragmentation
        Target share of the embryo's area covered by fragments, 0 to 0.6, met approximately (``fragmentation_ratio`` of
        the result is exact). By default random: none in one of eight embryos, mostly below 0.15, at times up to 0.6.
    shape
        (height, width) in pixels, 64 or more each.
    style
        ``incubator``: in its well; ``microscope``: it fills the frame. Some images have burnt-in text.

    Returns
    -------
    SyntheticEmbryo
        With ``cells``, ``fragments`` and masks ``ZP`` and ``embryo`` (cells and fragments together).
    """
    check_request(style, shape)
    rng = np.random.default_rng(seed)
    # both are always drawn, so that giving one of them changes nothing else
    usual_count, usual_share = int(rng.integers(2, 9)), _usual_share(rng)
    count = usual_count if n_cells is None else n_cells
    share = usual_share if fragmentation is None else fragmentation
    _check_within("n_cells", count, 1, MOST_CELLS)
    _check_within("fragmentation", share, 0, MOST_FRAGMENTED)
    scene = vary(rng, choose_scene(rng, shape, style))
    zona = draw_zona(rng, scene, RADIUS_OF_FRAME[style], clear=CLEAR_OF_THE_WALL)
    cells = draw_cells(rng, zona, count, filling(share))
    fragments = draw_fragments(rng, zona, cells, share)
    picture = paint(rng, zona, cells, fragments, scene)
    seen = camera(rng, scene.exposure * picture, scene.softness, scene.exposure * scene.noise, scene.sharpening)
    size = pixel_size(style, shape)
    return truth(burn_in(rng, seen, size[1], style), zona, cells, fragments, size, seed)


def _usual_share(rng: np.random.Generator) -> float:
    kind, usual, severe = rng.random(), float(rng.beta(1.1, 11)), float(rng.uniform(0.15, MOST_FRAGMENTED))
    return 0.0 if kind < UNFRAGMENTED else severe if kind > 1 - SEVERE else min(usual, MOST_FRAGMENTED)


def _check_within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} = {value} cannot be drawn; give {low} to {high}")


def vary(rng: np.random.Generator, scene: Scene) -> Scene:
    """Vary the scene like other instruments: darker, flatter, softer or harsher, with the well off center."""
    side = min(scene.shape)
    contrast = 1.6 * scene.contrast * float(np.exp(rng.normal(0, 0.22)))
    exposure = float(np.exp(rng.uniform(np.log(0.45), np.log(1.3))))
    softer = scene.softness * rng.uniform(0.8, 1.7)
    if scene.style == "microscope":
        return replace(scene, contrast=contrast, softness=softer, absorption=rng.uniform(0, 26))
    y, x = scene.well_center + rng.uniform(-0.06, 0.06, 2) * side
    return replace(
        scene,
        contrast=contrast * exposure**-0.3,
        softness=softer,
        light=float(rng.choice([-pi / 2, pi / 2]) + rng.normal(0, 0.5)),
        rim_follows_light=True,
        sharpening=rng.uniform(0, 0.7),
        exposure=exposure,
        absorption=rng.uniform(-3, 10),
        well_center=(float(y), float(x)),
        well_radius=rng.uniform(0.39, 0.46) * side,
    )


def truth(
    image: npt.NDArray[np.uint8],
    zona: Zona,
    cells: Sequence[Blob],
    fragments: Fragments,
    pixel_size_um: tuple[float, float],
    seed: int,
    hours: float | None = None,
) -> SyntheticEmbryo:
    """The image with its ground truth."""
    silhouettes = np.stack([silhouette(cell, zona.shape) for cell in cells])
    masks = {"ZP": zona.zona, "embryo": silhouettes.any(axis=0) | fragments.mask}
    return SyntheticEmbryo(image, masks, pixel_size_um, seed, silhouettes, fragments.mask, hours)


def paint(rng: np.random.Generator, zona: Zona, cells: Sequence[Blob], fragments: Fragments, scene: Scene) -> Picture:
    """Gray values of the embryo and its surroundings."""
    surroundings = paint_surroundings(rng, scene, zona)
    # drawn before the cells, so that in a time-lapse they stay in place while cells divide
    embryo, clumps = _shell(rng, zona, scene), draw_clumps(rng, zona)
    stuff, opaque = prepare_cytoplasm(rng, zona, scene), rng.uniform(0.3, 0.7)
    for cell in cells:
        _lay(embryo, cell, paint_cell(rng, cell, stuff, zona.unit, scene), opaque, zona.unit)
    paint_ground(rng, embryo, fragments, stuff, zona.unit)
    for drop in (*fragments.drops, *clumps):
        _lay(embryo, drop, paint_drop(rng, drop, stuff, zona.unit, scene), rng.uniform(0.3, 0.8), zona.unit)
    lit = np.clip(surroundings / scene.level, 0.15, 1.0)
    return np.asarray(surroundings + scene.contrast * lit * embryo, np.float32)


def _shell(rng: np.random.Generator, zona: Zona, scene: Scene) -> Picture:
    """The zona with its fluid and attached debris, in an otherwise empty frame."""
    drawn, window = np.zeros(zona.shape, np.float32), zona.surroundings
    near = zona.seen_in(window)
    drawn[window] = rng.uniform(0.5, 1.0) * paint_zona(rng, near) + paint_granules(rng, near) + paint_fluid(rng, near)
    drawn[window] += paint_inner_edge(rng, near, scene, strength=rng.uniform(0.05, 0.25))
    return drawn


def _lay(picture: Picture, blob: Blob, drawn: Picture, opaque: float, unit: float) -> None:
    """Draw a translucent blob over what was drawn before."""
    picture[blob.window] *= 1 - opaque * step(blob.edge, unit)
    picture[blob.window] += drawn
