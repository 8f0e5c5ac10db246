"""Nikon ND2, through nd2: a series for every position."""

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

MS_HOURS = 1 / 3.6e6

_AXES = {"T": "T", "Z": "F", "C": "C", "Y": "Y", "X": "X", "S": "S"}


def nd2_headers(path: Path) -> tuple[Header, ...]:
    """A header for every position."""
    with import_reader(path, "nd2").ND2File(path) as file:
        refuse_axes(path, file.sizes, "PTZCYXS")
        if file.dtype.kind not in "uif":
            raise complaint(path, f"its values have the type {file.dtype}", "numbers are needed", "Export it as TIFF")
        n_positions = file.sizes.get("P", 1)
        return tuple(_header(path, file, position, n_positions) for position in range(n_positions))


def _header(path: Path, file: Any, position: int, n_positions: int) -> Header:
    frames = _frames(file, position)
    n_frames = file.sizes.get("T", 1)
    return series_header(
        path,
        {_AXES[axis]: size for axis, size in file.sizes.items() if axis in _AXES},
        file.dtype,
        step_um=_steps(file),
        hours=[_hours(file, frames.get((t, 0))) for t in range(n_frames)] if n_frames > 1 else (),
        names=[each.channel.name for each in file.metadata.channels or ()],
        series=position,
        title=_title(file, position) if n_positions > 1 else "",
        notes=_missing(file, frames),
    )


def _frames(file: Any, position: int) -> dict[tuple[int, int], int]:
    """The number of the stored frame for every T and Z of a position."""
    if not file.loop_indices:
        return {(0, 0): 0}
    return {
        (where.get("T", 0), where.get("Z", 0)): number
        for number, where in enumerate(file.loop_indices)
        if where.get("P", 0) == position
    }


def _missing(file: Any, frames: dict[tuple[int, int], int]) -> tuple[str, ...]:
    """A recording that was stopped has fewer frames than were planned."""
    stored = file.attributes.sequenceCount
    missing = 0 if stored is None else sum(number >= stored for number in frames.values())
    return (f"{missing} of its {len(frames)} planes were planned but not recorded: they are black",) if missing else ()


def _steps(file: Any) -> dict[str, float | None]:
    """Micrometers along the axes that are calibrated; others have a size of 1 that means nothing."""
    channels = file.metadata.channels
    if not channels:
        return {}
    volume = channels[0].volume
    return {
        axis: size if is_known and size > 0 else None
        for axis, size, is_known in zip("XYF", volume.axesCalibration, volume.axesCalibrated, strict=True)
    }


def _hours(file: Any, number: int | None) -> float | None:
    """Hours since the start, as recorded with a frame."""
    if number is None:
        return None
    channels = file.frame_metadata(number).channels
    return float(channels[0].time.relativeTimeMs) * MS_HOURS if channels else None


def _title(file: Any, position: int) -> str:
    for loop in file.experiment:
        if loop.type == "XYPosLoop":
            return f"position {loop.parameters.points[position].name or position + 1}"
    return f"position {position + 1}"


def open_nd2(header: Header) -> Callable[[int], Array]:
    """A function from the number of a plane to its pixels."""
    file = import_reader(header.path, "nd2").ND2File(header.path)
    frames = _frames(file, header.series)
    n_samples = header.sizes.get("S", 1)

    def read(number: int) -> Array:
        place = place_of(header, number)
        stored = file.read_frame(frames[place["T"], place["F"]])
        channels = stored.reshape(-1, *header.hw, n_samples)
        return np.array(channels[place["C"]] if n_samples > 1 else channels[place["C"], ..., 0])

    finalize(read, file.close)
    return read
