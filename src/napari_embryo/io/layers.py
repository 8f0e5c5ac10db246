"""Convert between images and napari layers, without napari."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from napari_embryo.image import AXES, EmbryoImage
from napari_embryo.io.editable import EditablePlanes
from napari_embryo.io.header import TIFF
from napari_embryo.io.headers import read_header
from napari_embryo.io.lazy import LazyPlanes
from napari_embryo.io.numbers import even_step
from napari_embryo.io.ome import Kind, OmeTiff, ome_tiff_of, read_ome_tiff, record_of, write_ome_tiff
from napari_embryo.io.pixels import FileReader
from napari_embryo.io.units import HOURS, UM

LayerData = tuple[Any, dict[str, Any], str]

NAMESPACE = "napari_embryo"
"""Key in a layer's metadata for the values of the image."""


def to_napari(image: EmbryoImage) -> LayerData:
    """A napari image layer with scale, translate, units, axis labels, name and metadata.

    Y and X are in micrometers if the pixel size is known, otherwise in pixels. T is in hours if these are known and
    regular, otherwise it counts frames; F is in micrometers if the heights of the planes are known and regular. All
    values, including irregular hours, are in ``metadata["napari_embryo"]``; further metadata of the reader are in
    ``metadata``.

    Parameters
    ----------
    image
        Any image.

    Returns
    -------
    tuple
        Data, the layer's keywords, "image".
    """
    about: dict[str, Any] = {
        "name": image.name,
        "metadata": {**image.metadata, NAMESPACE: _values(image)},
        "rgb": False,
        **_keywords(image.axes, [_place(image, axis) for axis in image.axes]),
    }
    return image.data, about, "image"


Place = tuple[float, float, str]
"""Scale, start and unit of one axis."""


def _keywords(axes: str, places: Sequence[Place]) -> dict[str, Any]:
    return {
        "scale": tuple(scale for scale, _, _ in places),
        "translate": tuple(start for _, start, _ in places),
        "units": tuple(unit for _, _, unit in places),
        "axis_labels": tuple(axes.lower()),
    }


def _values(image: EmbryoImage) -> dict[str, Any]:
    return {
        "axes": image.axes,
        "pixel_size_um": image.pixel_size_um,
        "hours": image.hours,
        "focus_um": image.focus_um,
    }


def _place(image: EmbryoImage | OmeTiff, axis: str) -> Place:
    if axis == "C":
        return 1.0, 0.0, "pixel"
    if axis in "YX":
        size = image.pixel_size_um
        return (1.0, 0.0, "pixel") if size is None else (float(size["YX".index(axis)]), 0.0, "um")
    values, unit = (image.hours, "hour") if axis == "T" else (image.focus_um, "um")
    step = even_step(values)
    if values is None or step is None or step < 0:
        return 1.0, 0.0, "pixel"
    return step, float(values[0]), unit


def from_napari(data: Any, attributes: Mapping[str, Any]) -> EmbryoImage:
    """An image from a napari layer's data and keywords; the inverse of `to_napari`.

    Parameters
    ----------
    data
        NumPy or dask array.
    attributes
        As in ``layer.as_layer_data_tuple()[1]``: name, scale, units, axis_labels, metadata.

    Returns
    -------
    EmbryoImage
        Axes from the layer's metadata, or its axis labels, or T and F before Y and X. The pixel size is the current one
        of the layer, which the user may have corrected.

    Raises
    ------
    ValueError
        If the layer has more axes than an embryo.
    """
    metadata = dict(attributes.get("metadata") or {})
    kept: Mapping[str, Any] = metadata.pop(NAMESPACE, None) or {}
    axes = layer_axes(attributes, len(data.shape))
    return EmbryoImage(
        data=data,
        axes=axes,
        name=str(attributes.get("name") or "image"),
        pixel_size_um=layer_pixel_size_um(attributes),
        hours=_kept_or_even(kept.get("hours"), attributes, axes, "T", data.shape),
        focus_um=_kept_or_even(kept.get("focus_um"), attributes, axes, "F", data.shape),
        metadata=metadata,
    )


