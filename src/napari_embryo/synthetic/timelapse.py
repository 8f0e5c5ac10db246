"""Time-lapses of embryos that divide and grow into a blastocyst, one list of frames per well."""

import numpy as np
import numpy.typing as npt

from napari_embryo.synthetic import blastocyst, cleavage
from napari_embryo.synthetic.blastomeres import draw_cells, filling
from napari_embryo.synthetic.embryo import Picture, SyntheticEmbryo, check_request, pixel_size
from napari_embryo.synthetic.fragments import draw_fragments
from napari_embryo.synthetic.optics import camera
from napari_embryo.synthetic.scene import Scene, choose_scene
from napari_embryo.synthetic.zona import Zona, draw_zona

FIRST_HOUR, LAST_HOUR = 26.0, 116.0
STAGES = ((37.0, 2), (49.0, 4), (66.0, 8), (94.0, 16))
"""Hour after insemination until which an embryo has how many cells; afterwards it is a blastocyst."""

GROWTH_PER_HOUR = 0.012
"""Hourly growth of a blastocyst's radius relative to the radius at its first hour."""


def draw_timelapse(
    seed: int, wells: int = 2, frames: int = 12, shape: tuple[int, int] = (200, 200)
) -> list[list[SyntheticEmbryo]]:
    """Embryos in several wells, from the two-cell stage to the expanding blastocyst.

    Parameters
    ----------
    seed
        The same arguments give the same embryos.
    wells, frames
        Number of embryos, and of frames of each at equal time intervals.
    shape
        (height, width) in pixels, 64 or more each.

    Returns
    -------
    list of list of SyntheticEmbryo
        ``result[well][frame]``, each with its ``hours``. Until about 94 h a frame has ``cells`` and ``fragments``,
        afterwards the masks of a blastocyst. The well and the embryo's position in it do not change.
    """
    check_request("incubator", shape)
    if wells < 1 or frames < 1:
        raise ValueError(f"wells = {wells} and frames = {frames} cannot be drawn; give 1 or more of each")
    hours = [float(hour) for hour in np.linspace(FIRST_HOUR, LAST_HOUR, frames)]
    return [[_frame((seed, well), hour, shape) for hour in hours] for well in range(wells)]


def _frame(well: tuple[int, int], hour: float, shape: tuple[int, int]) -> SyntheticEmbryo:
    age = hour + 2.0 * (well[1] % 3)
    count = next((cells for until, cells in STAGES if age < until), None)
    growth = 1.0 if count else 1.0 + GROWTH_PER_HOUR * (age - STAGES[-1][0])
    scene, zona = _setting(well, shape, growth)
    if count is None:
        return _blastocyst(well, scene, zona, hour)
    return _dividing(well, scene, zona, hour, count)


def _setting(well: tuple[int, int], shape: tuple[int, int], growth: float) -> tuple[Scene, Zona]:
    rng = np.random.default_rng(well)
    scene = choose_scene(rng, shape, "incubator")
    return scene, draw_zona(rng, scene, cleavage.RADIUS_OF_FRAME["incubator"], growth)


def _dividing(well: tuple[int, int], scene: Scene, zona: Zona, hour: float, count: int) -> SyntheticEmbryo:
    stage = np.random.default_rng((*well, count))
    share = float(np.random.default_rng((*well, 0)).beta(1, 9))
    cells = draw_cells(stage, zona, count, filling(share), drift=hour / 3)
    fragments = draw_fragments(stage, zona, cells, share)
    picture = cleavage.paint(np.random.default_rng((*well, 1)), zona, cells, fragments, scene)
    image = _camera(well, scene, picture, hour)
    return cleavage.truth(image, zona, cells, fragments, pixel_size(scene.style, scene.shape), well[0], hour)


def _blastocyst(well: tuple[int, int], scene: Scene, zona: Zona, hour: float) -> SyntheticEmbryo:
    thickness = max(1.6 - 0.025 * (hour - STAGES[-1][0]), 1.0)
    anatomy = blastocyst.draw_anatomy(np.random.default_rng((*well, 2)), zona, thickness)
    picture = blastocyst.paint(np.random.default_rng((*well, 1)), anatomy, scene)
    image = _camera(well, scene, picture, hour)
    return SyntheticEmbryo(image, anatomy.masks(), pixel_size(scene.style, scene.shape), well[0], hours=hour)


def _camera(well: tuple[int, int], scene: Scene, picture: Picture, hour: float) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng((*well, 3, round(60 * hour)))
    return camera(rng, picture, scene.softness, scene.noise, scene.sharpening)
