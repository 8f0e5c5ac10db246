"""What the readers of microscope makers' files have in common (the extra ``formats``)."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from napari_embryo.io.errors import complaint
from napari_embryo.io.header import Header

LEADING = "TFC"
"""The order in which the planes of a series are counted."""


def import_reader(path: Path, module: str) -> Any:
    """The library that reads a file.

    Raises
    ------
    ImageError
        If it is not installed, with the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise complaint(
            path,
            f"files ending in {path.suffix} need the package {module.partition('.')[0]}, which is not installed",
            "the extra 'formats' brings it",
            "Run: pip install 'napari-embryo[formats]', or export the file as OME-TIFF",
        ) from error


def series_header(
    path: Path,
    sizes: Mapping[str, int],
    dtype: Any,
    *,
    step_um: Mapping[str, float | None],
    hours: Sequence[float | None] = (),
    names: Iterable[str] = (),
    series: int = 0,
    title: str = "",
    notes: tuple[str, ...] = (),
    part: str = "",
) -> Header:
    """The header of one series.

    Parameters
    ----------
    path
        The file.
    sizes
        Lengths of the axes T, F, C, Y, X and, for color, S.
    dtype
        Type of the values.
    step_um
        Micrometers between the pixels or planes along Y, X and F, if known.
    hours
        One per T; used if all are known and they increase.
    names
        One per C; used if none is empty.
    series, title, notes, part
        As in `Header`.
    """
    axes = "".join(axis for axis in LEADING if sizes.get(axis, 1) > 1) + "YX" + "S" * ("S" in sizes)
    height, width = step_um.get("Y"), step_um.get("X")
    spacing, n_planes = step_um.get("F"), sizes.get("F", 1)
    channels = tuple(names)
    return Header(
        path,
        tuple(sizes[axis] for axis in axes),
        axes,
        np.dtype(dtype).newbyteorder("="),
        pixel_size_um=(height, width) if height and width else None,
        hours=_increasing(hours) if "T" in axes else None,
        focus_um=tuple(spacing * place for place in range(n_planes)) if spacing and n_planes > 1 else None,
        names=channels if "C" in axes and len(channels) == sizes["C"] and all(channels) else (),
        series=series,
        title=title,
        notes=notes,
        part=part,
    )


def _increasing(hours: Sequence[float | None]) -> tuple[float, ...] | None:
    known = [hour for hour in hours if hour is not None]
    is_clock = len(known) == len(hours) > 1 and all(np.diff(known) > 0)
    return tuple(hour - known[0] for hour in known) if is_clock else None


def place_of(header: Header, number: int) -> dict[str, int]:
    """Where a plane lies along T, F and C; 0 along an axis that the series does not have."""
    leading = header.axes[: header.axes.index("Y")]
    where = np.unravel_index(number, header.leading) if leading else ()
    return dict.fromkeys(LEADING, 0) | dict(zip(leading, map(int, where), strict=True))


def refuse_axes(path: Path, sizes: Mapping[str, int], known: str) -> None:
    """Refuse a series with an axis that no image of an embryo has."""
    odd = {axis: size for axis, size in sizes.items() if size > 1 and axis not in known}
    if odd:
        raise complaint(
            path,
            f"it has {' and '.join(f'{size} values along the axis {axis}' for axis, size in odd.items())}",
            "time, focal planes, channels, Y, X and color are understood",
            "Export the part you need as OME-TIFF",
        )
