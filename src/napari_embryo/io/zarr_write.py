"""Labels written into an OME-Zarr, beside the image they belong to: whole, or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from napari_embryo.io.errors import complaint, decoding
from napari_embryo.io.layers import layer_axes
from napari_embryo.io.opening import PART
from napari_embryo.io.zarr_read import LETTERS, Level, full_size, zarr_headers
from napari_embryo.io.zarr_store import import_zarr, ome_attributes, open_group

Array = npt.NDArray[Any]

LARGEST_TILE = 1024
"""Sides of the largest chunk in pixels."""

_NOT_IN_NAMES = '/\\:*?"<>|'
_NAMES = {letter: name for name, letter in LETTERS.items()}


def write_zarr_labels(path: Path | str, name: str, data: Any, axes: str, part: str | None = None) -> Path:
    """Write labels into an OME-Zarr as ``labels/NAME``, with a level for every level of their image.

    Labels of that name are replaced once the new ones are complete. Planes are read one at a time.

    Parameters
    ----------
    path
        The folder of the OME-Zarr, with an image in it.
    name
        Name of the labels.
    data
        Whole numbers: an array, or anything that gives planes when indexed.
    axes
        One letter per dimension, of T, F, Y, X.
    part
        The image in the folder to which the labels belong; None: the one of their size.

    Returns
    -------
    Path
        The folder of the labels.

    Raises
    ------
    ImageError
        If there is no image, not exactly one of the size of the labels, or the values are no labels.
    """
    path = Path(path)
    dtype = _label_type(path, data)
    _check_name(path, name)
    if not path.is_dir():
        raise complaint(
            path, "there is no such folder", "labels are saved in the OME-Zarr of their image", "Choose that folder"
        )
    with decoding(path):
        image = _image_of(path, dict(zip(axes, data.shape, strict=True)), part)
        new = image.home / f".{name}.{uuid4().hex[:8]}.part"
        image.home.mkdir(exist_ok=True)
        try:
            _write(image, new, name, dtype, _Planes(data, axes))
            _put_in_place(new, image.home / name)
        finally:
            rmtree(new, ignore_errors=True)
        _list(image, name)
    return image.home / name


def write_layer_to_zarr(path: Path | str, data: Any, attributes: Mapping[str, Any]) -> Path:
    """Write a napari labels layer into the OME-Zarr of its image; see `write_zarr_labels`.

    Parameters
    ----------
    path
        The folder of the OME-Zarr.
    data
        The layer's array, or its list of levels.
    attributes
        The layer's keywords. Labels that were opened from an OME-Zarr keep the name and the image that they have there.
    """
    array = data[0] if attributes.get("multiscale") or isinstance(data, list | tuple) else data
    part = str(dict(attributes.get("metadata") or {}).get(PART, ""))
    image, is_stored, name = part.rpartition("labels/")
    if is_stored:
        return write_zarr_labels(path, name, array, layer_axes(attributes, array.ndim), image.rstrip("/"))
    return write_zarr_labels(path, str(attributes.get("name") or ""), array, layer_axes(attributes, array.ndim))


@dataclass(frozen=True, eq=False)
class _Image:
    """The image to which labels are added."""

    path: Path
    group: Any
    level: Level
    part: str

    @property
    def home(self) -> Path:
        return self.path / self.part / "labels"

    @property
    def zarr_format(self) -> int:
        return int(self.group.metadata.zarr_format)

    @property
    def about(self) -> Mapping[str, Any]:
        about: Mapping[str, Any] = ome_attributes(self.group)["multiscales"][0]
        return about

    @property
    def version(self) -> str:
        said = ome_attributes(self.group).get("version") or self.about.get("version")
        return str(said or ("0.5" if self.zarr_format == 3 else "0.4"))

    @property
    def kept(self) -> list[int]:
        """The places of all axes but the channels."""
        return [place for place, axis in enumerate(self.level.axes) if axis != "C"]

    @property
    def axes(self) -> str:
        return "".join(self.level.axes[place] for place in self.kept)

    def as_attributes(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Attributes where this version of OME-Zarr has them."""
        return {"ome": {"version": self.version, **said}} if self.zarr_format == 3 else dict(said)


@dataclass(frozen=True, eq=False)
class _Planes:
    """Planes of the labels by their place along T and F."""

    data: Any
    axes: str

    def at(self, place: Mapping[str, int]) -> Array:
        return np.asarray(self.data[tuple(place[axis] for axis in self.axes[:-2])])


def _label_type(path: Path, data: Any) -> np.dtype[Any]:
    dtype = np.dtype(data.dtype)
    if dtype.kind not in "bui":
        raise complaint(
            path, f"values of the type {dtype} were given", "labels are whole numbers", "Convert them first"
        )
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def _check_name(path: Path, name: str) -> None:
    if not name.strip() or name.startswith((".", "__")) or any(letter in _NOT_IN_NAMES for letter in name):
        raise complaint(
            path,
            f"labels cannot be called {name!r}",
            f"a name without {_NOT_IN_NAMES} that begins with a letter or a number is needed",
            "Rename the layer",
        )


