"""OME-Zarr 0.1 to 0.5: images at full size, series, wells of a plate, and labels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo.io.errors import complaint
from napari_embryo.io.header import Header
from napari_embryo.io.names import natural_key
from napari_embryo.io.units import HOURS, UM
from napari_embryo.io.vendor import place_of, refuse_axes, series_header
from napari_embryo.io.zarr_store import checked_array, ome_attributes, open_group

Array = npt.NDArray[Any]

MOST_SERIES = 2000
"""More images or labels than this are not listed."""

_OLD_AXES = ("t", "c", "z", "y", "x")
"""The axes of versions 0.1 and 0.2, which do not name them."""

LETTERS = {"t": "T", "c": "C", "z": "F", "y": "Y", "x": "X"}
"""Names of axes in OME-Zarr -> in this program."""


@dataclass(frozen=True, eq=False)
class Level:
    """The full size of an image or of labels.

    Parameters
    ----------
    array
        The zarr array.
    axes
        One letter per dimension.
    step
        Distance of neighbors along each axis, in micrometers or hours; None if unknown.
    start
        Where each axis begins, in the same units.
    notes
        What is not used, and why.
    """

    array: Any
    axes: str
    step: tuple[float | None, ...]
    start: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip(self.axes, self.array.shape, strict=True))


def zarr_headers(path: Path) -> tuple[Header, ...]:
    """A header for every image, and for every label image after the image it belongs to."""
    root = open_group(path)
    parts: list[tuple[str, bool]] = []
    for image in _images(path, root):
        parts += [(image, False), *((name, True) for name in _labels(root, image))]
        if len(parts) > MOST_SERIES:
            raise complaint(path, f"it holds more than {MOST_SERIES} images", "one well or image", "Open a part of it")
    if not parts:
        raise complaint(
            path, "it holds no image in the layout of OME-Zarr", "multiscales are needed", "Export it as OME-Zarr"
        )
    return tuple(_header(path, root, part, is_labels, len(parts) > 1) for part, is_labels in parts)


def _images(path: Path, root: Any) -> Iterator[str]:
    """The groups of the images: the root itself, those of a plate's wells, or series."""
    about = ome_attributes(root)
    if "multiscales" in about:
        yield ""
    elif isinstance(about.get("plate"), Mapping):
        for well in about["plate"].get("wells", ()):
            inner = ome_attributes(_group(path, root, str(well["path"]))).get("well", {})
            yield from (f"{well['path']}/{image['path']}" for image in inner.get("images", ()))
    else:
        groups = [name for name in root.group_keys() if "multiscales" in ome_attributes(root[name])]
        yield from sorted(groups, key=natural_key)


def _group(path: Path, root: Any, name: str) -> Any:
    group = root.get(name) if name else root
    if group is None or not hasattr(group, "group_keys"):
        raise complaint(path, f"its group {name!r} is missing", "a complete OME-Zarr is needed", "Copy it again")
    return group


def _labels(root: Any, image: str) -> list[str]:
    home = f"{image}/labels".lstrip("/")
    group = root.get(home)
    if group is None or not hasattr(group, "group_keys"):
        return []
    listed = ome_attributes(group).get("labels")
    names = listed if isinstance(listed, Sequence) and not isinstance(listed, str) else sorted(group.group_keys())
    return [f"{home}/{name}" for name in names]


def _header(path: Path, root: Any, part: str, is_labels: bool, is_one_of_many: bool) -> Header:
    level = full_size(path, root, part)
    sizes, steps = level.sizes, dict(zip(level.axes, level.step, strict=True))
    if is_labels and level.array.dtype.kind not in "bui":
        raise complaint(path, f"its labels {part!r} hold {level.array.dtype}", "whole numbers", "Save them again")
    begins = dict(zip(level.axes, level.start, strict=True))
    step = steps.get("T")
    header = series_header(
        path,
        sizes,
        np.uint8 if level.array.dtype.kind == "b" else level.array.dtype,
        step_um=steps,
        hours=[begins["T"] + step * i for i in range(sizes["T"])] if step else (),
        names=_channel_names(root, part),
        title=part.rpartition("labels/")[2] if is_labels else part if is_one_of_many else "",
        notes=level.notes,
        part=part,
    )
    return header.as_labels if is_labels else header


