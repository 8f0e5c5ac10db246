"""Metadata of a file, read without its pixels."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

import numpy as np

from napari_embryo.io.atomic import PROGRAM
from napari_embryo.io.errors import ImageError, MissingImageError, complaint, decoding_errors, unreadable
from napari_embryo.io.names import image_stem
from napari_embryo.io.numbers import number_of
from napari_embryo.io.ome import annotation

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

TIFF = (".tif", ".tiff")
PICTURE = (".png", ".jpg", ".jpeg", ".bmp")
ARRAY = (".npy",)
VIDEO = (".avi", ".mp4")
SUFFIXES = (*TIFF, *PICTURE, *ARRAY, *VIDEO)
"""Supported file suffixes, ignoring case."""

MIN_SIDE = 2
"""Smallest side of an image in pixels."""

UM = {
    "pm": 1e-6, "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "micrometre": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "mm": 1e3, "cm": 1e4,
    "centimeter": 1e4, "dm": 1e5, "m": 1e6, "meter": 1e6, "in": 25400.0, "inch": 25400.0, "å": 1e-4, "Å": 1e-4,
}  # fmt: skip
"""Micrometers per unit of length used in files."""

HOURS = {
    "ms": 1 / 3.6e6, "msec": 1 / 3.6e6, "millisecond": 1 / 3.6e6, "s": 1 / 3600, "sec": 1 / 3600, "second": 1 / 3600,
    "seconds": 1 / 3600, "min": 1 / 60, "minute": 1 / 60, "minutes": 1 / 60, "h": 1.0, "hr": 1.0, "hour": 1.0,
    "hours": 1.0, "d": 24.0, "day": 24.0,
}  # fmt: skip
"""Hours per unit of time used in files."""

_SAMPLES = {"LA": 2, "RGBA": 4, "1": 1, "L": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "I": 1, "F": 1}
_TYPES = {"I;16": "uint16", "I;16B": "uint16", "I;16L": "uint16", "I": "int32", "F": "float32"}
_KNOWN_TIFF_AXES = {"T": "T", "Z": "F", "C": "C", "Y": "Y", "X": "X", "S": "S", "I": "?", "Q": "?"}


Role = Literal["picture", "labels", "result"]
"""An image, labels of this or another program, or another result of this program."""

LABEL_TYPES = ("int32", "int64", "uint32", "uint64")
"""Types that gray images do not have; napari takes them for labels, too."""

_LABEL_NAMES = re.compile(r".*_(cp_masks|masks|labels|seg)", re.IGNORECASE)
"""Names that Cellpose, StarDist and micro-sam give their results."""


@dataclass(frozen=True)
class Header:
    """Metadata of one file.

    Parameters
    ----------
    path
        The file.
    shape
        Shape of the array in the file.
    axes
        One letter per dimension: T, F, Y, X; C (channels: each becomes an image), S (color or alpha samples: become
        gray), ``?`` (the file does not say).
    dtype
        Type of the resulting gray values.
    pixel_size_um, hours, focus_um
        As in `EmbryoImage`, if the file states them.
    names
        One per C, if the file states them.
    notes
        Messages for the user: what was assumed, what was ignored.
    order
        Order of the axes in the file, if it is not that of ``axes``; such a file is read as a whole.
    role
        What the file is.
    is_own
        Whether this program wrote it as OME-TIFF.
    """

    path: Path
    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    pixel_size_um: tuple[float, float] | None = None
    hours: tuple[float, ...] | None = None
    focus_um: tuple[float, ...] | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    order: tuple[int, ...] = ()
    role: Role = "picture"
    is_own: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        return {axis: size for axis, size in zip(self.axes, self.shape, strict=True) if axis != "?"}

    @property
    def hw(self) -> tuple[int, int]:
        return self.sizes["Y"], self.sizes["X"]

    def with_axes(self, axes: str) -> "Header":
        """The same file with other meanings of its axes; metadata of changed axes are dropped."""
        old, new = self.axes.removesuffix("S"), axes
        kept = {axis for axis, other in zip(old, new, strict=True) if axis == other}
        return replace(
            self,
            axes=new + self.axes[len(old) :],
            hours=self.hours if "T" in kept else None,
            focus_um=self.focus_um if "F" in kept else None,
            names=self.names if "C" in kept else (),
        )

    @property
    def is_picture(self) -> bool:
        """Whether it is a single plane, gray or in color."""
        return self.axes in ("YX", "YXS")


def read_header(path: Path) -> Header:
    """Read a file's metadata without decoding pixels.

    Raises
    ------
    ImageError
        If it is not a readable image; the message names the file and what to do.
    """
    try:
        check_is_file(path)
        header = _reader_of(path)(path)
    except ImageError:
        raise
    except decoding_errors() as error:
        raise unreadable(path, error) from error
    _check_header(header)
    return replace(header, role="labels") if _is_labels(header) else header


def _is_labels(header: Header) -> bool:
    is_named = _LABEL_NAMES.fullmatch(image_stem(header.path)) is not None
    is_integer = header.dtype.kind in "iu" and not header.axes.endswith("S")
    return header.role == "picture" and is_integer and (is_named or header.dtype.name in LABEL_TYPES)


def check_is_file(path: Path) -> None:
    if not path.exists():
        raise MissingImageError(f"{path}: there is no such file. Check the path.")
    if path.stat().st_size == 0:
        raise complaint(path, "the file is empty (0 bytes)", "a complete image is needed", "Export or copy it again")


def _reader_of(path: Path) -> Callable[[Path], Header]:
    suffix = path.suffix.lower()
    for suffixes, read in (
        (TIFF, _tiff_header),
        (PICTURE, _picture_header),
        (ARRAY, _array_header),
        (VIDEO, _video_header),
    ):
        if suffix in suffixes:
            return read
    raise complaint(
        path,
        f"files ending in {suffix or 'nothing'} are not read",
        f"one of {', '.join(SUFFIXES)}",
        "Export it as TIFF or PNG",
    )


def _check_header(header: Header) -> None:
    height, width = header.hw
    if min(height, width) < MIN_SIDE:
        raise complaint(
            header.path, f"the picture has {width} x {height} pixels", "an embryo needs more", "Choose another file"
        )
    if header.dtype.kind not in "buif":
        raise complaint(
            header.path,
            f"its values have the type {header.dtype}",
            "real numbers are needed",
            "Save it as 8 or 16 bit or as floating point",
        )


# --- PNG, JPEG, BMP -------------------------------------------------------------------------------------------------


def _picture_header(path: Path) -> Header:
    from PIL import Image

    with Image.open(path) as image:
        samples = _SAMPLES.get(image.mode, 3)
        shape = (image.height, image.width, samples)[: 2 if samples == 1 else 3]
        axes, dtype = "YXS"[: len(shape)], np.dtype(_TYPES.get(image.mode, "uint8"))
        is_result = str(image.info.get("Software", "")).startswith(PROGRAM) or _is_overlay(path)
    notes = ("16 bit color is read with 8 bit",) if samples > 1 and _png_bits(path) == 16 else ()
    return Header(path, shape, axes, dtype, notes=notes, role="result" if is_result else "picture")


def _is_overlay(path: Path) -> bool:
    name = path.stem.removesuffix("_overlay")
    return name != path.stem and any(
        path.with_name(f"{name}_{ending}").exists() for ending in ("labels.ome.tif", "cells.ome.tif", "cells.json")
    )


def _png_bits(path: Path) -> int:
    with path.open("rb") as file:
        start = file.read(25)
    return start[24] if start.startswith(b"\x89PNG") and len(start) == 25 else 8


# --- NPY ------------------------------------------------------------------------------------------------------------


def _array_header(path: Path) -> Header:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim < 2:
        raise complaint(path, f"an array of shape {array.shape}", "at least two axes (Y, X) are needed", "Reshape it")
    is_color = array.ndim > 2 and array.shape[-1] in (3, 4) and array.dtype == np.uint8
    axes = "?" * (array.ndim - 2 - is_color) + "YX" + "S" * is_color
    notes = (f"the last axis, of length {array.shape[-1]}, is taken as color",) if is_color else ()
    return Header(path, array.shape, axes, array.dtype, notes=notes)


# --- AVI, MP4 -------------------------------------------------------------------------------------------------------


def import_av(path: Path) -> Any:
    """PyAV, or an error that says how to get it."""
    try:
        import av
    except ImportError as error:
        raise complaint(
            path,
            "videos need PyAV, which is not installed",
            "the extra 'video'",
            "Run: pip install 'napari-embryo[video]'",
        ) from error
    return av


def _video_header(path: Path) -> Header:
    av = import_av(path)
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise complaint(path, "there is no picture in it", "a video stream is needed", "Export it again")
        stream = container.streams.video[0]
        shape = (stream.frames or _count_packets(container), stream.height, stream.width, 3)
    return Header(
        path,
        shape,
        "TYXS",
        np.dtype("uint8"),
        notes=("the frame rate of a video says nothing about hours, so none are known",),
    )


def _count_packets(container: Any) -> int:
    return sum(1 for packet in container.demux(video=0) if packet.size)


# --- TIFF -----------------------------------------------------------------------------------------------------------


def _tiff_header(path: Path) -> Header:
    from tifffile import TiffFile

    with TiffFile(path) as tiff:
        if not tiff.series:
            raise complaint(path, "there is no picture in it", "at least one page is needed", "Export it again")
        ours = annotation(tiff.ome_metadata)
        header = _generic_header(path, tiff.series[0])
        check_not_cut(path, tiff, tiff.series[0])
        if ours is not None:
            return _own_header(header, ours)
        header = replace(header, notes=_series_notes(len(tiff.series)))
        if tiff.is_ome and tiff.ome_metadata:
            return _with_ome(header, tiff.ome_metadata)
        if tiff.is_imagej:
            return _with_imagej(header, tiff)
        return _with_resolution(header, tiff.pages.first)


def _series_notes(n_series: int) -> tuple[str, ...]:
    return (f"the file holds {n_series} series; the first is read",) if n_series > 1 else ()


def _generic_header(path: Path, series: "TiffPageSeries") -> Header:
    axes = "".join(_tiff_axis(path, axis, series.axes) for axis in series.axes)
    axes, shape = _squeeze(axes, series.shape)
    order = tuple(sorted(range(len(axes)), key=lambda i: ("YXS".find(axes[i]), i)))
    return Header(
        path,
        tuple(shape[i] for i in order),
        "".join(axes[i] for i in order),
        series.dtype if series.dtype is not None else np.dtype("V"),
        order=order if order != tuple(range(len(axes))) else (),
    )


def _tiff_axis(path: Path, axis: str, axes: str) -> str:
    if axis not in _KNOWN_TIFF_AXES:
        raise complaint(
            path,
            f"it has the axes {axes}, of which {axis!r} is not understood",
            "time (T), planes (Z), channels (C), Y, X and color (S) are",
            "Save the part you need as one image",
        )
    return _KNOWN_TIFF_AXES[axis]


def _squeeze(axes: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    kept = [(axis, size) for axis, size in zip(axes, shape, strict=True) if axis in "YX" or size > 1]
    return "".join(axis for axis, _ in kept), tuple(size for _, size in kept)


RESULT_KEY = "weights_sha256"
"""Metadata that results of a network have, but no image of an embryo."""


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


def check_not_cut(path: Path, tiff: "TiffFile", series: "TiffPageSeries") -> None:
    """Refuse a file whose pages point beyond its end."""
    size = path.stat().st_size
    for page in (series.pages[0], series.pages[-1]):
        if page is not None and any(
            start + count > size for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)
        ):
            raise complaint(
                path, "the file is truncated", f"more than its {size} bytes are needed", "Export or copy it again"
            )


def _with_ome(header: Header, xml: str) -> Header:
    root = ElementTree.fromstring(xml)
    pixels = next((element for element in root.iter() if element.tag.endswith("}Pixels")), None)
    if pixels is None:
        return header
    return replace(
        header,
        pixel_size_um=_pixel_size(_ome_length(pixels, "Y"), _ome_length(pixels, "X")),
        hours=_ome_hours(pixels, header.sizes.get("T", 1)),
        focus_um=_spread(_ome_length(pixels, "Z"), header.sizes.get("F", 0)),
        names=_ome_names(pixels, header.sizes.get("C", 0)),
    )


def _ome_length(pixels: ElementTree.Element, axis: str) -> float | None:
    unit = UM.get(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return _times(number_of(pixels.get(f"PhysicalSize{axis}")), unit)


def _ome_hours(pixels: ElementTree.Element, n_frames: int) -> tuple[float, ...] | None:
    step = _times(number_of(pixels.get("TimeIncrement")), HOURS.get(pixels.get("TimeIncrementUnit", "s")))
    if step is not None and step > 0 and n_frames > 1:
        return _spread(step, n_frames)
    times = _ome_plane_times(pixels)
    return tuple(times[t] for t in range(n_frames)) if n_frames > 1 and set(range(n_frames)) <= set(times) else None


def _ome_plane_times(pixels: ElementTree.Element) -> dict[int, float]:
    times: dict[int, float] = {}
    for plane in pixels.iter():
        hours = _times(number_of(plane.get("DeltaT")), HOURS.get(plane.get("DeltaTUnit", "s")))
        if plane.tag.endswith("}Plane") and hours is not None:
            times.setdefault(int(plane.get("TheT", "0")), hours)
    return times


def _ome_names(pixels: ElementTree.Element, n_channels: int) -> tuple[str, ...]:
    names = [channel.get("Name") for channel in pixels.iter() if channel.tag.endswith("}Channel")]
    return tuple(name for name in names if name) if n_channels and len(names) == n_channels and all(names) else ()


def _with_imagej(header: Header, tiff: "TiffFile") -> Header:
    about = tiff.imagej_metadata or {}
    header = replace(header, axes=_imagej_axes(header, about))
    unit = UM.get(str(about.get("unit", "")).strip().lower())
    y, x = _resolution(tiff.pages.first)
    step = _times(number_of(about.get("finterval")), HOURS.get(str(about.get("tunit", "sec")).strip().lower()))
    return replace(
        header,
        pixel_size_um=_pixel_size(_times(y, unit), _times(x, unit)),
        hours=_spread(step if step and step > 0 else None, header.sizes.get("T", 0)),
        focus_um=_spread(_times(number_of(about.get("spacing")), unit), header.sizes.get("F", 0)),
    )


MOST_CHANNELS = 4
"""More channels than this in an ImageJ stack may be frames or planes."""


def _imagej_axes(header: Header, about: Mapping[str, Any]) -> str:
    """ImageJ calls the frames of an imported sequence or video ``slices`` or ``channels``: such an axis is unknown."""
    axes = header.axes
    if "T" in axes:
        return axes
    if not about.get("hyperstack") and not number_of(about.get("spacing")):
        axes = axes.replace("F", "?")
    return axes.replace("C", "?") if header.sizes.get("C", 0) > MOST_CHANNELS else axes


def _with_resolution(header: Header, page: "TiffPage") -> Header:
    unit = {2: UM["inch"], 3: UM["cm"]}.get(int(page.resolutionunit))
    y, x = _resolution(page)
    return replace(header, pixel_size_um=_pixel_size(_times(y, unit), _times(x, unit)))


def _resolution(page: "TiffPage") -> tuple[float | None, float | None]:
    """Height and width of a pixel in the file's unit."""
    y, x = (_rational(page, f"{axis}Resolution") for axis in "YX")
    return (1 / y if y else None), (1 / x if x else None)


def _rational(page: "TiffPage", tag: str) -> float | None:
    value = page.tags.valueof(tag)
    return value[0] / value[1] if isinstance(value, tuple) and len(value) == 2 and value[1] else None


def _times(value: float | None, unit: float | None) -> float | None:
    return None if value is None or unit is None else value * unit


def _pixel_size(y: float | None, x: float | None) -> tuple[float, float] | None:
    """Height and width if either is known; if only one is known, the pixel is square."""
    y, x = (y or x), (x or y)
    return (y, x) if x is not None and y is not None and min(x, y) > 0 else None


def _spread(step: float | None, n: int) -> tuple[float, ...] | None:
    return tuple(step * i for i in range(n)) if step and n else None