def layer_axes(attributes: Mapping[str, Any], n_axes: int) -> str:
    """One of ``AXES``, from a layer's metadata, labels or number of dimensions."""
    kept = (dict(attributes.get("metadata") or {}).get(NAMESPACE) or {}).get("axes", "")
    labels = "".join(_letter(str(label)) for label in attributes.get("axis_labels") or ())
    for axes in (labels, kept):
        if axes in AXES and len(axes) == n_axes:
            return str(axes)
    by_count = {2: "YX", 3: "TYX", 4: "TFYX"}
    if n_axes not in by_count:
        raise ValueError(
            f"{attributes.get('name')}: the layer has {n_axes} dimensions; Y and X are needed, with time and focal "
            "planes before them at most. Slice the layer first."
        )
    return by_count[n_axes]


_LETTERS = {"t": "T", "time": "T", "f": "F", "z": "F", "focus": "F", "y": "Y", "x": "X", "c": "C", "channel": "C"}


def _letter(label: str) -> str:
    return _LETTERS.get(label.strip().lower(), "?")


def layer_pixel_size_um(attributes: Mapping[str, Any]) -> tuple[float, float] | None:
    """Height and width of a layer's pixels, if its units are lengths."""
    factors = [UM.get(unit) for unit in unit_names(attributes.get("units"))[-2:]]
    scale = attributes.get("scale")
    if scale is None or len(factors) < 2 or None in factors:
        return None
    height, width = (float(size) * float(factor or 0) for size, factor in zip(scale[-2:], factors, strict=True))
    return (height, width) if min(height, width) > 0 else None


def unit_names(units: Any) -> tuple[str, ...]:
    """Names of pint's units or of plain ones."""
    if units is None or isinstance(units, str):
        return () if units is None else (units,)
    return tuple(str(unit) for unit in units)


def _kept_or_even(
    kept: Sequence[float] | None, attributes: Mapping[str, Any], axes: str, axis: str, shape: Sequence[int]
) -> tuple[float, ...] | None:
    """The values stored by the reader, or those given by the layer's scale and unit."""
    if axis not in axes:
        return None
    place = axes.index(axis)
    if kept is not None and len(kept) == shape[place]:
        return tuple(map(float, kept))
    names = unit_names(attributes.get("units"))
    factor = (HOURS if axis == "T" else UM).get(names[place]) if len(names) == len(axes) else None
    if factor is None or attributes.get("scale") is None:
        return None
    start = attributes["translate"][place] if attributes.get("translate") is not None else 0.0
    return tuple(map(float, (start + attributes["scale"][place] * np.arange(shape[place])) * factor))


# --- layers in OME-TIFF ---------------------------------------------------------------------------------------------

_COPIED = ("scale", "translate", "units", "axis_labels")


def write_layer(path: Path | str, data: Any, attributes: Mapping[str, Any], kind: Kind) -> Path:
    """Write a napari layer so that `written_layer` restores it: array, scale, translate, units, axis labels, name.

    Parameters
    ----------
    path
        The OME-TIFF.
    data
        The layer's array, or its list of levels.
    attributes
        The layer's keywords.
    kind
        "image" or "labels".

    Returns
    -------
    Path
        ``path``.
    """
    array = data[0] if attributes.get("multiscale") or isinstance(data, list | tuple) else data
    axes = _written_axes(attributes, array.shape)
    values = plain(dict(attributes.get("metadata") or {}).get(NAMESPACE) or {})
    return write_ome_tiff(
        path,
        array,
        axes,
        name=str(attributes.get("name") or "image"),
        kind=kind,
        pixel_size_um=layer_pixel_size_um(attributes),
        hours=_along(attributes, axes, array.shape, "T", "hours"),
        focus_um=_along(attributes, axes, array.shape, "F", "focus_um"),
        metadata=plain(attributes.get("metadata") or {}) | ({NAMESPACE: values} if values else {}),
        layer=placed_keywords(attributes),
    )


