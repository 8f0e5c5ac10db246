"""Save the cells of one run, as currently drawn in napari's layers, as one OME-TIFF and as COCO JSON."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_embryo import io, measure
from napari_embryo.data import coco_writer
from napari_embryo.data.embryos import embryo_of
from napari_embryo.data.sample import Bools
from napari_embryo.image import EmbryoImage
from napari_embryo.io.cells import CELL, CELLS_RESULT, RESULT, ROWS, RUN, SCORE, SCORES, unique_numbers
from napari_embryo.io.layers import NAMESPACE, placed_keywords, plain
from napari_embryo.io.names import image_stem
from napari_embryo.notes import counted

_OF_ONE_CELL = (RESULT, RUN, CELL, ROWS, SCORE, NAMESPACE, "classes", "failures")
"""Metadata of a cell's layer that do not apply to the file."""


@dataclass(frozen=True, eq=False)
class DrawnCell:
    """One cell's layer.

    Parameters
    ----------
    number
        Number in the file.
    label
        Label of the cell; anything else is not the cell.
    labels
        The layer's array.
    score
        Score of the cell, if known.
    """

    number: int
    label: int
    labels: Any
    score: float | None

    def mask(self, index: tuple[int, ...]) -> Bools:
        """(H, W) of one plane."""
        is_inside: Bools = np.asarray(self.labels[index]) == self.label
        return is_inside

    def others(self, index: tuple[int, ...]) -> int:
        """Number of pixels of one plane painted with another label."""
        plane = np.asarray(self.labels[index])
        return int(((plane != 0) & (plane != self.label)).sum())


def write_cells(path: Path | str, layers: Sequence[io.LayerData]) -> list[Path]:
    """Write the cells of one run like ``napari-embryo segment``, as one binary channel each, and as COCO JSON.

    A repeated number, from a duplicated layer, becomes the next free one. Pixels with a label other than the cell's are
    not written, and a warning says how many.

    Parameters
    ----------
    path
        The OME-TIFF; the JSON next to ``a.ome.tif`` or ``a_cells.ome.tif`` is ``a_cells.json``.
    layers
        Labels layers with their keywords.

    Returns
    -------
    list of Path
        Both files, which appear when they are complete.

    Raises
    ------
    ImageError
        If the layers are not cells of one run, or the JSON file belongs to another file.
    """
    path = Path(path)
    _check(path, layers)
    attributes, cells = layers[0][1], _drawn(layers)
    image = io.from_napari(layers[0][0], attributes)
    about = {key: value for key, value in plain(attributes["metadata"]).items() if key not in _OF_ONE_CELL}
    beside = _beside(path)
    with ExitStack() as files:
        draft = files.enter_context(io.replacing(beside))
        stack = files.enter_context(_stack(path, image, cells, about, placed_keywords(attributes)))
        for index in np.ndindex(image.shape[:-2]):
            stack.write(np.stack([cell.mask(index) for cell in cells]).astype(np.uint8))
        info = {"description": "complete cells", **about}
        coco_writer.write(draft, _images(image, cells, about), _annotations(image, cells), info=info)
    _warn_of_others(path, image, cells)
    return [path, beside]


def _warn_of_others(path: Path, image: EmbryoImage, cells: Sequence[DrawnCell]) -> None:
    for cell in cells:
        if others := sum(cell.others(index) for index in np.ndindex(image.shape[:-2])):
            warnings.warn(
                f"{path}: cell {cell.number} has {counted(others, 'pixel')} of other labels, not written: paint with "
                f"label {cell.label}",
                stacklevel=3,
            )


