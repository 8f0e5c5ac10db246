"""Reader contribution: opens files and folders in napari; cheap to import, ignores unsupported files."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_embryo.io import LayerData, OpenPlan

PathOrPaths = str | Sequence[str]
Reader = Callable[[PathOrPaths], "list[LayerData]"]

ENTRIES_LOOKED_AT = 200
"""How many entries of a folder are inspected before it is left to other readers."""


def get_reader(path: PathOrPaths) -> Reader | None:
    """Return the function that reads ``path``, or None to leave it to other readers.

    Only names are inspected: supported files, several of them as one stack, and folders that contain some or contain
    focal planes. This function never raises.

    Parameters
    ----------
    path
        What napari was asked to open.

    Returns
    -------
    callable or None
        Takes the path and returns layers.
    """
    try:
        return read_layers if _is_ours(path) else None
    except (OSError, TypeError, ValueError):
        return None


def _is_ours(path: PathOrPaths) -> bool:
    if not isinstance(path, str | Path):
        return len(path) > 0 and all(_is_file(Path(each)) for each in path)
    if not str(path):  # Path("") would be the current folder
        return False
    return _is_folder(Path(path)) if Path(path).is_dir() else _is_file(Path(path))


def _is_file(path: Path) -> bool:
    from napari_embryo.io.header import SUFFIXES

    suffix = path.suffix.lower()
    return _is_zarr_group(path) if suffix == ".zarr" else suffix in SUFFIXES and not path.is_dir()


def _is_zarr_group(path: Path) -> bool:
    """Whether a folder may be an OME-Zarr; a single array is left to napari."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup"))


def _is_folder(path: Path) -> bool:
    from itertools import islice

    from napari_embryo.io.names import plane_of_folder

    if path.suffix.lower() == ".zarr":
        return _is_zarr_group(path)
    entries = islice(path.iterdir(), ENTRIES_LOOKED_AT)
    return any(_is_file(entry) or (entry.is_dir() and _holds_images(entry, plane_of_folder)) for entry in entries)


def _holds_images(folder: Path, plane_of_folder: Callable[[str], object]) -> bool:
    from itertools import islice

    return plane_of_folder(folder.name) is not None or any(map(_is_file, islice(folder.iterdir(), ENTRIES_LOOKED_AT)))


def read_layers(path: PathOrPaths) -> "list[LayerData]":
    """Open a file, a folder or the files of one stack as napari layers.

    Raises
    ------
    ImageError
        If a file cannot be read; the message names it, what is wrong and what to do.
    """
    from napari_embryo.io import open_layers

    if own := _written_by_us(path):
        return own
    plan = _plan(path)
    if said := (*plan.said, *plan.problems):
        warnings.warn("\n".join(said), stacklevel=2)
    return [_with_colors(layer) for planned in plan.images for layer in open_layers(planned)]


def _plan(path: PathOrPaths) -> "OpenPlan":
    from napari_embryo.io import plan_files, plan_path

    if not isinstance(path, str | Path):
        return plan_path(path[0]) if len(path) == 1 else plan_files(path)
    return plan_path(path)


def _written_by_us(path: PathOrPaths) -> "list[LayerData]":
    """The layers as they were written; empty for any other file."""
    from napari_embryo.io import written_layers

    one = path if isinstance(path, str | Path) else path[0] if len(path) == 1 else None
    return [] if one is None else [_with_colors(layer) for layer in written_layers(one)]


def _with_colors(layer: "LayerData") -> "LayerData":
    """Restore class colors and names of labels written by this plugin; a cell gets the color of its number."""
    from napari_embryo.io.cells import CELL, CELLS_RESULT, RESULT
    from napari_embryo.render import label_colors, label_names

    data, about, kind = layer
    classes = about["metadata"].get("classes")
    if kind == "labels" and about["metadata"].get(RESULT) == CELLS_RESULT:
        about |= _look_of_cell(int(about["metadata"][CELL]))
    elif kind == "labels" and classes:
        about |= {"colormap": label_colors(classes), "features": label_names(classes)}
    return data, about, kind


def _look_of_cell(number: int) -> dict[str, Any]:
    """As in the Segment widget: a fixed color for each number, so that a different label stands out."""
    from napari_embryo.render import cell_label_colors

    return {
        "colormap": cell_label_colors(number),
        "features": {"index": [0, number], "class": ["background", f"cell {number}"]},
    }