def _image_of(path: Path, sizes: Mapping[str, int], part: str | None) -> _Image:
    """The image that has the size of the labels."""
    headers = [header for header in zarr_headers(path) if header.role == "picture" and part in (None, header.part)]
    fitting = [header for header in headers if all(header.sizes.get(axis, 1) == sizes.get(axis, 1) for axis in "TFYX")]
    if len(fitting) != 1:
        shapes = ", ".join(sorted({f"{header.shape} {header.axes}" for header in headers})[:4])
        raise complaint(
            path,
            f"labels of shape {tuple(sizes.values())} {''.join(sizes)} were given, and {len(fitting)} of its images "
            f"({shapes}) have that size",
            "exactly one is needed",
            "Open the image from this folder and save labels that were drawn on it",
        )
    root = open_group(path)
    chosen = fitting[0].part
    return _Image(path, root[chosen] if chosen else root, full_size(path, root, chosen), chosen)


def _write(image: _Image, new: Path, name: str, dtype: np.dtype[Any], planes: _Planes) -> None:
    """All levels of the labels, in a group of their own."""
    group = import_zarr(image.path).open_group(str(new), mode="w-", zarr_format=image.zarr_format)
    for number, each in enumerate(image.about["datasets"]):
        shape = image.group[str(each["path"])].shape
        _fill(_array(group, str(number), [shape[place] for place in image.kept], dtype, image), image, planes)
    label = {"image-label": {"version": image.version, "source": {"image": "../../"}}}
    group.attrs.update(image.as_attributes({"multiscales": [_multiscales(image, name)], **label}))


def _array(group: Any, name: str, shape: Sequence[int], dtype: np.dtype[Any], image: _Image) -> Any:
    chunks = [min(size, LARGEST_TILE) if axis in "YX" else 1 for size, axis in zip(shape, image.axes, strict=True)]
    is_v3 = image.zarr_format == 3
    return group.create_array(
        name,
        shape=tuple(shape),
        chunks=tuple(chunks),
        dtype=dtype,
        dimension_names=[_NAMES[axis] for axis in image.axes] if is_v3 else None,
        chunk_key_encoding=None if is_v3 else {"name": "v2", "separator": "/"},
    )


def _fill(array: Any, image: _Image, planes: _Planes) -> None:
    """Copy the planes; smaller levels take the nearest pixel, since a mean of labels is another label."""
    full = {axis: image.level.sizes[axis] for axis in image.axes}
    nearest = {axis: _nearest(full[axis], size) for axis, size in zip(image.axes, array.shape, strict=True)}
    leading = image.axes.replace("Y", "").replace("X", "")
    for where in np.ndindex(*(len(nearest[axis]) for axis in leading)):
        place = dict(zip(leading, where, strict=True))
        plane = planes.at({axis: int(nearest[axis][at]) for axis, at in place.items()})
        pixels = plane[np.ix_(nearest["Y"], nearest["X"])]
        is_turned = image.axes.index("Y") > image.axes.index("X")
        array[tuple(place.get(axis, slice(None)) for axis in image.axes)] = pixels.T if is_turned else pixels


def _nearest(full: int, size: int) -> Array:
    places: Array = np.minimum(((np.arange(size) + 0.5) * full / size).astype(int), full - 1)
    return places


def _multiscales(image: _Image, name: str) -> dict[str, Any]:
    """The image's own axes and scales, without its channels."""
    about, axes = image.about, image.about.get("axes")
    said: dict[str, Any] = {} if image.version == "0.5" else {"version": image.version}
    said |= {"axes": [axes[place] for place in image.kept]} if axes else {}
    levels = [{"path": str(n), **_transformations(each, image.kept)} for n, each in enumerate(about["datasets"])]
    return {**said, "name": name, "datasets": levels, **_transformations(about, image.kept)}


def _transformations(about: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    found = [(each["type"], each.get(each["type"])) for each in about.get("coordinateTransformations") or ()]
    if not found:
        return {}
    return {"coordinateTransformations": [_without_channels(kind, values, kept) for kind, values in found]}


def _without_channels(kind: str, values: Sequence[float] | None, kept: Sequence[int]) -> dict[str, Any]:
    """A scale or translation; an identity has no values."""
    kept_values: dict[str, Any] = {} if values is None else {kind: [values[place] for place in kept]}
    return {"type": kind, **kept_values}


def _put_in_place(new: Path, final: Path) -> None:
    """Exchange a complete folder for the old one, which comes back if that fails."""
    old = final.with_name(f".{final.name}.{uuid4().hex[:8]}.old")
    if final.exists():
        final.rename(old)
    try:
        new.rename(final)
    except OSError:
        if old.exists():
            old.rename(final)
        raise
    rmtree(old, ignore_errors=True)


def _list(image: _Image, name: str) -> None:
    """Add the name to the list of labels."""
    zarr = import_zarr(image.path)
    home = zarr.open_group(str(image.home), mode="a", zarr_format=image.zarr_format, use_consolidated=False)
    said = ome_attributes(home)
    names = list(dict.fromkeys((*said.get("labels", ()), name)))
    home.attrs.update(image.as_attributes({**said, "labels": names}))
    if _is_consolidated(image.path):
        zarr.consolidate_metadata(str(image.path))


def _is_consolidated(path: Path) -> bool:
    """Whether the metadata of all parts are kept together, too, and would not know the new labels."""
    about = path / "zarr.json"
    return (path / ".zmetadata").exists() or (about.exists() and b'"consolidated_metadata"' in about.read_bytes())
