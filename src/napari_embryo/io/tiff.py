"""Metadata of TIFF files: series, axes, sizes and times."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_embryo.io.errors import complaint
from napari_embryo.io.header import RESULT_KEY, Header
from napari_embryo.io.numbers import number_of
from napari_embryo.io.ome import annotation
from napari_embryo.io.tiff_pages import PageLook, look_of, orientation_of
from napari_embryo.io.units import HOURS, UM, pixel_size, spread, times

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

_KNOWN_AXES = {"T": "T", "Z": "F", "C": "C", "Y": "Y", "X": "X", "S": "S", "I": "?", "Q": "?"}

_SMALL_COPIES = re.compile(r"thumb|label|macro|overview|preview", re.IGNORECASE)

MOST_CHANNELS = 4
"""More channels than this in an ImageJ stack may be frames or planes."""


def tiff_headers(path: Path) -> tuple[Header, ...]:
    """A header for every series of a TIFF, except thumbnails and smaller levels of a pyramid."""
    from tifffile import TiffFile

    with TiffFile(path) as tiff:
        len(tiff.pages)  # ends a chain of pages that is a circle, in which tifffile would go round and round
        if not tiff.series:
            raise complaint(path, "there is no image in it", "at least one page is needed", "Export it again")
        if (ours := annotation(tiff.ome_metadata)) is not None:
            check_not_cut(path, tiff.series[0])
            return (_own_header(_generic_header(path, tiff, 0), ours),)
        shown, notes = shown_series(tiff)
        headers = [_header(path, tiff, index) for index in shown]
    named = headers if len(headers) == 1 else [_titled(header, i) for i, header in enumerate(headers, start=1)]
    return tuple(replace(header, notes=(*header.notes, *notes)) for header in named)


def _header(path: Path, tiff: "TiffFile", index: int) -> Header:
    header = _generic_header(path, tiff, index)
    series = tiff.series[index]
    check_not_cut(path, series)
    if tiff.is_ome and tiff.ome_metadata:
        return _with_ome(header, tiff.ome_metadata, index, len(tiff.series))
    if tiff.is_imagej:
        return _with_imagej(header, tiff)
    return _with_resolution(header, series.keyframe)


def _titled(header: Header, number: int) -> Header:
    return header if header.title else replace(header, title=f"series {number}")


# --- series ---------------------------------------------------------------------------------------------------------


def shown_series(tiff: "TiffFile") -> tuple[list[int], tuple[str, ...]]:
    """Numbers of the series at full size, and a note about the others."""
    series = tiff.series
    shown = [i for i, each in enumerate(series) if not _is_marked_small(each)]
    if not shown:
        shown = [max(range(len(series)), key=lambda i: int(np.prod(_hw(series[i]))))]
    largest = [i for i in shown if not any(_is_small_copy(series[i], series[other]) for other in shown)]
    left = [series[i] for i in range(len(series)) if i not in largest]
    if not left:
        return largest, ()
    sizes = ", ".join(f"{width} x {height}" for height, width in map(_hw, left[:3])) + (
        ", ..." if len(left) > 3 else ""
    )
    return largest, (f"smaller copies and thumbnails in the file are not opened ({sizes})",)


def _hw(series: "TiffPageSeries") -> tuple[int, int]:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    return sizes.get("Y", 1), sizes.get("X", 1)


def _is_marked_small(series: "TiffPageSeries") -> bool:
    page = series.keyframe
    return bool(page.is_reduced or page.is_mask) or _SMALL_COPIES.search(series.name or "") is not None


def _is_small_copy(series: "TiffPageSeries", other: "TiffPageSeries") -> bool:
    """Whether it may be a smaller copy of another one: same pages and shape, at most half as long and wide."""
    (height, width), (full_height, full_width) = _hw(series), _hw(other)
    if len(series) != len(other) or 2 * height > full_height + 1 or 2 * width > full_width + 1:
        return False
    factor = full_height / height
    return abs(full_width / factor - width) <= 1 + width / 50


def check_not_cut(path: Path, series: "TiffPageSeries") -> None:
    """Refuse a file whose pages point beyond its end."""
    size = path.stat().st_size
    for page in (series.pages[0], series.pages[-1]):
        if page is None or Path(page.parent.filehandle.path).name != path.name:
            continue
        if any(start + count > size for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)):
            raise complaint(
                path, "the file is truncated", f"more than its {size} bytes are needed", "Export or copy it again"
            )


def _generic_header(path: Path, tiff: "TiffFile", index: int) -> Header:
    series = tiff.series[index]
    look = look_of(path, series.keyframe)
    letters = "".join(_axis(path, axis, series.axes) for axis in series.axes)
    if look.channels:
        letters = letters.replace("S", "C")
    orientation = orientation_of(series.keyframe)
    is_whole = bool(look.channels) or not re.fullmatch(r"[^YXS]*(YXS?|SYX)", letters) or series.keyframe.is_volumetric
    header = _reordered(path, letters, series.shape, look) if is_whole else _in_order(path, letters, series, look)
    others = tuple(sorted(_files(series) - {path.resolve()}))
    header = header if is_whole else _turned(header, orientation)
    return replace(
        header,
        series=index,
        title=series.name if len(tiff.series) > 1 and series.kind == "ome" else "",
        other_files=others,
        notes=(*header.notes, *_missing_pages(series)),
    )


def _files(series: "TiffPageSeries") -> set[Path]:
    return {Path(page.parent.filehandle.path).resolve() for page in series.pages if page is not None}


def _missing_pages(series: "TiffPageSeries") -> tuple[str, ...]:
    missing = sum(page is None for page in series.pages)
    return (f"{missing} of its {len(series.pages)} pages are in files that are not here",) if missing else ()


def _axis(path: Path, axis: str, axes: str) -> str:
    if axis not in _KNOWN_AXES:
        raise complaint(
            path,
            f"it has the axes {axes}, of which {axis!r} is not understood",
            "time (T), planes (Z), channels (C), Y, X and color (S) are",
            "Save the part you need as one image",
        )
    return _KNOWN_AXES[axis]


def _in_order(path: Path, letters: str, series: "TiffPageSeries", look: PageLook) -> Header:
    """Pages one after the other, Y and X last."""
    kept = [
        (axis, size)
        for axis, size in zip(letters, series.shape, strict=True)
        if axis in "YX" or (size > 1 and axis != "S")
    ]
    samples = (look.samples,) if look.samples else ()
    return Header(
        path,
        (*(size for _, size in kept), *samples),
        "".join(axis for axis, _ in kept) + "S" * len(samples),
        look.dtype,
    )


def _reordered(path: Path, letters: str, shape: Sequence[int], look: PageLook) -> Header:
    kept = [(axis, size) for axis, size in zip(letters, shape, strict=True) if axis in "YX" or size > 1]
    order = tuple(sorted(range(len(kept)), key=lambda i: ("YXS".find(kept[i][0]), i)))
    return Header(
        path,
        tuple(kept[i][1] for i in order),
        "".join(kept[i][0] for i in order),
        look.dtype,
        order=order,
    )


def _turned(header: Header, orientation: int) -> Header:
    """The size of the image as shown."""
    if orientation == 1:
        return header
    place = header.axes.index("Y")
    shape = list(header.shape)
    if orientation >= 5:
        shape[place : place + 2] = shape[place + 1], shape[place]
    note = f"the image is rotated upright, as its file requests (orientation {orientation})"
    return replace(header, shape=tuple(shape), orientation=orientation, notes=(*header.notes, note))


# --- what programs say ----------------------------------------------------------------------------------------------


def _own_header(header: Header, about: Mapping[str, Any]) -> Header:
    return replace(
        header,
        shape=tuple(about["shape"]),
        axes=about["axes"],
        dtype=np.dtype(about["dtype"]),
        pixel_size_um=None if about["pixel_size_um"] is None else tuple(about["pixel_size_um"]),
        hours=None if about["hours"] is None else tuple(about["hours"]),
        focus_um=None if about["focus_um"] is None else tuple(about["focus_um"]),
        names=tuple(about["names"]) if "C" in about["axes"] else (),
        is_own=True,
        role="labels" if about["kind"] == "labels" else "result" if RESULT_KEY in about["metadata"] else "picture",
    )


def _with_ome(header: Header, xml: str, index: int, n_series: int) -> Header:
    root = ElementTree.fromstring(xml)
    all_pixels = [element for element in root.iter() if element.tag.endswith("}Pixels")]
    if len(all_pixels) != n_series and n_series > 1:
        return header
    if index >= len(all_pixels):
        return header
    pixels = all_pixels[index]
    return replace(
        header,
        pixel_size_um=_size_as_shown(header, _ome_length(pixels, "Y"), _ome_length(pixels, "X")),
        hours=_ome_hours(pixels, header.sizes.get("T", 1)),
        focus_um=spread(_ome_length(pixels, "Z"), header.sizes.get("F", 0)),
        names=_ome_names(pixels, header.sizes.get("C", 0)),
    )


def _size_as_shown(header: Header, y: float | None, x: float | None) -> tuple[float, float] | None:
    return pixel_size(x, y) if header.orientation >= 5 else pixel_size(y, x)


def _ome_length(pixels: ElementTree.Element, axis: str) -> float | None:
    unit = UM.get(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return times(number_of(pixels.get(f"PhysicalSize{axis}")), unit)


def _ome_hours(pixels: ElementTree.Element, n_frames: int) -> tuple[float, ...] | None:
    step = times(number_of(pixels.get("TimeIncrement")), HOURS.get(pixels.get("TimeIncrementUnit", "s")))
    if step is not None and step > 0 and n_frames > 1:
        return spread(step, n_frames)
    hours = _ome_plane_times(pixels)
    return tuple(hours[t] for t in range(n_frames)) if n_frames > 1 and set(range(n_frames)) <= set(hours) else None


def _ome_plane_times(pixels: ElementTree.Element) -> dict[int, float]:
    hours: dict[int, float] = {}
    for plane in pixels.iter():
        delta = times(number_of(plane.get("DeltaT")), HOURS.get(plane.get("DeltaTUnit", "s")))
        if plane.tag.endswith("}Plane") and delta is not None:
            hours.setdefault(int(plane.get("TheT", "0")), delta)
    return hours


def _ome_names(pixels: ElementTree.Element, n_channels: int) -> tuple[str, ...]:
    names = [channel.get("Name") for channel in pixels.iter() if channel.tag.endswith("}Channel")]
    return tuple(name for name in names if name) if n_channels and len(names) == n_channels and all(names) else ()


def _with_imagej(header: Header, tiff: "TiffFile") -> Header:
    about = tiff.imagej_metadata or {}
    header = replace(header, axes=_imagej_axes(header, about))
    unit = UM.get(str(about.get("unit", "")).strip().lower())
    y, x = _resolution(tiff.pages.first)
    step = times(number_of(about.get("finterval")), HOURS.get(str(about.get("tunit", "sec")).strip().lower()))
    return replace(
        header,
        pixel_size_um=_size_as_shown(header, times(y, unit), times(x, unit)),
        hours=spread(step if step and step > 0 else None, header.sizes.get("T", 0)),
        focus_um=spread(times(number_of(about.get("spacing")), unit), header.sizes.get("F", 0)),
    )


def _imagej_axes(header: Header, about: Mapping[str, Any]) -> str:
    """ImageJ calls the frames of an imported sequence or video ``slices`` or ``channels``: such an axis is unknown."""
    axes = header.axes
    if "T" in axes:
        return axes
    if not about.get("hyperstack") and not number_of(about.get("spacing")):
        axes = axes.replace("F", "?")
    return axes.replace("C", "?") if header.sizes.get("C", 0) > MOST_CHANNELS else axes


def _with_resolution(header: Header, page: "TiffPage") -> Header:
    if (size := _micro_manager_size(page)) is not None:
        return replace(header, pixel_size_um=(size, size))
    unit = {2: UM["inch"], 3: UM["cm"]}.get(int(page.resolutionunit))
    y, x = _resolution(page)
    return replace(header, pixel_size_um=_size_as_shown(header, times(y, unit), times(x, unit)))


def _micro_manager_size(page: "TiffPage") -> float | None:
    about = page.tags.valueof("MicroManagerMetadata")
    size = number_of(about.get("PixelSizeUm")) if isinstance(about, Mapping) else None
    return size if size and size > 0 else None


def _resolution(page: "TiffPage") -> tuple[float | None, float | None]:
    """Height and width of a pixel in the file's unit."""
    y, x = (_rational(page, f"{axis}Resolution") for axis in "YX")
    return (1 / y if y else None), (1 / x if x else None)


def _rational(page: "TiffPage", tag: str) -> float | None:
    value = page.tags.valueof(tag)
    return value[0] / value[1] if isinstance(value, tuple) and len(value) == 2 and value[1] else None
