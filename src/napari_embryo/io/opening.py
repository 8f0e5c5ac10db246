"""From a plan to images, lazily."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_embryo.image import EmbryoImage
from napari_embryo.io.cells import are_cells, written_layers
from napari_embryo.io.colors import to_gray
from napari_embryo.io.errors import complaint
from napari_embryo.io.focus import focus_image
from napari_embryo.io.header import is_image_file
from napari_embryo.io.layers import LayerData, editable, to_napari
from napari_embryo.io.lazy import LazyPlanes, Load, LoadFromFile, LoadFromFiles
from napari_embryo.io.pixels import FileReader
from napari_embryo.io.plan import OpenPlan, check_is_one, plan_file
from napari_embryo.io.planned import PlannedImage

PART = "part"
"""Key in the metadata for the place of an image or of labels in an OME-Zarr."""


def read_image(path: Path | str) -> EmbryoImage:
    """Read one image file: gray values, axes, and sizes if the file states them.

    A single plane is read at once; the planes of a stack or a video are read when needed. Color becomes gray with the
    ITU-R BT.601 weights, and the original is kept in ``metadata["rgb"]``. Assumptions are in
    ``metadata["notes"]``.

    Parameters
    ----------
    path
        TIFF, OME-TIFF, PNG, JPEG, BMP, NPY, AVI or MP4.

    Returns
    -------
    EmbryoImage
        Axes YX, TYX, FYX or TFYX.

    Raises
    ------
    ImageError
        If it cannot be read or holds several images; the message names the file and says what to do.
    """
    path = Path(path)
    if path.is_dir() and not is_image_file(path):
        raise complaint(path, "this is a folder", "one image file is needed", "Use plan_folder and open_plan")
    return open_image(check_is_one(plan_file(path)))


def open_plan(plan: OpenPlan) -> list[EmbryoImage]:
    """Open everything in a plan; the planes of stacks are read when needed.

    Parameters
    ----------
    plan
        From `plan_file` or `plan_folder`.

    Returns
    -------
    list of EmbryoImage
        One per planned image.

    Raises
    ------
    ImageError
        If a single picture cannot be read. A broken file within a stack raises when it is read.
    """
    return [open_image(image) for image in plan.images]


def open_layers(planned: PlannedImage) -> list[LayerData]:
    """Open one image of a plan as napari layers: an Image, Labels, or one Labels layer per cell.

    Parameters
    ----------
    planned
        From a plan; all cells of a file are opened with its first channel.

    Returns
    -------
    list of tuple
        Data, the layer's keywords, its type.
    """
    header = planned.header
    if header.is_own and header.role == "labels":
        if planned.channel == 0 and (layers := written_layers(header.path)):
            return layers
        if are_cells(header.names):
            return []
    data, about, kind = to_napari(open_image(planned))
    if header.role != "labels":
        return [(data, about, kind)]
    del about["rgb"]
    return [(editable(data), about, "labels")]


def open_image(planned: PlannedImage) -> EmbryoImage:
    """Open one image of a plan."""
    data, rgb = _open_picture(planned) if planned.final_axes == "YX" else _open_stack(planned)
    image = EmbryoImage(
        data=data,
        axes=planned.final_axes,
        name=planned.name,
        pixel_size_um=planned.pixel_size_um,
        hours=planned.hours,
        focus_um=planned.focus_um if "F" in planned.axes else None,
        metadata=_metadata(planned, _transparency(rgb)) | ({} if rgb is None else {"rgb": rgb}),
    )
    return image if planned.focus == "all" or "F" not in image.axes else focus_image(image, planned.focus)


def _transparency(color: Any) -> tuple[str, ...]:
    """A note where a single picture is transparent in places."""
    is_read = isinstance(color, np.ndarray) and color.shape[-1] in (2, 4)
    is_transparent = is_read and color[..., -1].min() < color[..., -1].max()
    return ("parts of it are transparent: the gray values under them are used",) if is_transparent else ()


def _open_picture(planned: PlannedImage) -> tuple[Any, Any]:
    pixels = _load_from_file(planned, color=True)(())
    return (to_gray(pixels), pixels) if pixels.ndim == 3 else (pixels, None)


def _open_stack(planned: PlannedImage) -> tuple[Any, Any]:
    header = planned.header
    leading = tuple(planned.sizes[axis] for axis in planned.final_axes[:-2])
    gray = LazyPlanes(_load(planned, color=False), leading, header.hw, header.dtype).as_dask()
    if not header.axes.endswith("S"):
        return gray, None
    samples = header.sizes["S"] if planned.is_one_file else 3
    return gray, LazyPlanes(_load(planned, color=True), leading, (*header.hw, samples), header.dtype).as_dask()


def _load(planned: PlannedImage, color: bool) -> Load:
    if planned.is_one_file:
        return _load_from_file(planned, color)
    return LoadFromFiles(planned.rows, planned.header, color)


def _load_from_file(planned: PlannedImage, color: bool) -> LoadFromFile:
    header = planned.header
    leading = header.axes[: header.axes.index("Y")]
    letters = iter(planned.axes)
    axes = "".join("C" if axis == "C" else next(letters) for axis in leading)
    return LoadFromFile(
        FileReader(header), axes, header.shape[: len(axes)], planned.final_axes[:-2], planned.channel, color
    )


def _metadata(planned: PlannedImage, more_notes: tuple[str, ...] = ()) -> dict[str, Any]:
    about: dict[str, Any] = {"source": str(planned.source), "frame_files": _frame_files(planned), **planned.info}
    if planned.header.part:
        about[PART] = planned.header.part
    if planned.read_runs is not None and "T" in planned.axes:
        about |= {"runs": planned.read_runs, "missing_runs": planned.missing_runs}
    notes = (*planned.notes, *planned.problems, *more_notes)
    return about | ({"notes": notes} if notes else {})


def _frame_files(planned: PlannedImage) -> tuple[str, ...]:
    """The names of the files of every frame; one for all of a single file."""
    if planned.is_one_file:
        return (planned.header.path.name,)
    if "T" in planned.axes or "F" not in planned.axes:
        return tuple(_files_text(files) for files in planned.rows)
    return (_files_text([path for files in planned.rows for path in files]),)


def _files_text(files: Sequence[Path | None]) -> str:
    names = list(dict.fromkeys(path.name for path in files if path is not None))
    return " ... ".join(names if len(names) < 3 else (names[0], names[-1]))
