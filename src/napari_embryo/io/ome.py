"""OME-TIFF: written plane by plane, and read back unchanged."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from napari_embryo.io.atomic import replacing
from napari_embryo.io.errors import ImageError, decoding_errors, unreadable
from napari_embryo.io.names import image_stem
from napari_embryo.io.numbers import even_step
from napari_embryo.io.private import without_folders

if TYPE_CHECKING:
    from tifffile import TiffWriter

Kind = Literal["image", "labels"]

AXES_TO_OME = {"F": "Z"}
"""Axis letter of this program -> that of OME; the others are the same."""

ANNOTATION = "napari-embryo"
"""Key in OME-XML for data that the OME model does not cover."""

_STORED_AS = {"bool": "uint8", "int64": "int32", "uint64": "uint32", "float16": "float32"}
_STORABLE = {"int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64"}
_BIGTIFF_FROM = 2**32 - 2**25
_NOT_IN_XML = re.compile(r"[^\x20-\ud7ff\ue000-\ufffd]")


@dataclass(frozen=True, eq=False)
class OmeTiff:
    """Content of an OME-TIFF of this program.

    Parameters
    ----------
    data
        The array, with the dtype it was written with; a dask array where it is read picture by picture.
    axes
        Letters of T, C, F, Y, X, S (color samples), one per dimension.
    name
        The image's name.
    pixel_size_um
        Height and width of a pixel, if known.
    hours
        One per T, if known.
    focus_um
        One per F, if known.
    names
        One per C (channel names), or the names of the labels from 1 up.
    kind
        Whether the values are gray values or labels.
    metadata
        Anything that JSON can represent.
    layer
        A napari layer's scale, units, axis_labels and translate, if a layer was written.
    """

    data: Any
    axes: str
    name: str
    pixel_size_um: tuple[float, float] | None = None
    hours: tuple[float, ...] | None = None
    focus_um: tuple[float, ...] | None = None
    names: tuple[str, ...] = ()
    kind: Kind = "image"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    layer: Mapping[str, Any] = field(default_factory=dict)


class OmeTiffStackWriter(AbstractContextManager["OmeTiffStackWriter"]):
    """Write an OME-TIFF plane by plane, so that memory does not grow with the stack.

    The file appears under its name when the block ends and every plane was written; until then, and after an error,
    there is no file (or the previous one).

    Parameters
    ----------
    path
        Usually ends in ``.ome.tif``.
    shape
        The whole stack's shape.
    dtype
        bool, integers, float16, float32 or float64. OME has no 64-bit integers: they are stored with 32 bits and read
        back with 64, and larger values are refused.
    axes
        One letter per dimension, of T, C, F, then YX or YXS (S: color samples).
    pixel_size_um
        Height and width of a pixel in micrometers, if known.
    hours
        One per T, if known.
    focus_um
        One per F, if known.
    names
        Channel names, one per C; without a C axis, the names of the labels from 1 up.
    name
        Name of the image; that of the file by default.
    kind
        ``labels`` is compressed fast, ``image`` not at all.
    metadata
        Anything that JSON can represent; other values are written as text.
    layer
        A napari layer's scale, units, axis_labels and translate.

    Examples
    --------
    >>> with OmeTiffStackWriter("a.ome.tif", (2, 64, 64), "uint8", "TYX", kind="labels") as stack:  # doctest: +SKIP
    ...     for labels in results:
    ...         stack.write(labels)
    """

    def __init__(
        self,
        path: Path | str,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        axes: str,
        *,
        pixel_size_um: tuple[float, float] | None = None,
        hours: Sequence[float] | None = None,
        focus_um: Sequence[float] | None = None,
        names: Sequence[str] = (),
        name: str | None = None,
        kind: Kind = "image",
        metadata: Mapping[str, Any] | None = None,
        layer: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.axes = axes
        self.kind: Kind = kind
        self._stored = _stored_dtype(self.path, self.dtype)
        _check_axes(self.path, axes, self.shape)
        self._plane_shape = self.shape[_first_plane_axis(axes) :]
        self._n_planes = prod(self.shape[: _first_plane_axis(axes)])
        self._written = 0
        about = {
            "axes": axes,
            "shape": self.shape,
            "dtype": self.dtype.name,
            "kind": kind,
            "name": image_stem(self.path) if name is None else name,
            "names": tuple(names),
            "pixel_size_um": pixel_size_um,
            "hours": None if hours is None else tuple(map(float, hours)),
            "focus_um": None if focus_um is None else tuple(map(float, focus_um)),
            "metadata": without_folders(dict(metadata or {})),
            "layer": dict(layer or {}),
        }
        _check_lengths(self.path, about)
        self._description = _ome_xml(about, self._stored, self._plane_shape).encode()
        self._files = ExitStack()
        self._tiff: TiffWriter | None = None

    def __enter__(self) -> Self:
        from tifffile import TiffWriter

        temporary = self._files.enter_context(replacing(self.path))
        self._files.push(self._check_complete)
        big = prod(self.shape) * self._stored.itemsize > _BIGTIFF_FROM
        self._tiff = self._files.enter_context(TiffWriter(temporary, bigtiff=big, ome=False))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._tiff = None
        return self._files.__exit__(kind, error, trace)

    def write(self, block: npt.ArrayLike) -> None:
        """Append one plane (Y, X), or all planes of the last leading axes at once, such as (C, Y, X).

        Parameters
        ----------
        block
            Its shape is the end of the whole shape.
        """
        values = np.asarray(block)
        if values.ndim < len(self._plane_shape) or values.shape != self.shape[len(self.shape) - values.ndim :]:
            raise ValueError(
                f"{self.path}: a block of shape {values.shape} was given, but the file has the shape {self.shape}"
            )
        for plane in self._as_stored(values).reshape(-1, *self._plane_shape):
            self._write_plane(plane)

    def _as_stored(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        stored = values.astype(self._stored, copy=False)
        if self.dtype.kind in "iu" and not np.array_equal(stored, values):
            raise ImageError(
                f"{self.path}: values from {values.min()} to {values.max()} do not fit into {self._stored}, the type "
                "of the file. Renumber the labels or write floating point values."
            )
        return stored

    def _write_plane(self, plane: npt.NDArray[Any]) -> None:
        if self._tiff is None or self._written == self._n_planes:
            raise ValueError(
                f"{self.path}: plane {self._written + 1} was given, but the file has only {self._n_planes} planes"
            )
        self._tiff.write(
            plane,
            description=self._description if self._written == 0 else None,
            metadata=None,
            contiguous=False,
            software=False,
            photometric="rgb" if self.axes.endswith("S") else "minisblack",
            compression="zlib" if self.kind == "labels" else None,
            compressionargs={"level": 1} if self.kind == "labels" else None,
        )
        self._written += 1

    def _check_complete(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._written != self._n_planes:
            raise ValueError(
                f"{self.path}: only {self._written} of {self._n_planes} planes were given; nothing was written"
            )


def write_ome_tiff(path: Path | str, array: Any, axes: str, **about: Any) -> Path:
    """Write an array as OME-TIFF, one plane at a time, so that a dask array is never computed as a whole.

    Parameters
    ----------
    path
        Usually ends in ``.ome.tif``; appears only when complete.
    array
        NumPy or dask array.
    axes
        One letter per dimension, of T, C, F, then YX or YXS (S: color samples).
    **about
        ``pixel_size_um``, ``hours``, ``focus_um``, ``names``, ``name``, ``kind``, ``metadata``, ``layer`` as in
        `OmeTiffStackWriter`.

    Returns
    -------
    Path
        ``path``.
    """
    with OmeTiffStackWriter(path, array.shape, array.dtype, axes, **about) as stack:
        for plane in _planes(array, _first_plane_axis(axes)):
            stack.write(plane)
    return Path(path)


def _planes(array: Any, n_leading: int) -> Iterator[npt.NDArray[Any]]:
    for index in np.ndindex(tuple(array.shape[:n_leading])):
        yield np.asarray(array[index])


def read_ome_tiff(path: Path | str) -> OmeTiff:
    """Read back what `write_ome_tiff` wrote: the same array, dtype, axes, sizes and names.

    Parameters
    ----------
    path
        An OME-TIFF written by this program.

    Returns
    -------
    OmeTiff
        What was written.

    Raises
    ------
    ImageError
        If the file is damaged, or was written by another program (`read_image` reads those).
    """
    from tifffile import TiffFile

    path = Path(path)
    try:
        with TiffFile(path) as tiff:
            about = annotation(tiff.ome_metadata)
            if about is None:
                raise ImageError(f"{path}: no napari-embryo annotation; another program wrote it. Use read_image.")
            len(tiff.pages)  # ends a chain of pages that is a circle
            stored = tiff.asarray(key=slice(None))
        return ome_tiff_of(about, stored.reshape(about["shape"]).astype(about["dtype"], copy=False))
    except decoding_errors() as error:
        raise unreadable(path, error) from error


def ome_tiff_of(about: Mapping[str, Any], data: Any) -> OmeTiff:
    """What a record and the pixels say."""
    return OmeTiff(
        data=data,
        pixel_size_um=_pair(about["pixel_size_um"]),
        hours=_tuple_or_none(about["hours"]),
        focus_um=_tuple_or_none(about["focus_um"]),
        names=tuple(about["names"]),
        **{key: about[key] for key in ("axes", "name", "kind", "metadata", "layer")},
    )


def record_of(path: Path) -> dict[str, Any] | None:
    """Our own record in a file that `write_ome_tiff` wrote; None for any other, and for a damaged one."""
    from tifffile import TiffFile

    try:
        with TiffFile(path) as tiff:
            return annotation(tiff.ome_metadata)
    except decoding_errors():
        return None


def annotation(xml: str | None) -> dict[str, Any] | None:
    """The annotation of this program in an OME-XML text, if any."""
    from xml.etree import ElementTree

    if not xml or ANNOTATION not in xml:
        return None
    for entry in ElementTree.fromstring(xml).iter():
        if entry.tag.endswith("}M") and entry.get("K") == ANNOTATION and entry.text:
            about: dict[str, Any] = json.loads(entry.text)
            return about
    return None


def _pair(values: Any) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])


def _tuple_or_none(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _first_plane_axis(axes: str) -> int:
    return axes.index("Y")


def _stored_dtype(path: Path, dtype: np.dtype[Any]) -> np.dtype[Any]:
    stored = _STORED_AS.get(dtype.name, dtype.name)
    if stored not in _STORABLE:
        known = ", ".join(sorted(_STORABLE | set(_STORED_AS)))
        raise ImageError(f"{path}: the array has type {dtype}, but OME-TIFF stores {known}. Convert the array first.")
    return np.dtype(stored)


def _check_axes(path: Path, axes: str, shape: tuple[int, ...]) -> None:
    if not re.fullmatch(r"[TCF]{0,3}YXS?", axes) or len(set(axes)) != len(axes) or len(axes) != len(shape):
        raise ImageError(
            f"{path}: axes {axes!r} were given for an array of shape {shape}; one letter per dimension is needed, "
            "of T, C, F, then YX or YXS"
        )
    if 0 in shape:
        raise ImageError(f"{path}: an array of shape {shape} was given; it has no pixels to write")
    if axes.endswith("S") and shape[-1] not in (3, 4):
        raise ImageError(f"{path}: {shape[-1]} color samples were given; RGB (3) or RGBA (4) can be written")


def _check_lengths(path: Path, about: Mapping[str, Any]) -> None:
    sizes = dict(zip(about["axes"], about["shape"], strict=True))
    for axis, key in (("T", "hours"), ("F", "focus_um"), ("C", "names")):
        values = about[key]
        if values and (axis in sizes or axis != "C") and len(values) != sizes.get(axis):
            raise ValueError(f"{path}: {len(values)} {key} were given for {sizes.get(axis, 0)} entries along {axis}")


def _ome_xml(about: Mapping[str, Any], dtype: np.dtype[Any], plane_shape: tuple[int, ...]) -> str:
    from tifffile import OmeXml

    axes, shape = about["axes"], about["shape"]
    height, width, samples = (*plane_shape, 1)[:3]
    n_planes = prod(shape[: _first_plane_axis(axes)])
    xml = OmeXml(Creator="napari-embryo")
    xml.addimage(
        dtype,
        shape,
        (n_planes, 1, 1, height, width, samples),
        axes="".join(AXES_TO_OME.get(axis, axis) for axis in axes),
        Name=_printable(about["name"]),
        MapAnnotation={"Namespace": "napari-embryo", ANNOTATION: json.dumps(about, default=str)},
        **_ome_sizes(about),
        **_ome_times(about, n_planes),
        **_ome_channels(about),
    )
    return xml.tostring(declaration=True)


def _ome_sizes(about: Mapping[str, Any]) -> dict[str, float]:
    sizes: dict[str, float] = {}
    if about["pixel_size_um"] is not None:
        sizes["PhysicalSizeY"], sizes["PhysicalSizeX"] = map(float, about["pixel_size_um"])
    step = even_step(about["focus_um"])
    if step is not None and step > 0:
        sizes["PhysicalSizeZ"] = step
    return sizes


def _ome_times(about: Mapping[str, Any], n_planes: int) -> dict[str, Any]:
    hours = about["hours"]
    if hours is None:
        return {}
    step = even_step(hours)
    if step is not None and hours[0] == 0:
        return {"TimeIncrement": step, "TimeIncrementUnit": "h"}
    return {"Plane": {"DeltaT": _per_plane(about, hours), "DeltaTUnit": ["h"] * n_planes}}


def _per_plane(about: Mapping[str, Any], hours: Sequence[float]) -> list[float]:
    leading = about["shape"][: _first_plane_axis(about["axes"])]
    position = about["axes"].index("T")
    return [hours[index[position]] for index in np.ndindex(*leading)]


def _ome_channels(about: Mapping[str, Any]) -> dict[str, Any]:
    if "C" not in about["axes"] or not about["names"]:
        return {}
    return {"Channel": {"Name": [_printable(name) for name in about["names"]]}}


def _printable(text: str) -> str:
    return _NOT_IN_XML.sub("_", text)
