"""Zeiss CZI, through Zeiss's own pylibCZIrw: scenes, with the tiles of each stitched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import finalize
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from napari_embryo.io.errors import complaint
from napari_embryo.io.header import Header
from napari_embryo.io.numbers import number_of
from napari_embryo.io.vendor import import_reader, place_of, refuse_axes, series_header
from napari_embryo.io.zeiss_check import check_czi

Array = npt.NDArray[Any]
Place = tuple[int, int, int]

_TYPES = {
    "Gray8": ("uint8", 0), "Gray16": ("uint16", 0), "Gray32Float": ("float32", 0),
    "Bgr24": ("uint8", 3), "Bgr48": ("uint16", 3), "Bgr96Float": ("float32", 3),
}  # fmt: skip
"""Pixel type -> type of the values, and color samples."""

METER_UM = 1e6
SECOND_HOURS = 1 / 3600


def czi_headers(path: Path) -> tuple[Header, ...]:
    """A header for every scene."""
    with _opened(path) as document:
        places = _places(document)
        if not places:
            raise complaint(path, "there is no image in it", "at least one is needed", "Export it again")
        about = ElementTree.fromstring(document.raw_metadata)
        refuse_axes(path, {axis: stop - start for axis, (start, stop) in _extra_axes(document)}, "")
        dtype, samples = _pixels(path, document)
        return tuple(_header(path, document, about, places, scene, (dtype, samples)) for scene in sorted(places))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    library = import_reader(path, "pylibCZIrw.czi")
    check_czi(path)
    with library.open_czi(str(path)) as document:
        yield document


def _extra_axes(document: Any) -> list[tuple[str, tuple[int, int]]]:
    return [(axis, ends) for axis, ends in document.total_bounding_box_no_pyramid.items() if axis not in "TZCSYX"]


def _places(document: Any) -> dict[int, set[Place]]:
    """The planes (T, Z, C) that each scene has; the only scene of a file without scenes is 0."""
    found: dict[int, set[Place]] = {}

    def note(_: int, block: Any) -> bool:
        where = block.coordinate.to_dict()
        place = (where.get("T", 0), where.get("Z", 0), where.get("C", 0))
        found.setdefault(where.get("S", 0), set()).add(place)
        return True

    document.enumerate_subblocks_subset(note, only_layer0=True)
    return found


def _pixels(path: Path, document: Any) -> tuple[str, int]:
    types = set(document.pixel_types.values())
    if len(types) > 1 or not types <= set(_TYPES):
        raise complaint(
            path,
            f"its pixels have the type {' and '.join(sorted(types))}",
            f"one of {', '.join(_TYPES)} is needed",
            "Export it as OME-TIFF",
        )
    return _TYPES[types.pop()]


def _header(
    path: Path,
    document: Any,
    about: ElementTree.Element,
    places: dict[int, set[Place]],
    scene: int,
    pixels: tuple[str, int],
) -> Header:
    n_frames, n_planes, n_channels = (len(values) for values in _values(places[scene]))
    (_, _, width, height), (dtype, samples) = _rectangle(document, scene), pixels
    sizes = {"T": n_frames, "F": n_planes, "C": n_channels, "Y": height, "X": width} | (
        {"S": samples} if samples else {}
    )
    missing = n_frames * n_planes * n_channels - len(places[scene])
    return series_header(
        path,
        sizes,
        dtype,
        step_um={"Y": _distance(about, "Y"), "X": _distance(about, "X"), "F": _distance(about, "Z")},
        hours=_hours(about, n_frames),
        names=[each.get("Name") or "" for each in about.iterfind("./Metadata/Information/Image/Dimensions/Channels/*")],
        series=scene,
        title=_title(about, scene) if len(places) > 1 else "",
        notes=(f"{missing} of its planes are not in the file and are black",) if missing else (),
    )


def _values(places: set[Place]) -> tuple[list[int], list[int], list[int]]:
    """The numbers that occur along T, Z and C."""
    times, planes, channels = (sorted(set(numbers)) for numbers in zip(*places, strict=True))
    return times, planes, channels


def _rectangle(document: Any, scene: int) -> tuple[int, int, int, int]:
    """Left, top, width and height, without the smaller levels of a pyramid."""
    scenes = document.scenes_bounding_rectangle_no_pyramid
    found = scenes[scene] if scenes else document.total_bounding_rectangle_no_pyramid
    return found.x, found.y, found.w, found.h


def _distance(about: ElementTree.Element, axis: str) -> float | None:
    meters = number_of(about.findtext(f"./Metadata/Scaling/Items/Distance[@Id='{axis}']/Value"))
    return meters * METER_UM if meters and meters > 0 else None


def _hours(about: ElementTree.Element, n_frames: int) -> list[float | None]:
    """Hours of every frame, if they were planned at one interval or are listed."""
    times = about.find("./Metadata/Information/Image/Dimensions/T/Positions")
    if times is None:
        return []
    step = number_of(times.findtext("./Interval/Increment"))
    if step:
        return [place * step * SECOND_HOURS for place in range(n_frames)]
    listed = [number_of(text) for text in (times.findtext("./List/Offsets") or "").split()]
    return [None if seconds is None else seconds * SECOND_HOURS for seconds in listed][:n_frames]


def _title(about: ElementTree.Element, scene: int) -> str:
    for each in about.iterfind("./Metadata/Information/Image/Dimensions/S/Scenes/Scene"):
        if each.get("Index") == str(scene) and each.get("Name"):
            return f"scene {each.get('Name')}"
    return f"scene {scene + 1}"


def open_czi(header: Header) -> Callable[[int], Array]:
    """A function from the number of a plane to its pixels, color as RGB."""
    opened = _opened(header.path)
    document = opened.__enter__()
    times, planes, channels = _values(_places(document)[header.series])
    rectangle = _rectangle(document, header.series)
    scene = header.series if document.scenes_bounding_rectangle_no_pyramid else None

    def read(number: int) -> Array:
        place = place_of(header, number)
        where = {"T": times[place["T"]], "Z": planes[place["F"]], "C": channels[place["C"]]}
        pixels = document.read(roi=rectangle, plane=where, scene=scene)
        return np.array(pixels[..., ::-1] if "S" in header.axes else pixels[..., 0])

    finalize(read, opened.__exit__, None, None, None)
    return read
