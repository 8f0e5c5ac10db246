"""Single cells in files and layers: one binary channel each in OME-TIFF, one Labels layer each in napari."""

import re
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from napari_embryo.io.editable import EditablePlanes
from napari_embryo.io.layers import NAMESPACE, LayerData, layer_of, placed, written
from napari_embryo.io.names import image_stem
from napari_embryo.io.ome import OmeTiff

# Keys in a layer's metadata that widgets, writers and readers use.
RESULT = "result"
"""Key: the kind of result."""
CELLS_RESULT = "cells"
"""Kind of result: one cell's layer."""
RUN = "run"
"""Key: identifier shared by the layers of one run."""
CELL = "cell"
"""Key of a cell's layer: its number, which is also its label."""
ROWS = "measurements"
"""Key of a Labels layer: the measurements of every plane, a row per class."""
SCORE = "score"
"""Key of a cell's layer: the score."""
SCORES = "scores"
"""Key in a file's metadata: the score of each channel's cell, None if unknown."""

_NAME = re.compile(r"cell (\d+)")
_SHOWN_THROUGH = 0.5
"""Opacity of cell layers, since a reader cannot ask napari for outlines and cells overlap."""


def written_layers(path: Path | str) -> list[LayerData]:
    """The layers stored in an OME-TIFF of this program: one, or for single cells one each, with the first on top.

    Cells get a new run identifier, so that those of a file opened twice are not confused.

    Returns
    -------
    list of tuple
        Empty where `napari_embryo.io.layers.written_layer` gives None.
    """
    ome = written(path)
    if ome is not None and holds_cells(ome):
        return _cell_layers(ome, image_stem(Path(path)))
    layer = None if ome is None else layer_of(ome)
    return [] if layer is None else [layer]


def holds_cells(ome: OmeTiff) -> bool:
    """Whether each channel is one cell's mask."""
    return ome.kind == "labels" and ome.axes.endswith("CYX") and are_cells(ome.names)


def are_cells(names: Sequence[str]) -> bool:
    """Whether the channels are called "cell 1", "cell 2", ..."""
    return bool(names) and all(map(_NAME.fullmatch, names))


def unique_numbers(numbers: Iterable[int]) -> list[int]:
    """Replace repeated numbers, such as those of a duplicated layer, by the next free ones.

    >>> unique_numbers([1, 1, 2, 3])
    [1, 4, 2, 3]
    """
    wanted = list(numbers)
    free = count(max(wanted, default=0) + 1)
    return [next(free) if number in wanted[:place] else number for place, number in enumerate(wanted)]


def _cell_layers(ome: OmeTiff, name: str) -> list[LayerData]:
    numbers = unique_numbers(int(called.removeprefix("cell ")) for called in ome.names)
    scores = ome.metadata.get(SCORES) or [None] * len(numbers)
    about, run = _about(ome, name.removesuffix("_cells")), uuid4().hex
    keywords = {key: tuple(value) for key, value in ome.layer.items()} or placed(ome, ome.axes.replace("C", ""))
    dtype = np.min_scalar_type(max(numbers))
    layers: list[LayerData] = []
    for place, (number, score) in enumerate(zip(numbers, scores, strict=True)):
        labels = _labels_of(ome.data, place, number, dtype)
        sure = float("nan") if score is None else score
        metadata = {**about, RUN: run, CELL: number, SCORE: sure, ROWS: []}
        more = {"name": f"cell {number}", "opacity": _SHOWN_THROUGH, "metadata": metadata}
        layers.append((labels, {**keywords, **more}, "labels"))
    return layers[::-1]


def _labels_of(data: Any, place: int, number: int, dtype: np.dtype[Any]) -> Any:
    """The pixels of one channel that are not 0 become the cell's number."""
    if isinstance(data, np.ndarray):
        return (data[..., place, :, :] > 0).astype(dtype) * dtype.type(number)

    def load(index: tuple[int, ...]) -> Any:
        return (np.asarray(data[(*index, place)]) > 0).astype(dtype) * dtype.type(number)

    return EditablePlanes(load, data.shape[:-3], data.shape[-2:], dtype)


def _about(ome: OmeTiff, name: str) -> dict[str, Any]:
    """Metadata of the layer of a cell."""
    values = {"axes": ome.axes.replace("C", ""), **{key: getattr(ome, key) for key in _VALUES}}
    kept = {key: value for key, value in ome.metadata.items() if key != SCORES}
    return {"source_layer": {"name": name}, **kept, RESULT: CELLS_RESULT, "classes": ("cell",), NAMESPACE: values}


_VALUES = ("pixel_size_um", "hours", "focus_um")