def _channel_names(root: Any, part: str) -> list[str]:
    about = ome_attributes(root[part] if part else root).get("omero")
    channels = about.get("channels", ()) if isinstance(about, Mapping) else ()
    return [str(each.get("label") or "") for each in channels if isinstance(each, Mapping)]


def full_size(path: Path, root: Any, part: str) -> Level:
    """The largest level of an image or of labels, with its axes and calibration."""
    group = _group(path, root, part)
    scales = ome_attributes(group).get("multiscales")
    if not isinstance(scales, Sequence) or not scales or not scales[0].get("datasets"):
        raise complaint(path, f"its group {part!r} names no arrays", "a complete OME-Zarr is needed", "Export it again")
    about = scales[0]
    arrays = [(checked_array(path, group, str(each["path"])), each) for each in about["datasets"]]
    array, dataset = max(arrays, key=lambda pair: prod(pair[0].shape))
    named = [_axis(axis) for axis in about.get("axes") or _OLD_AXES]
    axes = "".join(LETTERS.get(name.lower(), "?") for name, _ in named)
    if len(axes) != array.ndim or not {"Y", "X"} <= set(axes) or len(set(axes)) < len(axes):
        raise complaint(
            path,
            f"its axes are {', '.join(name for name, _ in named)} for an array of shape {array.shape}",
            "t, c, z, y and x are understood, each once",
            "Export the part you need",
        )
    refuse_axes(path, dict(zip(axes, array.shape, strict=True)), "TFCYX")
    scale, start = _transformed(array.ndim, dataset, about)
    factors = [_factor(letter, unit) for letter, (_, unit) in zip(axes, named, strict=True)]
    return Level(
        array,
        axes,
        tuple(
            None if factor is None or not step else step * factor for step, factor in zip(scale, factors, strict=True)
        ),
        tuple(begin * (factor or 0) for begin, factor in zip(start, factors, strict=True)),
        _notes(axes, scale, named),
    )


def _axis(axis: Any) -> tuple[str, str | None]:
    """Name and unit of an axis; before version 0.4 there is only a name."""
    return (str(axis.get("name")), axis.get("unit")) if isinstance(axis, Mapping) else (str(axis), None)


def _factor(letter: str, unit: str | None) -> float | None:
    known = HOURS if letter == "T" else UM
    return None if unit is None or letter == "C" else known.get(str(unit).lower())


def _transformed(n_axes: int, *levels: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Scale and start of an array: its own transformation, then that of all levels."""
    scale, start = np.ones(n_axes), np.zeros(n_axes)
    for each in (step for level in levels for step in level.get("coordinateTransformations") or ()):
        values = each.get(each.get("type"))
        if values is None:
            continue
        if np.shape(values) != (n_axes,):
            raise ValueError(f"a {each['type']} of {values} for {n_axes} axes")
        if each["type"] == "scale":
            scale, start = scale * values, start * values
        elif each["type"] == "translation":
            start = start + values
    return scale.tolist(), start.tolist()


def _notes(axes: str, scale: Sequence[float], named: Sequence[tuple[str, str | None]]) -> tuple[str, ...]:
    odd = [
        f"{name} {step:g} {unit or 'without a unit'}"
        for letter, step, (name, unit) in zip(axes, scale, named, strict=True)
        if step != 1 and letter != "C" and _factor(letter, unit) is None
    ]
    return (f"distances in units that are not known are not used: {', '.join(odd)}",) if odd else ()


def open_zarr(header: Header) -> Callable[[int], Array]:
    """A function from the number of a plane to its pixels."""
    level = full_size(header.path, open_group(header.path), header.part)
    is_turned = level.axes.index("Y") > level.axes.index("X")

    def read(number: int) -> Array:
        place = place_of(header, number)
        pixels = np.asarray(level.array[tuple(slice(None) if axis in "YX" else place[axis] for axis in level.axes)])
        return pixels.T if is_turned else pixels

    return read