def _check(path: Path, layers: Sequence[io.LayerData]) -> None:
    told = [dict(attributes.get("metadata") or {}) for _, attributes, _ in layers]
    names = [str(attributes.get("name")) for _, attributes, _ in layers]
    others = [name for name, metadata in zip(names, told, strict=True) if metadata.get(RESULT) != CELLS_RESULT]
    if others:
        raise io.ImageError(
            f"{path}: {', '.join(others)} is not a single cell of a run of Segment; several layers can be saved in one "
            "file only if they are the cells of one run. Select only these, and save other layers separately"
        )
    if len({metadata.get(RUN) for metadata in told}) > 1:
        raise io.ImageError(
            f"{path}: the cells belong to several runs ({', '.join(names)}); select those of one run, and save the "
            "others in a separate file"
        )
    if len({tuple(data.shape) for data, _, _ in layers}) > 1:
        shapes = ", ".join(f"{name} {tuple(data.shape)}" for name, (data, _, _) in zip(names, layers, strict=True))
        raise io.ImageError(f"{path}: the cells have several shapes ({shapes}); save those of one shape together")


def _beside(path: Path) -> Path:
    """The JSON file; napari asks before it replaces the OME-TIFF, but not before it replaces this one."""
    beside = path.with_name(f"{image_stem(path).removesuffix('_cells')}_cells.json")
    if beside.exists() and not path.exists():
        raise io.ImageError(f"{path}: {beside.name} already exists and belongs to another file; choose another name")
    return beside


def _drawn(layers: Sequence[io.LayerData]) -> list[DrawnCell]:
    """The cells sorted by number."""
    told = sorted(((data, attributes["metadata"]) for data, attributes, _ in layers), key=lambda each: each[1][CELL])
    numbers = unique_numbers(int(metadata[CELL]) for _, metadata in told)
    return [
        DrawnCell(number, int(metadata[CELL]), labels, _score(metadata))
        for number, (labels, metadata) in zip(numbers, told, strict=True)
    ]


def _score(metadata: Mapping[str, Any]) -> float | None:
    score = metadata.get(SCORE)
    return None if score is None or np.isnan(score) else float(score)


def _stack(
    path: Path, image: EmbryoImage, cells: Sequence[DrawnCell], about: Mapping[str, Any], keywords: Mapping[str, Any]
) -> io.OmeTiffStackWriter:
    return io.OmeTiffStackWriter(
        path,
        (*image.shape[:-2], len(cells), *image.shape[-2:]),
        "uint8",
        f"{image.axes[:-2]}CYX",
        kind="labels",
        names=[f"cell {cell.number}" for cell in cells],
        pixel_size_um=image.pixel_size_um,
        hours=image.hours,
        focus_um=image.focus_um,
        metadata={**about, SCORES: [cell.score for cell in cells]},
        layer=keywords,
    )


def _images(image: EmbryoImage, cells: Sequence[DrawnCell], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    source = Path(str(about.get("source", "")))
    name = str(dict(about.get("source_layer") or {}).get("name", image.name))
    each: dict[str, Any] = {
        "file_name": source.name if source.suffix.lower() in io.SUFFIXES else f"{name}.png",
        "embryo": embryo_of(name),
        "height": image.shape[-2],
        "width": image.shape[-1],
        **coco_writer.pixel_size(image.pixel_size_um),
    }
    return [
        {"id": number, **each, "n_cells": sum(bool(cell.mask(index).any()) for cell in cells), **_place(image, index)}
        for number, index in enumerate(np.ndindex(image.shape[:-2]), start=1)
    ]


def _place(image: EmbryoImage, index: tuple[int, ...]) -> dict[str, Any]:
    """Index of a plane in the file, and its time."""
    told = {key: value for key, value in measure.where(image, index).items() if key != "image"}
    return {"index": list(index), **told} if index else {}


def _annotations(image: EmbryoImage, cells: Sequence[DrawnCell]) -> Iterator[dict[str, Any]]:
    """Every cell of each plane; a layer is one cell throughout all frames of a time-lapse."""
    places = enumerate(np.ndindex(image.shape[:-2]), start=1)
    there = ((number, cell, mask) for number, at in places for cell in cells if (mask := cell.mask(at)).any())
    for number, (picture, cell, mask) in enumerate(there, start=1):
        score = {} if cell.score is None else {"score": cell.score}
        track = {"track": cell.number} if image.axes == "TYX" else {}
        yield coco_writer.annotation(number, picture, mask, **score, **track)