def placed_keywords(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Position of a layer for JSON."""
    return {key: _plain_sequence(attributes[key]) for key in _COPIED if attributes.get(key) is not None}


def _written_axes(attributes: Mapping[str, Any], shape: Sequence[int]) -> str:
    samples = "S" if attributes.get("rgb") else ""
    n_axes = len(shape) - len(samples)
    labels = "".join(_letter(str(label)) for label in attributes.get("axis_labels") or ())
    if len(labels) == n_axes and re.fullmatch("[TCF]*YX", labels) and len(set(labels)) == n_axes:
        return labels + samples
    if n_axes == 5:
        return "TCFYX" + samples
    return layer_axes(attributes, n_axes) + samples


def _along(
    attributes: Mapping[str, Any], axes: str, shape: Sequence[int], axis: str, key: str
) -> tuple[float, ...] | None:
    kept = (dict(attributes.get("metadata") or {}).get(NAMESPACE) or {}).get(key)
    return _kept_or_even(kept, attributes, axes, axis, shape)


def _plain_sequence(values: Any) -> list[Any]:
    """Convert a value for JSON: numbers are kept, units become names."""
    return [float(value) if isinstance(value, float | int | np.number) else str(value) for value in values]


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a layer's metadata that JSON can store, without arrays such as original colors."""
    return {str(key): value for key, value in values.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | int | float)


def written_layer(path: Path | str) -> LayerData | None:
    """Restore the layer stored in an OME-TIFF of this program.

    If a file has no layer keywords, such as one of the command line, they are derived from its axes and sizes.

    Returns
    -------
    tuple or None
        None for files of other programs, and for channels that are better opened as separate layers.
    """
    ome = written(path)
    return None if ome is None else layer_of(ome)


def written(path: Path | str) -> OmeTiff | None:
    """Content of an OME-TIFF of this program; None for files of other programs."""
    path = Path(path)
    record = record_of(path) if path.suffix.lower() in TIFF and not path.is_dir() else None
    if record is None:
        return None
    if prod(record["shape"]) * np.dtype(record["dtype"]).itemsize <= READ_AT_ONCE:
        return read_ome_tiff(path)
    header = read_header(path)
    n_leading = len(header.leading)
    planes = LazyPlanes(partial(_own_plane, FileReader(header)), header.leading, header.shape[n_leading:], header.dtype)
    return ome_tiff_of(record, planes.as_dask())


def _own_plane(reader: FileReader, index: tuple[int, ...]) -> Any:
    return reader.plane(int(np.ravel_multi_index(index, reader.header.leading)) if index else 0)


READ_AT_ONCE = 2**25
"""Files of ours that are larger than this, in bytes, are read picture by picture."""


def layer_of(ome: OmeTiff) -> LayerData | None:
    """The single layer stored in the file; None for channels."""
    if "C" in ome.axes and not ome.layer:
        return None
    about: dict[str, Any] = {"name": ome.name, "metadata": dict(ome.metadata)}
    about |= {key: tuple(value) for key, value in ome.layer.items()} or placed(ome, ome.axes.removesuffix("S"))
    if ome.kind == "image":
        about["rgb"] = ome.axes.endswith("S")
    elif ome.names:
        about["metadata"]["classes"] = ome.names
    return (ome.data if ome.kind == "image" else editable(ome.data)), about, ome.kind


def editable(data: Any) -> Any:
    """Labels that can be painted on; a lazy array is read picture by picture."""
    if isinstance(data, np.ndarray):
        return data
    return EditablePlanes(lambda index: np.asarray(data[index]), data.shape[:-2], data.shape[-2:], data.dtype)


def placed(ome: OmeTiff, axes: str) -> dict[str, Any]:
    """Scale, translate, units and axis labels of a layer with some of a file's axes."""
    return _keywords(axes, [_place(ome, axis) for axis in axes])
