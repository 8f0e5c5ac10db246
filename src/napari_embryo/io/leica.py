"""Leica LIF, through liffile: a series for every image and every tile or position of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import numpy.typing as npt

from napari_embryo.io.errors import complaint
from napari_embryo.io.header import Header
from napari_embryo.io.vendor import import_reader, place_of, refuse_axes, series_header

Array = npt.NDArray[Any]

METER_UM = 1e6
SECOND_HOURS = 1 / 3600

_AXES = {"T": "T", "Z": "F", "C": "C", "Y": "Y", "X": "X", "S": "S"}
_MOST_TILES = 10_000
"""Series are numbered by image and tile: this many numbers for each image."""


def lif_headers(path: Path) -> tuple[Header, ...]:
    """A header for every image, and for every tile or position of one."""
    with import_reader(path, "liffile").LifFile(path) as file:
        images = [(place, image) for place, image in enumerate(file.images) if not image.is_flim]
        headers = [header for place, image in images for header in _headers(path, image, place)]
    if not headers:
        raise complaint(path, "there is no image in it", "at least one is needed", "Export it again")
    return tuple(headers)


def _headers(path: Path, image: Any, place: int) -> list[Header]:
    refuse_axes(path, image.sizes, "MTZCYXS")
    if not {"Y", "X"} <= set(image.sizes):
        raise complaint(path, f"its part {image.name!r} is a line or point scan", "images are needed", "Export those")
    n_tiles = image.sizes.get("M", 1)
    if image.memory_block.size < image.nbytes or n_tiles >= _MOST_TILES:
        raise complaint(path, f"the pixels of {image.name!r} are not all in it", "a complete file", "Copy it again")
    sizes = {_AXES[axis]: size for axis, size in image.sizes.items() if axis in _AXES}
    return [
        series_header(
            path,
            sizes,
            image.dtype,
            step_um={"Y": _step_um(image, "Y"), "X": _step_um(image, "X"), "F": _step_um(image, "Z")},
            hours=_hours(image, sizes.get("T", 1)),
            series=place * _MOST_TILES + tile,
            title=image.path.replace("/", " ") + (f" tile {tile + 1}" if n_tiles > 1 else ""),
        )
        for tile in range(n_tiles)
    ]


def _step_um(image: Any, axis: str) -> float | None:
    """Distance of neighbors: Leica states that of the first and the last one, in meters."""
    places = image.coords.get(axis, ())
    return abs(float(places[1] - places[0])) * METER_UM if len(places) > 1 else None


def _hours(image: Any, n_frames: int) -> list[float | None]:
    """Hours of every frame: as recorded with the planes, otherwise as planned."""
    stamps = image.timestamps
    if n_frames < 2:
        return []
    if stamps is not None and len(stamps) and len(stamps) % n_frames == 0:
        first = stamps[:: len(stamps) // n_frames]
        return [float(hours) for hours in (first - first[0]) / np.timedelta64(1, "h")]
    planned = image.coords.get("T")
    return [] if planned is None else [float(seconds) * SECOND_HOURS for seconds in planned]


def open_lif(header: Header) -> Callable[[int], Array]:
    """A function from the number of a plane to its pixels."""
    file = import_reader(header.path, "liffile").LifFile(header.path)
    series, tile = divmod(header.series, _MOST_TILES)
    image = file.images[series]

    def read(number: int) -> Array:
        place = place_of(header, number)
        wanted = {"M": tile, "T": place["T"], "Z": place["F"], "C": place["C"]}
        return np.array(image.frame(**{axis: at for axis, at in wanted.items() if axis in image.sizes}))

    finalize(read, file.close)
    return read
